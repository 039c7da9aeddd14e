"""Column gates and matrix operators of an update rule, as checker terms."""

from __future__ import annotations

import sympy as sp

from ..checker.definitions import ONE, sum_over
from ..checker.terms import Add, App, Atom, Lam, Mul, Term
from ..loops import InnerLoop, Weight
from ..loops.update import CLIPS, NORMS, R
from .bridge import Place, place


def call(name: str, argument: Term) -> App:
    """A function of one number."""
    return App(name, (), (Lam((), argument),))


def norm(column: Lam) -> Term:
    """The Euclidean norm of a column."""
    return call("root", sum_over(column.binders, Mul((column.body, column.body))))


def column_gate(loop: InnerLoop, weight: Weight, which: sp.Symbol, column: Lam, col: Place) -> Term:
    """The gate on a column: 1/(norm + 1) or initial norm/(norm + ε); by other names, unknown.

    An unknown clip is one function of a column; an unknown normalisation may be another for each
    column of each weight, as it may depend on where they started.
    """
    if which == R and loop.update.clip in CLIPS:
        return call("inverse", Add((norm(column), ONE)))
    if which == R:
        return App(str(loop.update.clip), (), (column,))
    if loop.update.weight_norm in NORMS:
        begun = Lam(column.binders, Atom(f"{weight.name}_0", (*place(column.binders), *col)))
        return Mul((norm(begun), call("inverse", Add((norm(column), Atom("epsilon", ()))))))
    return App(f"{loop.update.weight_norm}_{weight.name}", col, (column,))


def applied(loop: InnerLoop, at: Place, matrix: Lam) -> App:
    """An entry of what the loop's operator makes of a matrix."""
    return App(str(loop.update.orthogonal), at, (matrix,))
