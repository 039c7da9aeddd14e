"""True values of functions of a number, over the rationals and the reals; operators on matrices.

In prime fields none of these has a value: there they are unknown functions, as in proofs.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import isqrt
from typing import Any

from .arithmetic import real

Matrix = list[list[Any]]

# Functions and operators of which only values are used; no derivative of them may be made up.
UNDIFFERENTIATED = {"root", "inverse", "muon"}
STAND_IN = ("muon(X)", "X·Xᵀ·X")  # what a counterexample says of `cubic`


class Undefined(ArithmeticError):
    """There is no value here: not in this field, not at all, or none known exactly enough."""


def rational_root(x: Fraction) -> Fraction:
    """The square root of the square of a rational; `Undefined` for other numbers."""
    if x < 0:
        raise Undefined
    root = Fraction(isqrt(x.numerator), isqrt(x.denominator))
    if root * root != x:
        raise Undefined
    return root


def rational_inverse(x: Fraction) -> Fraction:
    """The reciprocal; `Undefined` at 0."""
    if not x:
        raise Undefined
    return 1 / x


def irrational(x: Fraction) -> Fraction:
    """`Undefined`: the value is irrational almost everywhere, so the reals are the place for it."""
    raise Undefined


def real_step(x: Any) -> Any:
    """1 for positive numbers and 0 for others; `Undefined` where the interval leaves it open."""
    if x.contains(0) and not x.is_exact():
        raise Undefined
    return real(int(x > 0))


def finite(x: Any) -> Any:
    """The interval; `Undefined` if it has no bounds, as that of 1/0 or of the root of -1."""
    if not x.is_finite():
        raise Undefined
    return x


RATIONAL: dict[str, Callable[[Any], Any]] = {
    "step": lambda x: Fraction(x > 0),
    "inverse": rational_inverse,
    "root": rational_root,
    "sigmoid": irrational,
    "tanh": irrational,
    "exp": irrational,
    "softplus": irrational,
}

REAL: dict[str, Callable[[Any], Any]] = {
    "step": real_step,
    "inverse": lambda x: finite(1 / x),
    "root": lambda x: finite(x.sqrt()),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": lambda x: x.tanh(),
    "exp": lambda x: x.exp(),
    "softplus": lambda x: finite((1 + x.exp()).log()),
}


def cubic(x: Matrix) -> Matrix:
    """`X Xᵀ X`: odd and nonlinear, as Newton-Schulz steps are, and of integers an integer.

    Proofs treat an operator as an arbitrary function, so a claim about all of them that fails
    for this one is false; and a person can work it out by hand.
    """
    return times(times(x, transposed(x)), x)


def transposed(x: Matrix) -> Matrix:
    """Rows for columns."""
    return [list(column) for column in zip(*x, strict=True)]


def times(x: Matrix, y: Matrix) -> Matrix:
    """The matrix product."""
    columns = transposed(y)
    return [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in x
    ]
