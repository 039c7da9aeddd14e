"""Exact arithmetic: by FLINT where it is installed, else by Python and mpmath, to the same effect.

Without FLINT everything is slower, and intervals are a little wider.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import sympy as sp

try:
    import flint
except ImportError:
    flint = None

BITS = 64  # of the numbers that bound an interval


@dataclass(frozen=True, slots=True)
class Residue:
    """An integer modulo another."""

    value: int
    modulus: int

    def of(self, value: int) -> Residue:
        """Another integer modulo the same."""
        return Residue(value % self.modulus, self.modulus)

    def __add__(self, other: Any) -> Residue:
        return self.of(self.value + int(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Residue:
        return self.of(self.value - int(other))

    def __neg__(self) -> Residue:
        return self.of(-self.value)

    def __mul__(self, other: Any) -> Residue:
        return self.of(self.value * int(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Residue:
        try:
            return self.of(self.value * pow(int(other), -1, self.modulus))
        except ValueError as error:  # what FLINT raises
            raise ZeroDivisionError(f"{other} has no inverse modulo {self.modulus}.") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | Residue) and (self.value - int(other)) % self.modulus == 0

    def __hash__(self) -> int:
        return hash(self.value)

    def __int__(self) -> int:
        return self.value


@dataclass(frozen=True, slots=True)
class Interval:
    """A real number known to lie between two others, with the few methods of `flint.arb` used."""

    ends: Any  # an interval of mpmath

    def __add__(self, other: Any) -> Interval:
        return Interval(self.ends + ends_of(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Interval:
        return Interval(self.ends - ends_of(other))

    def __neg__(self) -> Interval:
        return Interval(-self.ends)

    def __mul__(self, other: Any) -> Interval:
        return Interval(self.ends * ends_of(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Interval:
        return Interval(self.ends / ends_of(other))

    def __rtruediv__(self, other: Any) -> Interval:
        return Interval(ends_of(other) / self.ends)

    def __gt__(self, other: Any) -> bool:
        return bool(self.ends.a > ends_of(other).b)

    def __eq__(self, other: object) -> bool:
        """Whether both are one number and the same, as FLINT has it."""
        them = ends_of(other)
        return bool(self.ends.a == self.ends.b == them.a == them.b)

    def __hash__(self) -> int:
        return hash((self.ends.a, self.ends.b))

    def contains(self, other: Any) -> bool:
        """Whether the number may be this one."""
        return bool(self.ends.a <= ends_of(other).a and ends_of(other).b <= self.ends.b)

    def overlaps(self, other: Any) -> bool:
        """Whether the two may be equal."""
        return bool(self.ends.a <= ends_of(other).b and ends_of(other).a <= self.ends.b)

    def is_exact(self) -> bool:
        """Whether there is no doubt."""
        return bool(self.ends.a == self.ends.b)

    def is_finite(self) -> bool:
        """Whether both ends are numbers."""
        return all(mpmath.isfinite(mpmath.mpf(end)) for end in (self.ends.a, self.ends.b))

    def is_zero(self) -> bool:
        """Whether this is exactly 0."""
        return self.is_exact() and bool(self.ends.a == 0)

    def fmpq(self) -> Ratio:
        """The exact number, as a quotient of integers."""
        sign, mantissa, exponent, _ = mpmath.mpf(self.ends.a)._mpf_
        value = Fraction(int(mantissa)) * Fraction(2) ** int(exponent) * (-1 if sign else 1)
        return Ratio(value.numerator, value.denominator)

    def exp(self) -> Interval:
        """The exponential."""
        return Interval(mpmath.iv.exp(self.ends))

    def log(self) -> Interval:
        """The natural logarithm; without bounds where the number may not be positive."""
        if self.ends.a <= 0:
            return Interval(mpmath.iv.mpf(["-inf", "inf"]))
        return Interval(mpmath.iv.log(self.ends))

    def sqrt(self) -> Interval:
        """The square root; without bounds where the number may be negative."""
        if self.ends.a < 0:
            return Interval(mpmath.iv.mpf(["-inf", "inf"]))
        return Interval(mpmath.iv.sqrt(self.ends))

    def tanh(self) -> Interval:
        """`1 - 2 / (exp(2 x) + 1)`, which mentions x once."""
        return Interval(1 - 2 / (mpmath.iv.exp(2 * self.ends) + 1))


@dataclass(frozen=True)
class Ratio:
    """A quotient of integers, p over q."""

    p: int
    q: int


def ends_of(value: Any) -> Any:
    """An interval of mpmath around an interval, an integer or a fraction."""
    if isinstance(value, Interval):
        return value.ends
    return mpmath.iv.mpf(int(value)) if isinstance(value, int) else value


def is_prime(number: int) -> bool:
    """Whether the number is prime."""
    return bool(sp.isprime(number) if flint is None else flint.fmpz(number).is_prime())


def ring(modulus: int) -> Callable[[int], Any]:
    """What makes an element of the integers modulo `modulus` of an integer."""
    if flint is None:
        return lambda value: Residue(value % modulus, modulus)
    return flint.fmpz_mod_ctx(modulus)


def real(value: Fraction | int) -> Any:
    """An interval around a rational number, a point if it has a finite binary form."""
    top, bottom = value.numerator, value.denominator
    if flint is None:
        mpmath.iv.prec = BITS
        return Interval(mpmath.iv.mpf(top) / bottom)
    return flint.arb(top) / bottom
