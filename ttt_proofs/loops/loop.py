"""The inner loop: a net, a loss, an update rule and a schedule. Data, compared by value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import sympy as sp

from .losses import Loss
from .nets import Net, Weight

Rate = Literal["constant", "per_step"]
Place = Literal["inside", "outside"]
Train = Literal["all", "last"]
Read = Literal["after_update", "before_update"]


t = sp.Symbol("t", integer=True)
W, M, G, NEXT_M = sp.symbols("W M G M_next")


def number(kind: Rate | None, name: str) -> sp.Expr:
    """A rate or momentum as SymPy has it: a symbol, or one indexed by the step t."""
    return sp.IndexedBase(name)[t] if kind == "per_step" else sp.Symbol(name)


def choose(owner: object, **allowed: tuple[object, ...]) -> None:
    """Raise unless each named field has one of the allowed values."""
    for field, values in allowed.items():
        value = getattr(owner, field)
        if value not in values or isinstance(value, bool):
            names = ", ".join(map(repr, values))
            raise ValueError(f"`{field}` must be one of {names}; got {value!r}. Choose one.")


@dataclass(frozen=True)
class GradientStep:
    """Gradient descent (or ascent) with a rate, and momentum if wanted.

    With momentum, `M ← η_in ∇L + α M` and `W ← W - η_out M`: a rate placed `inside` is η_in,
    one placed `outside` is η_out (the other is 1). Without momentum the place does not matter.
    Rate and momentum are numbers or one number per step, given when the loop runs.
    `trained` says which weights move: all, or the last layer's only.
    Raises `ValueError` for another choice. Source: Theorems 5.1 to 5.3 of arXiv 2602.21204.
    """

    rate: Rate = "constant"
    place: Place = "outside"
    momentum: Rate | None = None
    ascent: bool = False
    trained: Train = "all"

    @property
    def recurrence(self) -> dict[sp.Symbol, sp.Expr]:
        """The update as SymPy expressions: each state's next value, in order of computation.

        `G` is the gradient at step t, `M_next` the accumulator's value after the step.
        """
        eta, alpha = number(self.rate, "eta"), number(self.momentum, "alpha")
        sign = 1 if self.ascent else -1
        if self.momentum is None:
            return {W: W + sign * eta * G}
        inside, outside = (eta, sp.Integer(1)) if self.place == "inside" else (sp.Integer(1), eta)
        accumulated = inside * G + alpha * M
        return {M: accumulated, W: W + sign * outside * NEXT_M}

    def __post_init__(self) -> None:
        choose(self, rate=get_args(Rate), place=get_args(Place), trained=get_args(Train),
               momentum=(None, *get_args(Rate)))  # fmt: skip
        if not isinstance(self.ascent, bool):
            raise ValueError(f"`ascent` must be True or False; got {self.ascent!r}. Choose one.")


@dataclass(frozen=True)
class Schedule:
    """`chunk` tokens a step; the chunk is read after its own update (inclusive) or before it.

    The theorems hold for every chunk length; `chunk` is the one used when the loop runs.
    Raises `ValueError` for a chunk below 1 or another way of reading.
    Source: Section 6.2, Appendix H (inclusive); LaCT as released (exclusive).
    """

    chunk: int = 1
    read: Read = "after_update"

    def __post_init__(self) -> None:
        choose(self, read=get_args(Read))
        if not isinstance(self.chunk, int) or isinstance(self.chunk, bool) or self.chunk < 1:
            raise ValueError(f"`chunk` must be a positive integer; got {self.chunk!r}. "
                             "Use 1 for the token recurrence.")  # fmt: skip


@dataclass(frozen=True)
class InnerLoop:
    """Test-time training with key-value binding: what happens between two tokens.

    For each chunk of keys K and values V, take a gradient step on `loss(net(K), V)`, and read
    `net(Q)` with the queries Q. Raises `TypeError` for parts of other kinds.
    Source: Section 3 of arXiv 2602.21204.

    >>> from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear, Schedule
    >>> InnerLoop(Linear(), Frobenius(), GradientStep(), Schedule(chunk=4)).trained[0].name
    'W'
    """

    net: Net
    loss: Loss
    update: GradientStep = GradientStep()
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        kinds = {"net": Net, "loss": Loss, "update": GradientStep, "schedule": Schedule}
        for field, kind in kinds.items():
            value = getattr(self, field)
            if not isinstance(value, kind) or type(value) in (Net, Loss):  # these two are abstract
                raise TypeError(f"`{field}` must be a {kind.__name__}; got "
                                f"{getattr(self, field)!r}. See ttt_proofs.loops.")  # fmt: skip

    @property
    def trained(self) -> tuple[Weight, ...]:
        """The weights that the inner loop updates."""
        return self.net.weights if self.update.trained == "all" else (self.net.last,)
