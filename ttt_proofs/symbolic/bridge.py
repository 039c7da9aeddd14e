"""From SymPy to checker terms: matrix expressions entry by entry, scalars as they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from ..checker.definitions import ONE, sum_over
from ..checker.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Term, Var, ix
from ..program.differentials import scaled_terms
from ..program.expressions import (
    UNIT,
    InverseWidth,
    Ones,
    RowFunction,
    RowFunctionAdjoint,
    RowFunctionPullback,
    RowLoss,
    RowLossGradient,
    Windowed,
    WindowedAdjoint,
)

MINUS_ONE = Num(-1)

Place = tuple[Ix, ...]  # a row or a column: one index, or several where a width is a product
Entry = Callable[[Place, Place], Term]
Axes = Mapping[str, tuple[str, ...]]

LETTERS = {"D_k": "a", "D_h": "h", "D_v": "c", "L": "l"}


def at(shift: int) -> Ix:
    """The constant index `shift`."""
    return Ix((), shift)


def variable(sort: str, n: int = 0) -> Var:
    """The n-th index variable over a width: `h`, `h1`, ..."""
    letter = LETTERS.get(sort, sort.lower().replace("_", ""))
    return Var(f"{letter}{n or ''}", sort)


def variables(sort: str, axes: Axes, n: int = 0) -> tuple[Var, ...]:
    """The n-th index variables over a width, one for each of its axes; none over the width 1."""
    parts = () if sort == UNIT.name else axes.get(sort, (sort,))
    return tuple(variable(part, n) for part in parts)


def place(found: tuple[Var, ...]) -> Place:
    """The row or column that these variables name."""
    return tuple(map(ix, found))


def shifted(row: Place, by: Place) -> Place:
    """`row + by`, coordinate by coordinate."""
    return tuple(
        Ix(tuple(sorted(a.vars + b.vars, key=lambda v: (v.name, v.sort))), a.shift + b.shift)
        for a, b in zip(row, by, strict=True)
    )


@dataclass
class Scope:
    """What the names in a matrix expression stand for.

    `entries` gives a matrix symbol's entries as terms, `values` defines one by another matrix
    expression. `time` are the indices of the parameters of abstract functions, none if these do
    not change. `axes` are the widths that are products of others.
    """

    entries: Mapping[str, Entry]
    values: Mapping[str, sp.MatrixExpr] = field(default_factory=dict)
    time: tuple[Ix, ...] = ()
    axes: Axes = field(default_factory=dict)

    def fresh(self, sort: str, *around: Place) -> tuple[Var, ...]:
        """Indices to bind: the first over this width that are not among those around them."""
        taken = {v for found in around for index in found for v in index.vars}
        tries = (variables(sort, self.axes, n) for n in count(1))
        return next(found for found in tries if taken.isdisjoint(found))


def entry(matrix: sp.MatrixExpr, row: Place, col: Place, scope: Scope) -> Term:
    """Entry `[row, col]` of a matrix expression."""
    if isinstance(matrix, sp.MatrixSymbol):
        if matrix.name in scope.entries:
            return scope.entries[matrix.name](row, col)
        if matrix.name not in scope.values:
            raise KeyError(f"`{matrix.name}` must be a symbol of the loop. Define it.")
        return entry(scope.values[matrix.name], row, col, scope)
    if isinstance(matrix, sp.Transpose):
        return entry(matrix.arg, col, row, scope)
    if isinstance(matrix, sp.MatAdd):
        return Add(tuple(entry(part, row, col, scope) for part in matrix.args))
    if isinstance(matrix, sp.HadamardProduct):
        return Mul(tuple(entry(part, row, col, scope) for part in matrix.args))
    if isinstance(matrix, sp.MatMul):
        return contraction(matrix, row, col, scope)
    if isinstance(matrix, ElementwiseApplyFunction):
        (argument,) = matrix.function.variables
        return scalar(matrix.function.expr, {argument: entry(matrix.expr, row, col, scope)})
    if special := SPECIAL.get(type(matrix)):
        return special(matrix, row, col, scope)
    raise TypeError(f"a known matrix expression is required; got {type(matrix).__name__}.")


def contraction(matrix: sp.MatMul, row: Place, col: Place, scope: Scope) -> Term:
    """Entry of a matrix product: sums over the indices between the factors."""
    coefficient, factors = matrix.as_coeff_matrices()
    inner: list[tuple[Var, ...]] = []
    for factor in factors[:-1]:
        inner.append(scope.fresh(factor.shape[1].name, row, col, *map(place, inner)))
    ends = [row, *map(place, inner), col]
    terms = [
        entry(factor, a, b, scope) for factor, a, b in zip(factors, ends, ends[1:], strict=False)
    ]
    return sum_over(
        tuple(v for found in inner for v in found), product([scalar(coefficient), *terms])
    )


def row_of(matrix: sp.MatrixExpr, row: Place, scope: Scope) -> Lam:
    """A row as a vector argument."""
    col = scope.fresh(matrix.shape[1].name, row)
    return Lam(col, entry(matrix, row, place(col), scope))


def rows_of(loss: RowLoss | RowLossGradient, row: Place, scope: Scope) -> tuple[Lam, ...]:
    """The two vector arguments of an abstract loss."""
    return tuple(row_of(matrix, row, scope) for matrix in loss.args[1:])


def row_function(function: RowFunction, row: Place, col: Place, scope: Scope) -> App:
    """A function of a row, and of its parameters or of the time that these have."""
    rows = row_of(function.rows_of, row, scope)
    if not function.parameters:
        time = () if function.is_known else scope.time
        return App(function.name, (*time, *col), (rows,))
    (theta,) = function.parameters
    row_vars, col_vars = ends_of(theta, scope)
    parameters = Lam(row_vars + col_vars, entry(theta, place(row_vars), place(col_vars), scope))
    return App(function.name, col, (rows, parameters))


def ends_of(
    matrix: sp.MatrixExpr, scope: Scope, *around: Place
) -> tuple[tuple[Var, ...], tuple[Var, ...]]:
    """Indices to bind for the rows and the columns of a matrix."""
    rows = scope.fresh(matrix.shape[0].name, *around)
    return rows, scope.fresh(matrix.shape[1].name, place(rows), *around)


def row_function_adjoint(matrix: RowFunctionAdjoint, row: Place, col: Place, scope: Scope) -> Term:
    """`Σ_{l, c} C[l, c] ∂f_c(X[l, :], Θ) / ∂Θ[row, col]`."""
    function, cotangent = matrix.args
    token, out = ends_of(function, scope, row, col)
    value = row_function(function, place(token), place(out), scope)
    slope = App(value.fn, value.ix, value.args, ((1, row + col),))
    weighed = Mul((entry(cotangent, place(token), place(out), scope), slope))
    return sum_over(token + out, weighed)


def row_function_pullback(
    matrix: RowFunctionPullback, row: Place, col: Place, scope: Scope
) -> Term:
    """`Σ_c C[row, c] ∂f_c(X[row, :]) / ∂X[row, col]`."""
    function, cotangent = matrix.args
    out = scope.fresh(function.shape[1].name, row, col)
    value = row_function(function, row, place(out), scope)
    slope = App(value.fn, value.ix, value.args, ((0, col),))
    return sum_over(out, Mul((entry(cotangent, row, place(out), scope), slope)))


def windowed(matrix: Windowed, row: Place, col: Place, scope: Scope) -> Term:
    """`Σ_d X[row + d, col] W[d, col]`."""
    inputs, window = matrix.args
    offset = scope.fresh(window.shape[0].name, row, col)
    terms = (
        entry(inputs, shifted(row, place(offset)), col, scope),
        entry(window, place(offset), col, scope),
    )
    return sum_over(offset, Mul(terms))


def windowed_adjoint(matrix: WindowedAdjoint, row: Place, col: Place, scope: Scope) -> Term:
    """`Σ_p X[p + row, col] C[p, col]`."""
    function, cotangent = matrix.args
    token = scope.fresh(function.shape[0].name, row, col)
    terms = (
        entry(function.args[0], shifted(place(token), row), col, scope),
        entry(cotangent, place(token), col, scope),
    )
    return sum_over(token, Mul(terms))


def row_loss_gradient(matrix: RowLossGradient, row: Place, col: Place, scope: Scope) -> App:
    """The partial derivative of an abstract loss in its first argument."""
    return App(matrix.name, (), rows_of(matrix, row, scope), ((0, col),))


SPECIAL: dict[Any, Callable[[Any, Place, Place, Scope], Term]] = {
    Ones: lambda matrix, row, col, scope: ONE,
    RowFunction: row_function,
    RowFunctionAdjoint: row_function_adjoint,
    RowFunctionPullback: row_function_pullback,
    RowLossGradient: row_loss_gradient,
    Windowed: windowed,
    WindowedAdjoint: windowed_adjoint,
}


def loss_term(loss: sp.Expr, scope: Scope, weigh: Callable[[Place], list[Term]]) -> Term:
    """A scalar loss, a sum over tokens with the factors `weigh(token)` each.

    Losses are traces over tokens, abstract losses of rows, and combinations of them with constants.
    """
    if isinstance(loss, sp.Add):
        return Add(tuple(loss_term(part, scope, weigh) for part in loss.args))
    if isinstance(loss, sp.Mul):
        factor, (rest,) = scaled_terms(loss)
        return Mul((scalar(factor), loss_term(rest, scope, weigh)))
    row = scope.fresh("L")
    if isinstance(loss, RowLoss):
        each: Term = App(loss.name, (), rows_of(loss, place(row), scope))
    elif isinstance(loss, sp.Trace) and loss.arg.shape[0].name == "L":
        each = entry(loss.arg, place(row), place(row), scope)
    else:
        raise TypeError(f"a loss must be a sum over tokens; got {type(loss).__name__}.")
    return sum_over(row, product([*weigh(place(row)), each]))


def product(factors: list[Term]) -> Term:
    """The product, leaving out ones."""
    kept = [f for f in factors if f != ONE]
    return kept[0] if len(kept) == 1 else Mul(tuple(kept)) if kept else ONE


def added(terms: Sequence[Term]) -> Term:
    """The sum; a single term by itself."""
    return terms[0] if len(terms) == 1 else Add(tuple(terms))


def index(expression: sp.Expr) -> Ix:
    """A time index: a symbol plus an integer."""
    shift, rest = sp.sympify(expression).as_coeff_Add()
    if not shift.is_Integer or not (rest == 0 or rest.is_Symbol):
        raise TypeError(f"a time index must be a symbol plus an integer; got {expression}.")
    return Ix((Var(rest.name, TIME),) if rest != 0 else (), int(shift))


def scalar(expression: sp.Expr, env: Mapping[sp.Basic, Any] | None = None) -> Term:
    """A scalar expression; `env` gives the terms of symbols that stand for something else.

    For an indexed family it gives a function from the time to the term, for a kind of expression
    one from the expression to the term.
    """
    e, env = sp.sympify(expression), env or {}
    if e in env:
        return env[e]
    if type(e) in env:
        return env[type(e)](e)
    if e.is_Rational:
        return Num(int(e.p), int(e.q))
    if e.is_Symbol or isinstance(e, InverseWidth):
        return Atom(e.name, ())
    if isinstance(e, sp.Indexed) and e.base in env:
        return env[e.base](*map(index, e.indices))
    if isinstance(e, sp.Indexed):
        return Atom(e.base.label.name, tuple(map(index, e.indices)))
    if isinstance(e, sp.Add):
        return Add(tuple(scalar(part, env) for part in e.as_ordered_terms()))
    if isinstance(e, sp.Mul):
        return product([scalar(part, env) for part in e.as_ordered_factors()])
    if isinstance(e, sp.Pow) and e.exp.is_Integer and e.exp > 0:
        return Mul((scalar(e.base, env),) * int(e.exp))
    if isinstance(e, sp.Sum | sp.Product):
        body = scalar(e.function, env)
        for symbol, first, last in e.limits:  # SymPy lists the innermost first
            var, low, high = Var(symbol.name, TIME), index(first), index(last)
            if isinstance(e, sp.Sum):
                body = Sum(var, low, high, body)
            else:
                body = Prod(low, high, Lam((var,), body))
        return body
    if isinstance(e, sp.Subs):
        points = {v: scalar(at, env) for v, at in zip(e.variables, e.point, strict=True)}
        return scalar(e.expr, {**env, **points})
    if isinstance(e, sp.Derivative):
        (argument,) = e.expr.args
        order, inner = int(e.derivative_count), Lam((), scalar(argument, env))
        return App(e.expr.func.__name__, (), (inner,), ((0, ()),) * order)
    if isinstance(e, sp.Function):
        (argument,) = e.args
        return App(e.func.__name__, (), (Lam((), scalar(argument, env)),))
    raise TypeError(f"a scalar expression of a known kind is required; got {e}.")
