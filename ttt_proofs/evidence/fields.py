"""The numbers that terms are evaluated in, and where the values of free symbols come from.

A field is an object with `number` (a rational constant as an element), `uniform` (an element from
random bits), `key` (a hashable form, by which arguments of functions are compared) and `is_zero`;
elements themselves know `+` and `*`. `functions` and `operators` hold, by name, the functions of a
number and the operators on matrices that have true values there; all others are drawn.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

from .arithmetic import is_prime, real, ring
from .true_values import RATIONAL, REAL, Matrix, Undefined, cubic

Functions = Mapping[str, Callable[[Any], Any]]
Operators = Mapping[str, Callable[[Matrix], Matrix]]

LEAST_PRIME = 2**60  # primes are drawn from here to twice this
# There are more primes in that range than 3/5 · 2^60 / log 2^60, which is more than this.
FEWEST_PRIMES = 2**53


def random_primes(source: str, count: int = 2) -> tuple[int, ...]:
    """So many different primes between 2^60 and 2^61, each equally likely, by hashing `source`."""
    found: dict[int, None] = {}
    for k in itertools.count():
        digest = hashlib.blake2b(f"prime {k} {source}".encode(), digest_size=8).digest()
        candidate = LEAST_PRIME + int.from_bytes(digest, "big") % LEAST_PRIME | 1
        if is_prime(candidate):
            found[candidate] = None
        if len(found) == count:
            break
    return tuple(found)


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


class Residues:
    """Integers modulo the product of different primes: one element of each prime field at once."""

    lazy = False
    functions: ClassVar[Functions] = {}
    operators: ClassVar[Operators] = {}

    def __init__(self, primes: tuple[int, ...]) -> None:
        self.modulus = math.prod(primes)
        self._ring = ring(self.modulus)

    def number(self, value: Fraction) -> Any:
        """The rational number; ZeroDivisionError where a prime divides its denominator."""
        return self._ring(value.numerator) / self._ring(value.denominator)

    def uniform(self, bits: int) -> Any:
        """512 random bits modulo the product: uniform up to 2^-390 for two primes."""
        return self._ring(bits % self.modulus)

    def key(self, value: Any) -> int:
        """The least residue."""
        return int(value)

    def is_zero(self, value: Any) -> bool:
        """Whether this is 0 modulo each of the primes."""
        return value == 0


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
        return real(value)

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


LARGEST_DENOMINATOR = 2**4096  # larger ones are not worked out: then nothing is said of the height
LARGEST_HEIGHT = 1e300


@dataclass(slots=True)
class Extent:
    """Upper bounds of a polynomial with rational coefficients, which add and multiply as it does.

    degree: of its total degree.
    height: of the logarithm, to base 2, of the sum of its coefficients' absolute values, when all
        are written as integers over `denominator`; -inf for 0.
    denominator: a common one.
    """

    degree: int = 0
    height: float = -math.inf
    denominator: int = 1

    def __add__(self, other: Extent) -> Extent:
        degree = self.degree if self.degree > other.degree else other.degree
        a, b, denominator = self.height, other.height, self.denominator
        if denominator != other.denominator:
            denominator = math.lcm(denominator, other.denominator)
            a += math.log2(denominator // self.denominator)
            b += math.log2(denominator // other.denominator)
        low, high = (a, b) if a < b else (b, a)
        total = high + math.log2(1 + 2 ** (low - high)) if low > -math.inf else high
        return Extent(degree, total, denominator)

    def __mul__(self, other: Extent) -> Extent:
        degree, height = self.degree + other.degree, self.height + other.height
        denominator = self.denominator * other.denominator
        if denominator > LARGEST_DENOMINATOR:
            return Extent(degree, LARGEST_HEIGHT)
        return Extent(degree, min(height, LARGEST_HEIGHT), denominator)

    def joined(self, other: Extent) -> Extent:
        """Bounds of both polynomials over one denominator, whichever is meant."""
        if self.denominator == other.denominator:
            degree, height = max(self.degree, other.degree), max(self.height, other.height)
            return Extent(degree, height, self.denominator)
        return self + other

    def factors(self, least: int) -> float:
        """How many primes of at least `least` can divide all integer coefficients, if not all 0."""
        return max(self.height, 0.0) // math.log2(least)


class Extents:
    """Extents in place of numbers: of a constant, and of a variable for whatever would be drawn."""

    lazy = False
    functions: ClassVar[Functions] = {}
    operators: ClassVar[Operators] = {}

    def number(self, value: Fraction) -> Any:
        """A constant."""
        height = math.log2(abs(value.numerator)) if value else -math.inf
        return Extent(0, height, value.denominator)

    def uniform(self, bits: int) -> Any:
        """Each value drawn is a variable of the polynomial."""
        return Extent(1, 0.0)

    def key(self, value: Any) -> Any:
        """The extent."""
        return value

    def is_zero(self, value: Any) -> bool:
        """Never: an extent does not tell."""
        return False


Field = Residues | Rationals | Extents


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
        modulus = getattr(self.field, "modulus", 0)
        text = repr((self.seed, modulus, tuple(query)))
        digest = hashlib.blake2b(text.encode(), digest_size=64 if modulus else 16).digest()
        return self.field.uniform(int.from_bytes(digest, "big"))
