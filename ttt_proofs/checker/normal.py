"""The normal form: sums of indexed monomials.

A term expands to monomials `coefficient · Σ_{indices : limits} Π factors`. Exchanging two
sums changes nothing, since a monomial has one *set* of bound indices and one *set* of
limits. What remains is bookkeeping, each piece canonical by itself:

* a time index that the limits determine is replaced by its value;
* a time index starts at 0 (it is shifted), and where the caller says so the top of its
  range is split off, with running products unfolded there;
* limits (`u <= v + c` over the integers) are closed by shortest paths: those that allow the same
  times close to the same table;
* arguments of functions are normal forms again, so functions respect equality;
* bound indices are numbered in an order that `naming` proposes, and that is checked to be one.

Two terms with one normal form are equal for every size of the widths and all times that
the context allows. The converse is not claimed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count, product
from math import inf
from typing import Any

from ..naming import Label, propose
from .terms import TIME, Add, Atom, Ix, Lam, Mul, Node, Num, Prod, Sum, Term, Var
from .terms import free, in_order, ix, parts, rebuild, record, require, size, substitute

Table = dict[tuple, int]  # for u, v, each `(t,)` for a time or `()` for 0: the least c, u <= v + c

LARGEST_FORM = 300_000  # weight of all that is done for one normal form, arguments included
LARGEST_BINDING = 12  # bound indices of one monomial
LARGEST_CONTEXT = 100  # times of one set of constraints
NEVER: Table = {((), ()): -1}  # what no times satisfy implies anything: 0 <= -1


def naturals(variables: frozenset[Var]) -> Table:
    """`0 <= v` for each of the time variables: free times are natural numbers."""
    return close([(Ix(()), ix(v)) for v in variables if v.sort == TIME], {})


def close(constraints: Sequence[tuple[Ix, Ix]], known: Table) -> Table:
    """What is known with more constraints: all that is implied; `NEVER` if no times satisfy it."""
    require(len(free((*known, *constraints))) <= LARGEST_CONTEXT, "too many times are compared.")
    table = dict(known)
    for low, high in constraints:  # a shortest path takes the new step once
        if implied(table, low, high):
            continue
        to_low = [(u, c) for (u, v), c in table.items() if v == low.vars]
        from_high = [(v, c) for (u, v), c in table.items() if u == high.vars]
        for (u, c), (v, d) in product([*to_low, (low.vars, 0)], [*from_high, (high.vars, 0)]):
            through = c + high.shift - low.shift + d
            if u == v and through < 0:
                return NEVER
            if u != v:
                table[u, v] = min(through, table.get((u, v), through))
    return table


def implied(table: Table, low: Ix, high: Ix) -> bool:
    """Whether `low <= high` for all times that are allowed."""
    least = table.get((low.vars, high.vars), 0 if low.vars == high.vars else inf)
    return table == NEVER or least <= high.shift - low.shift


@record
class Monomial(Node):
    """`coefficient · Σ_{binders : limits} Π factors`."""

    coefficient: Fraction = Fraction(1)
    binders: tuple[Var, ...] = ()
    limits: tuple[tuple[Ix, Ix], ...] = ()
    factors: tuple[Any, ...] = ()

    def times(self, other: "Monomial") -> "Monomial":
        """The product; the two must not share bound indices."""
        bound, inside = self.binders + other.binders, self.limits + other.limits
        number = self.coefficient * other.coefficient
        return Monomial(number, bound, inside, self.factors + other.factors)

    def put(self, var: Var, value: Ix, *new: Var) -> "Monomial":
        """Replace a bound index by `value`; `new` are bound in its place."""
        bound = (*(v for v in self.binders if v != var), *new)
        rest = substitute((self.limits, self.factors), {var: value})
        return Monomial(self.coefficient, bound, *rest)


def bits(number: Fraction) -> int:
    """How many bits there are above and below the line."""
    return number.numerator.bit_length() + number.denominator.bit_length()


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a term stands.

    known: all that is known of times; peel: where ranges are cut; names: for what is bound here;
    spent: the weight of what was done so far.
    """

    known: Table
    peel: Ix | None = None
    names: Iterator[str] = field(default_factory=lambda: iter(()))
    spent: list[int] = field(default_factory=lambda: [0])

    def few(self, monomials: Iterable[Monomial]) -> list[Monomial]:
        """The monomials, if they are not too many nor too large."""
        found = []
        for m in monomials:
            found.append(m)
            self.spend(1 + len(m.factors) + bits(m.coefficient))
            require(len(m.binders) <= LARGEST_BINDING, "a monomial must bind few indices.")
        return found

    def expand(self, term: Term, values: dict[Var, Ix]) -> list[Monomial]:
        """Multiply out, with `values` in place of variables. Each sum binds a new variable."""
        if isinstance(term, Num):
            return [Monomial(Fraction(term.top, term.bottom))]
        if isinstance(term, Add):
            return self.few(m for t in term.terms for m in self.expand(t, values))
        if isinstance(term, Mul):
            found = [Monomial()]
            for factor in term.factors:
                found = self.few(m.times(n) for m, n in product(found, self.expand(factor, values)))
            return found
        if isinstance(term, Sum):
            var, ends = Var(next(self.names), term.var.sort), (term.low, term.high)
            low, high = substitute(ends, values)
            own = Monomial(binders=(var,), limits=((low, ix(var)), (ix(var), high)) if low else ())
            return self.few(map(own.times, self.expand(term.body, values | {term.var: ix(var)})))
        return [Monomial(factors=(substitute(term, values),))]

    def spend(self, weight: int) -> None:
        """Note the weight of something that was settled; raise where it is too much."""
        self.spent[0] += weight
        require(self.spent[0] <= LARGEST_FORM, "too much work; take smaller terms and steps.")


