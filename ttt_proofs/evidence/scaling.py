"""Which coefficients scale a step, read off the rule of an update: draws keep their product small.

A *gain* is a coefficient without which nothing of the gradient gets into the weight, while the
weight stays: at 0 the rule makes no step. A rate is one, a momentum or a decay is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import sympy as sp

from ..loops import InnerLoop
from ..program.coefficients import Coefficient
from ..program.rules import G, Rule, W

Range = tuple[float, float]


@dataclass(frozen=True)
class Gains:
    """The gains of a rule, by the coefficients' names.

    outer: those that scale the step of the weight. inner: those that only scale what an operator
    on matrices acts on, which takes them out again. operator: whether there is one.
    """

    outer: tuple[str, ...]
    inner: tuple[str, ...]
    operator: bool

    @property
    def by_one(self) -> bool:
        """Whether the length of a step is what an operator makes it."""
        return self.operator and not self.outer


@lru_cache
def gains(loop: InnerLoop) -> Gains:
    """The gains of the loop's rule; what weighs losses is not among them."""
    names = [name for name in loop.coefficients if name not in loop.loss_weights.values()]
    symbols = {name: loop.coefficients[name].symbol(name) for name in names}
    step, acted = unfolded(loop.rule, through=False), unfolded(loop.rule, through=True)
    operators = [line.target for line in loop.rule.of_kind("operator")]
    outer = tuple(n for n, c in symbols.items() if stands_still(step, c, [G, *operators]))
    inner = tuple(n for n, c in symbols.items() if n not in outer and stands_still(acted, c, [G]))
    return Gains(outer, inner, step.has(*operators) if operators else False)


def unfolded(rule: Rule, *, through: bool) -> sp.Expr:
    """The next weight in what there is before the step; operators are unfolded if `through`."""
    values: dict[sp.Expr, sp.Expr] = {}
    for line in rule.lines:
        if through or line.kind != "operator":
            values[line.seen] = line.expression.xreplace(values)
    return rule[W].xreplace(values)


def stands_still(step: sp.Expr, coefficient: sp.Expr, sources: list[sp.Symbol]) -> bool:
    """Whether a weight stays, and nothing of the sources gets into it, where a coefficient is 0."""
    left = step.xreplace({coefficient: sp.Integer(0)})
    return left.has(W) and not left.has(*sources)


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
