"""Terms: scalars built from indexed symbols.

A term denotes a real number once its free indices are given. Matrices are symbols
with two indices, `W[h, c]`; a matrix product is a `Sum` over a shared index; a vector
argument of an abstract function is a `Lam` that binds the vector's index.

A node is frozen, made of tuples, strings and integers, and made by its constructor alone. It has
no attributes but its fields, and what is noted of them: a term stays what it was when checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import repeat
from types import UnionType
from typing import Any, dataclass_transform, get_args, get_origin, get_type_hints

TIME = "time"
NAME = re.compile("(?![0-9])[0-9A-Za-z_\u0391-\u03a9\u03b1-\u03c9]{1,100}")
LARGEST_INTEGER = 2**53 - 1  # what every reader of JSON reads alike
LARGEST_SHIFT = LARGEST_DEPTH = LARGEST_SOURCES = LARGEST_LIST = 100
LARGEST_SIDES = 100_000  # weight of a point that is put in, or of a loss


class CheckerError(Exception):
    """The checker refuses: the message says what is required and what arrived."""


def require(condition: object, message: str) -> None:
    """Raise `CheckerError` unless the condition holds; unlike `assert`, also under `python -O`."""
    if not condition:
        raise CheckerError(message)


class Node:
    """A record; each subclass is a frozen dataclass with slots, and has no subclass."""

    __slots__ = ("noted",)  # its free variables, once they were asked for

    def __init_subclass__(cls) -> None:
        require(cls.__bases__ == (Node,), f"a record must have no subclass; got {cls.__name__}.")

    def __reduce__(self) -> tuple:
        """A copy or a pickle is made by the constructor."""
        return type(self), parts(self)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(kind: Any) -> Any:
    """Make a subclass of `Node` the dataclass that it declares; `hints()`: the types of fields."""
    made: Any = dataclass(frozen=True, slots=True)(kind)
    made.hints = cache(lambda: get_type_hints(made))
    made.__setstate__ = None  # a record is made from its fields alone: no state is put in
    return made


@record
class Var(Node):
    """An index variable; `sort` is `TIME` or the name of a width, for example `D_k`."""

    name: str
    sort: str


@record
class Ix(Node):
    """An index: the sum of `vars`, sorted by name and sort, plus `shift`."""

    vars: tuple[Var, ...]
    shift: int = 0


@record
class Num(Node):
    """The fraction `top / bottom`, `bottom >= 1`."""

    top: int
    bottom: int = 1


@record
class Atom(Node):
    """An indexed symbol, `name[ix...]`."""

    name: str
    ix: tuple[Ix, ...]


@record
class Lam(Node):
    """A vector, matrix, ... given entry by entry: `binders ↦ body`."""

    binders: tuple[Var, ...]
    body: Term


@record
class App(Node):
    """`fn[ix](args)`, differentiated once for each slot `(argument, entry)` in `slots`."""

    fn: str
    ix: tuple[Ix, ...]
    args: tuple[Lam, ...]
    slots: tuple[tuple[int, tuple[Ix, ...]], ...] = ()


@record
class Add(Node):
    """A sum of finitely many terms."""

    terms: tuple[Term, ...]


@record
class Mul(Node):
    """A product of finitely many terms."""

    factors: tuple[Term, ...]


@record
class Sum(Node):
    """`Σ body` over the times low..high inclusive, or (both None) over a width."""

    var: Var
    low: Ix | None
    high: Ix | None
    body: Term


@record
class Prod(Node):
    """The running product of `factor` over the times low..high; 1 where high < low."""

    low: Ix
    high: Ix
    factor: Lam


Term = Num | Atom | App | Add | Mul | Sum | Prod


def ix(var: Var, shift: int = 0) -> Ix:
    """The index `var + shift`."""
    return Ix((var,), shift)


def parts(node: Any) -> tuple:
    """The fields of a node, the items of a tuple; nothing for all else."""
    if isinstance(node, Node):
        return tuple(map(getattr, repeat(node), type(node).__match_args__))  # pyright: ignore
    return node if isinstance(node, tuple) else ()


def rebuild(node: Any, change, *rest: Any) -> Any:
    """`node` with `change(part, *rest)` in place of each of its parts."""
    changed = map(change, parts(node), *map(repeat, rest))
    if isinstance(node, Node):
        return type(node)(*changed)
    return tuple(changed) if isinstance(node, tuple) else node


def binders(node: Any) -> tuple[Var, ...]:
    """The index variables that this node itself binds, in all of its parts."""
    return (node.var,) if isinstance(node, Sum) else getattr(node, "binders", ())


def free(node: Any) -> frozenset[Var]:
    """The free index variables of a term (or tuple of terms)."""
    if isinstance(node, Var):
        return frozenset((node,))
    found = getattr(node, "noted", None)
    if found is None:
        found = frozenset().union(*map(free, parts(node))).difference(binders(node))
        if isinstance(node, Node):
            object.__setattr__(node, "noted", found)
    return found


def walk(node: Any, outside: int = 0, times: int = 0) -> Iterator[tuple[Any, int, int]]:
    """Each record in a term (or tuple of terms), how many of the others stand around it, and how
    many of these, itself included, are sums over times.
    """
    times += isinstance(node, Sum) and node.low is not None
    if isinstance(node, Node):
        yield node, outside, times
    for part in parts(node):
        yield from walk(part, outside + isinstance(node, Node), times)


def depth(node: Any) -> int:
    """How many records nest in a term (or tuple of terms), at most."""
    return 1 + max((outside for _, outside, _ in walk(node)), default=-1)


def size(node: Any) -> int:
    """How many records there are in a term (or tuple of terms)."""
    return isinstance(node, Node) + sum(map(size, parts(node)))


def work(node: Any, names: frozenset[str], value: Any) -> int:
    """What it weighs to put in `value` for each atom of these names; it must not nest too deep."""
    places = [k for n, k, _ in walk(node) if isinstance(n, Atom) and n.name in names]
    flat = max(places, default=0) + depth(value) <= LARGEST_DEPTH
    require(flat, "what is put in must not nest too deep.")
    times = sum(v.sort == TIME for v in free(node))
    scopes = sum((times + k) ** 2 for n, _, k in walk(node) if binders(n))
    return size(node) + len(places) * size(value) + scopes


def inside(node: Any, kind: Any) -> list:
    """All nodes of this kind in a term (or tuple of terms)."""
    return [found for found, *_ in walk(node) if isinstance(found, kind)]


def symbols(node: Any) -> frozenset[str]:
    """The names of the symbols that occur in a term (or tuple of terms)."""
    return frozenset(atom.name for atom in inside(node, Atom))


def in_order(variables: Iterable[Var]) -> tuple[Var, ...]:
    """The variables sorted by name, then sort."""
    return tuple(sorted(variables, key=lambda v: (v.name, v.sort)))


def renamed(node: Any, avoid: frozenset[Var]) -> Any:
    """`node` with its own binders renamed if one of them shares its name with `avoid`."""
    if {v.name for v in avoid}.isdisjoint(v.name for v in binders(node)):
        return node
    tail = "_" * max(len(v.name) for v in avoid | free(parts(node)))  # longer, hence a new name
    new = {v: ix(Var(v.name + tail, v.sort)) for v in binders(node)}
    return rebuild(node, substitute, new)


def substitute(node: Any, values: dict[Var, Ix]) -> Any:
    """Replace free index variables; bound ones are renamed where they would capture."""
    if not isinstance(node, Node | tuple) or free(node).isdisjoint(values):
        return node
    if isinstance(node, Var):  # a binder that `renamed` renames
        return values[node].vars[0]
    if isinstance(node, Ix):
        images = [values.get(v, ix(v)) for v in node.vars]
        shift = node.shift + sum(image.shift for image in images)
        return Ix(in_order(v for image in images for v in image.vars), shift)
    if binders(node):
        node = renamed(node, free(tuple(values.values())).union(values))
    return rebuild(node, substitute, values)


def put_symbol(node: Any, name: str, value: Lam) -> Any:
    """Replace the symbol `name` by `value`, entry by entry."""
    if isinstance(node, Atom) and node.name == name:
        require(len(node.ix) == len(value.binders), f"`{name}` has {len(value.binders)} indices.")
        return substitute(value.body, dict(zip(value.binders, node.ix, strict=True)))
    node = renamed(node, free(value))
    return rebuild(node, put_symbol, name, value)


def check(value: Any, hint: Any, level: int = 0) -> None:
    """Raise unless `value` has exactly the declared type `hint`, all the way down.

    Subclasses are refused: one could change its mind between two looks.
    """
    items: Any = () if type(hint) is type else get_args(hint)
    if type(value) is tuple and get_origin(hint) is tuple:
        hints = [items[0]] * len(value) if items[-1] is ... else items
        fits = len(hints) == len(value) and (len(value) <= LARGEST_LIST or hints[0] is not Var)
        require(fits, f"{hint} is required; got {len(value)} parts.")
        for part, expected in zip(value, hints, strict=True):
            check(part, expected, level)
    elif get_origin(hint) is UnionType and any(type(value) is item for item in items):
        check(value, type(value), level)
    else:
        require(type(value) is hint, f"{hint} is required; got {type(value)}.")
        if issubclass(hint, Node):
            require(level < LARGEST_DEPTH, f"at most {LARGEST_DEPTH} records may nest.")
            for name, expected in hint.hints().items():  # pyright: ignore
                check(getattr(value, name, None), expected, level + 1)
            object.__setattr__(value, "noted", None)  # it may be what it was in another class
        well_formed(value)


def well_formed(node: Any) -> None:
    """Raise unless this value, apart from its parts, is one that the page of meaning allows."""
    names = {v.name for v in binders(node)}
    require(len(names) == len(binders(node)), f"indices bound together must differ; got {names}.")
    if isinstance(node, str):
        require(NAME.fullmatch(node), f"a name of letters, digits and _ is required; got {node!r}.")
    if isinstance(node, int):
        require(abs(node) <= LARGEST_INTEGER, f"at most {LARGEST_INTEGER} is allowed; got {node}.")
    if isinstance(node, Ix):
        fits = node.vars == in_order(node.vars) and abs(node.shift) <= LARGEST_SHIFT
        require(fits, f"variables in order, shifted by at most {LARGEST_SHIFT}, make an index.")
    if isinstance(node, Num):
        require(node.bottom >= 1, f"a denominator must be at least 1; got {node.bottom}.")
    if isinstance(node, App):
        sizes = dict(enumerate(len(argument.binders) for argument in node.args))
        fits = all(sizes.get(k) == len(entry) for k, entry in node.slots)
        require(fits, f"a slot of `{node.fn}` must be an entry of one of its arguments.")
    if isinstance(node, Prod):
        require([v.sort for v in node.factor.binders] == [TIME], "a product must bind one time.")
    if isinstance(node, Sum | Prod):
        ends, timed = (node.low, node.high), isinstance(node, Prod) or node.var.sort == TIME
        plain = all(end and [v.sort for v in end.vars] in ([], [TIME]) for end in ends)
        fits = plain and free(ends).isdisjoint(binders(node)) if timed else ends == (None, None)
        require(fits, "a time range must end at constants or other times, and a width has no ends.")
