"""What a witness may say: evidence, observation, refutation, verdict. None of them is a proof."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["exact", "rounding", "wrong", "undecided"]

WEAKEST_LOG2 = -40  # a larger chance of error is no evidence


@dataclass(frozen=True)
class Evidence:
    """Two sides agreed, or not, in exact arithmetic at random points of large prime fields.

    It means: if the sides differ as polynomials over the rationals, then all trials agree with
    probability at most 2^error_bound_log2, over the draws of primes and of points (Schwartz and
    Zippel). It does not mean that the claim holds for any size besides those drawn,
    and nothing turns it into a theorem. `status` says which it is: "agrees"; "refuted", where
    some trial differed, which is certain: there the claim is false; "disagrees", where some trial
    differed, and the claim is about certain functions, as tanh, in whose place others were drawn:
    it is false of these; or "undecided", where none differed and the bound is above 2^-40, so that
    this says little.

    agrees: whether both sides were equal in every trial, under a bound of at most 2^-40.
    trials: how many points were drawn, over all primes; at least 1.
    primes: the moduli, drawn between 2^60 and 2^61 from a hash of claim, definitions and seed.
    error_bound_log2: the base-2 logarithm of the bound above, at most 0. It is a bound for each
        trial's sizes, at which all entries are compared.
    seed: what reproduces the draw, with the claim and its definitions.
    reason: why it is undecided, else empty.
    replaced: the certain functions in whose place arbitrary ones were drawn.

    Raises ValueError for agreement that rests on no trial, no prime or too large a bound, or that
    has a reason to be undecided.
    Source: the degree bound is Lemma 1 of Schwartz, J. ACM 27 (1980).
    """

    agrees: bool
    trials: int
    primes: tuple[int, ...]
    error_bound_log2: float
    seed: int
    reason: str = ""
    replaced: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """ "agrees", "refuted", "disagrees" or "undecided"."""
        if self.agrees or self.reason:
            return "agrees" if self.agrees else "undecided"
        return "disagrees" if self.replaced else "refuted"

    def __post_init__(self) -> None:
        if self.agrees and (self.reason or not self.error_bound_log2 <= WEAKEST_LOG2):
            raise ValueError(
                f"`agrees` needs a bound of at most 2^{WEAKEST_LOG2} and no reason for doubt; got "
                f"2^{self.error_bound_log2} and {self.reason!r}. Call it undecided."
            )
        if self.agrees and (self.trials < 1 or not self.primes):
            raise ValueError(
                f"`agrees` must rest on at least one trial and one prime; got "
                f"{self.trials} trials, {len(self.primes)} primes. Draw some."
            )


@dataclass(frozen=True)
class Observation:
    """A floating-point run agreed, or not, with the reference within a stated tolerance.

    It means: at the sizes and values drawn, each tensor compared was as close as stated. It does
    not mean that the two are equal, nor that they agree elsewhere; it catches mistakes in code
    as well as in mathematics. Nothing turns it into evidence or a theorem.

    agrees: whether every tensor was within the tolerance in every trial. NaN never is.
    max_relative_error: the largest error over tensors and trials, a pure number; infinite where a
        tensor was missing, had another shape, or held NaN or infinity.
    tolerance: what it was held against.
    trials: how many inputs were drawn; at least 1.
    device, dtype: what the run used, as PyTorch writes them without `torch.`.
    what: the names of the tensors compared, those of all trials together.
    worst: the one with the largest error.
    amplification: how much larger, relatively, a small change of the inputs was in the reference,
        at most; None where it was not measured.
    undecided: at how many draws that left no room to tell a small error from rounding, so that
        neither agreement nor an error there says anything.

    Raises ValueError where `agrees` contradicts the numbers or rests on none.
    """

    agrees: bool
    max_relative_error: float
    tolerance: float
    trials: int
    device: str
    dtype: str
    what: tuple[str, ...]
    worst: str
    amplification: float | None = None
    undecided: int = 0

    @property
    def is_finite(self) -> bool:
        """Whether numbers were compared: all tensors were there, in their shapes, and finite."""
        return math.isfinite(self.max_relative_error)

    def __post_init__(self) -> None:
        within = self.max_relative_error <= self.tolerance and self.trials > 0 and bool(self.what)
        if self.agrees is not within:
            raise ValueError(
                f"`agrees` must be {within} for error {self.max_relative_error} at "
                f"tolerance {self.tolerance}, {self.trials} trials and "
                f"{len(self.what)} tensors; got {self.agrees}. Correct it."
            )


@dataclass(frozen=True)
class Refutation:
    """The claim is false: at these small integers its two sides differ.

    It means what it says, and a person can check it by hand: nothing was rounded or sampled
    away. It does not say which part of the claim is wrong, nor that the claim fails at every
    other point.

    values: the name and the value of each input, as text, in the order they are read.
    left, right: what the two sides of the claim came to, as text.
    sizes: the name and the value of each width and length.

    Raises ValueError where both sides are the same.
    """

    values: tuple[tuple[str, str], ...]
    left: str
    right: str
    sizes: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if self.left == self.right:
            raise ValueError(
                f"`left` and `right` must differ to refute a claim; got {self.left} "
                "for both. Give values where they differ."
            )

    def __str__(self) -> str:
        groups = (self.sizes, self.values)
        told = [", ".join(f"{name} = {value}" for name, value in g) for g in groups if g]
        return (
            f"With {' and '.join(told) or 'nothing given'}, the left side is {self.left} and "
            f"the right side {self.right}."
        )


@dataclass(frozen=True)
class Draw:
    """Inputs that `check` drew, and what the comparison came to there.

    seed: what they were drawn by. sizes: the name and the value of each length and width.
    error: the largest relative error of an output there, infinite for NaN; None where the loop
    itself is not finite. tolerance: what it was held against; None where nothing could be told.
    amplification: how much larger, relatively, a change of the inputs in the last place is in the
    loop's outputs; infinite where they are not finite.
    """

    seed: int
    sizes: tuple[tuple[str, int], ...]
    error: float | None
    tolerance: float | None
    amplification: float

    def __str__(self) -> str:
        return ", ".join([*(f"{name} = {size}" for name, size in self.sizes), f"seed {self.seed}"])


@dataclass(frozen=True, repr=False)
class Verdict:
    """What `check` says of somebody's code; true where the code computes the loop.

    It is an observation: it holds at the inputs drawn, and is no proof.

    kind: "exact": at all draws as close as the same formulas in float64 are. "rounding": the
        loop's results in a lower precision (not said yet). "wrong": it departs from the loop by
        more than rounding explains. "undecided": the comparison says nothing, since the loop
        enlarges rounding too much, or is not finite itself. The first two are true.
    reason: why, in a sentence.
    error: the largest relative error of an output, of those that could be compared; infinite for
        NaN or infinity; None where none could. Of "wrong", the largest of the draw that shows it.
    tolerance: the largest error that passes.
    drawn: each draw, in order; the last of a "wrong" one is that which shows it.
    batch, token, head: of "wrong", the earliest token whose output departs.
    candidate, expected: the outputs there, `[V]`, of the code and of the loop.
    seed: of the draw that shows it.

    `bool(verdict)` and `agrees` are the same. Raises `ValueError` where the fields contradict.
    """

    kind: Kind
    reason: str
    error: float | None
    tolerance: float
    drawn: tuple[Draw, ...]
    batch: int | None = None
    token: int | None = None
    head: int | None = None
    candidate: tuple[float, ...] | None = None
    expected: tuple[float, ...] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"`kind` must be one of {', '.join(get_args(Kind))}; got {self.kind!r}. Choose one."
            )
        within = self.error is not None and self.error <= self.tolerance and bool(self.drawn)
        if self.kind == "exact" and not within:
            raise ValueError(
                f"`kind` must not be 'exact' for error {self.error} at tolerance "
                f"{self.tolerance} and {len(self.drawn)} draws. Correct it."
            )
        if (self.kind == "wrong") is (self.token is None):
            raise ValueError(
                f"`token` must be given for a wrong verdict and no other; got {self.token} for "
                f"{self.kind!r}. Correct it."
            )

    @property
    def agrees(self) -> bool:
        """Whether the code computes the loop; the same as the truth value."""
        return bool(self)

    def __bool__(self) -> bool:
        return self.kind in ("exact", "rounding")

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"

    def __repr__(self) -> str:
        return f"Verdict(kind={self.kind!r}, reason={self.reason!r})"
