"""The exact witness: both sides of a claim at random points of large prime fields.

The left side is computed by iterating the definitions, the right side as it is written; neither
uses the checker's normal form.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..checker.definitions import Block, Equation
from ..checker.terms import TIME, App, Term, Var, inside
from .counterexample import smallest
from .evaluate import DegreeModel, Model
from .fields import PRIMES, PrimeField
from .types import Evidence, Refutation

LONGEST = 4  # times are 0 to at most this
WIDEST = 3
MOST_ENTRIES = 256

Definitions = tuple[Block, ...]
Entry = dict[Var, int]


@dataclass(frozen=True)
class Shape:
    """The sizes of a trial: each width, and the last time."""

    widths: dict[str, int]
    last: int

    def entries(self, variables: tuple[Var, ...]) -> list[Entry]:
        """All values of the variables, the latest times first."""
        spans = [
            range(self.last + 1) if v.sort == TIME else range(self.widths[v.sort])
            for v in variables
        ]
        times = [k for k, v in enumerate(variables) if v.sort == TIME]
        ordered = sorted(product(*spans), key=lambda e: -sum(e[k] for k in times))
        return [dict(zip(variables, values, strict=True)) for values in ordered]


def quantified(claim: Equation) -> tuple[Var, ...]:
    """The indices that a claim is about: the quantified ones, then the free ones."""
    return claim.every + tuple(sorted(claim.free(), key=lambda v: (v.name, v.sort)))


def widths_of(claim: Equation, definitions: Definitions) -> list[str]:
    """The names of all widths that occur."""
    return sorted({v.sort for v in inside((claim, definitions), Var)} - {TIME})


def shapes(claim: Equation, definitions: Definitions, seed: int, trials: int) -> list[Shape]:
    """Random sizes; those of the first trial are all at least 2."""
    rng = random.Random(f"sizes {seed}")
    names = widths_of(claim, definitions)

    def draw(least: int, first: int) -> Shape:
        widths = {name: rng.randint(least, WIDEST) for name in names}
        return Shape(widths, rng.randint(first, LONGEST))

    return [draw(2, 2) if k == 0 else draw(1, 0) for k in range(trials)]


class Points:
    """Random points of prime fields, where the left side of a claim is computed only once.

    Each of `trials` draws sizes, and for each prime the values of everything free. At most
    MOST_ENTRIES indices are compared at each point, those of the last times first.
    """

    def __init__(
        self,
        claim: Equation,
        definitions: Definitions,
        *,
        seed: int,
        trials: int = 3,
        primes: tuple[int, ...] = PRIMES,
    ) -> None:
        if trials < 1 or len(set(primes)) < 2:
            raise ValueError(
                "an exact witness needs at least one trial and two primes; got "
                f"{trials} and {len(set(primes))}. Draw more."
            )
        self.claim, self.definitions, self.seed = claim, definitions, seed
        self.primes = primes
        self.shapes = shapes(claim, definitions, seed, trials)
        self.variables = quantified(claim)
        self._models: dict[tuple[int, int], Model] = {}

    def model(self, trial: int, prime: int) -> Model:
        """The values of one trial modulo one prime."""
        if (trial, prime) not in self._models:
            field, widths = PrimeField(prime), self.shapes[trial].widths
            source = self.seed * len(self.shapes) + trial  # each trial draws anew
            self._models[trial, prime] = Model(field, widths, self.definitions, source)
        return self._models[trial, prime]

    def entries(self, trial: int) -> list[Entry]:
        """The indices compared in a trial."""
        return self.shapes[trial].entries(self.variables)[:MOST_ENTRIES]

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
        """The logarithm of the product, over the primes, of (d + n (n - 1) / 2 · a) / p."""
        model = DegreeModel(self.shapes[trial].widths, self.definitions)
        sides = (self.claim.left, self.claim.right)
        values = [model.value(s, e).value for e in self.entries(trial) for s in sides]
        n = model.queries
        roots = max(values, default=0) + n * (n - 1) // 2 * model.argument_degree
        return sum(math.log2(max(roots, 1) / p) for p in self.primes)


def exact_witness(
    claim: Equation, definitions: Definitions, *, seed: int, trials: int = 3
) -> Evidence:
    """Whether both sides of a claim agree at random points of two large prime fields.

    Each trial draws sizes (widths 1 to 3, last time 0 to 4; in the first trial at least 2 each)
    and, for each prime p, a value for every entry of every free symbol, uniform modulo p. Unknown
    functions are random oracles: a fresh uniform value for each new argument. Sides are compared
    at all their indices (of more than 256, those of the last times).

    The error bound. Fix a trial's sizes. Both sides are polynomials in the free entries and in
    the n values asked of functions; call the sides' largest degree d, and that of the functions'
    arguments a. Suppose that the sides differ as polynomials modulo p. They can only agree if
    the point is a root of their difference (probability at most d/p, Schwartz and Zippel), or if
    two different arguments of functions fell together (at most a/p for each of n (n - 1) / 2
    pairs). So a point misses the difference with probability at most (d + n (n - 1) / 2 · a) / p,
    and both primes do with at most the product. `error_bound_log2` is the logarithm of that
    product for the trial where it is largest: a bound for each trial whose sizes show the
    difference, whichever these are.

    It covers the sizes drawn, and no others; and it treats sigmoid, tanh and step as unknown
    functions that obey their differential equations, root, inverse and operators on matrices as
    unknown functions. The seed and the claim determine all draws.

    Raises ValueError where `trials` is less than 1.
    """
    points = Points(claim, definitions, seed=seed, trials=trials)
    agrees = next(points.differences(claim.right), None) is None
    count = trials * len(points.primes)
    return Evidence(agrees, count, points.primes, points.error_bound_log2(), seed)


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
    points = Points(claim, definitions, seed=seed, trials=4)
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
    """Smaller sizes with a difference: each width towards 1, then the times towards 0."""
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
