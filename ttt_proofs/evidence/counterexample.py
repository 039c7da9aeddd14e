"""Counterexamples that a person can check: small integers at which two sides differ."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from ..checker.definitions import Block, Equation
from ..checker.terms import TIME, App, Var, inside
from .codes import Budget
from .evaluate import Model
from .fields import Field, Query, Rationals, Reals
from .true_values import STAND_IN, Undefined
from .types import Refutation

ROUNDS = 30
IRRATIONAL = {"sigmoid", "tanh", "exp", "softplus"}
SOMETIMES_RATIONAL = {"root"}
PARTIAL = {"root", "inverse"}  # not defined everywhere; nothing excuses a division by zero
EPSILON = Query("epsilon", ())
TELLING = (0, 1, -1, 2, -2, 9, -9, 10**6, -(10**6))  # what may show that a value matters


class Point(NamedTuple):
    """Values, in the order they are read, at which the sides come to `left` and `right`."""

    values: dict[Query, Any]
    left: Any
    right: Any


class Search:
    """Looks for points where a claim fails, at fixed sizes and indices."""

    def __init__(
        self,
        claim: Equation,
        definitions: tuple[Block, ...],
        widths: dict[str, int],
        entry: dict[Var, int],
        budget: Budget,
    ) -> None:
        self.claim, self.definitions = claim, definitions
        self.widths, self.entry, self.budget = widths, entry, budget
        self.names = {app.fn for app in inside((claim, definitions), App)}
        self.real = not self.names.isdisjoint(IRRATIONAL)
        self.lazy = self.names.isdisjoint(PARTIAL)

    def field(self, spread: int) -> Field:
        """Rational numbers where these suffice."""
        return (Reals if self.real else Rationals)(spread, self.lazy)

    def fails(self, spread: int, seed: int, given: dict[Query, Any]) -> Point | None:
        """The point, if both sides have values there, and these differ."""
        model = Model(
            self.field(spread), self.widths, self.definitions, seed, given, budget=self.budget
        )
        try:
            left, right = (
                model.value(side, self.entry) for side in (self.claim.left, self.claim.right)
            )
        except Undefined:
            return None
        equal = left.overlaps(right) if self.real else left == right
        return None if equal else Point(model.asked, left, right)

    def start(self, seed: int) -> tuple[Point, int, int] | None:
        """Some point of small integers, with the spread and the seed that it was drawn with.

        Roots of squares come first: where those show nothing, the others are enclosed.
        """
        found = self.draw(seed)
        if found is None and not self.real and not self.names.isdisjoint(SOMETIMES_RATIONAL):
            self.real = True
            found = self.draw(seed)
        return found

    def draw(self, seed: int) -> tuple[Point, int, int] | None:
        """The first of some points that shows a failure.

        Those with ε = 0 come first: what fails there does not fail by the ε of a norm.
        """
        for fixed in ({EPSILON: self.field(1).number(Fraction(0))}, {}):
            for spread in (1, 2, 3, 9, 99):
                for attempt in range(seed, seed + 20):
                    found = self.fails(spread, attempt, fixed)
                    if found:
                        return found, spread, attempt
        return None

    def shrink(self, point: Point, spread: int, seed: int) -> Point:
        """Each value in turn to the simplest number that still shows the failure."""
        for _ in range(ROUNDS):  # arguments of functions change, and with them what is asked
            before = point.values
            for query in list(point.values):
                if query in point.values:
                    point = self.simplified(point, query, spread, seed)
            if point.values == before:
                break
        return point

    def needed(self, point: Point) -> dict[Query, Any]:
        """The values that matter: whatever the others are, each side stays what it is.

        Others are drawn anew together, since two zeros may each be idle only by the other; each
        is also made small and of either sign, since a sign may be all that matters.
        """
        kept, number = dict(point.values), self.field(1).number
        for query, value in point.values.items():
            del kept[query]
            draws = [self.fails(99, seed, kept) for seed in range(1, 9)]
            draws += [self.fails(99, 1, kept | {query: number(Fraction(n))}) for n in TELLING]
            if not all(drawn and self.same(drawn, point) for drawn in draws):
                kept[query] = value
        return {query: value for query, value in point.values.items() if query in kept}

    def same(self, a: Point, b: Point) -> bool:
        """Whether both sides are as they were; irrational ones, as they are written."""
        return all(number_text(x) == number_text(y) for x, y in zip(a[1:], b[1:], strict=True))

    def simplified(self, point: Point, query: Query, spread: int, seed: int) -> Point:
        """The point with one value made as simple as can be."""
        now = point.values[query]
        field = self.field(spread)
        for number in simpler(int(field.key(now))):
            value = field.number(Fraction(number))
            found = self.fails(spread, seed, point.values | {query: value})
            if found:
                return found
        return point


def simpler(value: int) -> Iterator[int]:
    """The integers simpler than `value`: 0, 1, -1, 2, -2, ... up to it."""
    for size in range(abs(value) + 1):
        for candidate in dict.fromkeys((size, -size)):
            if candidate == value:
                return
            yield candidate


def smallest(
    claim: Equation,
    definitions: tuple[Block, ...],
    widths: dict[str, int],
    entry: dict[Var, int],
    seed: int,
    budget: Budget,
) -> Refutation | None:
    """A counterexample of small integers at these sizes and indices; None where none was found.

    Raises `TooMuchError` where the search takes more values than `budget` has.
    """
    search = Search(claim, definitions, widths, entry, budget)
    begun = search.start(seed)
    if begun is None:
        return None
    point = search.shrink(*begun)
    place = [(v.name, str(k)) for v, k in entry.items() if v.sort != TIME and widths[v.sort] > 1]
    times = [(v.name, k) for v, k in entry.items() if v.sort == TIME]
    values = [
        (query_text(query), number_text(value)) for query, value in search.needed(point).items()
    ]
    stand_in = [STAND_IN] if "muon" in search.names else []
    left, right = map(number_text, (point.left, point.right))
    return Refutation((*stand_in, *place, *values), left, right, (*sorted(widths.items()), *times))


def number_text(value: Any) -> str:
    """An exact number as it is, another one to fifteen digits."""
    if isinstance(value, Fraction):
        return str(value)
    if value.is_exact():
        return str(Reals(1).key(value))
    written = value.str(15, radius=False)
    return "0.00000000000000" if written.startswith("0e") else written


def bracket(index: tuple[int, ...]) -> str:
    """`[0,1]`, or nothing."""
    return f"[{','.join(map(str, index))}]" if index else ""


def query_text(query: Query) -> str:
    """`k[0,1]`, `phi[0,0](1, 2)`, `∂ell/∂x1[0](0; 1)`: arguments are parted by semicolons."""
    name = query.name + bracket(query.place)
    if query.args is None:
        return name
    below = "".join(f"∂x{k + 1}{bracket(cell)}" for k, cell in query.slots)
    power = f"^{len(query.slots)}" if len(query.slots) > 1 else ""
    head = f"∂{power}{name}/{below}" if below else name
    return f"{head}({'; '.join(', '.join(map(str, arg)) for arg in query.args)})"