def changed_once(m: Monomial, scope: Scope) -> list[Monomial] | None:
    """What `m` becomes by the first change that applies, nothing if it is 0; None if none does.

    Solve determined times, start ranges at 0, split off tops at the peel, unfold products.
    """
    table = close(m.limits, scope.known)
    if table == NEVER:
        return []
    for rule, v in product("bcd", m.binders):
        if moved := settled_time(rule, m, v, table, scope.peel, scope.names):
            return moved
    for k, factor in enumerate(m.factors):
        unfolded = unfold(factor, table, scope.peel) if isinstance(factor, Prod) else None
        if unfolded is not None:
            rest = replace(m, factors=m.factors[:k] + m.factors[k + 1 :])
            return scope.few(map(rest.times, scope.expand(unfolded, {})))
    return None


def settled_time(rule: str, m: Monomial, v: Var, table: Table, peel, names) -> list[Monomial]:
    """The monomials that `m` becomes by a rule of the page about its time `v`, or none."""
    same = (w for u, w in table if u == (v,) and table.get((w, u)) == -table[u, w])
    if rule == "b" and (equal := [*same]):  # v = w + c, w nothing, else free, else bound
        w = min(equal, key=lambda w: [("$" in u.name, u.name) for u in w])
        return [m.put(v, Ix(w, table[(v,), w]))]
    least = -table.get(((), (v,)), 0)
    if rule == "c" and least != 0:
        w = Var(next(names), TIME)
        return [m.put(v, ix(w, least), w)]
    top = table.get(((v,), peel.vars)) if peel else None
    if rule == "d" and peel and top is not None and top >= peel.shift:
        below = (ix(v), Ix(peel.vars, top - 1))
        return [replace(m, limits=(*m.limits, below)), m.put(v, Ix(peel.vars, top))]
    return []


def unfold(factor: Prod, table: Table, peel: Ix | None) -> Term | None:
    """One step of a running product: an empty one is 1, a top factor is taken out."""
    low, high, last = factor.low, factor.high, Ix(factor.high.vars, factor.high.shift - 1)
    if implied(table, high, Ix(low.vars, low.shift - 1)):
        return Num(1)
    at_peel = peel is not None and high.vars == peel.vars and high.shift >= peel.shift
    if (at_peel or low.vars == high.vars) and implied(table, low, high):
        top = substitute(factor.factor.body, dict.fromkeys(factor.factor.binders, high))
        return Mul((Prod(low, last, factor.factor), top))
    return None


def normal_form(term: Any, known: Table, peel: Ix | None = None) -> tuple:
    """The canonical form of a term as nested tuples, for all times that are allowed.

    `peel` is `t + c`: ranges that reach so far are cut there, last step first.
    """
    require(peel is None or [v.sort for v in peel.vars] == [TIME], "ranges are peeled at a time.")
    return look(form(term, level(term), Scope(known, peel)), {})


@record
class Form(Node):
    """A normal form: monomials that differ, none of them 0.

    level: more than that of any form inside. `looks` recalls what it looks like, by the labels of
    the variables that are free in it.
    """

    terms: tuple[Monomial, ...]
    level: int
    looks: dict[tuple, tuple] = field(init=False, compare=False, default_factory=dict)


