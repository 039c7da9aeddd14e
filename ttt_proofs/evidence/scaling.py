"""Between what numbers coefficients are drawn, so that no loop runs away."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """Between what numbers coefficients are drawn, by name, and what k and v are multiplied by."""

    ranges: dict[str, Range]
    tokens: float


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
    ranges = {}
    for name, coefficient in loop.coefficients.items():
        gain = name in (*known.outer, *known.inner, *weighing.values())
        wanted = small if settled and name in outer else free
        ranges[name] = (within(coefficient.range, wanted) if gain else None) or bounded(coefficient)
    return Scale(ranges, 1.0 if settled else (rates[0] * rates[1]) ** 0.25)


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
