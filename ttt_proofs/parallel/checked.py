"""A loop on inputs that are checked first: what a `Reduction` runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..loops import InnerLoop, Recurrence
from ..loops.identity import digest
from . import forms
from .chunks import Outputs
from .inputs import Coefficients, Weights, check_inputs, check_tile
from .maps import Along, fold
from .rounding import amplification
from .sharding import Given, Group, LoopIdentity, across, agreed, alike
from .state import State

Inputs = tuple[Tensor, Tensor, Tensor, Weights, Coefficients | None, State | None]


def recurrent(loop: InnerLoop, *given: Any) -> Outputs:
    """`Reduction.recurrent` of a loop, on q, k, v, weights, coefficients and initial state."""
    check_inputs(loop, *given)
    return forms.recurrent(loop, *given)


def amplified(loop: InnerLoop, *given: Any, directions: int) -> float:
    """`Reduction.amplification`, on the same inputs as `recurrent`."""
    if not isinstance(directions, int) or isinstance(directions, bool) or directions < 1:
        raise ValueError(f"`directions` must be a positive integer; got {directions!r}. Use 4.")
    check_inputs(loop, *given)
    names = ("q", "k", "v", "weights", "coefficients", "initial_state")

    def run(**inputs: Any) -> Tensor:
        return forms.recurrent(loop, **inputs)[0]

    return amplification(run, dict(zip(names, given, strict=True)), directions)


def parallel_form(
    loop: InnerLoop | Recurrence, *given: Any, tile: int, along: Along | None = None
) -> Outputs:
    """`Reduction.parallel_form`, on the same inputs as `recurrent`."""
    run = forms.parallel(loop)
    check_tile(tile)
    check_inputs(loop, *given)
    return run(loop, *given, tile=tile, along=along or fold)


def sharded(loop: InnerLoop | Recurrence, *given: Any, tile: int, group: Group) -> Outputs:
    """`Reduction.sharded`, on the inputs of one rank; a recurrence's weights are none."""
    q, _, v, weights, coefficients, initial_state = given

    def told() -> Given:
        forms.parallel(loop)
        check_tile(tile)
        check_inputs(loop, *given)
        sizes = {"batch": len(q), "heads": q.shape[2], "K": q.shape[3], "V": v.shape[3]}
        of = {
            "loop": LoopIdentity(str(loop), digest(loop)),
            "dtype": q.dtype,
            "device": q.device.type,
            "tile": tile,
        }
        same = alike(loop, weights, coefficients or {}, initial_state)
        return Given(q.shape[1], of | sizes | same)

    agreed(told, loop.schedule.chunk, group)
    return forms.parallel(loop)(loop, *given, tile=tile, along=across(group))


def attention(
    loop: InnerLoop, q: Tensor, k: Tensor, weights: Weights, coefficients: Coefficients | None
) -> Tensor:
    """`Reduction.attention`."""
    forms.must_be_attention(loop)
    last = weights.get(loop.net.last.name) if isinstance(weights, Mapping) else None
    wide = last.shape[-1] if isinstance(last, Tensor) and last.ndim else 1
    v = k[..., :1].expand(*k.shape[:-1], wide) if isinstance(k, Tensor) and k.ndim else k
    check_inputs(loop, q, k, v, weights, coefficients)
    return forms.attention(loop, q, k, weights, coefficients)
