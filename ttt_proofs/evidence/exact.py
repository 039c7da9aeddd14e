"""The exact witness: both sides of a claim at random points of large prime fields.

The left side is computed by iterating the definitions, the right side as it is written; neither
uses the checker's normal form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from itertools import product
from typing import Any

from ..checker.definitions import Equation
from ..checker.terms import App, Term, inside
from ..program.operations import WHOLE
from .codes import SLOPES, Budget, Numbers, TooMuchError
from .counterexample import smallest
from .evaluate import DEEPEST, ExtentModel, Model
from .fields import FEWEST_PRIMES, LEAST_PRIME, Extent, Residues, random_primes
from .meanings import written_out
from .sizes_tried import (
    LEAST_LAST,
    MOST_ENTRIES,
    WIDEST,
    Definitions,
    Entry,
    Shape,
    fingerprint,
    has_times,
    quantified,
    shapes,
)
from .true_values import REAL
from .types import WEAKEST_LOG2, Evidence, Refutation

MOST_VALUES = (
    500_000  # that one claim may take, of all trials: seconds; library claims take 150,000
)
MOST_TRIED = 300_000  # that the search for a counterexample may take


class Points:
    """Random points of prime fields, where the left side of a claim is computed only once.

    Each trial has sizes of its own (see `shapes`), and for each of two primes values of everything
    free. At each point all indices are compared: every time from 0 on, and every index of a width.
    """

    def __init__(
        self,
        claim: Equation,
        definitions: Definitions,
        *,
        seed: int,
        trials: int = 2,
        budget: Budget | None = None,
    ) -> None:
        if trials < 1:
            raise ValueError(f"an exact witness needs at least one trial; got {trials}. Draw more.")
        self.claim, self.definitions = claim, definitions
        self.shapes = shapes(claim, definitions, seed, trials)
        self.variables = quantified(claim)
        self._source = fingerprint(claim, definitions, seed)
        self.primes = random_primes(self._source)
        self._field, self._numbers = Residues(self.primes), Numbers()
        self._models: dict[int, Model] = {}
        self._budget = budget or Budget()

    def model(self, trial: int) -> Model:
        """The values of one trial, modulo the product of the primes."""
        if trial not in self._models:
            source = f"{self._source} {trial}"  # each trial draws anew
            self._models[trial] = self.model_of(self.shapes[trial], source)
        return self._models[trial]

    def model_of(self, shape: Shape, source: str) -> Model:
        """Values drawn from `source` at other sizes."""
        return Model(
            self._field,
            shape.widths,
            self.definitions,
            source,
            numbers=self._numbers,
            budget=self._budget,
        )

    def entries(self, trial: int) -> list[Entry]:
        """The indices compared in a trial: all."""
        return self.shapes[trial].entries(self.variables)

    def differences(self, right: Term) -> Iterator[tuple[Shape, Entry]]:
        """Where the claim's left side differs from `right`."""
        for trial, shape in enumerate(self.shapes):
            model = self.model(trial)
            for entry in self.entries(trial):
                if model.value(self.claim.left, entry) != model.value(right, entry):
                    yield shape, entry

    def error_bound_log2(self) -> float:
        """The logarithm of the probability that a difference goes unseen; see `exact_witness`."""
        hull = Shape(
            {name: max(s.widths[name] for s in self.shapes) for name in self.shapes[0].widths},
            max(s.last for s in self.shapes),
        )
        affordable = hull.count(self.variables) <= 2 * MOST_ENTRIES
        return max(map(self.bound_log2, [hull] if affordable else self.shapes))

    def bound_log2(self, shape: Shape) -> float:
        """The logarithm of r(sides)² + n (n - 1) / 2 · r(arguments)², or 0, up to these sizes."""
        model = ExtentModel(shape.widths, self.definitions, self._numbers, self._budget)
        entries = shape.entries(self.variables)
        left, right = (
            reduce(Extent.joined, [model.value(side, e) for e in entries], Extent())
            for side in (self.claim.left, self.claim.right)
        )
        pairs = model.queries * (model.queries - 1) // 2
        unseen = self.vanishing(left + right)
        fallen = self.vanishing(model.argument_extent + model.argument_extent)
        return min(0.0, math.log2(unseen + pairs * fallen))

    def vanishing(self, difference: Extent) -> float:
        """A bound on the chance that a polynomial which is not 0 vanishes modulo both primes."""
        at_the_point = min(max(difference.degree, 1), LEAST_PRIME) / LEAST_PRIME
        everywhere = difference.factors(LEAST_PRIME) / FEWEST_PRIMES
        return min(at_the_point + everywhere, 1.0) ** 2


