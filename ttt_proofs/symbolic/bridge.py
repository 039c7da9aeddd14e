"""From SymPy to kernel terms: matrix expressions entry by entry, scalars as they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from ..kernel.definitions import sum_over
from ..kernel.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Term, Var, ix
from ..loops.expressions import RowFunction, RowLoss, RowLossGradient

Entry = Callable[[Ix, Ix], Term]

LETTERS = {"D_k": "a", "D_h": "h", "D_v": "c", "L": "l"}


def variable(sort: str, n: int = 0) -> Var:
    """The n-th index variable over a width: `h`, `h1`, ..."""
    letter = LETTERS.get(sort, sort.lower().replace("_", ""))
    return Var(f"{letter}{n or ''}", sort)


@dataclass
class Scope:
    """What the names in a matrix expression stand for.

    `entries` gives a matrix symbol's entries as terms, `values` defines one by another matrix
    expression. `time` is the index of the parameters of abstract functions, or None if these
    do not change.
    """

    entries: Mapping[str, Entry]
    values: Mapping[str, sp.MatrixExpr] = field(default_factory=dict)
    time: Ix | None = None
    used: dict[str, int] = field(default_factory=dict)

    def fresh(self, sort: str) -> Var:
        """A bound index that this scope has not used."""
        self.used[sort] = self.used.get(sort, 0) + 1
        return variable(sort, self.used[sort])


def entry(matrix: sp.MatrixExpr, row: Ix, col: Ix, scope: Scope) -> Term:
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
    if isinstance(matrix, RowFunction):
        times = () if scope.time is None else (scope.time,)
        return App(matrix.name, (*times, col), (row_of(matrix.rows_of, row, scope),))
    if isinstance(matrix, RowLossGradient):
        return App(matrix.name, (), rows_of(matrix, row, scope), ((0, (col,)),))
    raise TypeError(f"a known matrix expression is required; got {type(matrix).__name__}.")


def contraction(matrix: sp.MatMul, row: Ix, col: Ix, scope: Scope) -> Term:
    """Entry of a matrix product: sums over the indices between the factors."""
    coefficient, factors = matrix.as_coeff_matrices()
    inner = [scope.fresh(factor.shape[1].name) for factor in factors[:-1]]
    ends = [row, *map(ix, inner), col]
    terms = [entry(factor, a, b, scope)
             for factor, a, b in zip(factors, ends, ends[1:], strict=False)]  # fmt: skip
    return sum_over(inner, product([scalar(coefficient), *terms]))


def row_of(matrix: sp.MatrixExpr, row: Ix, scope: Scope) -> Lam:
    """A row as a vector argument."""
    col = scope.fresh(matrix.shape[1].name)
    return Lam((col,), entry(matrix, row, ix(col), scope))


def rows_of(loss: RowLoss | RowLossGradient, row: Ix, scope: Scope) -> tuple[Lam, ...]:
    """The two vector arguments of an abstract loss."""
    return tuple(row_of(matrix, row, scope) for matrix in loss.args[1:])


def loss_term(loss: sp.Expr, scope: Scope) -> Term:
    """A scalar loss: traces, abstract losses, and rational combinations of them."""
    if isinstance(loss, RowLoss):
        row = scope.fresh("L")
        return sum_over([row], App(loss.name, (), rows_of(loss, ix(row), scope)))
    if isinstance(loss, sp.Trace):
        row = scope.fresh(loss.arg.shape[0].name)
        return sum_over([row], entry(loss.arg, ix(row), ix(row), scope))
    if isinstance(loss, sp.Add):
        return Add(tuple(loss_term(part, scope) for part in loss.args))
    if isinstance(loss, sp.Mul) and loss.args[0].is_Rational:
        return Mul((scalar(loss.args[0]), loss_term(loss.func(*loss.args[1:]), scope)))
    raise TypeError(f"a loss must be built from traces; got {type(loss).__name__}.")


def product(factors: list[Term]) -> Term:
    """The product, leaving out ones."""
    kept = [f for f in factors if f != Num(Fraction(1))]
    return kept[0] if len(kept) == 1 else Mul(tuple(kept)) if kept else Num(Fraction(1))


def index(expression: sp.Expr) -> Ix:
    """A time index: a symbol plus an integer."""
    shift, rest = sp.sympify(expression).as_coeff_Add()
    if not shift.is_Integer or not (rest == 0 or rest.is_Symbol):
        raise TypeError(f"a time index must be a symbol plus an integer; got {expression}.")
    return Ix((Var(rest.name, TIME),) if rest != 0 else (), int(shift))


def scalar(expression: sp.Expr, env: Mapping[sp.Expr, Term] | None = None) -> Term:
    """A scalar expression; `env` gives the terms of symbols that stand for something else."""
    e, env = sp.sympify(expression), env or {}
    if e in env:
        return env[e]
    if e.is_Rational:
        return Num(Fraction(int(e.p), int(e.q)))
    if e.is_Symbol:
        return Atom(e.name, ())
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
    if isinstance(e, sp.Derivative):
        (argument,) = e.expr.args
        return App(e.expr.func.__name__, (), (Lam((), scalar(argument, env)),), ((0, ()),))
    if isinstance(e, sp.Function):
        (argument,) = e.args
        return App(e.func.__name__, (), (Lam((), scalar(argument, env)),))
    raise TypeError(f"a scalar expression of a known kind is required; got {e}.")