def level(node: Any) -> int:
    """The number of arguments that stand within one another, at most; a form's is known."""
    if isinstance(node, Form):
        return node.level
    return isinstance(node, Lam) + max(map(level, parts(node)), default=0)


def form(term: Any, own: int, scope: Scope) -> Form:
    """The normal form of a term, of this level, where it stands: alike monomials collected.

    What stands around it has a larger level, so other names; no record's names have a `$`.
    """
    scope = replace(scope, names=(f"${own}_{k}" for k in count()))
    left, total = scope.expand(term, {}), {}
    while left:
        m = left.pop()
        scope.spend(1 + len(free((*scope.known, *m.limits))) ** 2 + size(m.factors))
        changed = changed_once(m, scope)
        if changed is not None:
            left.extend(changed)
            continue
        before = scope.spent[0]
        found = compared(m, scope)
        scope.spend(size(m.factors) + bits(m.coefficient) + len(m.binders) * len(found.limits))
        sorts = [v.sort for v in m.binders]  # there may be as many pairs of them to tell apart
        scope.spend((scope.spent[0] - before) * (sum(map(sorts.count, sorts)) - len(sorts)))
        key = look(found, {})
        same = total[key].coefficient if key in total else 0
        total[key] = replace(found, coefficient=same + m.coefficient)
    kept = tuple(m for m in total.values() if m.coefficient)
    return Form(kept, level(kept))


def compared(m: Monomial, scope: Scope) -> Monomial:
    """A settled monomial with the normal forms of arguments, and all limits that are implied."""
    table, outer = close(m.limits, scope.known), scope.known
    tighter = tuple(
        (Ix(u), Ix(v, c))
        for (u, v), c in table.items()
        if not {*u, *v}.isdisjoint(m.binders) or outer.get((u, v), inf) > c
        if not (u and v and table.get((u, ()), inf) + table.get(((), v), inf) <= c)
    )

    def argued(factor: Any) -> Any:
        elsewhere = frozenset(m.binders) - free(factor)
        known = {(u, v): c for (u, v), c in table.items() if elsewhere.isdisjoint(u + v)}
        return formed(factor, replace(scope, known=known))

    return replace(m, limits=tighter, factors=tuple(map(argued, m.factors)))


def formed(node: Any, scope: Scope) -> Any:
    """A factor with normal forms for arguments."""
    if not isinstance(node, Lam):
        return node if isinstance(node, Atom | Ix) else rebuild(node, formed, scope)
    inner = level(node.body)
    own = {v: Var(f"${inner}_{k}_", v.sort) for k, v in enumerate(node.binders)}
    body: Any = substitute(node.body, {v: ix(w) for v, w in own.items()})
    return Lam(tuple(own.values()), form(body, inner, scope))  # pyright: ignore


def look(node: Any, names: dict[Var, Label]) -> Any:
    """A form or a part of one as nested tuples: labels for variables, and what is a bag sorted."""
    if isinstance(node, Ix):
        return tuple(sorted(label(v, names) for v in node.vars)), node.shift
    if isinstance(node, Form):
        key = tuple(label(v, names) for v in in_order(free(node)))
        if key not in node.looks:
            seen = ((look(m, names), *m.coefficient.as_integer_ratio()) for m in node.terms)
            node.looks[key] = tuple(sorted(seen))
        return node.looks[key]
    if isinstance(node, Monomial):  # any order of its bound indices will do
        edges = [*node.factors, *(("<=", *limit) for limit in node.limits)]
        near = [(free(edge).intersection(node.binders), edge) for edge in edges]
        sorts, here = {v: v.sort for v in node.binders}, level(node)
        order = propose(sorts, near, lambda edge, own: look(edge, names | own), here)
        require(in_order(order) == in_order(node.binders), "each bound index needs one number.")
        own = {v: ("bound", v.sort, here, k) for k, v in enumerate(order)}
        return tuple(own.values()), tuple(sorted(look(edge, names | own) for edge in edges))
    if isinstance(node, Lam):
        own = {v: ("argument", v.sort, level(node.body), k) for k, v in enumerate(node.binders)}
        return tuple(own.values()), look(node.body, names | own)
    looks = tuple(look(part, names) for part in parts(node))
    return (type(node).__name__, *looks) if isinstance(node, Node) else looks or node


def label(var: Var, names: dict[Var, Label]) -> Label:
    """What a variable is called in a form: by its number where it is bound, else by its name."""
    return names.get(var) or ("free", f"{var.name}:{var.sort}", 0, 0)