def exact_witness(
    claim: Equation, definitions: Definitions, *, seed: int, trials: int = 2
) -> Evidence:
    """Whether both sides of a claim agree at random points of two large prime fields.

    Each trial has sizes: widths 2 to 3 and times 0 to at least 2 in the first; then widths of 0, 1
    and more, any two of these for any two widths together, at times 0 to 4; then random ones,
    widths 1 to 3, the last time 0 to 4. A width is never 0 if the claim is about an entry along it.
    Both primes are drawn, uniformly from those between 2^60 and 2^61; then for each of them a value
    for every entry of every free symbol, uniform modulo p. Unknown functions are random oracles: a
    fresh uniform value for each new argument. Sides are compared at all indices that the sizes
    allow, t = 0 included. Where these would be more than 256, times end earlier, though not before
    2, or some of the widths that index them are smaller, even 1. Where times up to 2 alone make
    more than 4096 entries, all times end at 1 or 0, which may refute but is no evidence.

    The error bound. Fix a trial's sizes. Both sides are polynomials with rational coefficients in
    the free entries and in the n values asked of functions. Suppose that at one index they differ.
    They can only agree there modulo both primes if their difference vanishes modulo both, or that
    of two different arguments of functions does, one of n (n - 1) / 2 pairs. A polynomial that is
    not 0 vanishes modulo p for one of two reasons. Either p divides all its coefficients: written
    with integers, these are at most H, so that no more than k = log H / log 2^60 primes above 2^60
    do, rounded down, of more than 2^53 that might have been drawn (Rosser and Schoenfeld). Or the
    point is a root modulo p, which has probability at most d / p for the degree d (Schwartz and
    Zippel). So it vanishes modulo both primes with probability at most r² with
    r = k / 2^53 + d / 2^60. `error_bound_log2` is the logarithm of the sum of r² over the sides'
    difference and all pairs, with the largest H, d and n of all trials: a bound for each trial at
    whose sizes some entry shows the difference, whichever these are.

    It covers the sizes drawn, and no others; and it treats sigmoid, tanh and step as unknown
    functions that obey their differential equations, and slots of them, root, inverse and operators
    on matrices as unknown functions. Primes, sizes and values come from a hash of claim,
    definitions and seed; the bound counts them as random, so it says nothing of a claim that was
    found by trying as many as a search of that hash would take. A bound above 2^-40 is no evidence:
    then the result is undecided, as where more than MOST_VALUES values would have to be computed.

    Raises ValueError where `trials` is less than 1.
    Source: the number of primes, Rosser and Schoenfeld, Illinois J. Math. 6 (1962), Corollary 3.
    """
    points = Points(claim, definitions, seed=seed, trials=trials, budget=Budget(MOST_VALUES))
    differ, bound, reason = False, 0.0, ""
    try:
        differ = next(points.differences(claim.right), None) is not None
        bound = 0.0 if differ else points.error_bound_log2()
    except TooMuchError:
        reason = f"too much to compute: more than {MOST_VALUES} values at these sizes"
    except RecursionError:
        reason = f"too much to compute: more than {DEEPEST} calls within each other"
    if not differ and not reason and bound > WEAKEST_LOG2:
        reason = f"no difference was seen, but the bound 2^{bound:.1f} is above 2^{WEAKEST_LOG2}"
    longest = max(shape.last for shape in points.shapes)
    if not differ and not reason and longest < LEAST_LAST and has_times(points.variables):
        reason = f"no difference was seen, but there are so many times that all end at {longest}"
    count, agrees = len(points.shapes) * len(points.primes), not (differ or reason)
    called = {app.fn for app in inside((claim, definitions), App)}
    replaced = tuple(sorted(called.intersection((*REAL, *WHOLE))))
    return Evidence(agrees, count, points.primes, bound, seed, reason, replaced)


def refute(claim: Equation, definitions: Definitions, *, seed: int) -> Refutation | None:
    """The smallest counterexample found to a claim, or None where none was found.

    Where random points of prime fields show a difference, sizes are made small first, then the
    last times, then values: towards 0, then ±1, then other integers of two digits at most. What an
    abstract function, any differentiable one, returns is a value as well, as `phi[0,0](1) = 1`.
    Silu, relu, exp, softplus, sigmoid, tanh, step, root and inverse have their true values; where
    these are irrational both sides are enclosed in intervals, and differ only if these do not
    meet. Points with a division by zero are left out. The operator `muon`, in proofs an arbitrary
    one, stands for `X ↦ X Xᵀ X`, and the values say so. Of other functions that are irrational,
    such as GELU, no value is made up: claims that mention them are not refuted here. Nor are claims
    for which MOST_TRIED values do not show a difference.
    The seed and the claim determine the result.
    """
    claim, definitions = written_out((claim, definitions))
    if any(map(out_of_reach, inside((claim, definitions), App))):
        return None
    points = Points(claim, definitions, seed=seed, trials=3, budget=Budget(MOST_VALUES))
    try:
        found = next(points.differences(claim.right), None)
        if found is None:
            return None
        shape, entry = smallest_shape(points, *found)
        budget = Budget(MOST_TRIED)
        least = smallest(claim, definitions, shape.widths, entry, seed, budget)
        return least or next(filter(None, larger(points, shape, seed, budget)), None)
    except (TooMuchError, RecursionError):
        return None


def out_of_reach(app: App) -> bool:
    """Whether the values of one certain function are asked for that nothing here can enclose."""
    return app.fn in WHOLE and app.fn not in (SLOPES if app.slots else REAL)


def larger(points: Points, shape: Shape, seed: int, budget: Budget) -> Iterator[Refutation | None]:
    """What is found at slightly larger sizes, the smallest of these first.

    Functions with true values may agree where arbitrary ones would not: the norm of a column of
    one entry is additive as long as signs agree.
    """
    spans = [range(size, min(size + 1, WIDEST) + 1) for size in shape.widths.values()]
    for sizes in sorted(product(*spans), key=sum)[1:]:
        candidate = Shape(dict(zip(shape.widths, sizes, strict=True)), shape.last)
        entry = difference(points, candidate)
        if entry is not None:
            yield smallest(points.claim, points.definitions, candidate.widths, entry, seed, budget)


def difference(points: Points, shape: Shape) -> Entry | None:
    """The earliest indices at which the sides differ, at one point of these sizes."""
    model = points.model_of(shape, "")

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
