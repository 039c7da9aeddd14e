"""In which weights a net is linear, read off its program: `f(a U + b V) = a f(U) + b f(V)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from .expressions import Windowed
from .lowering import NetProgram

Degrees = tuple[int, int]  # the lowest and the highest in a weight
CONSTANT: Degrees = (0, 0)


def linear_weights(program: NetProgram) -> tuple[str, ...]:
    """The weights in which the net is linear, the others fixed, as far as its program shows it.

    All terms of each output must have the degree 1 in the weight; what would be linear after terms
    cancel is left out.
    """
    return tuple(w.name for w in program.weights if degrees(program, w) == (1, 1))


def degrees(program: NetProgram, weight: sp.MatrixSymbol) -> Degrees | None:
    """Bounds of the degrees of the net's outputs in a weight; None where it is no polynomial."""
    known: dict[sp.Basic, Degrees | None] = {weight: (1, 1)}
    for symbol, value in program.assignments:
        known[symbol] = degrees_of(value, known)
    outputs = degrees_of(program.outputs, known)
    if program.gate is None:
        return outputs
    return product([outputs, degrees_of(program.gate, known)])


def degrees_of(value: sp.Basic, known: Mapping[sp.Basic, Degrees | None]) -> Degrees | None:
    """Bounds of the degrees of an expression, by those of its symbols; other symbols are fixed."""
    if value in known:
        return known[value]
    inner = [degrees_of(part, known) for part in value.args]
    if all(each == CONSTANT for each in inner):
        return CONSTANT
    if isinstance(value, sp.MatAdd | sp.Add):
        found = [each for each in inner if each is not None]
        if len(found) < len(inner):
            return None
        return min(low for low, _ in found), max(high for _, high in found)
    if isinstance(value, sp.MatMul | sp.Mul | sp.HadamardProduct | Windowed):
        return product(inner)
    if isinstance(value, sp.Transpose):
        return inner[0]
    if isinstance(value, ElementwiseApplyFunction):
        return of_function(value, degrees_of(value.expr, known))
    return None


def product(factors: Iterable[Degrees | None]) -> Degrees | None:
    """The degrees of a product."""
    low = high = 0
    for factor in factors:
        if factor is None:
            return None
        low, high = low + factor[0], high + factor[1]
    return low, high


def of_function(value: ElementwiseApplyFunction, inner: Degrees | None) -> Degrees | None:
    """The degrees of a function of each entry, which is a polynomial or has none."""
    x = sp.Symbol("x")
    made = value.function(x)
    if inner is None or not made.is_polynomial(x):
        return None
    powers = [power for (power,) in sp.Poly(made, x).monoms()]
    return min(powers) * inner[0], max(powers) * inner[1]
