"""Errors of tensors, and inputs at which rounding stays small enough to tell right from wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..loops import InnerLoop
from .sampling import Inputs, random_inputs
from .tolerances import SMALLEST_SCALE, UNIT, allowance, is_normalised

Tensors = Mapping[str, Tensor]

DRAWS = 20
ROOM = 1 / 16  # of the tolerance: what a unit in the last place of the inputs may take up


def relative_error(
    actual: Tensor | None, expected: Tensor, smallest: float = SMALLEST_SCALE
) -> float:
    """`max|a - b| / max|b|`, a pure number; infinite unless both are finite and of one shape.

    actual, expected: any shape and real dtype, compared in float64; None is a missing tensor.
    The scale is at least `smallest`, so two tensors of zeros have error 0, and a number
    where zero is due has a large one. Two empty tensors of one shape have error 0.
    """
    if actual is None or actual.shape != expected.shape:
        return math.inf
    a, b = actual.detach().to("cpu", torch.float64), expected.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        return math.inf
    if not b.numel():
        return 0.0
    return float((a - b).abs().max()) / max(float(b.abs().max()), smallest)


def relative_errors(
    actual: Tensors, expected: Tensors, smallest: float = SMALLEST_SCALE
) -> dict[str, float]:
    """The relative error of each tensor by name; infinite for one that only one side has."""
    errors = {n: relative_error(actual.get(n), want, smallest) for n, want in expected.items()}
    return errors | {name: math.inf for name in actual if name not in expected}


class Drawn(NamedTuple):
    """Inputs and what the reference makes of them; `steady` if rounding cannot hide a fault."""

    inputs: Inputs
    expected: Tensors
    steady: bool


def draw_steady(
    loop: InnerLoop,
    seed: int,
    reference: Callable[[Inputs], Tensors],
    *,
    sizes: Mapping[str, int] | None = None,
) -> Drawn:
    """Random inputs at which the reference hardly moves when they do, and its results there.

    Newton-Schulz steps enlarge what is small, so that a nearly singular gradient (or a long row
    of steps, each of which depends on the last one's result) turns rounding into large errors in
    any program, right or wrong. So for loops with operators or norms the reference runs again on
    inputs moved by a unit in the last place, and inputs are drawn anew where that takes up more
    than ROOM of the tolerance. What is to be checked has no say in this. After DRAWS draws the
    best one is returned, with `steady` False. Other loops keep their first draw.

    loop, seed, sizes: as for `random_inputs`. reference: from inputs to tensors by name.
    """
    rng = random.Random(seed)
    tolerance, smallest = allowance(loop, 1)
    best, least = None, math.inf
    for _ in range(DRAWS):
        inputs = random_inputs(loop, seed, sizes=sizes)
        expected = reference(inputs)
        if not is_normalised(loop):
            return Drawn(inputs, expected, True)
        again = reference(moved(inputs, rng.getrandbits(63)))
        error = max(relative_errors(again, expected, smallest).values(), default=0.0)
        if error <= ROOM * tolerance:
            return Drawn(inputs, expected, True)
        if best is None or error < least:
            best, least = Drawn(inputs, expected, False), error
        seed = rng.getrandbits(63)
    return best  # pyright: ignore[reportReturnType]


def moved(inputs: Inputs, seed: int) -> Inputs:
    """Each entry of each tensor one unit in the last place up or down."""
    generator = torch.Generator().manual_seed(seed)

    def move(x: Any) -> Any:
        if isinstance(x, dict):
            return {name: move(tensor) for name, tensor in x.items()}
        if not isinstance(x, Tensor):
            return x
        signs = torch.randint(2, x.shape, generator=generator, dtype=x.dtype) * 2 - 1
        return x * (1 + UNIT["float64"] * signs)

    names = ("q", "k", "v", "weights", "rate", "momentum")
    return replace(inputs, **{name: move(getattr(inputs, name)) for name in names})
