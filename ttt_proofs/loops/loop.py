"""The inner loop: a net, a loss, an update rule and a schedule. Data, compared by value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..program.coefficients import Coefficient, choose
from ..program.expressions import CHUNK, shown
from ..program.rules import Rule
from .code import from_code
from .copies import Unchanging, path
from .losses import Loss
from .nets import Net, Weight
from .rule import (
    Declared,
    Trained,
    Update,
    check_update,
    declare,
    with_code,
    written,
)
from .update import GradientStep

Read = Literal["after_update", "before_update", "causal"]
ReadWith = Literal["query", "key"]


@dataclass(frozen=True, repr=False)
class Schedule:
    """`chunk` tokens a step, and what is read when.

    read: "after_update" (inclusive) reads a chunk with the weights after its own update,
    "before_update" (exclusive) with those before it; "causal" reads each token with the weights
    as they are if the chunk's update counts that token and those before it, and no later ones.
    read_with: what the net is read with, the queries or, in their place, the keys.
    steps: how many update steps each chunk makes, each with the gradient where the last one led.
    update: "chunk", one update of each fast weight for a chunk, by the sum of its tokens' losses;
    or "token", one for each token, by that token's loss alone, with all gradients of a chunk taken
    at the weights before it. Then each token is read after, or before, its own update.
    single: whether the theorems speak of chunks of one token, which then has no index; for
    chunks of any length they say the same with a sum over tokens.

    The theorems hold for every chunk length, the same for all chunks, and with several steps for
    every number of them; these numbers are the ones used when the loop runs, whose last chunk may
    be shorter. Raises `ValueError` for a
    number below 1 or another choice.
    Source: Section 6.2, Appendix H (inclusive); LaCT as released (exclusive); Sections 4 and 5.2
    of arXiv 2602.21204 (the other fields).
    """

    chunk: int = 1
    read: Read = "after_update"
    read_with: ReadWith = "query"
    steps: int = 1
    single: bool = False
    update: Literal["chunk", "token"] = "chunk"

    __repr__ = shown

    def __post_init__(self) -> None:
        choose(
            self,
            read=get_args(Read),
            read_with=get_args(ReadWith),
            single=(True, False),
            update=("chunk", "token"),
        )
        for name, least in (("chunk", "the token recurrence"), ("steps", "a single update")):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer; got {value!r}. Use 1 for {least}."
                )
        if self.single and (self.chunk != 1 or self.read == "causal"):
            raise ValueError(
                "`single` must be False for chunks of several tokens or a causal "
                f"reading; got {self}. Leave it out."
            )

        if self.update == "token" and (self.steps > 1 or self.read == "causal"):
            raise ValueError(
                "`update` must be 'chunk' for several steps or a causal reading; got "
                f"{self}. Read after the update, in one step."
            )

    @property
    def by_token(self) -> bool:
        """Whether each token has an update of its own, with gradients at the chunk's start."""
        return self.update == "token" and self.chunk > 1

    @property
    def summed(self) -> int:
        """How many tokens' losses are summed for one update."""
        return 1 if self.by_token else self.chunk

    @property
    def reading(self) -> str:
        """What is read when, and with what, in words."""
        when = "causally" if self.read == "causal" else self.read.replace("_", " the ")
        return f"read {when}{', with keys' if self.read_with == 'key' else ''}"


