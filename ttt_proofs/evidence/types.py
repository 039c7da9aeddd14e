"""What a witness may say: `Evidence`, `Observation`, `Refutation`. None of them is a proof."""

from __future__ import annotations

from dataclasses import dataclass

WEAKEST_LOG2 = -40  # a larger chance of error is no evidence


@dataclass(frozen=True)
class Evidence:
    """Two sides agreed, or not, in exact arithmetic at random points of large prime fields.

    It means: if the sides differ as polynomials over the rationals, and that difference does not
    vanish modulo the primes, then all trials agree with probability at most 2^error_bound_log2
    (Schwartz and Zippel). It does not mean that the claim holds for any size besides those drawn,
    and nothing turns it into a theorem. `status` says which of three it is: "agrees"; "refuted",
    where some trial differed, which is certain: there the claim is false; or "undecided", where
    none differed and the bound is above 2^-40, so that this says little.

    agrees: whether both sides were equal in every trial, under a bound of at most 2^-40.
    trials: how many points were drawn, over all primes; at least 1.
    primes: the moduli, each near 2^61.
    error_bound_log2: the base-2 logarithm of the bound above, at most 0. It is a bound for each
        trial's sizes, at which all entries are compared.
    seed: what reproduces the draw, with the claim and its definitions.
    reason: why it is undecided, else empty.

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

    @property
    def status(self) -> str:
        """ "agrees", "refuted" or "undecided"."""
        return "agrees" if self.agrees else "undecided" if self.reason else "refuted"

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
