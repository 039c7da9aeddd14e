"""The exact witness: both sides of a claim at random points of large prime fields.

The left side is computed by iterating the definitions, the right side as it is written; neither
uses the checker's normal form.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..checker.definitions import Block, Equation
from ..checker.terms import TIME, App, Term, Var, inside
from .counterexample import smallest
from .evaluate import DegreeModel, Model
from .fields import PRIMES, PrimeField
from .types import WEAKEST_LOG2, Evidence, Refutation

LONGEST = 4  # times are 0 to at most this
WIDEST = 3
MOST_ENTRIES = 256  # more than these, and widths are made smaller

Definitions = tuple[Block, ...]
Entry = dict[Var, int]


@dataclass(frozen=True)
class Shape:
    """The sizes of a trial: each width, and the last time."""

    widths: dict[str, int]
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

    Those of the first are random and at least 2 each. Then come the edges: every width is 1; and
    each width whose indices are all summed over is 0, the others at least 1. Then random sizes.
    `trials` counts those that are not edges.
    """
    rng = random.Random(f"sizes {fingerprint(claim, definitions, seed)}")
    names, variables = widths_of(claim, definitions), quantified(claim)
    outer = sorted({v.sort for v in variables} - {TIME})

    def draw(least: int, last: int, fixed: dict[str, int]) -> Shape:
        drawn = {name: rng.randint(least, WIDEST) for name in names} | fixed
        shape = Shape(drawn, rng.randint(last, LONGEST))
        return fitted(shape, variables, rng.sample(outer, len(outer)))

    ones = [draw(1, 1, dict.fromkeys(names, 1))] if names else []
    empty = [draw(1, 1, {name: 0}) for name in names if name not in outer]
    return [draw(2, 2, {}), *ones, *empty, *(draw(1, 0, {}) for _ in range(trials - 1))]


def fitted(shape: Shape, variables: tuple[Var, ...], order: list[str]) -> Shape:
    """The shape with widths made smaller, in that order, until all its entries can be compared.

    Times are left out last and those up to 2 never: widths are like each other, times are not.
    """
    for size, name in product((2, 1), order):
        if shape.count(variables) > MOST_ENTRIES:
            widths = shape.widths | {name: min(size, shape.widths[name])}
            shape = Shape(widths, shape.last)
    fits = shape.count(variables) <= MOST_ENTRIES
    return shape if fits else Shape(shape.widths, min(shape.last, 2))


class Points:
    """Random points of prime fields, where the left side of a claim is computed only once.

    Each trial has sizes of its own (see `shapes`), and for each prime values of everything free.
    At each point all indices are compared: every time from 0 on, and every index of a width.
    """

    def __init__(
        self,
        claim: Equation,
        definitions: Definitions,
        *,
        seed: int,
        trials: int = 2,
        primes: tuple[int, ...] = PRIMES,
    ) -> None:
        if trials < 1 or len(set(primes)) < 2:
            raise ValueError(
                "an exact witness needs at least one trial and two primes; got "
                f"{trials} and {len(set(primes))}. Draw more."
            )
        self.claim, self.definitions = claim, definitions
        self.primes = primes
        self.shapes = shapes(claim, definitions, seed, trials)
        self.variables = quantified(claim)
        self._source = fingerprint(claim, definitions, seed)
        self._models: dict[tuple[int, int], Model] = {}

    def model(self, trial: int, prime: int) -> Model:
        """The values of one trial modulo one prime."""
        if (trial, prime) not in self._models:
            field, widths = PrimeField(prime), self.shapes[trial].widths
            source = f"{self._source} {trial}"  # each trial draws anew
            self._models[trial, prime] = Model(field, widths, self.definitions, source)
        return self._models[trial, prime]

    def entries(self, trial: int) -> list[Entry]:
        """The indices compared in a trial: all."""
        return self.shapes[trial].entries(self.variables)

    def differences(self, right: Term) -> Iterator[tuple[Shape, Entry]]:
        """Where the claim's left side differs from `right`."""
        for trial, prime in product(range(len(self.shapes)), self.primes):
            model = self.model(trial, prime)
            for entry in self.entries(trial):
                if model.value(self.claim.left, entry) != model.value(right, entry):
                    yield self.shapes[trial], entry

    def error_bound_log2(self) -> float:
        """The logarithm of the probability that a difference goes unseen; see `exact_witness`."""
        return max(self.trial_bound(trial) for trial in range(len(self.shapes)))

    def trial_bound(self, trial: int) -> float:
        """The logarithm of the product, over the primes, of (d + n (n - 1) / 2 · a) / p, or 0."""
        model = DegreeModel(self.shapes[trial].widths, self.definitions)
        sides = (self.claim.left, self.claim.right)
        values = [model.value(s, e).value for e in self.entries(trial) for s in sides]
        n = model.queries
        roots = max(values, default=0) + n * (n - 1) // 2 * model.argument_degree
        return sum(min(0.0, math.log2(max(roots, 1) / p)) for p in self.primes)


