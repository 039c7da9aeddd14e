"""Compiled terms: functions from the integers that free indices stand for to field elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from operator import itemgetter
from typing import Any, NamedTuple

from ..checker.terms import TIME, App, Atom, Ix, Var, parts

Env = tuple[int, ...]
Run = Callable[[Env], Any]


class Code(NamedTuple):
    """A compiled term: `run` takes the values of `vars`, in that order."""

    vars: tuple[Var, ...]
    run: Run


class Numbers:
    """Numbers of terms, one for all that are equal, so that none is hashed from its leaves again.

    Each object is looked at once, however often it is asked for.
    """

    def __init__(self) -> None:
        # The object is held, so that its id stays its own.
        self._seen: dict[int, tuple[Any, int]] = {}
        self._numbers: dict[Any, int] = {}
        self._symbols: dict[int, frozenset[str]] = {}

    def __call__(self, node: Any) -> int:
        """The number of a term, or of anything inside one."""
        found = self._seen.get(id(node))
        if found is not None:
            return found[1]
        inner = parts(node)
        key = (type(node), *map(self, inner)) if inner else (type(node), node)
        number = self._numbers.setdefault(key, len(self._numbers))
        self._seen[id(node)] = (node, number)
        return number

    def symbols(self, node: Any) -> frozenset[str]:
        """The names of the symbols in a term."""
        number = self(node)
        if number not in self._symbols:
            own = frozenset([node.name] if isinstance(node, Atom) else [])
            self._symbols[number] = own.union(*map(self.symbols, parts(node)))
        return self._symbols[number]


# y' as a polynomial in y, lowest coefficient first, where a function has its true values.
SLOPES = {"sigmoid": (0, 1, -1), "tanh": (1, 0, -1), "step": (), "exp": (0, 1)}


def known_derivative(fn: str, order: int) -> tuple[int, ...]:
    """The derivative of that order of a known function y, as a polynomial in y."""
    poly: tuple[int, ...] = (0, 1)
    for _ in range(order):
        slope = [k * c for k, c in enumerate(poly)][1:]
        result = [0] * max(len(slope) + len(SLOPES[fn]) - 1, 0)
        for (i, a), (j, b) in product(enumerate(slope), enumerate(SLOPES[fn])):
            result[i + j] += a * b
        poly = tuple(result)
    return poly


def of_a_number(term: App) -> bool:
    """Whether this is a function of one number, or its derivative."""
    return not term.ix and len(term.args) == 1 and not term.args[0].binders


def of_a_matrix(term: App) -> bool:
    """Whether this is an entry of an operator on matrices, or its derivative."""
    return len(term.ix) == 2 and len(term.args) == 1 and len(term.args[0].binders) == 2


def union(parts: Iterable[tuple[Var, ...]]) -> tuple[Var, ...]:
    """All the variables, each once, in order."""
    return tuple(dict.fromkeys(v for part in parts for v in part))


def index_vars(index: Iterable[Ix | None]) -> tuple[Var, ...]:
    """The variables of several indices."""
    return union(i.vars for i in index if i is not None)


def without(variables: tuple[Var, ...], bound: tuple[Var, ...]) -> tuple[Var, ...]:
    """The variables that are not bound."""
    return tuple(v for v in variables if v not in bound)


def app_vars(term: App, codes: list[Code]) -> tuple[Var, ...]:
    """The free variables of an application, given the code of each argument's body."""
    indices = [term.ix, *(index for _, index in term.slots)]
    bodies = [without(c.vars, lam.binders) for lam, c in zip(term.args, codes, strict=True)]
    return union((*map(index_vars, indices), *bodies))


def pick(inner: tuple[Var, ...], order: tuple[Var, ...]) -> Callable[[Env], Env]:
    """Values of `inner` out of values of `order`; the last of equal names is the one in scope."""
    where = {v: k for k, v in enumerate(order)}
    spots = [where[v] for v in inner]
    if not spots:
        return lambda e: ()
    if len(spots) == 1:
        (only,) = spots
        return lambda e: (e[only],)
    return itemgetter(*spots)


def connect(code: Code, order: tuple[Var, ...]) -> Run:
    """The code as a function of the values of `order`."""
    if code.vars == order:
        return code.run
    get, run = pick(code.vars, order), code.run
    return lambda e: run(get(e))


def indexer(index: tuple[Ix, ...], order: tuple[Var, ...]) -> Callable[[Env], Env]:
    """The integers that the indices stand for."""
    if all(len(i.vars) == 1 and not i.shift for i in index):
        return pick(tuple(i.vars[0] for i in index), order)
    where = {v: k for k, v in enumerate(order)}
    plan = [([where[v] for v in i.vars], i.shift) for i in index]
    return lambda e: tuple([sum([e[k] for k in spots], shift) for spots, shift in plan])


PENDING = object()


class TooMuchError(Exception):
    """More values would have to be computed than a budget allows."""


class Budget:
    """Counts the values that are computed; `TooMuchError` beyond `most`, None for no end."""

    def __init__(self, most: int | None = None) -> None:
        self.most, self.spent = most, 0

    def spend(self) -> None:
        """One more value."""
        self.spent += 1
        if self.most is not None and self.spent > self.most:
            raise TooMuchError


def memoised(run: Run, budget: Budget) -> Run:
    """The function, each value computed once; ValueError where a value needs itself."""
    seen: dict[Env, Any] = {}

    def look(e: Env) -> Any:
        value = seen.get(e)
        if value is None:
            budget.spend()
            seen[e] = PENDING
            value = seen[e] = run(e)
        elif value is PENDING:
            raise ValueError("a definition must use earlier values; this one needs itself.")
        return value

    return look


def leading(every: tuple[Var, ...]) -> int:
    """How many times come first among a symbol's indices; at most two count."""
    first = [v.sort == TIME for v in every[:2]]
    return first.index(False) if False in first else len(first)
