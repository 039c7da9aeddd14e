"""What a source claims, and which derivations decide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Verdict = Literal["holds", "holds, corrected", "refuted", "not decided here"]


@dataclass(frozen=True)
class Claim:
    """A claim of the source: `says`, and `where`; the `verdict`, and the derivations it rests on.

    `so` is what holds: the conditions that the source leaves out, or what is true instead.
    `by` are names of derivations. A claim that is refuted rests on one that fails, a claim that
    holds or is corrected on at least one. Raises `ValueError` for another verdict, and for one
    that rests on nothing.
    """

    says: str
    where: str
    verdict: Verdict
    so: str = ""
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise ValueError(
                f"`verdict` must be one of {', '.join(get_args(Verdict))}; got "
                f"{self.verdict!r}. Choose one."
            )
        if bool(self.by) is (self.verdict == "not decided here"):
            raise ValueError(
                f"`by` must name derivations exactly if the claim is decided; got "
                f"{self.by} for {self.verdict!r}. Name what decides it."
            )
        if not self.so and self.verdict != "holds":
            raise ValueError(
                f"`so` must say what holds where the claim as it stands does not; got "
                f"nothing for {self.says!r}. Say it."
            )
