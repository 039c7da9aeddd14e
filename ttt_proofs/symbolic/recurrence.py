"""Closed forms of linear recurrences, by variation of constants.

A state follows `x ← a_t x + b_t`, where b_t is linear in an input (the gradient G, or what an
operator made, U) and in the states computed before x, their new values or their old ones. Then
after u + 1 steps `x = (Π a) x_0 + Σ_{i=0..u} K(i, u) input_i`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sympy as sp

from ..program.coefficients import t
from ..program.rules import G, Line, Rule, following

Kernel = Callable[[sp.Expr, sp.Expr], sp.Expr]
i, s = (sp.Symbol(name, integer=True) for name in "is")


class NotCoveredError(ValueError):
    """The theorems do not cover the loop; the message names the assumption that it breaks."""


@dataclass(frozen=True)
class Closed:
    """`decay(u)` multiplies the start, `weight(i, u)` the `input` of step i, after step u.

    depth: how many sums there are within one another in the weight; late: how many of the values
    that lead from an input to the state, one after another, are old ones.
    """

    decay: Callable[[sp.Expr], sp.Expr]
    weight: Kernel
    input: sp.Symbol = G
    depth: int = 0
    late: int = 0


def solve(recurrence: Rule) -> dict[sp.Symbol, Closed]:
    """The closed form of each state, in order; `NotCoveredError` for a rule that is not linear."""
    solved: dict[sp.Symbol, Closed] = {}
    for line in recurrence.of_kind("state"):
        solved[line.target] = solve_one(line, recurrence, solved)
    return solved


@dataclass(frozen=True)
class Affine:
    """A line as `decay · state + direct · source + Σ factor · earlier state`.

    new, old: the factors of earlier states' values after the step and before it.
    """

    decay: sp.Expr
    direct: sp.Expr
    source: sp.Symbol
    new: dict[sp.Symbol, sp.Expr]
    old: dict[sp.Symbol, sp.Expr]


def affine(line: Line, rule: Rule, solved: dict[sp.Symbol, Closed]) -> Affine:
    """The factors of a line; `NotCoveredError` unless it is linear in states and one input."""
    state, expression = line.target, sp.expand(line.expression)
    inputs = [G, *(x.target for x in rule.of_kind("operator"))]
    new = {s: expression.coeff(following(s)) for s in solved}
    old = {s: expression.coeff(s) for s in solved}
    direct = {x: expression.coeff(x) for x in inputs}
    linear = {state: expression.coeff(state)} | direct | old
    linear |= {following(s): factor for s, factor in new.items()}
    later = [x.target for x in rule.of_kind("state") if x.target not in linear]
    rest = expression - sum(factor * x for x, factor in linear.items())
    factors = sp.Tuple(*linear.values())  # no sum: one could cancel another
    used = [solved[s].input for s in solved if (new[s], old[s]) != (0, 0)]
    sources = list(dict.fromkeys([*(x for x in inputs if direct[x] != 0), *used])) or [G]
    reason = None
    if expression.has(*later):
        reason = f"which depends on {next(filter(expression.has, later))}, a state after it"
    elif sp.expand(rest) != 0 or factors.has(*linear, *later):
        reason = "which is not linear"
    elif len(sources) > 1:
        reason = f"which has several inputs, {' and '.join(x.name for x in sources)}"
    if reason:
        raise NotCoveredError(
            f"the update must be linear in its states, one after another, and in one input, the "
            f"gradient or what an operator makes; {state} becomes {expression}, {reason}. "
            "Use a linear rule."
        )
    (source,) = sources
    return Affine(linear[state], direct[source], source, new, old)


def solve_one(line: Line, rule: Rule, solved: dict[sp.Symbol, Closed]) -> Closed:
    """The closed form of one state, given those computed before it."""
    found = affine(line, rule, solved)
    through = [s for s in solved if (found.new[s], found.old[s]) != (0, 0)]
    depth = 1 + max(solved[s].depth for s in through) if through else 0
    j = sp.Symbol("j" if depth < 2 else f"j{depth}", integer=True)

    def kept(first: sp.Expr, last: sp.Expr) -> sp.Expr:
        """`Π_{s=first..last} a_s`."""
        decay = found.decay
        return sp.Integer(1) if decay == 1 else sp.Product(decay.subs(t, s), (s, first, last))

    def passed(step: sp.Expr, last: sp.Expr) -> Iterator[sp.Expr]:
        """What comes by way of each earlier state: by its new value at j, or its old one."""
        for by in through:
            for factors, late in ((found.new, 0), (found.old, 1)):
                if factors[by] != 0:
                    then = factors[by].subs(t, j) * solved[by].weight(step, j - late)
                    yield sp.Sum(then * kept(j + 1, last), (j, step + late, last))

    def weight(step: sp.Expr, last: sp.Expr) -> sp.Expr:
        """What the input of `step` still weighs after step `last`."""
        own = found.direct.subs(t, step) * kept(step + 1, last)
        return sp.Add(own, *passed(step, last))

    late = max((solved[by].late + (found.old[by] != 0) for by in through), default=0)
    return Closed(lambda last: kept(sp.Integer(0), last), weight, found.source, depth, late)
