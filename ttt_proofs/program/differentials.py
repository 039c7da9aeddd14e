"""Gradients of matrix expressions: the chain rule, read from the outermost operation inwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from .expressions import (
    UNIT,
    Ones,
    RowFunction,
    RowFunctionAdjoint,
    RowFunctionPullback,
    RowLoss,
    RowLossGradient,
    Windowed,
    WindowedAdjoint,
    entrywise,
)


def pullback(value: sp.MatrixExpr, cotangent: sp.MatrixExpr, used: sp.MatrixSymbol) -> sp.Expr:
    """The gradient of `⟨cotangent, value⟩` in a symbol that the value is made of."""
    parts = list(pulled(value, cotangent, used))
    return parts[0] if len(parts) == 1 else sp.MatAdd(*parts).doit()


def pulled(
    value: sp.MatrixExpr, cotangent: sp.MatrixExpr, used: sp.MatrixSymbol
) -> Iterator[sp.MatrixExpr]:
    """The parts of that gradient, one for each place of the symbol.

    Raises `TypeError` for an expression of another kind.
    """
    if used not in value.atoms(sp.MatrixSymbol):
        return
    if value == used:
        yield cotangent
    elif isinstance(value, sp.Transpose):
        yield from pulled(value.arg, cotangent.T, used)
    elif isinstance(value, sp.MatAdd):
        for part in value.args:
            yield from pulled(part, cotangent, used)
    elif isinstance(value, sp.HadamardProduct):
        for n, part in enumerate(value.args):
            others = value.args[:n] + value.args[n + 1 :]
            yield from pulled(part, hadamard(*others, cotangent), used)
    elif isinstance(value, sp.MatMul):
        coefficient, factors = value.as_coeff_matrices()
        for n, part in enumerate(factors):
            left = [x.T for x in reversed(factors[:n])]
            right = [x.T for x in reversed(factors[n + 1 :])]
            whole = sp.MatMul(coefficient, *left, cotangent, *right).doit()
            yield from pulled(part, whole, used)
    elif isinstance(value, ElementwiseApplyFunction):
        yield from pulled(value.expr, times_slope(value, cotangent), used)
    elif isinstance(value, RowFunction):
        yield from pulled(value.rows_of, RowFunctionPullback(value, cotangent), used)
        for parameters in value.parameters:
            yield from pulled(parameters, RowFunctionAdjoint(value, cotangent), used)
    elif isinstance(value, Windowed) and value.args[1] == used:
        yield WindowedAdjoint(value, cotangent)
    else:
        raise TypeError(f"a known matrix expression is required; got {type(value).__name__}.")


def hadamard(*parts: sp.MatrixExpr) -> sp.MatrixExpr:
    """The entrywise product, as one where parts are such products, numbers first, without ones.

    A factor that occurs n times is its entrywise power, which SymPy would make a kind of its own.
    """
    factor, flat = sp.Integer(1), []
    for part in parts:
        if part.is_MatMul:
            number, matrix = part.as_coeff_mmul()
            factor, part = factor * number, matrix.doit(deep=False)
        flat += part.args if isinstance(part, sp.HadamardProduct) else (part,)
    kept = Counter(part for part in flat if not is_ones(part)) or {flat[0]: 1}
    powers = [entrywise(partial(power, n=n), part) for part, n in kept.items()]
    whole = powers[0] if len(powers) == 1 else sp.HadamardProduct(*powers)
    return whole if factor == 1 else factor * whole


def power(x: sp.Expr, n: int) -> sp.Expr:
    """`x ** n`."""
    return x**n


def is_ones(matrix: sp.MatrixExpr) -> bool:
    """Whether each entry is 1: a matrix of ones, or a column of them times a row."""
    if isinstance(matrix, sp.MatMul):
        coefficient, factors = matrix.as_coeff_matrices()
        single = all(factor.shape[1] == UNIT for factor in factors[:-1])
        return coefficient == 1 and single and all(map(is_ones, factors))
    return isinstance(matrix, Ones)


def times_slope(value: ElementwiseApplyFunction, cotangent: sp.MatrixExpr) -> sp.MatrixExpr:
    """The derivative of a function of each entry, times the cotangent; a number is put in front."""
    (x,) = value.function.variables
    number, slope = value.function.expr.diff(x).as_coeff_Mul()
    if slope == 1:
        return sp.MatMul(number, cotangent).doit(deep=False)
    if slope == x:
        return sp.MatMul(number, hadamard(value.expr, cotangent)).doit(deep=False)
    return hadamard(value.expr.applyfunc(sp.Lambda(x, number * slope)), cotangent)


def loss_gradient(loss: sp.Expr, used: sp.MatrixSymbol) -> sp.MatrixExpr:
    """The gradient of a loss in its outputs: of sums of traces and of abstract losses of rows."""
    parts = list(slopes(loss, used))
    return parts[0] if len(parts) == 1 else sp.MatAdd(*parts).doit()


def slopes(loss: sp.Expr, used: sp.MatrixSymbol) -> Iterator[sp.MatrixExpr]:
    """The parts of a loss's gradient."""
    if isinstance(loss, sp.Add):
        for part in loss.args:
            yield from slopes(part, used)
    elif isinstance(loss, sp.Mul):
        factor, terms = scaled_terms(loss)
        for term in terms:
            for part in slopes(term, used):
                yield sp.MatMul(factor, part).doit()
    elif isinstance(loss, RowLoss):
        outputs, values = loss.args[1:]
        yield from pulled(outputs, RowLossGradient(loss.name, outputs, values), used)
    elif isinstance(loss, sp.Trace):
        coefficient, factors = loss.arg.as_coeff_matrices()
        for n, part in enumerate(factors):
            others = factors[n + 1 :] + factors[:n]
            whole = sp.MatMul(coefficient, *others).doit().T
            yield from pulled(part, whole, used)


def scaled_terms(loss: sp.Mul) -> tuple[sp.Expr, list[sp.Expr]]:
    """A product as its numbers and its losses, of which there is one."""
    terms = [part for part in loss.args if part.has(sp.MatrixSymbol)]
    return sp.Mul(*(part for part in loss.args if part not in terms)), terms