def exact_witness(
    claim: Equation, definitions: Definitions, *, seed: int, trials: int = 2
) -> Evidence:
    """Whether both sides of a claim agree at random points of two large prime fields.

    Each trial has sizes: widths 2 to 3 and times 0 to at least 2 in the first; then every width 1;
    then each width 0 in turn, if the claim is not about an entry along it; then random ones,
    widths 1 to 3, the last time 0 to 4. For each prime p it draws a value for every entry of every
    free symbol, uniform modulo p. Unknown functions are random oracles: a fresh uniform value for
    each new argument. Sides are compared at all indices that the sizes allow, t = 0 included.
    Where these would be more than 256, some of the widths that index them are smaller, even 1.

    The error bound. Fix a trial's sizes. Both sides are polynomials in the free entries and in
    the n values asked of functions; call the sides' largest degree d, and that of the functions'
    arguments a. Suppose that at one index the sides differ as polynomials modulo p. They can only
    agree there if the point is a root of their difference (probability at most d/p, Schwartz and
    Zippel), or if two different arguments of functions fell together (at most a/p for each of
    n (n - 1) / 2 pairs). So a point misses the difference with probability at most
    (d + n (n - 1) / 2 · a) / p, and both primes do with at most the product. `error_bound_log2` is
    the logarithm of that product for the trial where it is largest: a bound for each trial at
    whose sizes some entry shows the difference, whichever these are.

    It covers the sizes drawn, and no others; and it treats sigmoid, tanh and step as unknown
    functions that obey their differential equations, root, inverse and operators on matrices as
    unknown functions. Draws come from a hash of claim, definitions and seed. A bound above 2^-40
    is no evidence: then the result is undecided.

    Raises ValueError where `trials` is less than 1.
    """
    points = Points(claim, definitions, seed=seed, trials=trials)
    differ = next(points.differences(claim.right), None) is not None
    bound, reason = points.error_bound_log2(), ""
    if not differ and bound > WEAKEST_LOG2:
        reason = f"no difference was seen, but the bound 2^{bound:.1f} is above 2^{WEAKEST_LOG2}"
    count, agrees = len(points.shapes) * len(points.primes), not (differ or reason)
    return Evidence(agrees, count, points.primes, bound, seed, reason)


def refute(claim: Equation, definitions: Definitions, *, seed: int) -> Refutation | None:
    """The smallest counterexample found to a claim, or None where none was found.

    Where random points of prime fields show a difference, sizes are made small first, then the
    last times, then values: towards 0, then ±1, then other integers of at most two digits. What
    an unknown function returns is a value as well, written `phi[0,0](1) = 1`. Sigmoid, tanh, step,
    root and inverse have their true values; where these are irrational both sides are enclosed in
    intervals, and differ only if these do not meet. Points with a division by zero are left out.
    The operator `muon`, in proofs an arbitrary one, stands for `X ↦ X Xᵀ X`, and the values say
    so. Functions of unknown derivative stand for any differentiable function; of `gelu_tanh`,
    which is one function, no value is made up, so claims that mention it are not refuted here.
    The seed and the claim determine the result.
    """
    if any(app.fn == "gelu_tanh" for app in inside((claim, definitions), App)):
        return None
    points = Points(claim, definitions, seed=seed, trials=3)
    found = next(points.differences(claim.right), None)
    if found is None:
        return None
    shape, entry = smallest_shape(points, *found)
    least = smallest(claim, definitions, shape.widths, entry, seed)
    return least or next(filter(None, larger(points, shape, seed)), None)


def larger(points: Points, shape: Shape, seed: int) -> Iterator[Refutation | None]:
    """What is found at slightly larger sizes, the smallest of these first.

    Functions with true values may agree where arbitrary ones would not: the norm of a column of
    one entry is additive as long as signs agree.
    """
    spans = [range(size, min(size + 1, WIDEST) + 1) for size in shape.widths.values()]
    for sizes in sorted(product(*spans), key=sum)[1:]:
        candidate = Shape(dict(zip(shape.widths, sizes, strict=True)), shape.last)
        entry = difference(points, candidate)
        if entry is not None:
            yield smallest(points.claim, points.definitions, candidate.widths, entry, seed)


def difference(points: Points, shape: Shape) -> Entry | None:
    """The earliest indices at which the sides differ, at one point of these sizes."""
    model = Model(PrimeField(points.primes[0]), shape.widths, points.definitions, 0)

    def differs(e: Entry) -> Any:
        return model.value(points.claim.left, e) != model.value(points.claim.right, e)

    return next(filter(differs, reversed(shape.entries(points.variables))), None)


def smallest_shape(points: Points, shape: Shape, entry: Entry) -> tuple[Shape, Entry]:
    """Smaller sizes with a difference: each width towards 1, then the times towards 0.

    A width becomes 0 only where no other shows the difference: empty sums explain little.
    """
    best = shape, entry
    for name in shape.widths:
        for size in range(1, shape.widths[name]):
            smaller = Shape(best[0].widths | {name: size}, shape.last)
            found = difference(points, smaller)
            if found is not None:
                best = smaller, found
                break
    found = difference(points, best[0])  # the earliest, also where no width could be made smaller
    return best if found is None else (best[0], found)
