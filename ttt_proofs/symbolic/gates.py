"""Column gates and matrix operators of an update rule, as checker terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp

from ..checker.definitions import sum_over
from ..checker.terms import Add, App, Lam, Mul, Term, Var
from ..loops import Weight
from ..program.rules import column_norm, gate_of, inverse, operated
from .bridge import Place

Columns = dict[type[sp.Basic], Callable[[sp.Expr], Term]]


def call(name: str, argument: Term) -> App:
    """A function of one number."""
    return App(name, (), (Lam((), argument),))


def norm(column: Lam) -> Term:
    """The Euclidean norm of a column."""
    return call("root", sum_over(column.binders, Mul((column.body, column.body))))


def columns(
    weight: Weight, row: tuple[Var, ...], col: Place, entry: Callable[[sp.Expr], Term]
) -> Columns:
    """What norms and gates of columns stand for, `entry` giving an entry in that row.

    An unknown gate that varies is another function for each column of each weight.
    """

    def gate(e: Any) -> Term:
        name, argument, varies = e.name, Lam(row, entry(e.args[1])), bool(e.args[2])
        return App(f"{name}_{weight.name}" if varies else name, col if varies else (), (argument,))

    def inverted(e: Any) -> Term:  # 1 / (norm + gap), in that order
        terms = sorted(sp.Add.make_args(e.args[0]), key=lambda part: not part.has(column_norm))
        parts = tuple(map(entry, terms))
        return call("inverse", parts[0] if len(parts) == 1 else Add(parts))

    found = {column_norm: lambda e: norm(Lam(row, entry(e.args[0])))}
    return found | {gate_of: gate, inverse: inverted}


def applied(operator: sp.Expr, at: Place, matrix: Lam) -> App:
    """An entry of what an operator, `operated(name, x)`, makes of a matrix."""
    if not isinstance(operator, operated):
        raise TypeError(f"an operator on a matrix is required; got {operator}.")
    return App(operator.name, at, (matrix,))
