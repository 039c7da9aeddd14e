"""An update rule: assignments that lead from a weight, its gradient and its buffers to the next.

Expressions are entrywise: W is an entry of the weight, G the same entry of its gradient, a buffer
the same entry of the buffer. Whatever mixes entries has a line of its own: a gate, one number for
each column, or an operator, a matrix made of a matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import sympy as sp
from sympy.core.symbol import Str

from .coefficients import t

W, G = sp.symbols("W G")
W_0 = sp.Symbol("W_0")  # the weight before the first step
EPSILON = sp.Symbol("epsilon")  # keeps the norm of a zero column from dividing

Kind = Literal["state", "gate", "operator"]


def following(state: sp.Symbol) -> sp.Symbol:
    """A state's value after the step, in the lines that come after its own."""
    return sp.Symbol(f"{state.name}_next")


class Named(sp.Function):
    """A function known by its name, which SymPy must not look up among the numerical ones."""

    def _eval_evalf(self, prec: int) -> None:
        """No number, whatever the arguments."""


class column_norm(Named):
    """The Euclidean norm of a column, of which the argument is one entry."""


class inverse(Named):
    """`1 / x`, a named quantity: the checker does not divide."""


class root(Named):
    """The square root of an entry."""


class gate_of(Named):
    """An unknown gate: `gate_of(name, x, varies)`, a function of the column of x.

    varies: whether it may be another function for each column of each weight.
    """

    name = property(lambda self: self.args[0].name)


class operated(Named):
    """An operator on matrices: `operated(name, x)`, the entry of what it makes of x."""

    name = property(lambda self: self.args[0].name)


def operator(name: str, x: sp.Expr) -> sp.Expr:
    """The entry of what the named operator makes of the matrix with entry x."""
    return operated(Str(name), x)


def unknown_gate(name: str, x: sp.Expr, *, varies: bool = False) -> sp.Expr:
    """The named, otherwise unknown, function of the column with entry x."""
    return gate_of(Str(name), x, sp.true if varies else sp.false)


@dataclass(frozen=True)
class Line:
    """One assignment, `target ← expression`, at step t.

    kind: "state", a matrix of which the lines after this one see the new value as
    `following(target)`; "gate", one number for each column, seen as `target[t]`, or as
    `target[t + 1]` where it is made of new values, which is where `start` says what it is at
    time 0: the gate of the first weight, or 0; "operator", a matrix, seen as `target`, made of
    one state.
    """

    target: sp.Symbol
    expression: sp.Expr
    kind: Kind = "state"
    start: sp.Expr | None = None

    @property
    def seen(self) -> sp.Expr:
        """How later lines name the new value."""
        if self.kind == "state":
            return following(self.target)
        if self.kind == "operator":
            return self.target
        return sp.IndexedBase(self.target)[t if self.start is None else t + 1]


@dataclass(frozen=True)
class Rule(Mapping[sp.Symbol, sp.Expr]):
    """The lines of an update in order of computation, the weight's the last.

    buffers: the states beside the weight that remember; a state that is not among them is only
    made for an operator to act on. constants: what named constants are when the rule runs.
    As a mapping: from each target to its expression.
    """

    lines: tuple[Line, ...]
    buffers: tuple[sp.Symbol, ...] = ()
    constants: tuple[tuple[sp.Symbol, float], ...] = ()

    def __getitem__(self, target: sp.Symbol) -> sp.Expr:
        return self.line(target).expression

    def __iter__(self) -> Iterator[sp.Symbol]:
        return (line.target for line in self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def line(self, target: sp.Symbol) -> Line:
        """The line that assigns the target; `KeyError` where none does."""
        for line in self.lines:
            if line.target == target:
                return line
        raise KeyError(target)

    def of_kind(self, kind: Kind) -> tuple[Line, ...]:
        """The lines of one kind, in order."""
        return tuple(line for line in self.lines if line.kind == kind)

    @property
    def reads(self) -> dict[sp.Symbol, set[sp.Symbol]]:
        """By target, what its line reads: the gradient, states, gates, what operators make."""
        seen = {line.seen: line.target for line in self.of_kind("state")}
        known = {*self, G}
        found = {line.target: line.expression.atoms(sp.Symbol) for line in self.lines}
        # An indexed family has its name as a symbol.
        return {x: {seen.get(y, y) for y in read} & known for x, read in found.items()}

    @property
    def states(self) -> tuple[sp.Symbol, ...]:
        """What is carried from step to step: the buffers, then the weight."""
        return (*self.buffers, W)


def unfolded(lines: Iterable[Line]) -> dict[sp.Expr, sp.Expr]:
    """What each of these lines makes, by its name in later ones, in what there is before them."""
    made: dict[sp.Expr, sp.Expr] = {}
    for line in lines:
        made[line.seen] = line.expression.xreplace(made)
    return made
