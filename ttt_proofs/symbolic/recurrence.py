"""Closed forms of linear recurrences, by variation of constants.

A state follows `x ← a_t x + b_t`, where b_t is linear in an input (the gradient G, or what an
operator made, U) and in the states computed before x. Then after u + 1 steps
`x = (Π a) x_0 + Σ_{i=0..u} K(i, u) input_i`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sympy as sp

from ..program.coefficients import t
from ..program.rules import G, Line, Rule, following

Kernel = Callable[[sp.Expr, sp.Expr], sp.Expr]
i, s = (sp.Symbol(name, integer=True) for name in "is")


@dataclass(frozen=True)
class Closed:
    """`decay(u)` multiplies the start, `weight(i, u)` the `input` of step i, after step u."""

    decay: Callable[[sp.Expr], sp.Expr]
    weight: Kernel
    input: sp.Symbol = G


def solve(recurrence: Rule) -> dict[sp.Symbol, Closed]:
    """The closed form of each state, in order."""
    solved: dict[sp.Symbol, Closed] = {}
    for line in recurrence.of_kind("state"):
        solved[line.target] = solve_one(line, recurrence, solved)
    return solved


def solve_one(line: Line, rule: Rule, solved: dict[sp.Symbol, Closed]) -> Closed:
    """The closed form of one state, given those computed before it."""
    state, expression = line.target, sp.expand(line.expression)
    inputs = [G, *(x.target for x in rule.of_kind("operator"))]
    source = next((x for x in reversed(inputs) if expression.has(x)), G)
    earlier = {s: following(s) for s in solved}
    decay, direct = expression.coeff(state), expression.coeff(source)
    through = {s: expression.coeff(seen) for s, seen in earlier.items()}
    rest = expression - decay * state - direct * source
    rest = sp.expand(rest - sum(through[s] * seen for s, seen in earlier.items()))
    coefficients = sp.Tuple(decay, direct, *through.values())  # no sum: one could cancel another
    others = [x.target for x in rule.of_kind("state")]
    apart = [s for s, factor in through.items() if factor != 0 and solved[s].input != source]
    if rest != 0 or apart or coefficients.has(*others, *inputs, *earlier.values()):
        raise ValueError(
            f"the update must be linear in its states and in one input, the gradient or what an "
            f"operator makes; {state} becomes {expression}. Use a linear rule."
        )
    j = sp.Symbol("j", integer=True)

    def kept(first: sp.Expr, last: sp.Expr) -> sp.Expr:
        """`Π_{s=first..last} a_s`."""
        return sp.Integer(1) if decay == 1 else sp.Product(decay.subs(t, s), (s, first, last))

    def weight(step: sp.Expr, last: sp.Expr) -> sp.Expr:
        """What G of `step` still weighs after step `last`."""
        total = direct.subs(t, step) * kept(step + 1, last)
        for earlier, factor in through.items():
            if factor != 0:
                passed = factor.subs(t, j) * solved[earlier].weight(step, j) * kept(j + 1, last)
                total += sp.Sum(passed, (j, step, last))
        return total

    return Closed(lambda last: kept(sp.Integer(0), last), weight, source)
