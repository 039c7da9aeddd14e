"""Closed forms of linear recurrences, by variation of constants.

A state follows `x ← a_t x + b_t`, where b_t is linear in an input (the gradient G, or what an
operator made, U) and in the states computed before x. Then after u + 1 steps
`x = (Π a) x_0 + Σ_{i=0..u} K(i, u) input_i`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sympy as sp

from ..loops.update import NEXT_M, G, M, Rule, U, W, t

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
    for state in (M, W):
        if state in recurrence:
            solved[state] = solve_one(state, sp.expand(recurrence[state]), solved)
    return solved


def solve_one(state: sp.Symbol, expression: sp.Expr, solved: dict[sp.Symbol, Closed]) -> Closed:
    """The closed form of one state, given those computed before it."""
    source = U if expression.has(U) else G
    decay, direct = expression.coeff(state), expression.coeff(source)
    through = expression.coeff(NEXT_M)
    rest = sp.expand(expression - decay * state - direct * source - through * NEXT_M)
    coefficients = sp.Tuple(decay, direct, through)  # no sum: one could cancel another
    if rest != 0 or coefficients.has(W, M, G, U, NEXT_M):
        raise ValueError(
            "the update must be linear in the state and the gradient; it is "
            f"{expression}. Use a linear rule."
        )
    j = sp.Symbol("j", integer=True)

    def kept(first: sp.Expr, last: sp.Expr) -> sp.Expr:
        """`Π_{s=first..last} a_s`."""
        return sp.Integer(1) if decay == 1 else sp.Product(decay.subs(t, s), (s, first, last))

    def weight(step: sp.Expr, last: sp.Expr) -> sp.Expr:
        """What G of `step` still weighs after step `last`."""
        own = direct.subs(t, step) * kept(step + 1, last)
        if through == 0:
            return own
        passed = through.subs(t, j) * solved[M].weight(step, j) * kept(j + 1, last)
        return own + sp.Sum(passed, (j, step, last))

    return Closed(lambda last: kept(sp.Integer(0), last), weight, source)
