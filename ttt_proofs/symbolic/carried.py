"""Recurrences that are affine in states together: each write, carried on from token to token.

With `X[t+1] = A_t X[t] + b_t`, X some states that read each other, A_t any linear map and b_t any
write that data and the states before X give,

    X[t] = Z[t] + Σ_{i=0..t-1} U[i, t],    Z[0] = X_0,   Z[t+1] = A_t Z[t],
                                           U[i, 0] = 0,  U[i, t+1] = A_t U[i, t] + [i = t] b_t.

Where A_t leaves rows or columns to themselves and writes are outer products with one value v, so
are the carried writes, `U[i, t] = κ[i, t] ⊗ v[i]`: linear attention with carried keys κ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..checker.definitions import ONE, ZERO, Block, Define
from ..checker.terms import (
    TIME,
    Add,
    Atom,
    Ix,
    Mul,
    Sum,
    Term,
    Var,
    free,
    ix,
    rebuild,
    substitute,
    symbols,
)
from ..loops.recurrence import Recurrence
from ..program.names import CARRIED
from .bridge import added, at, product
from .linear_attention import PAST
from .step_terms import Terms, every, places, start
from .theory import NOW, T

START, WRITE, KEY = CARRIED
Parts = tuple[Term | None, Term | None]  # linear in some symbols, and free of them


class NotAffineError(ValueError):
    """A term is not affine in some symbols."""


def total(parts: Iterable[Term | None]) -> Term | None:
    """The sum of the parts that are not None; None where all are."""
    there = [part for part in parts if part is not None]
    return added(there) if there else None


def equal(a: Ix, b: Ix) -> Term:
    """`[a = b]`, 1 where the times are equal and else 0: Σ_{u=a..b} Σ_{w=b..a} 1."""
    return Sum(Var("u", TIME), a, b, Sum(Var("w", TIME), b, a, ONE))


def at_most(a: Ix, b: Ix) -> Term:
    """`[a ≤ b]`, 1 where one time is at most the other and else 0: Σ_{u=a..b} Σ_{w=u..a} 1."""
    u = Var("u", TIME)
    return Sum(u, a, b, Sum(Var("w", TIME), ix(u), a, ONE))


def affine(term: Term, names: Collection[str]) -> Parts:
    """A term as the sum of a part linear in the symbols of these names and one without them."""
    if symbols(term).isdisjoint(names):
        return None, term
    if isinstance(term, Atom):
        return term, None
    if isinstance(term, Add):
        parts = [affine(part, names) for part in term.terms]
        return total(x for x, _ in parts), total(x for _, x in parts)
    if isinstance(term, Sum):
        linear, rest = affine(term.body, names)
        inside = partial(Sum, term.var, term.low, term.high)
        return linear and inside(linear), rest and inside(rest)
    factors = term.factors if isinstance(term, Mul) else ()
    moving = [k for k, x in enumerate(factors) if not symbols(x).isdisjoint(names)]
    if len(moving) != 1:
        raise NotAffineError(f"a term must be affine in {', '.join(sorted(names))}; got {term}.")
    (k,) = moving
    linear, rest = (
        part and product([*factors[:k], part, *factors[k + 1 :]])
        for part in affine(factors[k], names)
    )
    return linear, rest


def key_and_value(term: Term, axis: Var, other: Var) -> tuple[Term, Term] | None:
    """A write as a key, without the index of one axis, times a value, without that of the other."""
    if axis not in free(term):
        return term, ONE
    if other not in free(term) and not isinstance(term, Mul):
        return ONE, term
    if isinstance(term, Sum):
        inside = key_and_value(term.body, axis, other)
        if inside is None or term.var in free(inside[1]):
            return None
        return Sum(term.var, term.low, term.high, inside[0]), inside[1]
    if not isinstance(term, Add | Mul):
        return None
    parts = [
        key_and_value(x, axis, other)
        for x in (term.terms if isinstance(term, Add) else term.factors)
    ]
    if None in parts:
        return None
    keys, values = zip(*parts, strict=True)
    if isinstance(term, Mul):
        return product(keys), product(values)
    return (Add(keys), values[0]) if len({*values}) == 1 else None


@dataclass(frozen=True)
class Group:
    """States that read each other, and what one step does to them, each at its own entry.

    linear: A_t X, in the symbols of the states at t. writes: b_t. apart: the axis that A_t leaves
    to itself where the writes are outer products, of keys `writes` with one `value`; else None.
    """

    layer: Recurrence
    linear: Mapping[str, Term | None]
    writes: Mapping[str, Term | None]
    apart: int | None = None
    value: Term = ONE

    def start_of(self, name: str) -> str:
        """The symbol of a state's start, as it is carried."""
        return name + START

    def symbol(self, name: str) -> str:
        """The symbol of a write, or of its key, as it is carried."""
        return name + (WRITE if self.apart is None else KEY)

    def own(self, entry: tuple[Any, ...]) -> tuple[Any, ...]:
        """An entry, of indices or variables, without the axis that has a value of its own."""
        return tuple(x for k, x in enumerate(entry) if k != self.apart)

    def key(self, name: str, token: Ix, time: Ix, entry: tuple[Ix, ...]) -> Atom:
        """A token's write into a state, or its key, at an entry and a later time."""
        return Atom(self.symbol(name), (token, time, *self.own(entry)))

    def write(self, name: str, token: Ix, time: Ix, entry: tuple[Ix, ...]) -> Term:
        """A token's write into a state, at an entry and a later time: the key times the value."""
        key = self.key(name, token, time, entry)
        if self.apart is None:
            return key
        column = every(self.layer.states[name])[self.apart]
        return product([key, substitute(self.value, {T: token, column: entry[self.apart]})])

    def moved(self, name: str, change: Callable[[str, Ix, tuple[Ix, ...]], Term]) -> Term:
        """`A_t X`, with something else in place of the states."""

        def put(node: Any) -> Any:
            if isinstance(node, Atom) and node.name in self.linear:
                return change(node.name, node.ix[0], node.ix[1:])
            return rebuild(node, put)

        linear = self.linear[name]
        return ZERO if linear is None else put(linear)

    def block(self) -> Block:
        """The definitions of the carried starts, and of the carried writes or keys."""
        starts, writes = [], []
        for name in self.linear:
            entry = every(self.layer.states[name])
            at_start = self.moved(name, lambda n, time, e: Atom(self.start_of(n), (time, *e)))
            begun = start(name, places(self.layer.states[name]))
            starts.append(Define(self.start_of(name), (T, *entry), at_start, begun))
            term = self.moved(name, lambda n, time, e: self.key(n, ix(PAST), time, e))
            write = self.writes[name]
            whole = term if write is None else Add((term, product([equal(ix(PAST), NOW), write])))
            writes.append(Define(self.symbol(name), (PAST, T, *self.own(entry)), whole, ZERO))
        return (*starts, *(writes if self.written else ()))

    @property
    def written(self) -> bool:
        """Whether anything is written."""
        return any(write is not None for write in self.writes.values())

    def after(self, name: str, entry: tuple[Ix, ...], last: Ix) -> Term:
        """A state after token `last`."""
        time = ix(T, last.shift + 1)
        begun = Atom(self.start_of(name), (time, *entry))
        if not self.written:
            return begun
        return Add((begun, Sum(PAST, at(0), last, self.write(name, ix(PAST), time, entry))))


