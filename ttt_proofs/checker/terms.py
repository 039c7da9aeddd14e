"""Terms: scalars built from indexed symbols.

A term denotes a real number once its free indices are given. Matrices are symbols
with two indices, `W[h, c]`; a matrix product is a `Sum` over a shared index; a vector
argument of an abstract function is a `Lam` that binds the vector's index. An index is
either a *time* (an integer; free ones are natural numbers) or ranges over a *width*,
a finite set of unknown size. Symbols are total functions of their indices.

Everything here is frozen and made of tuples: a term cannot change after it was checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from types import UnionType
from typing import Any, dataclass_transform, get_args, get_origin, get_type_hints

TIME = "time"


class CheckerError(Exception):
    """The checker refuses: the message says what is required and what arrived."""


def require(condition: object, message: str) -> None:
    """Raise `CheckerError` unless the condition holds; unlike `assert`, also under `python -O`."""
    if not condition:
        raise CheckerError(message)


@dataclass_transform(frozen_default=True)
class Node:
    """A record: each subclass is a frozen dataclass of the fields it names."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


class Var(Node):
    """An index variable; `sort` is `TIME` or the name of a width, for example `D_k`."""

    name: str
    sort: str


class Ix(Node):
    """An index: the sum of `vars`, plus `shift`."""

    vars: tuple[Var, ...]
    shift: int = 0


class Num(Node):
    """A rational constant."""

    value: Fraction


class Atom(Node):
    """An indexed symbol, `name[ix...]`."""

    name: str
    ix: tuple[Ix, ...]


class Lam(Node):
    """A vector, matrix, ... given entry by entry: `binders ↦ body`."""

    binders: tuple[Var, ...]
    body: Term


class App(Node):
    """`fn[ix](args)`, differentiated once for each slot `(argument, entry)` in `slots`."""

    fn: str
    ix: tuple[Ix, ...]
    args: tuple[Lam, ...]
    slots: tuple[tuple[int, tuple[Ix, ...]], ...] = ()


class Add(Node):
    """A sum of finitely many terms."""

    terms: tuple[Term, ...]


class Mul(Node):
    """A product of finitely many terms."""

    factors: tuple[Term, ...]


class Sum(Node):
    """`Σ body` over the times low..high inclusive, or (both None) over a width."""

    var: Var
    low: Ix | None
    high: Ix | None
    body: Term


class Prod(Node):
    """The running product of `factor` over the times low..high; 1 where high < low."""

    low: Ix
    high: Ix
    factor: Lam


Term = Num | Atom | App | Add | Mul | Sum | Prod


def ix(var: Var, shift: int = 0) -> Ix:
    """The index `var + shift`."""
    return Ix((var,), shift)


def at(shift: int) -> Ix:
    """The constant index `shift`."""
    return Ix((), shift)


def parts(node) -> tuple:
    """The immediate parts of a node or tuple."""
    if isinstance(node, Node):
        return tuple(getattr(node, name) for name in type(node).__match_args__)  # pyright: ignore
    return node if isinstance(node, tuple) else ()


def rebuild(node, change) -> Any:
    """`node` with `change` applied to each of its parts."""
    changed = (change(part) for part in parts(node))
    if isinstance(node, Node):
        return type(node)(*changed)
    return tuple(changed) if isinstance(node, tuple) else node


def binders(node) -> tuple[Var, ...]:
    """The index variables that this node itself binds, in all of its parts."""
    return (node.var,) if isinstance(node, Sum) else node.binders if isinstance(node, Lam) else ()


@lru_cache(maxsize=200_000)
def free(node) -> frozenset[Var]:
    """The free index variables of a term (or tuple of terms)."""
    return frozenset([node] * (type(node) is Var)).union(*map(free, parts(node))) - {*binders(node)}


def inside(node, kind: type) -> list:
    """All nodes of this kind in a term (or tuple of terms)."""
    return [node] * isinstance(node, kind) + [n for part in parts(node) for n in inside(part, kind)]


def symbols(node) -> frozenset[str]:
    """The names of the symbols that occur in a term (or tuple of terms)."""
    return frozenset(atom.name for atom in inside(node, Atom))


def put(index: Ix, subst: dict[Var, Ix]) -> Ix:
    """`index` with its variables replaced."""
    images = [subst.get(v, ix(v)) for v in index.vars]
    merged = sorted((v for image in images for v in image.vars), key=lambda v: (v.name, v.sort))
    return Ix(tuple(merged), index.shift + sum(image.shift for image in images))


def renamed(node, avoid: frozenset[Var]) -> Any:
    """`node` with its own binders renamed if one of them shares its name with `avoid`."""
    if not {v.name for v in avoid} & {v.name for v in binders(node)}:
        return node
    tail = "_" * max(len(v.name) for v in avoid | free(parts(node)))  # longer, hence a new name
    new = {v: ix(Var(v.name + tail, v.sort)) for v in binders(node)}
    return rebuild(node, lambda part: substitute(part, new))


def substitute(node, subst: dict[Var, Ix]) -> Any:
    """Replace free index variables; bound ones are renamed where they would capture."""
    if not isinstance(node, Node | tuple) or free(node).isdisjoint(subst):
        return node
    if isinstance(node, Var):  # a binder that `renamed` renames
        return subst[node].vars[0]
    if isinstance(node, Ix):
        return put(node, subst)
    node = renamed(node, free(tuple(subst.values())) | frozenset(subst)) if binders(node) else node
    return rebuild(node, lambda part: substitute(part, subst))


def put_symbol(node, name: str, value: Lam) -> Any:
    """Replace the symbol `name` by `value`, entry by entry."""
    if isinstance(node, Atom) and node.name == name:
        require(len(node.ix) == len(value.binders), f"`{name}` has {len(value.binders)} indices.")
        return substitute(value.body, dict(zip(value.binders, node.ix, strict=True)))
    node = renamed(node, free(value))
    return rebuild(node, lambda part: put_symbol(part, name, value))


hints_of = cache(get_type_hints)


def check(value: Any, hint: Any) -> None:
    """Raise unless `value` has exactly the declared type `hint`, all the way down.

    Subclasses are refused: one could change its mind between two looks.
    """
    items = get_args(hint)
    if get_origin(hint) is tuple and type(value) is tuple:
        hints = [items[0]] * len(value) if items[-1] is ... else items
        require(len(hints) == len(value), f"{hint} is required; got {len(value)} parts.")
        for part, expected in zip(value, hints, strict=True):
            check(part, expected)
    elif get_origin(hint) is UnionType and any(type(value) is item for item in items):
        check(value, type(value))
    else:
        require(type(value) is hint, f"{hint} is required; got {type(value)}.")
        require(hint is not str or value.isidentifier(), f"a name is required; got a {hint}.")
        require(hint is not Fraction or {*map(type, value.as_integer_ratio())} == {int}, "inexact.")
        for name, expected in hints_of(hint).items() if issubclass(hint, Node) else ():
            check(getattr(value, name), expected)
        well_formed(value)


def well_formed(node) -> None:
    """Raise unless sums have bounds exactly over times, and nothing is bound twice."""
    names = {v.name for v in binders(node)}
    require(len(names) == len(binders(node)), f"indices bound together must differ; got {names}.")
    if isinstance(node, Prod):
        require([v.sort for v in node.factor.binders] == [TIME], "a product must bind one time.")
    if isinstance(node, Sum):
        bounds = tuple(index for index in (node.low, node.high) if index)
        fits = len(bounds) == 2 * (node.var.sort == TIME) and node.var not in free(bounds)
        require(fits, f"`{node.var.name}` must have bounds exactly if it is a time.")