@dataclass(frozen=True, repr=False)
class InnerLoop(Unchanging):
    """Test-time training with key-value binding: what happens between two tokens.

    For each chunk of keys K and values V, take a gradient step on `loss(net(K), V)`, and read
    `net(Q)` with the queries Q. Net and loss may be code: a function `net(x, W1, W2)` of tokens
    x `[L, K]`, or an `nn.Module`; a function `loss(f, v)` of outputs and values `[L, V]` to one
    number a token.

    coefficients: by name, those of the update, the keywords of its function, and what weighs
    tokens' losses; a `GradientStep` supplies its own. trained: the weights that move, "all", the
    "last" layer's, or some by name. state: the weight of the last layer of a net that is code, by
    default the one that is applied last. loss_weights: by weight, the coefficient that weighs each
    token's loss in its gradient. `loop.coefficients` has everything that a run gives numbers for.

    Loops are equal if nets, losses, schedules, the lines of their updates and what they declare
    are. A copy that cannot import an update's function has its lines alone. Raises `TypeError` for
    parts of other kinds, `ValueError` for code that cannot be read, with its line.
    Source: Section 3 of arXiv 2602.21204.

    >>> from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear, Schedule
    >>> InnerLoop(Linear(), Frobenius(), GradientStep(), Schedule(chunk=4)).coefficients
    {'eta': Coefficient(every='loop', shape='scalar', range=(0.0, 1.0), mean=False)}
    """

    net: Net
    loss: Loss
    update: Any = field(default_factory=GradientStep, compare=False)  # or an Update
    schedule: Schedule = field(default_factory=Schedule)
    coefficients: Mapping[str, Coefficient] = field(default_factory=dict, kw_only=True)
    trained: Trained = field(default="all", kw_only=True)
    state: str | None = field(default=None, compare=False, kw_only=True)
    loss_weights: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    rule: Rule = field(init=False)
    """How a gradient moves a weight, the same for all fast weights."""

    if TYPE_CHECKING:  # what may be given in place of a net and a loss, for a reader's type checker

        def __init__(
            self,
            net: Net | Callable[..., Any],
            loss: Loss | Callable[..., Any],
            update: GradientStep | Update = ...,
            schedule: Schedule = ...,
            *,
            coefficients: Mapping[str, Coefficient] = ...,
            trained: Trained = ...,
            state: str | None = ...,
            loss_weights: Mapping[str, str] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, value in from_code(self.net, self.loss, self.state).items():
            object.__setattr__(self, name, value)
        kinds = {
            "net": (Net,),
            "loss": (Loss,),
            "update": (GradientStep, Update),
            "schedule": (Schedule,),
        }
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or type(value) in (Net, Loss):  # these two are abstract
                raise TypeError(
                    f"`{name}` must be a {' or '.join(k.__name__ for k in kind)}; got "
                    f"{value!r}. See ttt_proofs.loops."
                )
        declare(self)
        tokens = self.net.tokens
        if tokens not in (None, self.schedule.chunk):
            raise ValueError(
                f"`chunk` must be {tokens}, the pixels of an image; got "
                f"{self.schedule.chunk}. Give each image a chunk."
            )
        for name, size in self.loss.fixed.items():
            if self.net.fixed.get(name, size) != size:
                raise ValueError(
                    f"`net` and `loss` must have one number for the width {name}; got "
                    f"{self.net.fixed[name]} and {size}. Correct one."
                )
        check_update(self)
        if tokens and self.schedule.by_token:
            raise ValueError(
                "`update` must be 'chunk' for images, whose tokens are seen together; got 'token'. "
                "Leave it out."
            )
        if tokens and self.rule.of_kind("operator"):
            raise ValueError(
                "`update` must have no operator for a convolution, whose channels are "
                f"apart; got {self.update!r}. Leave it out."
            )
        states = len(self.rule.of_kind("state")) == len(self.rule)
        plain = states and self.schedule.steps == 1
        if self.schedule.read == "causal" and not (plain and self.is_static):
            raise ValueError(
                "`read` must not be 'causal' unless the features are static and the "
                "update is one plain step or momentum, for a chunk's tokens must not "
                f"share a gate; got {self}. Read after the update."
            )

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Widths that have several indices in statements, or none."""
        return self.net.axes | ({CHUNK.name: ()} if self.schedule.single else {})

    @property
    def fixed(self) -> dict[str, int]:
        """The widths of which net and loss leave no choice, by name."""
        return self.net.fixed | dict(self.loss.fixed)

    def under(self, rule: Rule) -> InnerLoop:
        """The loop with the lines of another rule; weights, losses and coefficients stay."""
        # `trained` as it is: of an abstract φ, all weights moving is more than W alone.
        return self.declaring(Update(rule), self.schedule, dict(self.coefficients))

    @property
    def plain(self) -> InnerLoop:
        """The loop of one plain step, which has the same gradients; what weighs losses stays."""
        weighing = {name: self.coefficients[name] for name in self.loss_weights.values()}
        return self.declaring(GradientStep(None), Schedule(self.net.tokens or 1), weighing)

    def declaring(
        self, update: GradientStep | Update, schedule: Schedule, numbers: dict[str, Coefficient]
    ) -> InnerLoop:
        """The loop with another update, these coefficients, and its own loss weights."""
        weights = dict(self.loss_weights)
        return replace(
            self, update=update, schedule=schedule, coefficients=numbers, loss_weights=weights
        )

    @property
    def is_static(self) -> bool:
        """Whether the features φ never change: nothing before the last layer is trained."""
        only_last = self.trained != "all" and self.fast_weights == (self.net.last,)
        return only_last or self.net.has_static_features

    @property
    def fast_weights(self) -> tuple[Weight, ...]:
        """The weights that the inner loop updates, the last layer's last."""
        if self.trained == "last":
            return (self.net.last,)
        return tuple(w for w in self.net.weights if self.trained == "all" or w.name in self.trained)

    @property
    def update_coefficients(self) -> dict[str, Coefficient]:
        """The coefficients that the update itself is given."""
        weighing = set(self.loss_weights.values())
        return {name: c for name, c in self.coefficients.items() if name not in weighing}

    def __repr__(self) -> str:
        lines = f"Update({', '.join(written(self.rule))})"
        parts = [repr(self.net), repr(self.loss)]
        for f in fields(self)[2:-1]:
            value = getattr(self, f.name)
            value = dict(value.given) if isinstance(value, Declared) else value
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            if value != default:
                text = lines if isinstance(value, Update) else repr(value)
                parts.append(f"{f.name}={text}")
        return f"InnerLoop({', '.join(parts)})"

    def __getstate__(self) -> dict[str, Any]:
        own = self.update
        return self.__dict__ | {"update": path(own.function) if isinstance(own, Update) else own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(place := self.update, tuple):
            self.__dict__["update"] = with_code(place, self.rule, self.update_coefficients)