def group(layer: Recurrence, names: tuple[str, ...]) -> Group:
    """The group of these states; `NotAffineError` where they are not affine in one another."""
    step = layer.traced

    def held(name: str, entry: tuple[Ix, ...], time: Ix) -> Term:
        return (
            made(name, entry) if name in names and time == ix(T, 1) else Atom(name, (time, *entry))
        )

    def made(name: str, entry: tuple[Ix, ...]) -> Term:
        """A new value, in the values before the step of the states of the group."""
        number = dict(step.states)[name]
        return terms.term(number, entry, NOW, step.made.get(number) == name)

    terms = Terms(layer, held=held)
    parts = {name: affine(made(name, places(layer.states[name])), names) for name in names}
    linear = {name: part for name, (part, _) in parts.items()}
    writes = {name: part for name, (_, part) in parts.items()}
    found = Group(layer, linear, writes)
    return next((x for apart in (1, 0) if (x := factored(found, apart))), found)


def factored(whole: Group, apart: int) -> Group | None:
    """The group with keys and a value, of the index of this axis; None where there are none."""
    sizes = {whole.layer.states[name] for name in whole.linear}
    axes = sizes.pop()
    if sizes or len(axes) != 2:
        return None
    column, row = every(axes)[apart], every(axes)[1 - apart]

    def elsewhere(name: str, time: Ix, entry: tuple[Ix, ...]) -> Term:
        """The state's entry without that index, where it is the one."""
        kept = tuple(x for k, x in enumerate(entry) if k != apart or x != ix(column))
        return Atom(name, (time, *kept))

    if any(column in free(whole.moved(name, elsewhere)) for name in whole.linear):
        return None
    writes = {name: w and key_and_value(w, column, row) for name, w in whole.writes.items()}
    there = {name: found for name, found in writes.items() if found is not None}
    values = {value for _, value in there.values()}
    if len(values) != 1 or any(w and name not in there for name, w in whole.writes.items()):
        return None
    keys = {name: there[name][0] if name in there else None for name in writes}
    return replace(whole, writes=keys, apart=apart, value=values.pop())
