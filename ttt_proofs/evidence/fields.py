"""The numbers that terms are evaluated in, and where the values of free symbols come from.

A field is an object with `number` (a rational constant as an element), `uniform` (an element from
random bits), `key` (a hashable form, by which arguments of functions are compared) and `is_zero`;
elements themselves know `+` and `*`. `functions` and `operators` hold, by name, the functions of a
number and the operators on matrices that have true values there; all others are drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import flint

from .functions import RATIONAL, REAL, Matrix, Undefined, cubic

Functions = Mapping[str, Callable[[Any], Any]]
Operators = Mapping[str, Callable[[Matrix], Matrix]]

PRIMES = (2**61 - 1, 2**61 - 31)  # the two largest primes below 2^61


class Query(NamedTuple):
    """What a value is drawn for: an entry of a symbol, or a function (or derivative) at arguments.

    `place` holds the indices; `slots` the partial derivatives taken, in sorted order, since mixed
    ones commute. `args` is None for a symbol. For a function it holds each argument's entries, so
    that equal arguments give equal values, and `shapes` the lengths of each one's axes (nothing
    where all arguments are numbers), since a function of a matrix is not one of its transpose.
    """

    name: str
    place: tuple[int, ...]
    slots: tuple[tuple[int, tuple[int, ...]], ...] = ()
    args: tuple[tuple[Any, ...], ...] | None = None
    shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def is_beyond(self) -> bool:
        """Whether a derivative is taken in an entry that its argument does not have: it is 0."""
        shapes = self.shapes or ((),) * len(self.args or ())
        return any(
            not 0 <= x < n for k, cell in self.slots for x, n in zip(cell, shapes[k], strict=True)
        )


class PrimeField:
    """Integers modulo the prime `p`."""

    lazy = False
    functions: ClassVar[Functions] = {}
    operators: ClassVar[Operators] = {}

    def __init__(self, p: int) -> None:
        self.p = p

    def number(self, value: Fraction) -> Any:
        """The rational number modulo p; ZeroDivisionError where p divides its denominator."""
        return flint.nmod(value.numerator, self.p) / flint.nmod(value.denominator, self.p)

    def uniform(self, bits: int) -> Any:
        """128 random bits modulo p: uniform up to 2^-67."""
        return flint.nmod(bits % self.p, self.p)

    def key(self, value: Any) -> int:
        """The least residue."""
        return int(value)

    def is_zero(self, value: Any) -> bool:
        """Whether this is 0."""
        return not value


class Rationals:
    """Rational numbers; what is drawn are integers from -spread to spread."""

    functions: ClassVar[Functions] = RATIONAL
    operators: ClassVar[Operators] = {"muon": cubic}

    def __init__(self, spread: int, lazy: bool = True) -> None:
        self.spread = spread
        # A product stops at its first zero, so that what it would have asked for is not listed
        # among the values that a counterexample needs; unless a factor may be undefined.
        self.lazy = lazy

    def number(self, value: Fraction) -> Any:
        """The number itself."""
        return value

    def uniform(self, bits: int) -> Any:
        """An integer of absolute value at most `spread`."""
        return Fraction(bits % (2 * self.spread + 1) - self.spread)

    def key(self, value: Any) -> Fraction:
        """The number itself."""
        return value

    def is_zero(self, value: Any) -> bool:
        """Whether this is 0."""
        return value == 0


class Reals(Rationals):
    """Real numbers as intervals that contain them, for functions with irrational values."""

    functions: ClassVar[Functions] = REAL

    def number(self, value: Fraction) -> Any:
        """An interval around the rational number, a point if it has a finite binary form."""
        return flint.arb(value.numerator) / value.denominator

    def uniform(self, bits: int) -> Any:
        """An integer of absolute value at most `spread`."""
        return self.number(super().uniform(bits))

    def key(self, value: Any) -> Fraction:
        """The exact number; `Undefined` where it is known only roughly."""
        if not value.is_exact():
            raise Undefined
        exact = value.fmpq()
        return Fraction(int(exact.p), int(exact.q))

    def is_zero(self, value: Any) -> bool:
        """Whether this is exactly 0."""
        return value.is_zero()


@dataclass(frozen=True)
class Degree:
    """An upper bound of a polynomial's total degree; it adds and multiplies as polynomials do."""

    value: int

    def __add__(self, other: Degree) -> Degree:
        return self if self.value >= other.value else other

    def __mul__(self, other: Degree) -> Degree:
        return Degree(self.value + other.value)


class Degrees:
    """Degrees in place of numbers: 0 for a constant, 1 for whatever would be drawn."""

    lazy = False
    functions: ClassVar[Functions] = {}
    operators: ClassVar[Operators] = {}

    def number(self, value: Fraction) -> Any:
        """Constants have degree 0."""
        return Degree(0)

    def uniform(self, bits: int) -> Any:
        """Each value drawn is a variable of the polynomial."""
        return Degree(1)

    def key(self, value: Any) -> int:
        """The degree."""
        return value.value

    def is_zero(self, value: Any) -> bool:
        """Never: a degree does not tell."""
        return False


Field = PrimeField | Rationals | Degrees


class Source:
    """Draws the value of each query: given, or by hashing the seed with the query.

    Hashing makes a value depend on nothing but the seed and the query, never on the order of
    evaluation; two symbols or entries never share a draw. `given` values come first.
    """

    def __init__(
        self, field: Field, seed: int | str, given: dict[Query, Any] | None = None
    ) -> None:
        self.field = field
        self.seed = seed
        self.given = given or {}

    def __call__(self, query: Query) -> Any:
        if query in self.given:
            return self.given[query]
        text = repr((self.seed, getattr(self.field, "p", 0), tuple(query)))
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        return self.field.uniform(int.from_bytes(digest, "big"))
