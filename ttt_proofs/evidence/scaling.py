"""Between what numbers coefficients are drawn, so that no loop runs away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product

import sympy as sp

from ..loops import InnerLoop
from ..program.coefficients import Coefficient
from ..program.rules import Rule
from ..symbolic.gains import gains

Range = tuple[float, float]


def is_smooth(rule: Rule) -> bool:
    """Whether a rule makes no more than sums and products: no norm, operator, root or quotient."""
    for line in rule.lines:
        powers = line.expression.atoms(sp.Pow)
        whole = all(power.exp.is_Integer and power.exp > 0 for power in powers)
        if line.kind != "state" or line.expression.has(sp.Function) or not whole:
            return False
    return True


@dataclass(frozen=True)
class Scale:
    """Between what numbers coefficients are drawn, by name, and what k and v are multiplied by.

    gains: the names of those that scale steps, or what an operator takes out again.
    """

    ranges: dict[str, Range]
    tokens: float
    gains: tuple[str, ...]


def scale(loop: InnerLoop, rates: Range, free: Range) -> Scale:
    """Ranges at which no loop runs away.

    The product of the gains of each weight is drawn from `rates`, where their own ranges allow
    it; those that an operator takes out again, from `free`. Where some weight has no gain, k and
    v are scaled by the root of a middle rate in their place, and all gains are free. Other
    coefficients are drawn from their own ranges, those without a bound from what is within 1.
    """
    known, weighing = gains(loop), loop.loss_weights
    outer = known.outer + (() if known.operator else tuple(weighing.values()))
    per_weight = [
        len(known.outer) + (not known.operator and weight.name in weighing)
        for weight in loop.fast_weights
    ]
    root = 1 / max(1, *per_weight)
    small = (rates[0] ** root, rates[1] ** root) if outer else rates
    held = all(within(loop.coefficients[name].range, small) for name in outer)
    settled = known.by_one or (held and min(per_weight) > 0)
    ranges, every = {}, (*known.outer, *known.inner, *weighing.values())
    for name, coefficient in loop.coefficients.items():
        gain = name in every
        wanted = small if settled and name in outer else free
        ranges[name] = (within(coefficient.range, wanted) if gain else None) or bounded(coefficient)
    return Scale(ranges, 1.0 if settled else (rates[0] * rates[1]) ** 0.25, every)


def within(allowed: tuple[float | None, float | None], wanted: Range) -> Range | None:
    """What of `wanted`, or else of its negative, is allowed; None where nothing is."""
    low = -math.inf if allowed[0] is None else allowed[0]
    high = math.inf if allowed[1] is None else allowed[1]
    for least, most in (wanted, (-wanted[1], -wanted[0])):
        both = max(low, least), min(high, most)
        if both[0] < both[1]:
            return both
    return None


def bounded(coefficient: Coefficient) -> Range:
    """Its own range; of length 1 where it has a single bound, ±1 where it has none."""
    low, high = coefficient.range
    if low is None:
        return (-1.0, 1.0) if high is None else (high - 1, high)
    return low, low + 1 if high is None else high


def ends(coefficient: Coefficient, drawn: Range, *, gain: bool) -> tuple[float, ...]:
    """The extremes of a coefficient: those of its range, and 0 where that lies between.

    What scales steps keeps the size of those drawn, and has either sign and 0 where allowed.
    """
    low, high = bounded(coefficient)
    if not gain:
        return (low, 0.0, high) if low < 0 < high else (low, high)
    size = max(map(abs, drawn))
    least, most = coefficient.range
    wanted = (0.0, size, -size)
    allowed = [x for x in wanted if (least is None or x >= least) and (most is None or x <= most)]
    return tuple(allowed) or drawn


def corners(
    extremes: Mapping[str, tuple[float, ...]], scaling: tuple[str, ...]
) -> tuple[dict[str, float], ...]:
    """Values of constants by name, turn by turn: any two extremes of any two come together once.

    extremes: of each constant. scaling: the names of those that scale steps. With a 0 of one of
    these no step is made and nothing of the others is seen, so zeros have the last turn for
    themselves, in which the others are as they were drawn.
    """
    still = {n: 0.0 for n, x in extremes.items() if n in scaling and len(x) > 1 and 0.0 in x}
    moving = {n: tuple(y for y in x if y or n not in still) for n, x in extremes.items()}
    left = {
        pair
        for one, other in combinations(moving, 2)
        for pair in product(*([(n, y) for y in moving[n]] for n in (one, other)))
    } or {((n, y),) for n, x in moving.items() for y in x}
    turns: list[dict[str, float]] = []
    while left:
        turn: dict[str, float] = dict(min(left))
        for name in moving:
            if name not in turn:
                seen = [met(left, turn | {name: y}) for y in moving[name]]
                turn[name] = moving[name][seen.index(max(seen))]
        left = {pair for pair in left if not turn.items() >= dict(pair).items()}
        turns.append(turn)
    return (*turns, *([still] if still else ()))


def met(pairs: set[tuple[tuple[str, float], ...]], turn: dict[str, float]) -> int:
    """How many of the pairs come together in a turn."""
    return sum(turn.items() >= dict(pair).items() for pair in pairs)
