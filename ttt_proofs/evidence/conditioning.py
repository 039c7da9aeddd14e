"""Errors of tensors, and inputs at which rounding stays small enough to tell right from wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..parallel import rounding
from .sampling import Inputs, random_inputs
from .tolerances import PLAIN, SMALLEST_SCALE, UNIT, allowance, is_normalised

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
    """Inputs, what the reference makes of them, and how far rounding carries there.

    rounding: the largest relative error of a result when every input moves by a unit in the last
    place; None where it was not measured.
    """

    inputs: Inputs
    expected: Tensors
    rounding: float | None

    @property
    def steady(self) -> bool:
        """Whether rounding leaves room to tell a fault of the size of the tolerance."""
        return self.rounding is None or self.rounding <= ROOM * PLAIN.error

    @property
    def amplification(self) -> float | None:
        """How much larger the change of the results is than that of the inputs."""
        return None if self.rounding is None else self.rounding / UNIT["float64"]


def amplified(drawn: Iterable[Drawn]) -> float | None:
    """The largest amplification that was measured; None where none was."""
    return max((x.amplification for x in drawn if x.amplification is not None), default=None)


def draw_steady(
    loop: InnerLoop,
    seed: int,
    reference: Callable[[Inputs], Tensors],
    *,
    sizes: Mapping[str, int] | None = None,
    draws: int | None = None,
) -> Drawn:
    """Random inputs at which the reference hardly moves when they do, and its results there.

    Newton-Schulz steps enlarge what is small, so that a nearly singular gradient (or a long row
    of steps, each of which depends on the last one's result) turns rounding into large errors in
    any program, right or wrong. So for loops with operators or norms the reference runs again on
    inputs moved by a unit in the last place, and inputs are drawn anew where that takes up more
    than ROOM of the tolerance. What is to be checked has no say in this. After DRAWS draws the
    best one is returned, which is not `steady`. Other loops keep their first draw, unmeasured.

    loop, seed, sizes: as for `random_inputs`. reference: from inputs to tensors by name.
    draws: the most draws, in place of these numbers; then the loop is measured in any case.
    """
    if draws is None and not is_normalised(loop):
        inputs = random_inputs(loop, seed, sizes=sizes)
        return Drawn(inputs, reference(inputs), None)
    draw = partial(random_inputs, loop, sizes=sizes)
    return steadiest(draw, seed, reference, allowance(loop, 1).scale, draws or DRAWS)


def steadiest(
    draw: Callable[[int], Inputs],
    seed: int,
    reference: Callable[[Inputs], Tensors],
    smallest: float,
    draws: int,
) -> Drawn:
    """The first inputs of `draw(seed)` that are steady, or else the best of that many draws.

    smallest: the least scale that errors are relative to.
    """
    rng = random.Random(seed)
    best, least = None, math.inf
    for _ in range(draws):
        inputs = draw(seed)
        expected = reference(inputs)
        again = reference(moved(inputs, rng.getrandbits(63)))
        error = max(relative_errors(again, expected, smallest).values(), default=0.0)
        drawn = Drawn(inputs, expected, error)
        if drawn.steady:
            return drawn
        if best is None or error < least:
            best, least = drawn, error
        seed = rng.getrandbits(63)
    return best  # pyright: ignore[reportReturnType]


def moved(inputs: Inputs, seed: int) -> Inputs:
    """Each number of the inputs one unit in the last place up or down."""
    return Inputs(**rounding.moved(vars(inputs), UNIT["float64"], seed))
