"""Update rules: how a gradient moves a weight. Each is a few SymPy expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import sympy as sp

from .expressions import check_name, shown

Rate = Literal["constant", "per_step", "per_token"]
Place = Literal["inside", "outside"]
Train = Literal["all", "last"]

# Names that can run; in proofs each is an abstract function, as any other name is.
CLIPS = ("column_norm",)
OPERATORS = ("muon", "muon_bfloat16")
NORMS = ("initial_norm",)

t = sp.Symbol("t", integer=True)
W, M, G, U, R, N, NEXT_M = sp.symbols("W M G U R N M_next")
Rule = dict[sp.Symbol, sp.Expr]


def number(kind: Rate | None, name: str) -> sp.Expr:
    """A rate or momentum as SymPy has it: a symbol, or one indexed by the step t.

    The momenta of a chunk's tokens are averaged, so that they are one number per step.
    """
    return sp.Symbol(name) if kind == "constant" else sp.IndexedBase(name)[t]


def gate(name: sp.Symbol, time: sp.Expr) -> sp.Expr:
    """A gate on the columns of a matrix, as it is at `time`."""
    return sp.IndexedBase(name)[time]


def choose(owner: object, **allowed: tuple[object, ...]) -> None:
    """Raise unless each named field has one of the allowed values."""
    for field, values in allowed.items():
        value = getattr(owner, field)
        if value not in values or type(value) not in map(type, values):
            names = ", ".join(map(repr, values))
            raise ValueError(f"`{field}` must be one of {names}; got {value!r}. Choose one.")


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
    per token are averaged over the chunk. No rate is the rate 1. `trained` says which weights move:
    all, or the last layer's only. `ascent` goes up instead of down.

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
    trained: Train = "all"
    clip: str | None = None
    orthogonal: str | None = None
    weight_norm: str | None = None

    __repr__ = shown

    @property
    def recurrence(self) -> Rule:
        """The update as SymPy expressions, in order of computation.

        M and W have their next values, `M_next` is M's. R, U and N have the arguments of the
        functions `clip`, `orthogonal` and `weight_norm`; `R[t]` and `N[t + 1]` are the gates
        that these make at step t, U is what the operator makes. G is the gradient at step t.
        """
        eta = sp.Integer(1) if self.rate in (None, "per_token") else number(self.rate, "eta")
        alpha = number(self.momentum, "alpha") if self.momentum else sp.Integer(0)
        inside, outside = (eta, sp.Integer(1)) if self.place == "inside" else (sp.Integer(1), eta)
        sign = 1 if self.ascent else -1
        first, later = (sign, 1) if self.orthogonal else (1, sign)
        rule: Rule = {}
        step = inside * G
        if self.clip:
            rule[R] = step
            step = gate(R, t) * step
        if self.momentum or self.orthogonal:
            rule[M] = first * step + alpha * M
            step = NEXT_M
        if self.orthogonal:
            rule[U] = step
            step = U
        moved = W + later * outside * step
        if self.weight_norm:
            rule[N] = moved
            moved = gate(N, t + 1) * moved
        rule[W] = moved
        return rule

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
            trained=get_args(Train),
            momentum=(None, *get_args(Rate)),
            ascent=(True, False),
        )
        if self.rate == "per_token" and self.place != "inside":
            raise ValueError(
                "`place` must be 'inside' for a rate per token, which weighs that "
                f"token's loss; got {self.place!r}. Put it inside."
            )
        for field in ("clip", "orthogonal", "weight_norm"):
            if getattr(self, field) is not None:
                check_name(field, getattr(self, field))
