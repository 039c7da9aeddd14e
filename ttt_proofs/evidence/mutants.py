"""Mutants of a claim: its right side with one small mistake in it.

A check of the claim that accepts a mutant can not tell right from wrong. Each operator below
makes one kind of mistake wherever it fits; `changes` applies them all, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from ..checker.definitions import Equation
from ..checker.terms import (
    TIME,
    Add,
    App,
    Atom,
    Ix,
    Lam,
    Mul,
    Num,
    Prod,
    Sum,
    Term,
    Var,
    binders,
    inside,
    ix,
    parts,
)
from ..symbolic.equality import renamed_symbols
from .texts import short

Path = tuple[int, ...]


class Site(NamedTuple):
    """A place in a term: the way to it, what is there, and the indices in scope."""

    path: Path
    node: Any
    scope: tuple[Var, ...]
    parent: Any


@dataclass(frozen=True)
class Mutant:
    """A claim with one mistake in its right side.

    name: the operator that made it, and a number among its own, such as `sign 2`.
    site: what was changed, in words and symbols.
    equation: the claim, with the mutated right side.
    """

    name: str
    site: str
    equation: Equation


Change = tuple[str, Term]  # what was changed, and the changed term
Operator = Callable[[Term, tuple[Var, ...]], Iterator[Change]]


def sites(node: Any, scope: tuple[Var, ...], path: Path = (), parent: Any = None) -> Iterator[Site]:
    """All places of a term, from the outside in and from left to right."""
    yield Site(path, node, scope, parent)
    if isinstance(node, Lam | Sum):
        # A bound is outside the scope of its own index, but no operator looks inside one.
        scope = (*scope, *binders(node))
    above = node if not isinstance(node, tuple) else parent
    for k, part in enumerate(parts(node)):
        yield from sites(part, scope, (*path, k), above)


def put_at(node: Any, path: Path, new: Any) -> Any:
    """The term with `new` at the place that `path` leads to; the rest is shared."""
    if not path:
        return new
    changed = list(parts(node))
    changed[path[0]] = put_at(changed[path[0]], path[1:], new)
    return tuple(changed) if isinstance(node, tuple) else type(node)(*changed)


def addends(term: Term, scope: tuple[Var, ...]) -> Iterator[Site]:
    """Where a sign or a factor counts on its own: the whole, each addend, each function's
    argument, each factor of a running product. Elsewhere it would be one of these.
    """
    for site in sites(term, scope):
        inner = isinstance(site.parent, Add | Lam) and isinstance(site.node, Term)
        if not site.path or inner:
            yield site


def scaled(term: Term, scope: tuple[Var, ...], factor: int) -> Iterator[Change]:
    """One addend times a number."""
    for site in addends(term, scope):
        new = Mul((Num(factor), site.node))
        yield f"{factor} · {short(site.node)}", put_at(term, site.path, new)


def sign(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """The sign of the whole, or of one addend."""
    return scaled(term, scope, -1)


def doubled(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """Twice the whole, or one addend."""
    return scaled(term, scope, 2)


def dropped_term(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """A sum without one of its addends."""
    return dropped(term, scope, Add)


def dropped_factor(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """A product without one of its factors, for example a gate."""
    return dropped(term, scope, Mul)


def dropped(term: Term, scope: tuple[Var, ...], kind: type[Add] | type[Mul]) -> Iterator[Change]:
    """A sum or product without one of its parts."""
    for site in sites(term, scope):
        if isinstance(site.node, kind):
            (whole,) = parts(site.node)
            for k, part in enumerate(whole):
                yield (
                    f"without {short(part)}",
                    put_at(term, site.path, kind(whole[:k] + whole[k + 1 :])),
                )


def is_time(index: Ix) -> bool:
    """Whether an index is a time; one without variables is."""
    return all(v.sort == TIME for v in index.vars)


def times(term: Term, scope: tuple[Var, ...]) -> Iterator[Site]:
    """The time indices of symbols and functions."""
    for site in sites(term, scope):
        if isinstance(site.node, Ix) and isinstance(site.parent, Atom | App) and is_time(site.node):
            yield site


def bounds(term: Term, scope: tuple[Var, ...]) -> Iterator[Site]:
    """The bounds of sums over times and of running products."""
    for site in sites(term, scope):
        if isinstance(site.node, Ix) and isinstance(site.parent, Sum | Prod):
            yield site


def by_one(index: Ix) -> Iterator[Ix]:
    """The index one later, and one earlier."""
    for step in (1, -1):
        yield Ix(index.vars, index.shift + step)


def shifted_time(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """A time off by one."""
    for site in times(term, scope):
        for new in by_one(site.node):
            yield f"{short(new)} in {short(site.parent)}", put_at(term, site.path, new)


def shifted_bound(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """A bound off by one: a mask shifted."""
    for site in bounds(term, scope):
        for new in by_one(site.node):
            yield f"bound {short(new)} of {short(site.parent)}", put_at(term, site.path, new)


def moved_time(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """Another time that is in scope: a rate moved from one step to another."""
    for site in times(term, scope):
        others = (v for v in dict.fromkeys(site.scope) if v.sort == TIME)
        for other in others:
            if site.node.vars and site.node.vars != (other,):
                new = ix(other, site.node.shift)
                yield f"{short(new)} in {short(site.parent)}", put_at(term, site.path, new)


def transposed(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """The two width indices of a matrix exchanged."""
    for site in sites(term, scope):
        if isinstance(site.node, Atom):
            index = site.node.ix
            wide = [k for k, i in enumerate(index) if not is_time(i)]
            if len(wide) == 2:
                a, b = wide
                turned = list(index)
                turned[a], turned[b] = index[b], index[a]
                new = Atom(site.node.name, tuple(turned))
                yield short(new), put_at(term, site.path, new)


def swapped_roles(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """Two symbols with as many indices exchanged throughout, such as k and v."""
    arity = {atom.name: len(atom.ix) for atom in inside(term, Atom)}
    for a, b in combinations(sorted(arity), 2):
        if arity[a] == arity[b]:
            yield f"{a} and {b} exchanged", renamed_symbols(term, {a: b, b: a})


def replaced_role(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """One symbol in place of another with as many indices, throughout: k for q."""
    arity = {atom.name: len(atom.ix) for atom in inside(term, Atom)}
    for a in sorted(arity):
        for b in sorted(arity):
            if a != b and arity[a] == arity[b]:
                yield f"{b} for {a}", renamed_symbols(term, {a: b})


def swapped_arguments(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """The two arguments of a function exchanged, such as output and target of a loss."""
    for site in sites(term, scope):
        if isinstance(site.node, App) and len(site.node.args) == 2:
            a = site.node
            new = App(a.fn, a.ix, a.args[::-1], a.slots)
            yield f"arguments of {short(a)}", put_at(term, site.path, new)


def derivative(term: Term, scope: tuple[Var, ...]) -> Iterator[Change]:
    """A derivative left out."""
    for site in sites(term, scope):
        if isinstance(site.node, App) and site.node.slots:
            a = site.node
            new = App(a.fn, a.ix, a.args, a.slots[:-1])
            yield f"{short(a)} not differentiated", put_at(term, site.path, new)


OPERATORS: dict[str, Operator] = {
    "sign": sign,
    "doubled": doubled,
    "dropped term": dropped_term,
    "dropped factor": dropped_factor,
    "shifted time": shifted_time,
    "shifted bound": shifted_bound,
    "moved time": moved_time,
    "transposed": transposed,
    "swapped roles": swapped_roles,
    "replaced role": replaced_role,
    "swapped arguments": swapped_arguments,
    "derivative": derivative,
}


def changes(term: Term, scope: tuple[Var, ...]) -> Iterator[tuple[str, str, Term]]:
    """All mutants of a term, each different from it and from the others, in a fixed order: the
    operator and a number among its own, the place that was changed, the changed term.
    """
    found = {term}
    for name, operator in OPERATORS.items():
        count = 0
        for what, new in operator(term, scope):
            if new not in found:
                count += 1
                found.add(new)
                yield f"{name} {count}", what, new


def mutants(claim: Equation) -> list[Mutant]:
    """All mutants of a claim: those of its right side."""
    return [
        Mutant(name, what, Equation(claim.every, claim.left, right))
        for name, what, right in changes(claim.right, claim.every)
    ]
