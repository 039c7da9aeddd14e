"""Near which coefficients each state of a loop lasts over many steps, measured on its functions."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

import torch
from torch import Tensor

from ..loops import InnerLoop, Recurrence
from ..program.coefficients import Coefficient
from ..program.steps import SINGLE
from ..reference.by_autograd import Each
from ..symbolic.gains import gains
from .scaling import Range, bounded, scale

Near = Mapping[str, float]  # a coefficient's name, and the number near which it is drawn

STEPS = 64  # a tile, over which a state is to last
KEPT = math.log(1e4)  # by how much less, or more, may be left of it after them
WORST = 1e3  # in place of more, and of NaN
MEASURED, SAMPLES, WARM = 8, 4, 2
MOVE = 1e-6
MOST = 256  # combinations that are measured at once
WIDTHS = {"K": 4, "V": 3, "rows": 4, "cols": 3, SINGLE: 1}
TOLD = {"row": ("rows", SINGLE), "column": (SINGLE, "cols"), "entry": ("rows", "cols")}

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Stepping:
    """One step of states, `function(states, data, numbers)`, of one sequence of one head.

    start: the states before the first step. data: the shapes of a step's inputs. numbers: the
    shape of each coefficient, and between what numbers it is drawn plainly. points: those that may
    be drawn near some numbers instead, and near which.
    """

    function: Callable[[Tensors, Tensors, Tensors], Tensors]
    start: Tensors
    data: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, tuple[tuple[int, ...], Range]]
    points: Mapping[str, tuple[float, ...]]


@lru_cache
def lasting(loop: InnerLoop | Recurrence) -> tuple[Near, ...]:
    """Near which numbers coefficients are to be drawn so that the states of a loop last.

    The first combination is that at which the least is lost of all states together; those behind it
    are for states that are lost there, but last at other numbers. Coefficients that are in none
    are drawn as ever. A state lasts where a change of it, all else as it was, is neither lost nor
    far larger after STEPS steps; one that grows is as bad as one that is lost at once.
    """
    stepping = of_recurrence(loop) if isinstance(loop, Recurrence) else of_update(loop)
    if stepping is None:
        return ({},)
    joint, left = best(stepping, lambda losses: sum(losses.values()))
    rows = [joint]
    for name in stepping.start:
        if left[name] > 0:
            own, lost = best(stepping, lambda losses, name=name: losses[name])
            if lost[name] == 0 and own not in rows:
                rows.append(own)
    return tuple(rows)


def points(coefficient: Coefficient) -> tuple[float, ...]:
    """The ends of a range, and 1, -1, 0 and the middle where they lie between."""
    low, high = bounded(coefficient)
    inside = dict.fromkeys((1.0, -1.0, 0.0, (low + high) / 2))
    return (high, low, *(x for x in inside if low < x < high))


def near(drawn: Range, share: float, number: float) -> Range:
    """What of a range lies within a share of its length from a number in it."""
    part = (drawn[1] - drawn[0]) * min(1.0, share)
    return max(drawn[0], number - part), min(drawn[1], number + part)


def best(
    stepping: Stepping, cost: Callable[[dict[str, float]], float]
) -> tuple[dict[str, float], dict[str, float]]:
    """The combination of numbers at which the least is lost, with the fewest, and its losses.

    Of few coefficients all combinations are tried; of many, those of each pair in turn.
    """
    names, tried = [*stepping.points], {name: (None, *x) for name, x in stepping.points.items()}
    whole = math.prod(len(x) for x in tried.values()) <= MOST
    groups = [tuple(names)] if whole else [*combinations(names, 2)] * 2
    found: dict[str, float] = {}
    losses: dict[str, float] = {}
    for group in groups:
        others = {name: x for name, x in found.items() if name not in group}
        rows = [
            others | {n: x for n, x in zip(group, values, strict=True) if x is not None}
            for values in product(*(tried[name] for name in group))
        ]
        seen = measured(stepping, rows)
        costs = [(round(cost(loss), 6), len(row)) for loss, row in zip(seen, rows, strict=True)]
        number = costs.index(min(costs))
        found, losses = rows[number], seen[number]
    return found, losses


def measured(stepping: Stepping, rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """By state, how far from lasting it is for each combination: 0 where it lasts.

    A state is moved after some steps and carried on, while the others go as if it had not been.
    """
    make = torch.Generator().manual_seed(0)
    names, count = [*stepping.start], len(rows) * SAMPLES
    every = 1 + len(names)  # as it is, and with each of the states moved
    step = Each(calling(stepping, names))
    states = [x.repeat(every, count, *[1] * x.ndim).flatten(0, 1) for x in stepping.start.values()]
    moves = [MOVE * (1 + uniform(make, (count, *x.shape))) for x in stepping.start.values()]
    for number in range(WARM + MEASURED):
        if number == WARM:
            for i, move in enumerate(moves):
                states[i] = states[i].clone()
                states[i].unflatten(0, (every, count))[i + 1] += move
        data = [uniform(make, (count, *s), -1, 1) for s in stepping.data.values()]
        numbers = {
            name: placed(rows, name, uniform(make, (count, *shape), *between))
            for name, (shape, between) in stepping.numbers.items()
        }
        made = step(
            *states,
            *(x.repeat(every, *[1] * (x.ndim - 1)) for x in data),
            **{n: x.repeat(every, *[1] * (x.ndim - 1)) for n, x in numbers.items()},
        )
        states = [alone(x.unflatten(0, (every, count)), i + 1) for i, x in enumerate(made)]
    found = {}
    for i, (name, x, move) in enumerate(zip(names, states, moves, strict=True)):
        moved = x.reshape(every, count, -1)
        kept = (moved[i + 1] - moved[0]).norm(dim=1) / move.reshape(count, -1).norm(dim=1)
        rates = kept.log().unflatten(0, (len(rows), SAMPLES)).mean(1) / MEASURED
        lost = (-STEPS * rates - KEPT).nan_to_num(nan=WORST).clamp(0, WORST)
        found[name] = lost.masked_fill(STEPS * rates > KEPT, WORST).tolist()
    return [{name: x[n] for name, x in found.items()} for n in range(len(rows))]


def alone(x: Tensor, own: int) -> Tensor:
    """A state in all runs, `[runs, n, *]`, as in the plain one but for that in which it moved."""
    left = x[:1].expand_as(x).clone()
    left[own] = x[own]
    return left.flatten(0, 1)


def placed(rows: list[dict[str, float]], name: str, drawn: Tensor) -> Tensor:
    """A coefficient for each combination and sample: its number there, or else as it was drawn."""
    chosen = torch.tensor([row.get(name, math.nan) for row in rows], dtype=torch.float64)
    wide = chosen.repeat_interleave(SAMPLES).view(-1, *[1] * (drawn.ndim - 1))
    return torch.where(wide.isnan(), drawn, wide)


def uniform(make: torch.Generator, shape: Iterable[int], low: float = 0, high: float = 1) -> Tensor:
    """Numbers between low and high, in float64."""
    return low + (high - low) * torch.rand(tuple(shape), generator=make, dtype=torch.float64)


def calling(stepping: Stepping, names: list[str]) -> Callable[..., tuple[Tensor, ...]]:
    """The step as a function of states and data in order, with coefficients by name."""

    def function(*items: Tensor, **numbers: Tensor) -> tuple[Tensor, ...]:
        states = dict(zip(names, items, strict=False))
        data = dict(zip(stepping.data, items[len(names) :], strict=True))
        made = stepping.function(states, data, numbers)
        return tuple(made[name] for name in names)

    return function


def of_recurrence(layer: Recurrence) -> Stepping | None:
    """The step of a recurrence; None where its function was lost."""
    if layer.function is None:
        return None
    shapes = {n: tuple(WIDTHS[axis] for axis in layer.axes(n)) for n in layer.coefficients}
    return Stepping(
        lambda states, data, numbers: layer.called(states, data, numbers)[0],
        {
            name: torch.zeros([WIDTHS[axis] for axis in axes], dtype=torch.float64)
            for name, axes in layer.states.items()
        },
        {"q": (WIDTHS["K"],), "k": (WIDTHS["K"],), "v": (WIDTHS["V"],)},
        {name: (shapes[name], bounded(kind)) for name, kind in layer.coefficients.items()},
        {name: points(kind) for name, kind in layer.coefficients.items()},
    )


def of_update(loop: InnerLoop) -> Stepping | None:
    """The update of an inner loop, from any gradient; None where its function was lost.

    What scales steps is small and stays so: a weight lasts where steps are small.
    """
    update = loop.update
    function = getattr(update, "function", None)
    if function is None:
        return None
    make, side = torch.Generator().manual_seed(0), (WIDTHS["rows"], WIDTHS["cols"])
    first = uniform(make, side, -1, 1)
    start = {"W": first, **{name: begin(first) for name, begin in update.buffers.items()}}
    extra = "W_0" in inspect.signature(function).parameters

    def step(states: Tensors, data: Tensors, numbers: Tensors) -> Tensors:
        given = numbers | ({"W_0": first} if extra else {})
        made = function(states["W"], data["g"], *[*states.values()][1:], **given)
        return dict(zip(states, made if isinstance(made, tuple | list) else (made,), strict=True))

    known, weighing = gains(loop), loop.loss_weights.values()
    ranges = scale(loop, (1 / STEPS, 2 / STEPS), (1 / STEPS, 2 / STEPS)).ranges
    own = {name: kind for name, kind in loop.coefficients.items() if name not in weighing}
    shapes = {n: tuple(WIDTHS[x] for x in TOLD.get(kind.shape, ())) for n, kind in own.items()}
    free = [name for name in own if name not in (*known.outer, *known.inner)]
    return Stepping(
        step,
        start,
        {"g": side},
        {name: (shapes[name], ranges[name]) for name in own},
        {name: points(own[name]) for name in free},
    )
