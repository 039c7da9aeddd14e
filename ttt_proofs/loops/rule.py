"""Update rules that users write: a function, traced into lines, with what it is given."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ..program.coefficients import Coefficient
from ..program.rule_lines import signature, traced
from ..program.rule_tracing import INITIAL, zeros_like
from ..program.rules import W_0, G, Rule, W

if TYPE_CHECKING:
    from .loop import InnerLoop

Trained = Literal["all", "last"] | tuple[str, ...]

# Names that mean something in an update's lines, and in statements, where buffers are `M_W`.
IN_LINES = {INITIAL, "epsilon", "torch", *(symbol.name for symbol in (W, G, W_0))}
TAKEN = IN_LINES | {"q", "k", "v", "o", "t", "i", "j", "s", "u", "X", "V", "F", "rows", "visible"}
TAILS = ("", "_0", "_next", "_seen", "_in", "_a", "_b", "_ab")


@dataclass(frozen=True, eq=False, repr=False)
class Update:
    """An update rule as code: a function of a weight, its gradient, buffers and coefficients.

        def rule(W, g, M, *, alpha, eta):
            M = eta * M - g
            return (1 - alpha) * W + M, M

        Update(rule, {"M": zeros_like}, {"alpha": Coefficient("step"), "eta": Coefficient()})

    It runs once for each chunk and fast weight, with g the gradient of the chunk's loss, and
    returns the new weight, then the new buffers in the order of its arguments. It is entrywise
    but for `column_norm`, `unknown_gate` and `operator`, and runs on tensors `[..., rows, cols]`
    as it stands. An argument named `W_0` is given the weight before the first step.

    code: the function, or the lines of a rule. buffers: by name, a function from the weight to
    the start, which is zero (`zeros_like`). coefficients: by name, the rule's keywords, and what
    weighs tokens' losses. trained: the weights that move, "all", the "last" layer's, or some by
    name. loss_weights: by weight, the coefficient that weighs each token's loss in its gradient.

    Updates are equal if their lines and all else that they declare are. A copy that cannot import
    the function has the lines alone. Raises `ValueError` or `TypeError` in one sentence, with the
    line, for code that is no rule. Source: Section 3 of arXiv 2602.21204.
    """

    code: Callable[..., Any] | Rule
    buffers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    coefficients: Mapping[str, Coefficient] = field(default_factory=dict)
    trained: Trained = "all"
    loss_weights: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mappings = {name: getattr(self, name) for name in ("buffers", "coefficients")}
        for name, value in (mappings | {"loss_weights": self.loss_weights}).items():
            if not isinstance(value, Mapping):
                raise TypeError(f"`{name}` must be a dict; got {value!r}. Give names and values.")
        each = dict(self.coefficients)
        for name in self.loss_weights.values():
            each.setdefault(name, Coefficient("token"))
        buffers = dict(self.buffers)
        if isinstance(self.code, Rule):
            buffers = {s.name: buffers.get(s.name, zeros_like) for s in self.code.buffers}
        for name, value in (("buffers", buffers), ("coefficients", each)):
            object.__setattr__(self, name, MappingProxyType(value))
        object.__setattr__(self, "loss_weights", MappingProxyType(dict(self.loss_weights)))
        check_trained(self.trained)
        check_names(self)
        check_coefficients(self)
        if not isinstance(self.code, Rule):
            order = signature(self.code, buffers, tuple(self.of_rule)).buffers
            ordered = MappingProxyType({name: buffers[name] for name in order})
            object.__setattr__(self, "buffers", ordered)
        _ = self.rule  # raises for what is no rule

    @cached_property
    def rule(self) -> Rule:
        """The lines of the code."""
        if isinstance(self.code, Rule):
            return self.code
        return traced(self.code, self.buffers, self.of_rule)

    @property
    def function(self) -> Callable[..., Any] | None:
        """The code itself; None where there are only its lines."""
        return None if isinstance(self.code, Rule) else self.code

    @property
    def of_rule(self) -> dict[str, Coefficient]:
        """The coefficients that the rule itself is given."""
        weighing = set(self.loss_weights.values())
        return {name: c for name, c in self.coefficients.items() if name not in weighing}

    def call(
        self,
        weight: Any,
        gradient: Any,
        buffers: Mapping[str, Any],
        coefficients: Mapping[str, Any],
        initial: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """The new weight and buffers, by the code: all `[..., rows, cols]` or broadcast to it.

        initial: the weight before the first step. Raises `ValueError` where there is no code.
        """
        if self.function is None:
            raise ValueError(f"an update that runs must have its code; got {self}. Import it.")
        how = signature(self.function, self.buffers, tuple(self.of_rule))
        return how.call(self.function, weight, gradient, buffers, coefficients, initial)

    def loss_weight(self, weight: str) -> str | None:
        """The name of what weighs each token's loss in this weight's gradient, if anything does."""
        return self.loss_weights.get(weight)

    @property
    def bare(self) -> Update:
        """The plain step of the same weights, with the same losses."""
        return Update(PLAIN, trained=self.trained, loss_weights=self.loss_weights)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two equal updates share."""
        declared = (frozenset(self.coefficients.items()), frozenset(self.loss_weights.items()))
        return (self.rule, self.trained, *declared)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Update) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        lines = ", ".join(f"{line.seen} = {line.expression}" for line in self.rule.lines)
        options = {"trained": self.trained} if self.trained != "all" else {}
        options |= {"loss_weights": dict(self.loss_weights)} if self.loss_weights else {}
        return f"Update({lines}{''.join(f'; {n}={v!r}' for n, v in options.items())})"

    def __copy__(self) -> Update:
        return self

    def __deepcopy__(self, memo: object) -> Update:
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[Any, ...]:
        where = (
            getattr(self.function, "__module__", ""),
            getattr(self.function, "__qualname__", ""),
        )
        declared = (dict(self.coefficients), self.trained, dict(self.loss_weights))
        return restored, (where, self.rule, *declared)


