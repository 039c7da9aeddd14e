"""Consecutive tokens of a sequence, with the numbers that go with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from .inputs import Number, Rates


@dataclass(frozen=True, eq=False)
class Piece:
    """q, k `[B, T, H, K]`, v `[B, T, H, V]`, rates and momenta as for a form."""

    q: Tensor
    k: Tensor
    v: Tensor
    rate: Rates
    momentum: Number | None

    def map(self, function: Callable[..., Tensor], *others: Piece) -> Piece:
        """A function of each tensor and of those at the same place in other pieces."""

        def at(x: Any, *rest: Any) -> Any:
            if isinstance(x, Mapping):
                return {name: at(y, *(o[name] for o in rest)) for name, y in x.items()}
            return function(x, *rest) if isinstance(x, Tensor) and x.ndim else x

        names = [field.name for field in fields(self)]
        return Piece(*(at(*(getattr(p, name) for p in (self, *others))) for name in names))

    def kept(self) -> Piece:
        """A copy to keep until more tokens come: without the numbers for all steps, which those
        bring.
        """

        def own(x: Rates) -> Any:
            return x if isinstance(x, Mapping) or (isinstance(x, Tensor) and x.ndim) else None

        piece = Piece(self.q, self.k, self.v, own(self.rate), own(self.momentum))
        return piece.map(Tensor.clone)

    def cut(self, start: int, stop: int, length: int) -> Piece:
        """Tokens from start to stop; numbers per step are those of the chunks that they touch."""
        tokens, steps = self.k.shape[1], slice(start // length, -(-stop // length))
        return self.map(lambda x: x[:, start:stop] if x.shape[1] == tokens else x[:, steps])
