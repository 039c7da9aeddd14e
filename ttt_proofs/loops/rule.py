"""Update rules that users write: a function, which a loop traces into lines; what is declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..program.coefficients import Coefficient
from ..program.names import IN_LINES, OF_COEFFICIENTS, TAILS
from ..program.rule_lines import required, signature, traced
from ..program.rule_tracing import zeros_like
from ..program.rules import Rule, W
from .copies import Path, Unchanging, imported
from .update import GradientStep

if TYPE_CHECKING:
    from .loop import InnerLoop

Trained = Literal["all", "last"] | tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Declared(Mapping[str, T]):
    """What is declared by name: `given` to a loop, and `supplied` by its update. Hashable.

    A loop made of this one, as by `dataclasses.replace`, is given `given` anew, and what its own
    update supplies.
    """

    given: Mapping[str, T]
    supplied: Mapping[str, T]

    def __getitem__(self, name: str) -> T:
        return self.supplied[name] if name in self.supplied else self.given[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.given
        yield from self.supplied

    def __len__(self) -> int:
        return len(self.supplied) + len(self.given)

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Declared, (dict(self.given), dict(self.supplied))


@dataclass(frozen=True, repr=False)
class Update(Unchanging):
    """An update rule as code: a function of a weight, its gradient, buffers and coefficients.

        def rule(W, g, M, *, alpha, eta):
            M = eta * M - g
            return (1 - alpha) * W + M, M

        Update(rule, {"M": zeros_like})

    It runs once for each chunk and fast weight, with g the gradient of the chunk's loss, and
    returns the new weight, then the new buffers in the order of its arguments. It is entrywise
    but for `column_norm`, `unknown_gate` and `operator`, and runs on tensors `[..., rows, cols]`
    as it stands. An argument named `W_0` is given the weight before the first step; all others
    without a default are coefficients, which the loop declares.

    code: the function, or the lines of a rule. buffers: by name, a function from the weight to
    the start, which is zero (`zeros_like`). Raises `ValueError` or `TypeError` in one sentence for
    a function that takes no such arguments. Source: Section 3 of arXiv 2602.21204.
    """

    code: Callable[..., Any] | Rule
    buffers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.buffers, Mapping):
            raise TypeError(
                f"`buffers` must be a dict; got {self.buffers!r}. Give names and values."
            )
        for name, begin in self.buffers.items():
            if not callable(begin):
                raise TypeError(
                    f"the start of the buffer `{name}` must be a function of the weight; got "
                    f"{begin!r}. Use zeros_like."
                )
        if isinstance(self.code, Rule):
            order = tuple(symbol.name for symbol in self.code.buffers)
        else:
            names = [name for name in required(self.code) if name not in self.buffers]
            order = signature(self.code, self.buffers, tuple(names)).buffers
        held = {name: self.buffers.get(name, zeros_like) for name in order}
        object.__setattr__(self, "buffers", Declared(held, {}))

    @property
    def function(self) -> Callable[..., Any] | None:
        """The code itself; None where there are only its lines."""
        return None if isinstance(self.code, Rule) else self.code

    def lines(self, coefficients: Mapping[str, Coefficient]) -> Rule:
        """The lines of the code, with these coefficients; raises `ValueError` for what is none."""
        if isinstance(self.code, Rule):
            return self.code
        return traced(self.code, self.buffers, coefficients)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", None)
        return f"Update({name or ', '.join(written(self.lines({})))})"


def written(rule: Rule) -> list[str]:
    """The lines of a rule as text."""
    return [f"{line.seen} = {line.expression}" for line in rule.lines]


def with_code(where: Path, rule: Rule, update_coefficients: Mapping[str, Coefficient]) -> Update:
    """The update with its code, imported; the lines alone where that is not to be had."""
    lines, found = Update(rule), imported(where)
    if found is None:
        return lines
    try:
        again = Update(found, dict(lines.buffers))
        return again if again.lines(update_coefficients) == rule else lines
    except (TypeError, ValueError):
        return lines


def declare(loop: InnerLoop) -> None:
    """Put what a loop was given together with what its update supplies, and read the update.

    Raises `ValueError` or `TypeError` for what does not fit.
    """
    given: dict[str, dict[str, Any]] = {}
    for name in ("coefficients", "loss_weights"):
        value = getattr(loop, name)
        value = value.given if isinstance(value, Declared) else value
        if not isinstance(value, Mapping):
            raise TypeError(f"`{name}` must be a dict; got {value!r}. Give names and values.")
        given[name] = dict(value)
    check_trained(loop)
    library = isinstance(loop.update, GradientStep)
    own = loop.update.coefficients if library else {}
    weighing = loop.update.loss_weights(loop.fast_weights) if library else {}
    supplied = {"coefficients": own | each_token(weighing.values()), "loss_weights": weighing}
    own_names = set(supplied["coefficients"])
    for name, values in given.items():
        if twice := [each for each in values if each in supplied[name]]:
            raise ValueError(
                f"`{name}` must leave out what the update supplies itself; got "
                f"{', '.join(twice)} with {loop.update}. Leave it out."
            )
    weights = Declared(given["loss_weights"], weighing)
    names = [name for name in weights.values() if name not in given["coefficients"]]
    numbers = Declared(given["coefficients"], supplied["coefficients"] | each_token(names))
    object.__setattr__(loop, "loss_weights", weights)
    object.__setattr__(loop, "coefficients", numbers)
    check_loss_weights(loop)
    check_names(loop.update.buffers, [name for name in numbers if name not in own_names])
    check_coefficients(loop)
    if library and (idle := [name for name in loop.update_coefficients if name not in own]):
        raise ValueError(
            f"every coefficient must be of the update or weigh losses; got `{idle[0]}` with "
            f"{loop.update}. Leave it out, or name it in `loss_weights`."
        )
    rule = loop.update.rule if library else loop.update.lines(loop.update_coefficients)
    object.__setattr__(loop, "rule", rule)


def each_token(names: Iterable[str]) -> dict[str, Coefficient]:
    """One number for each token under each of these names."""
    return dict.fromkeys(names, Coefficient("token"))


def check_trained(loop: InnerLoop) -> None:
    """Raise `ValueError` unless `trained` says which weights of the net move, the last included."""
    trained, weights = loop.trained, [weight.name for weight in loop.net.weights]
    named = isinstance(trained, tuple) and trained and all(isinstance(n, str) for n in trained)
    if trained not in ("all", "last") and not named:
        raise ValueError(
            f"`trained` must be 'all', 'last' or a tuple of weights' names; got {trained!r}. "
            "Choose one."
        )
    if named and (set(trained) - set(weights) or loop.net.last.name not in trained):
        raise ValueError(
            f"`trained` must name weights of the net, {loop.net.last.name} among them, which "
            f"is applied last; got {trained}. Choose from {', '.join(weights)}."
        )
    if trained == "all" and loop.net.frozen:
        raise ValueError(
            f"`trained` must name the weights that move, for the module has frozen ones; got 'all' "
            f"and {loop.net.frozen[0]} without `requires_grad`. Choose from {', '.join(weights)}."
        )


def check_loss_weights(loop: InnerLoop) -> None:
    """Raise `ValueError` unless the weights whose losses are weighed move."""
    moving = [weight.name for weight in loop.fast_weights]
    if idle := set(loop.loss_weights) - set(moving):
        raise ValueError(
            f"`loss_weights` must name weights that move; got {', '.join(sorted(idle))}. "
            f"Choose from {', '.join(moving)}."
        )


def check_names(buffers: Iterable[str], coefficients: Iterable[str]) -> None:
    """Raise `ValueError` unless buffers and coefficients have names of their own."""
    buffers = list(buffers)
    for name, many in Counter([*buffers, *coefficients]).items():
        usable = isinstance(name, str) and name.isidentifier() and not name.endswith(TAILS)
        if not usable or many > 1 or name in (IN_LINES if name in buffers else OF_COEFFICIENTS):
            raise ValueError(
                f"a buffer or coefficient must have a name of its own, no word of statements; "
                f"got {name!r}. Rename it."
            )


def check_coefficients(loop: InnerLoop) -> None:
    """Raise `ValueError` or `TypeError` for what are no coefficients, or weigh no losses."""
    for name, c in loop.coefficients.items():
        if not isinstance(c, Coefficient):
            raise TypeError(f"`{name}` must be a Coefficient; got {c!r}. Say how often it changes.")
        weighs = name not in loop.update_coefficients
        if weighs and (c.every, c.shape, c.mean) != ("token", "scalar", False):
            raise ValueError(
                f"a loss weight must be one number for each token; got {c} for `{name}`. "
                "Declare Coefficient('token')."
            )


def check_update(loop: InnerLoop) -> None:
    """Raise `ValueError` unless the loop's update suits its net and its schedule."""
    weights = [weight.name for weight in loop.net.weights]
    moving = [weight.name for weight in loop.fast_weights]
    by_chunk = loop.schedule.update == "chunk"
    for name, c in loop.update_coefficients.items():
        if c.every == "token" and not c.mean and by_chunk:
            raise ValueError(
                "within an update of chunks a coefficient of each token must be `mean=True` or a "
                f"loss weight; got {c} for `{name}`. Take its mean, let it weigh the loss, or "
                "update by token."
            )
    shaped = [name for name, c in loop.coefficients.items() if c.shape != "scalar"]
    if shaped and len(moving) > 1:
        raise ValueError(
            f"a coefficient of rows, columns or entries must be of one fast weight; got "
            f"`{shaped[0]}` where {', '.join(moving)} move. Train the last."
        )
    made = [line.target.name for line in loop.rule.lines if line.target != W]
    own = [f"{name}_{w}" for w in moving for name in (*made, "G", "X")] + weights
    parts = {f"{letter}{n}_{w}" for w in moving for letter in "SAB" for n in ("", 0)} - set(own)
    tailed = [name + tail for name in (*own, *parts) for tail in ("", *TAILS)]
    names = Counter([*loop.coefficients, *tailed])
    if double := [name for name, many in names.items() if many > 1]:
        raise ValueError(
            f"weights, buffers and coefficients must have names of their own; got `{double[0]}` "
            "twice. Rename one."
        )
