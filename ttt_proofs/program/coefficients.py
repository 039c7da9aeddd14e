"""Coefficients: the numbers that a loop is given beside its tokens and weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import sympy as sp

Clock = Literal["loop", "step", "token"]
Shape = Literal["scalar", "row", "column", "entry"]

t = sp.Symbol("t", integer=True)


def choose(owner: object, **allowed: tuple[object, ...]) -> None:
    """Raise `ValueError` unless each named field has one of the allowed values."""
    for field, values in allowed.items():
        value = getattr(owner, field)
        if value not in values or type(value) not in map(type, values):
            names = ", ".join(map(repr, values))
            raise ValueError(f"`{field}` must be one of {names}; got {value!r}. Choose one.")


def united(shapes: Iterable[Shape]) -> Shape:
    """Which entries values tell apart when they are taken together."""
    found = set(shapes) - {"scalar"}
    return "scalar" if not found else found.pop() if len(found) == 1 else "entry"


def is_end(x: object) -> bool:
    """Whether this may be an end of a range."""
    return x is None or (isinstance(x, int | float) and not isinstance(x, bool) and x == x)


@dataclass(frozen=True)
class Coefficient:
    """How often a coefficient changes, which entries of a weight it tells apart, and its range.

    every: "loop", one for all steps; "step", one for each chunk's update; "token", one for each
    token. shape: "scalar", one for a whole matrix; "row", "column" or "entry", one for each row,
    column or entry of it. mean: of a coefficient that is given for each token, whether the update
    takes the mean over the chunk's tokens. range: the lowest and the highest value that layers
    and random draws give it, None where there is no bound.

    A run gets a number, or a tensor, of H heads and N = ceil(T / chunk) steps: "loop" one number
    (with a shape, `[H, *]`); "step" `[B, N, H, *]`; "token" `[B, T, H, *]`, where * is nothing,
    rows, columns, or rows and columns. Raises `ValueError` for another choice.

    >>> Coefficient("step").symbol("eta")
    eta[t]
    """

    every: Clock = "loop"
    shape: Shape = "scalar"
    range: tuple[float | None, float | None] = (0.0, 1.0)
    mean: bool = False

    def __post_init__(self) -> None:
        choose(self, every=get_args(Clock), shape=get_args(Shape), mean=(True, False))
        if self.mean and self.every != "token":
            raise ValueError(
                f"`mean` must be False for a coefficient of each {self.every}; got True. "
                "Only those of tokens have a mean over a chunk."
            )
        ends: object = self.range
        if not isinstance(ends, tuple | list) or len(ends) != 2 or not all(map(is_end, ends)):
            raise ValueError(
                f"`range` must be a pair of numbers, or None for no bound; got {ends!r}. Give two."
            )
        low, high = self.range
        object.__setattr__(self, "range", (low, high))
        if low is not None and high is not None and not low < high:
            raise ValueError(
                f"`range` must be a low and a higher number; got {self.range}. Exchange them."
            )

    def symbol(self, name: str) -> sp.Expr:
        """The coefficient in an update at step t: a symbol, or a family over steps.

        Which rows and columns it tells apart is not written; `shape` says it.
        """
        plain = self.every == "loop" and self.shape == "scalar"
        return sp.Symbol(name) if plain else sp.IndexedBase(name)[t]
