"""The sizes at which the exact witness tries a claim: those at the edges together, then others."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, product

from ..checker.definitions import Block, Equation
from ..checker.terms import TIME, Var, inside

LONGEST = 4  # times are 0 to at most this
WIDEST = 3
MOST_ENTRIES = 256  # more than these, and widths are made smaller
MOST_FORCED = 4096  # more than these, and times end even before LEAST_LAST
LEAST_LAST = 2
MOST_COMBINED = 12  # so many combinations of widths are all tried, of more all pairs

Definitions = tuple[Block, ...]
Entry = dict[Var, int]
Widths = dict[str, int]


@dataclass(frozen=True)
class Shape:
    """The sizes of a trial: each width, and the last time."""

    widths: Widths
    last: int

    def span(self, variable: Var) -> range:
        """The values of an index; every time from 0 on is among them."""
        return range(self.last + 1 if variable.sort == TIME else self.widths[variable.sort])

    def count(self, variables: Iterable[Var]) -> int:
        """How many entries there are."""
        return math.prod(len(self.span(v)) for v in variables)

    def entries(self, variables: tuple[Var, ...]) -> list[Entry]:
        """All values of the variables, the latest times first."""
        times = [k for k, v in enumerate(variables) if v.sort == TIME]
        spans = map(self.span, variables)
        ordered = sorted(product(*spans), key=lambda e: -sum(e[k] for k in times))
        return [dict(zip(variables, values, strict=True)) for values in ordered]


def quantified(claim: Equation) -> tuple[Var, ...]:
    """The indices that a claim is about: the quantified ones, then the free ones."""
    return claim.every + tuple(sorted(claim.free(), key=lambda v: (v.name, v.sort)))


def widths_of(claim: Equation, definitions: Definitions) -> list[str]:
    """The names of all widths that occur."""
    return sorted({v.sort for v in inside((claim, definitions), Var)} - {TIME})


def fingerprint(claim: Equation, definitions: Definitions, seed: int) -> str:
    """What all draws come from, so that no claim can be made to suit them."""
    return hashlib.blake2b(repr((seed, claim, definitions)).encode()).hexdigest()


def shapes(claim: Equation, definitions: Definitions, seed: int, trials: int) -> list[Shape]:
    """The sizes of every trial.

    Those of the first are random and at least 2 each. Then come the edges: widths of 0, 1 and more
    in the combinations of `combined`, at all times from 0 to 4. A width that indexes an entry of
    the claim is at least 1, since of no entry nothing is claimed. Then random sizes. `trials`
    counts those that are not edges.
    """
    rng = random.Random(f"sizes {fingerprint(claim, definitions, seed)}")
    names, variables = widths_of(claim, definitions), quantified(claim)
    outer = sorted({v.sort for v in variables} - {TIME})

    def drawn(widths: Widths, last: int) -> Shape:
        return fitted(Shape(widths, last), variables, rng.sample(outer, len(outer)))

    def draw(least: int, last: int) -> Shape:
        return drawn({n: rng.randint(least, WIDEST) for n in names}, rng.randint(last, LONGEST))

    def latest(widths: Widths) -> int:
        """The last time of 2 to 4 up to which all entries of these widths can be compared; or 0."""
        indices = [v for v in variables if v.sort in widths or v.sort == TIME]
        lasts = range(LONGEST, 1, -1)
        return next((n for n in lasts if Shape(widths, n).count(indices) <= MOST_ENTRIES), 0)

    edges = combined(names, outer, latest, rng)
    combinations = [drawn(widths, latest(widths) or LONGEST) for widths in edges]
    return [draw(2, 2), *combinations, *(draw(1, 0) for _ in range(trials - 1))]


def combined(
    names: list[str], outer: list[str], latest: Callable[[Widths], int], rng: random.Random
) -> list[Widths]:
    """Widths of 0 (not of `outer`), 1 and more: any two sizes of any two widths come together.

    These are all combinations of 0 to 3 if they are few; else those of all widths 1, of each as
    small as it may be, and a greedy choice: each holds some pair of sizes that none had before, and
    as many more of these as it can while the last time stays the `latest` that the pair alone
    allows. There "more" is 2 and 3 in turn.
    """
    least = {name: int(name in outer) for name in names}
    ranges = [range(least[name], WIDEST + 1) for name in names]
    if math.prod(map(len, ranges)) <= MOST_COMBINED:
        every = product(*ranges)
        return [dict(zip(names, sizes, strict=True)) for sizes in every] if names else []
    levels = {name: (1, 2) if least[name] else (1, 0, 2) for name in names}
    chosen = covering(levels, latest, rng)
    for name in names:
        more = rng.sample(range(2, WIDEST + 1), WIDEST - 1)
        for k, widths in enumerate(w for w in chosen if w[name] > 1):
            size = more[k % len(more)]
            widths[name] = size if latest(widths | {name: size}) >= latest(widths) else 2
    return chosen


def covering(
    levels: dict[str, tuple[int, ...]], latest: Callable[[Widths], int], rng: random.Random
) -> list[Widths]:
    """The greedy choice of `combined`, from these sizes of each width; of equals, the first."""
    chosen = [dict.fromkeys(levels, 1), {name: min(sizes) for name, sizes in levels.items()}]
    missing = {
        frozenset(((a, x), (b, y))): None
        for a, b in combinations(levels, 2)
        for x, y in product(levels[a], levels[b])
    }

    def gain(widths: Widths, name: str) -> int:
        return sum(frozenset(((name, widths[name]), other)) in missing for other in widths.items())

    def settle(widths: Widths) -> None:
        """Leaves out the pairs that come together here as late as they can."""
        for pair in combinations(widths.items(), 2):
            if latest(widths) >= latest(dict(pair)):
                missing.pop(frozenset(pair), None)

    for begun in chosen:
        settle(begun)
    while missing:
        widths: Widths = dict(rng.choice(list(missing)))
        least = latest(widths)
        for name in rng.sample(list(levels), len(levels)):
            if name not in widths:
                ways = [widths | {name: size} for size in levels[name]]
                late = [w for w in ways if latest(w) >= least]
                widths = max(late, key=lambda w, n=name: gain(w, n), default=ways[0])
        settle(widths)
        chosen.append({name: widths[name] for name in levels})
    return chosen


def fitted(shape: Shape, variables: tuple[Var, ...], order: list[str]) -> Shape:
    """The shape with widths made smaller, in that order, until all its entries can be compared.

    Times are left out last, and those up to 2 only where these alone make more than MOST_FORCED
    entries: widths are like each other, times are not.
    """
    for size, name in product((2, 1), order):
        if shape.count(variables) > MOST_ENTRIES:
            widths = shape.widths | {name: min(size, shape.widths[name])}
            shape = Shape(widths, shape.last)
    if shape.count(variables) <= MOST_ENTRIES:
        return shape
    last = min(shape.last, LEAST_LAST)
    while last and Shape(shape.widths, last).count(variables) > MOST_FORCED:
        last -= 1
    return Shape(shape.widths, last)


def has_times(variables: Iterable[Var]) -> bool:
    """Whether any of the indices is a time."""
    return any(v.sort == TIME for v in variables)
