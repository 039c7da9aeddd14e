"""A recurrence as the checker sees it: definitions of its states and its output, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from ..checker.definitions import Block, Define, sum_over
from ..checker.terms import Add, App, Atom, Ix, Lam, Mul, Num, Term, Var, ix
from ..loops.recurrence import OUTPUT, Recurrence
from ..program.coefficients import t
from ..program.operations import Abstract, Rowwise
from ..program.steps import FUNCTIONS, SINGLE, Axes, Contraction, Operation, View
from .bridge import product, scalar, variable
from .theory import NOW, T

SORTS = {"K": "D_k", "V": "D_v"}

Entry = tuple[Ix | None, ...]  # an index for each axis, none for an axis of one entry
Held = Callable[[str, tuple[Ix, ...], Ix], Term]  # a state's entry at a time


def every(axes: Axes) -> tuple[Var, ...]:
    """The index variables of some axes."""
    return tuple(variable(SORTS[axis], axes[:k].count(axis)) for k, axis in enumerate(axes))


def start(name: str, entry: tuple[Ix, ...]) -> Atom:
    """A state before the first token."""
    return Atom(f"{name}_0", entry)


class Terms:
    """Writes values of a step as terms: `term(number, entry, time)`.

    operations: those of the layer's step, perhaps with others after them. held: what stands for
    a state, by default the symbol of its name.
    """

    def __init__(
        self,
        layer: Recurrence,
        operations: Sequence[Operation] = (),
        held: Held = lambda name, entry, time: Atom(name, (time, *entry)),
    ) -> None:
        self.layer, self.held = layer, held
        self.operations = operations or layer.traced.operations
        self.made = layer.traced.made
        self.used: dict[str, int] = {}

    def fresh(self, axis: str) -> Var:
        """A bound index that nothing here has used; a state's own are the first two."""
        self.used[axis] = self.used.get(axis, 1) + 1
        return variable(SORTS[axis], self.used[axis])

    def term(self, k: int, entry: Entry, time: Ix, root: bool = False) -> Term:
        """An entry of a value at a time; root: of a state's new value, what it is made of."""
        operation = self.operations[k]
        at = tuple(index for index in entry if index is not None)
        if k in self.made and not root:
            return self.held(self.made[k], at, Ix(time.vars, time.shift + 1))
        if operation.does == "state":
            return self.held(operation.label, at, time)
        if operation.does in ("data", "coefficient"):
            kind = self.layer.coefficients.get(operation.label)
            times = () if kind and kind.every == "loop" else (time,)
            return Atom(operation.label, (*times, *at))
        if operation.does == "number":
            return number(operation)
        if isinstance(operation.does, View):
            return self.viewed(operation, entry, time)
        if isinstance(operation.does, Contraction):
            return self.contracted(operation.does, operation.args, entry, time)
        row = None if isinstance(operation.does, Abstract) else FUNCTIONS.get(operation.does)
        if isinstance(row, Rowwise):
            column = self.fresh(operation.axes[-1])
            inner = self.term(operation.args[0], (*entry[:-1], ix(column)), time)
            return App(row.name, (at[-1],), (Lam((column,), inner),))
        args = [self.term(a, self.aligned(entry, a), time) for a in operation.args]
        if operation.does == "add":
            return Add(tuple(args))
        if operation.does == "multiply":
            return product(args)
        if operation.does == "scale":
            return product([number(operation), *args])
        if operation.does == "power":
            return Mul(tuple(args) * int(operation.factor))
        x = sp.Symbol("x")
        function = row or operation.does
        return scalar(function.value(x), {x: args[0]})  # pyright: ignore

    def aligned(self, entry: Entry, k: int) -> Entry:
        """The entry of an operand that is taken together with others."""
        axes = self.operations[k].axes
        last = entry[len(entry) - len(axes) :]
        return tuple(None if a == SINGLE else x for x, a in zip(last, axes, strict=True))

    def viewed(self, operation: Operation, entry: Entry, time: Ix) -> Term:
        """An entry of a value whose axes are in another order."""
        (inner,) = operation.args
        places: list[Ix | None] = [None] * len(self.operations[inner].axes)
        for index, k in zip(entry, operation.does.order, strict=True):  # pyright: ignore
            if k is not None:
                places[k] = index
        return self.term(inner, tuple(places), time)

    def contracted(self, spec: Contraction, args: tuple[int, ...], entry: Entry, time: Ix) -> Term:
        """An entry of a product that is summed over axes."""
        places: dict[str, Ix | None] = dict(zip(spec.out, entry, strict=True))
        bound: list[Var] = []
        for letters, k in zip(spec.operands, args, strict=True):
            for letter, axis in zip(letters, self.operations[k].axes, strict=True):
                if letter not in places and axis == SINGLE:
                    places[letter] = None
                elif letter not in places:
                    bound.append(self.fresh(axis))
                    places[letter] = ix(bound[-1])
        factors = [
            self.term(k, tuple(places[letter] for letter in letters), time)
            for letters, k in zip(spec.operands, args, strict=True)
        ]
        return sum_over(tuple(bound), product(factors))


def number(operation: Operation) -> Num:
    """The number of an operation."""
    return Num(operation.factor.numerator, operation.factor.denominator)


def output_term(terms: Terms) -> Term:
    """The output at time t, in its own index."""
    return terms.term(terms.layer.traced.output, places(OUTPUT), NOW)


def places(axes: Axes) -> tuple[Ix, ...]:
    """The entry that the index variables of some axes name."""
    return tuple(map(ix, every(axes)))


def closed(form: Any, last: sp.Expr, operations: Sequence[Operation] = ()) -> Terms:
    """Writes terms of the step with a form's states, `last` the newest, in place of symbols."""

    def held(name: str, entry: tuple[Ix, ...], time: Ix) -> Term:
        return form.after(terms, name, entry, last if time == ix(T, 1) else last - 1)

    terms = Terms(form.layer, operations, held)  # which `held` goes back to
    return terms


def index_of(last: sp.Expr) -> Ix:
    """The time t, or t - 1."""
    return ix(T, int(last - t))


def definitions(layer: Recurrence) -> tuple[Block, ...]:
    """The recurrence, as definitions that the checker admits: states from their start, outputs."""
    step, states = layer.traced, []
    for name, k in step.states:
        axes = layer.states[name]
        own = step.made.get(k) == name
        term = Terms(layer).term(k, places(axes), NOW, root=own)
        states.append(Define(name, (T, *every(axes)), term, start(name, places(axes))))
    output = Define("o", (T, *every(OUTPUT)), output_term(Terms(layer)))
    return (tuple(states), (output,))
