"""Consecutive tokens of a sequence, with the numbers that go with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..symbolic.step_loop import Runnable
from .inputs import Number


@dataclass(frozen=True, eq=False)
class Piece:
    """q, k `[B, T, H, K]`, v `[B, T, H, V]`, coefficients as for a form."""

    q: Tensor
    k: Tensor
    v: Tensor
    coefficients: Mapping[str, Number]

    def map(self, function: Callable[..., Tensor], *others: Piece) -> Piece:
        """A function of each tensor and of those at the same place in other pieces.

        Coefficients that another piece has not, such as those for the whole loop, stay.
        """
        q, k, v = (function(*(getattr(p, n) for p in (self, *others))) for n in ("q", "k", "v"))
        numbers = {
            name: function(x, *(p.coefficients[name] for p in others))
            if isinstance(x, Tensor) and all(name in p.coefficients for p in others)
            else x
            for name, x in self.coefficients.items()
        }
        return Piece(q, k, v, numbers)

    def kept(self, code: Runnable) -> Piece:
        """A copy to keep until more tokens come: without the numbers for all steps, which those
        bring.
        """
        every = code.coefficients
        own = {name: x for name, x in self.coefficients.items() if every[name].every != "loop"}
        return replace(self, coefficients=own).map(Tensor.clone)

    def cut(self, start: int, stop: int, code: Runnable) -> Piece:
        """Tokens from start to stop; numbers per step are those of the chunks that they touch."""
        length = code.schedule.chunk
        along = {
            "token": slice(start, stop),
            "step": slice(start // length, -(-stop // length)),
        }
        numbers = {
            name: x[:, along[code.coefficients[name].every]]
            if isinstance(x, Tensor) and code.coefficients[name].every in along
            else x
            for name, x in self.coefficients.items()
        }
        q, k, v = (x[:, start:stop] for x in (self.q, self.k, self.v))
        return Piece(q, k, v, numbers)
