"""A derivation: a result by name, its statements, the steps, and loops that instance it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..checker.definitions import Equation
from ..checker.proof import Proof
from ..loops import InnerLoop


@dataclass(frozen=True)
class Part:
    """One statement, and the steps that should lead to it from the definitions."""

    label: str
    statement: Equation
    proof: Proof


@dataclass(frozen=True)
class Derivation:
    """A named result. `expects` says whether it holds, or is claimed and false.

    `loops` are concrete loops that the result is about, and `restate` gives its statements for
    one of them: the autograd witness runs the loop and evaluates them. `parallel` is the class
    that each of them is said to be in, by `reduce`; it may be left out.
    `instead` says what is true where the claim is not.
    Raises `ValueError` where there is no part, or `expects` is neither "holds" nor "fails".
    """

    name: str
    title: str
    source: str
    parts: tuple[Part, ...]
    loops: tuple[InnerLoop, ...] = ()
    restate: Callable[[InnerLoop], tuple[Part, ...]] = lambda loop: ()
    expects: Literal["holds", "fails"] = "holds"
    instead: str = ""
    parallel: str = ""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("`parts` must hold at least one statement; got none. Add one.")
        if self.expects not in ("holds", "fails"):
            raise ValueError(
                f"`expects` must be 'holds' or 'fails'; got {self.expects!r}. Choose one."
            )
        if self.expects == "fails" and len(self.parts) > 1:
            # One statement's counterexample must not stand for another's.
            raise ValueError(
                f"a claim that fails must be one statement; got {len(self.parts)}. "
                "Write a derivation for each."
            )

    def part(self, number: int) -> Part:
        """The part of that number, counted from 1; `IndexError` if there is none."""
        count = len(self.parts)
        if not 1 <= number <= count:
            raise IndexError(
                f"a part of {self.name} must be a number from 1 to {count}; got {number}. "
                "Choose one."
            )
        return self.parts[number - 1]
