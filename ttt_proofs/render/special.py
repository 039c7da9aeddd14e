"""Terms with a notation of their own: powers, fractions, norms and operators on matrices."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ..checker.terms import (
    Add,
    App,
    Atom,
    Ix,
    Lam,
    Mul,
    Num,
    Sum,
    Term,
    Var,
    binders,
    free,
    ix,
    rebuild,
    substitute,
)
from .notation import pointwise


def of_number(term: Term, name: str) -> Term | None:
    """x, where the term is the function `name` of the number x; None for other terms."""
    if not isinstance(term, App) or term.fn != name or len(term.args) != 1:
        return None
    (argument,) = term.args
    return None if term.ix or term.slots or argument.binders else argument.body


@lru_cache(maxsize=20_000)
def alike(node: Any, depth: int = 0) -> Any:
    """The same for terms that differ in the names of bound indices only."""
    own = binders(node)
    if own:
        new = {v: ix(Var(f"${depth + k}", v.sort)) for k, v in enumerate(own)}
        node = rebuild(node, lambda part: substitute(part, new))
    return rebuild(node, lambda part: alike(part, depth + len(own)))


def powers(factors: Iterable[Term]) -> list[tuple[Term, int]]:
    """Each factor once, with how often it occurs."""
    first: dict[Term, Term] = {}
    counts: dict[Term, int] = {}
    for factor in factors:
        key = alike(factor)
        first.setdefault(key, factor)
        counts[key] = counts.get(key, 0) + 1
    return [(first[key], count) for key, count in counts.items()]


def norm_of(term: Term) -> Lam | None:
    """x, where the term is `√(Σ x²)` and dots can stand for the indices of the sum in x."""
    body, own = of_number(term, "root"), []
    while isinstance(body, Sum) and body.low is None:
        own.append(body.var)
        body = body.body
    if not own or len({*own}) < len(own) or not isinstance(body, Mul):
        return None
    counts = powers(body.factors)
    if {count for _, count in counts} != {2}:
        return None
    bases = tuple(base for base, _ in counts)
    base = bases[0] if len(bases) == 1 else Mul(bases)
    return Lam(tuple(own), base) if dotted(base, tuple(own)) else None


def bracket_of(term: Any) -> tuple[Ix, str, Ix] | None:
    """The times that are compared, where the term is 1 if `a = b`, or if `a ≤ b`, and else 0.

    The sum of 1 over u in a..b and w in b..a has one term if a = b, else none; the one over u in
    a..b and w in u..a has one if a ≤ b.
    """
    inner = term.body if isinstance(term, Sum) else None
    if not isinstance(inner, Sum) or inner.body != Num(1):
        return None
    if term.low is None or term.high is None or inner.high != term.low:
        return None
    mark = {term.high: "=", ix(term.var): "≤"}.get(inner.low)
    return None if mark is None else (term.low, mark, term.high)


def dotted(term: Term, own: tuple[Var, ...]) -> bool:
    """Whether the term is a linear combination of rows, columns, ... over the indices `own`."""
    if isinstance(term, Add):
        return bool(term.terms) and all(dotted(part, own) for part in term.terms)
    if isinstance(term, Mul):
        with_own = [factor for factor in term.factors if not free(factor).isdisjoint(own)]
        return len(with_own) == 1 and dotted(with_own[0], own)
    return pointwise(Lam(own, term)) is not None and isinstance(term, Atom | App)


def is_operator(term: App) -> bool:
    """Whether this is an entry of what a function makes of a vector or matrix of that shape."""
    if len(term.args) != 1 or term.slots or not term.ix:
        return False
    sorts = [index.vars[0].sort if index.vars else None for index in term.ix]
    return sorts == [v.sort for v in term.args[0].binders]
