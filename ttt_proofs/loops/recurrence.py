"""Layers known by their recurrence alone: what a token does to some states, and what is read."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from ..checker.terms import NAME
from ..program.coefficients import Coefficient
from ..program.names import CARRIED, OF_RECURRENCES, STARTS
from ..program.step_tracing import read_step
from ..program.steps import SINGLE, Axes, StepProgram
from ..program.tracing import head, home
from .copies import Unchanging, path, restored
from .loop import Schedule

DATA: Mapping[str, Axes] = MappingProxyType({"q": ("K",), "k": ("K",), "v": ("V",)})
OUTPUT: Axes = ("V",)


@dataclass(frozen=True, eq=False, repr=False)
class Recurrence(Unchanging):
    """A layer as code: what one token does to some states, and what is read of them.

        def gated_delta(S, q, k, v, *, alpha, beta):
            S = alpha * (S - beta * outer(k, k @ S)) + beta * outer(k, v)
            return S, q @ S

        token = Coefficient("token")
        Recurrence(gated_delta, {"S": ("K", "V")}, {"alpha": token, "beta": token})

    step: for each token, from the states before it, q and k `[K]`, v `[V]` and the coefficients,
    all by the names of its arguments, the states after it, in the order of `states`, and then the
    output `[V]`; it uses `+ - * / @`, `outer`, views such as `x[:, None]`, and the functions of
    the table of operations. states: the widths of each state's axes, "K" or "V", by name; a state
    is a number, a vector or a matrix, and begins with zeros, or as a run is given it.
    coefficients: by name, those of each token, or one for the whole loop. A coefficient of rows
    comes as `[K, 1]`, one of columns as `[1, V]`, one of entries as `[K, V]`, for matrix states
    `("K", "V")`, which all have the same axes then.

    Recurrences are equal if their steps, as they are read off the code, and what they declare are.
    A copy that cannot import the function has no oracle. Raises `ValueError` or `TypeError` in one
    sentence, with the line, for code that is no such step.
    """

    step: Callable[..., Any] | StepProgram
    states: Mapping[str, Axes]
    coefficients: Mapping[str, Coefficient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("states", "coefficients"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise TypeError(f"`{name}` must be a dict; got {value!r}. Give names and values.")
        states = {name: check_axes(name, axes) for name, axes in self.states.items()}
        if not states:
            raise ValueError("`states` must name at least one state; got none. Add it.")
        object.__setattr__(self, "states", MappingProxyType(states))
        object.__setattr__(self, "coefficients", MappingProxyType(dict(self.coefficients)))
        check_names(self)
        check_coefficients(self)
        _ = self.traced  # raises for what is no step

    @property
    def schedule(self) -> Schedule:
        """One token a step."""
        return Schedule()

    @property
    def function(self) -> Callable[..., Any] | None:
        """The code itself; None where there is only what was read off it."""
        return None if isinstance(self.step, StepProgram) else self.step

    @cached_property
    def traced(self) -> StepProgram:
        """The operations of the step."""
        if isinstance(self.step, StepProgram):
            return self.step
        given = {name: self.axes(name) for name in self.coefficients}
        return read_step(self.called, self.states, DATA, given, OUTPUT, home(self.step))

    def axes(self, coefficient: str) -> Axes:
        """The axes with which a coefficient comes to the step."""
        rows, cols = self.sides
        shape = self.coefficients[coefficient].shape
        kept = {"row": (rows, SINGLE), "column": (SINGLE, cols), "entry": (rows, cols)}
        return kept.get(shape, ())

    @property
    def sides(self) -> Axes:
        """The widths of rows and columns, those of the first matrix state."""
        return next((axes for axes in self.states.values() if len(axes) == 2), ("", ""))

    def called(
        self, states: Mapping[str, Any], data: Mapping[str, Any], coefficients: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Any]:
        """One call of the code, all by name: the new states and the output, as it returns them."""
        if self.function is None:
            raise ValueError(
                f"`step` must be a function to be called; got what was read off one: {self!r}. "
                "Make the recurrence from its code."
            )
        given = {**states, **data, **coefficients}
        args, named = [], {}
        for p in inspect.signature(self.function).parameters.values():
            if p.kind is p.POSITIONAL_ONLY:
                args.append(given.get(p.name, p.default))
            elif p.name in given:
                named[p.name] = given[p.name]
        found = self.function(*args, **named)
        values = found if isinstance(found, tuple | list) else (found,)
        if len(values) != len(self.states) + 1:
            wanted = ", ".join([*self.states, "the output"])
            raise ValueError(
                f"`step` must return {wanted}; got {len(values)} from {head(self.function)}. "
                f"Return {len(self.states) + 1} tensors."
            )
        return dict(zip(self.states, values, strict=False)), values[-1]

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two equal recurrences share."""
        return (self.traced, tuple(self.states.items()), frozenset(self.coefficients.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recurrence) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", "no code")
        states = ", ".join(f"{n} [{', '.join(axes)}]" for n, axes in self.states.items())
        return f"Recurrence({name}: {states}; {', '.join(self.coefficients) or 'no coefficients'})"

    def __reduce__(self) -> tuple[Any, ...]:
        declared = (dict(self.states), dict(self.coefficients))
        return restored, (Recurrence, path(self.function), self.traced, *declared)


def check_axes(name: object, axes: object) -> Axes:
    """The axes of a state as a tuple; `ValueError` for others than those of q, k and v."""
    if isinstance(axes, tuple | list) and len(axes) <= 2 and {"K", "V"}.issuperset(axes):
        return tuple(axes)
    raise ValueError(
        f"a state must have at most two axes, of the widths 'K' and 'V'; got {axes!r} for "
        f"{name!r}. Write ('K', 'V')."
    )


def check_names(layer: Recurrence) -> None:
    """Raise unless the step is a function whose arguments are named, and each by one name."""
    names = Counter([*layer.states, *layer.coefficients])
    tailed = {name + tail for name in layer.states for tail in STARTS + CARRIED}
    for name, many in names.items():
        usable = isinstance(name, str) and NAME.fullmatch(name)
        if not usable or many > 1 or name in OF_RECURRENCES or name in tailed:
            raise ValueError(
                f"a state or coefficient must have a name of its own, no word of statements; got "
                f"{name!r}. Rename it."
            )
    if isinstance(layer.step, StepProgram):
        return
    try:
        found = inspect.signature(layer.step).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(
            f"`step` must be a Python function; got {layer.step!r}. Write one."
        ) from None
    told, known = head(layer.step), {*names, *DATA}
    strange = [p.name for p in found if p.name not in known and p.default is p.empty]
    missing = [name for name in names if name not in {p.name for p in found}]
    if strange:
        raise ValueError(
            "every argument of a step must be q, k, v, a state or a coefficient that is declared; "
            f"got `{strange[0]}` in {told}. Declare it in `states` or `coefficients`."
        )
    if missing:
        raise ValueError(
            f"every state and coefficient must be an argument of the step; `{missing[0]}` is none "
            f"in {told}. Add it there, or do not declare it."
        )


def check_coefficients(layer: Recurrence) -> None:
    """Raise `ValueError` or `TypeError` for coefficients that a token cannot have."""
    matrices = {axes for axes in layer.states.values() if len(axes) == 2}
    for name, c in layer.coefficients.items():
        if not isinstance(c, Coefficient):
            raise TypeError(f"`{name}` must be a Coefficient; got {c!r}. Say how often it changes.")
        if c.every == "step" or c.mean:
            raise ValueError(
                f"a coefficient of a recurrence must be one for each token or for the loop; got "
                f"{c} for `{name}`. Declare Coefficient('token')."
            )
        if c.shape != "scalar" and len(matrices) != 1:
            raise ValueError(
                f"a coefficient of rows, columns or entries must be of matrix states of the same "
                f"axes; got `{name}` where they are {sorted(matrices) or 'none'}. Use vectors' "
                "states with scalar coefficients."
            )
