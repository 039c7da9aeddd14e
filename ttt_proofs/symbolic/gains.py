"""Which coefficients scale a step, read off the rule of an update.

A *gain* is a coefficient without which nothing of the gradient gets into the weight, while the
weight stays: at 0 the rule makes no step. A rate is one, a momentum or a decay is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import sympy as sp

from ..loops import InnerLoop
from ..program.rules import G, Rule, W, following, unfolded


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
    symbols = {name: c.symbol(name) for name, c in loop.update_coefficients.items()}
    step, acted = (next_weight(loop.rule, through=through) for through in (False, True))
    operators = [line.target for line in loop.rule.of_kind("operator")]
    outer = tuple(n for n, c in symbols.items() if stands_still(step, c, [G, *operators]))
    inner = tuple(n for n, c in symbols.items() if n not in outer and stands_still(acted, c, [G]))
    return Gains(outer, inner, step.has(*operators) if operators else False)


def next_weight(rule: Rule, *, through: bool) -> sp.Expr:
    """The next weight in what there is before the step; operators are unfolded if `through`."""
    lines = (line for line in rule.lines if through or line.kind != "operator")
    return unfolded(lines)[following(W)]


def stands_still(step: sp.Expr, coefficient: sp.Expr, sources: list[sp.Symbol]) -> bool:
    """Whether a weight stays, and nothing of the sources gets into it, where a coefficient is 0."""
    left = step.xreplace({coefficient: sp.Integer(0)})
    return left.has(W) and not left.has(*sources)


def summed_by(loop: InnerLoop) -> tuple[str, ...]:
    """The coefficients by which the sum over a chunk's tokens is made a mean.

    Those that weigh losses; where none do, the first gain of the rule.
    """
    known = gains(loop)
    return tuple(loop.loss_weights.values()) or (*known.outer, *known.inner)[:1]
