"""Errors of tensors, and inputs at which rounding stays small enough to tell right from wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..parallel import rounding
from ..program.coefficients import Coefficient
from .sampling import Inputs, random_inputs
from .tolerances import PLAIN, SMALLEST_SCALE, UNIT, allowance, is_normalised
from .values import PLAINLY, Values

Tensors = Mapping[str, Tensor]
Kinds = Mapping[str, Coefficient]

DRAWS = 20
ROOM = 1 / 16  # of the tolerance: what a unit in the last place of the inputs may take up
# One direction may miss what others show, and a unit in the last place may round away: so inputs
# are moved in several directions, by a unit and, in proportion, by the root of one.
UNITS = (UNIT["float64"],) * 4 + (UNIT["float64"] ** 0.5,) * 2


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
    place, in several directions; None where it was not measured.
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
    values: Values = PLAINLY,
    draws: int | None = None,
    by_head: bool = False,
) -> Drawn:
    """Random inputs at which the reference hardly moves when they do, and its results there.

    Newton-Schulz steps enlarge what is small, so that a nearly singular gradient (or a long row
    of steps, each of which depends on the last one's result) turns rounding into large errors in
    any program, right or wrong. So for loops with operators or norms the reference runs again on
    inputs moved as UNITS says, and inputs are drawn anew where that takes up more than ROOM of the
    tolerance. What is to be checked has no say in this. After DRAWS draws the
    best one is returned, which is not `steady`. Other loops keep their first draw, unmeasured.

    loop, seed, sizes, values: as for `random_inputs`. reference: from inputs to tensors by name.
    draws: the most draws, in place of these numbers; then the loop is measured in any case.
    by_head: whether all of these tensors are `[B, T, H, *]`, as `steadiest` needs to save time.
    """
    if draws is None and not is_normalised(loop):
        inputs = random_inputs(loop, seed, sizes=sizes, values=values)
        return Drawn(inputs, reference(inputs), None)
    draw = partial(random_inputs, loop, sizes=sizes, values=values)
    kinds = loop.coefficients if by_head else None
    return steadiest(draw, seed, reference, allowance(loop, 1).scale, draws or DRAWS, kinds)


def steadiest(
    draw: Callable[[int], Inputs],
    seed: int,
    reference: Callable[[Inputs], Tensors],
    smallest: float,
    draws: int,
    kinds: Kinds | None = None,
) -> Drawn:
    """The first inputs of `draw(seed)` that are steady, or else the best of that many draws.

    smallest: the least scale that errors are relative to. kinds: the coefficients, where all
    results are of shape `[B, T, H, *]` and heads know nothing of each other: then inputs moved in
    several directions are run at once, as more heads.
    """
    rng = random.Random(seed)
    best, least = None, math.inf
    for _ in range(draws):
        inputs = draw(seed)
        expected = reference(inputs)
        seeds = [rng.getrandbits(63) for _ in UNITS]
        error = (
            max(errors_of_moves(inputs, expected, reference, smallest, seeds))
            if kinds is None
            else error_of_heads(inputs, expected, reference, smallest, seeds, kinds)
        )
        drawn = Drawn(inputs, expected, error)
        if drawn.steady:
            return drawn
        if best is None or error < least:
            best, least = drawn, error
        seed = rng.getrandbits(63)
    return best  # pyright: ignore[reportReturnType]


def errors_of_moves(
    inputs: Inputs,
    expected: Tensors,
    reference: Callable[[Inputs], Tensors],
    smallest: float,
    seeds: list[int],
) -> Iterator[float]:
    """What a unit in the last place makes of the results, one direction after another.

    The first that leaves too little room is the last.
    """
    for unit, seed in zip(UNITS, seeds, strict=True):
        again = reference(moved(inputs, seed, unit))
        error = max(relative_errors(again, expected, smallest).values(), default=0.0)
        yield error * UNIT["float64"] / unit
        if error * UNIT["float64"] / unit > ROOM * PLAIN.error:
            return


def error_of_heads(
    inputs: Inputs,
    expected: Tensors,
    reference: Callable[[Inputs], Tensors],
    smallest: float,
    seeds: list[int],
    kinds: Kinds,
) -> float:
    """The largest of what a unit in the last place makes of the results, all directions at once."""
    several = [moved(inputs, seed, unit) for unit, seed in zip(UNITS, seeds, strict=True)]
    again = reference(side_by_side(several, kinds))
    split = {name: x.chunk(len(UNITS), dim=2) for name, x in again.items()}
    errors = [0.0]
    for n, unit in enumerate(UNITS):
        one = {name: parts[n] for name, parts in split.items()}
        found = relative_errors(one, expected, smallest).values()
        errors += [error * UNIT["float64"] / unit for error in found]
    return max(errors)


def side_by_side(several: list[Inputs], kinds: Kinds) -> Inputs:
    """Inputs of equal sizes as those of more heads; a number of all heads is that of the first."""
    first = several[0]

    def joined(name: str) -> float | Tensor:
        every = [x.coefficients[name] for x in several]
        if not isinstance(every[0], Tensor):
            return every[0]
        return torch.cat(every, dim=0 if kinds[name].every == "loop" else 2)  # pyright: ignore

    q, k, v = (torch.cat([getattr(x, name) for x in several], dim=2) for name in "qkv")
    weights = {name: torch.cat([x.weights[name] for x in several]) for name in first.weights}
    return Inputs(q, k, v, weights, {name: joined(name) for name in first.coefficients})


def moved(inputs: Inputs, seed: int, size: float = UNIT["float64"]) -> Inputs:
    """Each number of the inputs up or down by so much of itself: a unit in the last place."""
    return Inputs(**rounding.moved(vars(inputs), size, seed))