def restored(where: tuple[str, str], rule: Rule, *declared: Any) -> Update:
    """The update with its code, imported; its lines alone where that is not to be had."""
    lines = Update(rule, {}, *declared)
    found = imported(*where)
    if found is None:
        return lines
    try:
        again = Update(found, dict(lines.buffers), *declared)
    except (TypeError, ValueError):
        return lines
    return again if again == lines else lines


def imported(module: str, name: str) -> Any:
    """A function by its import path; None where there is none."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found


def check_trained(trained: object) -> None:
    """Raise `ValueError` unless this says which weights move."""
    named = isinstance(trained, tuple) and trained and all(isinstance(n, str) for n in trained)
    if trained not in ("all", "last") and not named:
        raise ValueError(
            f"`trained` must be 'all', 'last' or a tuple of weights' names; got {trained!r}. "
            "Choose one."
        )


def check_names(update: Update) -> None:
    """Raise `ValueError` unless buffers and coefficients have names of their own."""
    names = [*update.buffers, *update.coefficients]
    for name, many in Counter(names).items():
        usable = isinstance(name, str) and name.isidentifier() and not name.endswith(TAILS[1:])
        if not usable or many > 1 or name in (IN_LINES if name in update.buffers else TAKEN):
            raise ValueError(
                f"a buffer or coefficient must have a name of its own, no word of statements; "
                f"got {name!r}. Rename it."
            )
    for name, begin in update.buffers.items():
        if not callable(begin):
            raise TypeError(
                f"the start of the buffer `{name}` must be a function of the weight; got "
                f"{begin!r}. Use zeros_like."
            )


def check_coefficients(update: Update) -> None:
    """Raise `ValueError` or `TypeError` for what are no coefficients, or weigh no losses."""
    for name, c in update.coefficients.items():
        if not isinstance(c, Coefficient):
            raise TypeError(f"`{name}` must be a Coefficient; got {c!r}. Say how often it changes.")
        if name not in update.of_rule and (c.every, c.shape, c.mean) != ("token", "scalar", False):
            raise ValueError(
                f"a loss weight must be one number for each token; got {c} for `{name}`. "
                "Declare Coefficient('token')."
            )


def check_update(loop: InnerLoop) -> None:
    """Raise `ValueError` unless the loop's update suits its net."""
    update, weights = loop.update, [weight.name for weight in loop.net.weights]
    if isinstance(update.trained, tuple):
        strange = set(update.trained) - set(weights)
        if strange or loop.net.last.name not in update.trained:
            raise ValueError(
                f"`trained` must name weights of the net, {loop.net.last.name} among them, which "
                f"is applied last; got {update.trained}. Choose from {', '.join(weights)}."
            )
    frozen: tuple[str, ...] = getattr(loop.net, "frozen", ())
    if update.trained == "all" and frozen:
        raise ValueError(
            f"`trained` must name the weights that move, for the module has frozen ones; got 'all' "
            f"and {frozen[0]} without `requires_grad`. Choose from {', '.join(weights)}."
        )
    moving = [weight.name for weight in loop.fast_weights]
    if isinstance(update, Update) and (idle := set(update.loss_weights) - set(moving)):
        raise ValueError(
            f"`loss_weights` must name weights that move; got {', '.join(sorted(idle))}. "
            f"Choose from {', '.join(moving)}."
        )
    by_chunk = loop.schedule.update == "chunk"
    for name, c in update.coefficients.items():
        weighs = name in loop.loss_weights.values()
        if not weighs and c.every == "token" and not c.mean and by_chunk:
            raise ValueError(
                "within an update of chunks a coefficient of each token must be `mean=True` or a "
                f"loss weight; got {c} for `{name}`. Take its mean, let it weigh the loss, or "
                "update by token."
            )
    shaped = [name for name, c in update.coefficients.items() if c.shape != "scalar"]
    if shaped and len(moving) > 1:
        raise ValueError(
            f"a coefficient of rows, columns or entries must be of one fast weight; got "
            f"`{shaped[0]}` where {', '.join(moving)} move. Train the last."
        )
    made = [line.target.name for line in update.rule.lines if line.target != W]
    own = [f"{name}_{w}" for w in moving for name in (*made, "G", "X")] + weights
    parts = {f"{letter}{n}_{w}" for w in moving for letter in "SAB" for n in ("", 0)} - set(own)
    tailed = [name + tail for name in (*own, *parts) for tail in TAILS]
    names = Counter([*loop.coefficients, *tailed])
    if double := [name for name, many in names.items() if many > 1]:
        raise ValueError(
            f"weights, buffers and coefficients must have names of their own; got `{double[0]}` "
            "twice. Rename one."
        )


PLAIN = traced(lambda W, g: W - g, {}, {})
