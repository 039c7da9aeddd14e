"""Update rules: how a gradient moves a weight. A function of one entry, and a library of such."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_args

from ..program.coefficients import Clock, Coefficient, choose
from ..program.expressions import check_name, shown
from ..program.rule_lines import traced
from ..program.rule_tracing import Constant, column_norm, operator, unknown_gate, zeros_like
from ..program.rules import EPSILON, Rule
from .nets import Weight

Rate = Literal["constant", "per_step", "per_token"]
Place = Literal["inside", "outside"]

# Names that can run; in proofs each is an abstract function, as any other name is.
CLIPS = ("column_norm",)
NORMS = ("initial_norm",)

TINY = Constant(EPSILON.name, 1e-5)  # keeps the norm of a zero column from dividing

M, ETA, ALPHA = "M", "eta", "alpha"  # the names of a buffer, of a rate and of a momentum

EVERY: dict[str, Clock] = {"constant": "loop", "per_step": "step", "per_token": "token"}


@dataclass(frozen=True, repr=False)
class GradientStep:
    """Gradient descent (or ascent), with a rate, momentum, and what LaCT and ViTTT add.

    With G the gradient of a chunk's loss in a weight, after step t:

        G ← r ⊙ η_in G          if `clip`: a gate r on each column, a function of that column
        M ← G + α M             if `momentum`; with `orthogonal` M ← -G + α M
        U ← orthogonal(M)       if `orthogonal`: an operator on matrices
        W ← W - η_out M         or W + η_out U
        W ← n ⊙ W               if `weight_norm`: a gate n on each column, a function of it

    A rate placed `inside` is η_in, one placed `outside` η_out; the other is 1. Rates and momenta
    are numbers, given when the loop runs: one ("constant"), one per step, or one per token. A
    rate per token weighs that token's loss, another for each weight, so it is inside; momenta
    per token are averaged over the chunk. No rate is the rate 1. `ascent` goes up instead of down.

    Names: `clip="column_norm"` is 1/(‖G‖ + 1), `weight_norm="initial_norm"` restores each
    column's initial norm, ‖W_0‖/(‖W‖ + ε), `orthogonal="muon"` is five Newton-Schulz steps,
    "muon_bfloat16" the same in bfloat16, with the roundings of LaCT as released. In proofs they,
    and any other name, are arbitrary functions. Raises `ValueError` for another choice.
    Source: Theorems 5.1 to 5.3, Appendices E and G of arXiv 2602.21204.
    """

    rate: Rate | None = "constant"
    place: Place = "outside"
    momentum: Rate | None = None
    ascent: bool = False
    clip: str | None = field(default=None, kw_only=True)
    orthogonal: str | None = field(default=None, kw_only=True)
    weight_norm: str | None = field(default=None, kw_only=True)

    __repr__ = shown

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """The rate and the momentum that the rule has, as "eta" and "alpha"."""
        found = {}
        if self.rate and self.rate != "per_token":
            found[ETA] = Coefficient(EVERY[self.rate])
        if self.momentum:
            each = self.momentum == "per_token"
            found[ALPHA] = Coefficient(EVERY[self.momentum], mean=each)
        return found

    def loss_weights(self, weights: Iterable[Weight]) -> dict[str, str]:
        """By weight, the rate of each token, which weighs its loss in that weight's gradient."""
        names = [weight.name for weight in weights if self.rate == "per_token"]
        return {name: f"{ETA}_{name}" for name in names}

    @property
    def buffers(self) -> dict[str, Callable[[Any], Any]]:
        """The buffer that the momentum needs, as "M", and its start."""
        return {M: zeros_like} if self.momentum else {}

    @property
    def function(self) -> Callable[..., Any]:
        """The update as code, of matrices `[..., rows, cols]` and coefficients that broadcast."""
        return stepping(self)

    @property
    def rule(self) -> Rule:
        """The lines of that code.

        M is the buffer, R the gate of the clip, U what the operator makes of M, N the gate of the
        weight normalisation.
        """
        return lines_of(self)

    @property
    def options(self) -> tuple[str, ...]:
        """What is added to the plain step, in words; "plain" where nothing is."""
        added = {
            "clip": self.clip,
            "momentum": self.momentum,
            "Muon": self.orthogonal,
            "weight norm": self.weight_norm,
        }
        return tuple(name for name, on in added.items() if on) or ("plain",)

    def __post_init__(self) -> None:
        choose(
            self,
            rate=(None, *get_args(Rate)),
            place=get_args(Place),
            momentum=(None, *get_args(Rate)),
            ascent=(True, False),
        )
        if self.rate == "per_token" and self.place != "inside":
            raise ValueError(
                "`place` must be 'inside' for a rate per token, which weighs that "
                f"token's loss; got {self.place!r}. Put it inside."
            )
        for gate in ("clip", "orthogonal", "weight_norm"):
            if getattr(self, gate) is not None:
                check_name(gate, getattr(self, gate))


def stepping(step: GradientStep) -> Callable[..., Any]:
    """The code of a gradient step."""
    way = 1 if step.ascent else -1
    first, later = (way, 1) if step.orthogonal else (1, way)

    def rule(W: Any, g: Any, M: Any = 0, *, W_0: Any, eta: Any = 1, alpha: Any = 0) -> Any:
        inside, outside = (eta, 1) if step.place == "inside" else (1, eta)
        moved = inside * g
        if step.clip:
            moved = clipping(step.clip)(moved) * moved
        moved = first * moved
        if step.momentum:
            moved = M = moved + alpha * M
        if step.orthogonal:
            moved = operator(step.orthogonal)(moved)
        weight = W + later * (outside * moved)
        if step.weight_norm:
            weight = restoring(step.weight_norm, weight, W_0) * weight
        return (weight, M) if step.momentum else weight

    return rule


@cache
def lines_of(step: GradientStep) -> Rule:
    """The rule of a gradient step."""
    return traced(step.function, step.buffers, step.coefficients)


def clipping(name: str) -> Callable[[Any], Any]:
    """The gate of a clip: `1 / (‖step‖ + 1)`, or an unknown function of each column."""
    return (lambda step: 1 / (column_norm(step) + 1)) if name in CLIPS else unknown_gate(name)


def restoring(name: str, moved: Any, first: Any) -> Any:
    """The gate of a normalisation: `‖W_0‖ / (‖moved‖ + ε)`, or an unknown one of each column.

    An unknown normalisation may be another for each column of each weight, as it may depend on
    where they started.
    """
    if name in NORMS:
        return column_norm(first) / (column_norm(moved) + TINY)
    return unknown_gate(name, varies=True)(moved)
