"""The normal form: sums of indexed monomials.

A term expands to monomials `coefficient · Σ_{indices : limits} Π factors`. Exchanging two
sums changes nothing, since a monomial has one *set* of bound indices and one *set* of
limits. What remains is bookkeeping, each piece canonical by itself:

* a time index that the limits determine is replaced by its value;
* a time index starts at 0 (it is shifted), and where the caller says so the top of its
  range is split off, with running products unfolded there;
* a set of limits (`u - v <= c` over the integers) is closed by shortest paths: two sets that
  allow the same times close to the same table;
* bound indices are numbered in an order that `naming` proposes, and that is checked to be one;
* arguments of functions are normal forms again, so functions respect equality.

Two terms with one normal form are equal for every size of the widths and all times that
the context allows. The converse is not claimed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import count, islice, product
from typing import Any

from ..naming import Label, propose
from .terms import TIME, Add, App, Atom, Ix, Lam, Mul, Node, Num, Prod, Sum, Term, Var
from .terms import bounded_by, free, in_order, ix, parts, put, require, substitute

Limit = tuple[Var | None, Var | None, int]  # (u, v, c): u - v <= c, None being the number 0
Context = frozenset[Limit]
Names = dict[Var, Label]

LARGEST_EXPANSION = 100_000  # monomials of one subterm, multiplied out
LARGEST_FORM = 100_000  # settled monomials of one normal form, those of arguments included
LARGEST_BINDING = 32  # bound indices of one monomial
LARGEST_CONTEXT = 101  # times of one set of constraints, 0 included


def at_most(low: Ix, high: Ix) -> Limit:
    """The constraint `low <= high`."""
    bounded_by(low, high)
    u, v = (index.vars[0] if index.vars else None for index in (low, high))
    return (u, v, high.shift - low.shift)


def limits(var: Var, low: Ix, high: Ix) -> Context:
    """The constraints `low <= var <= high`."""
    return frozenset((at_most(low, ix(var)), at_most(ix(var), high)))


def naturals(variables: frozenset[Var]) -> Context:
    """`0 <= v` for each of the time variables: free times are natural numbers."""
    return frozenset((None, v, 0) for v in variables if v.sort == TIME)


@lru_cache(maxsize=50_000)
def close(constraints: Context) -> dict[tuple[Var | None, Var | None], int] | None:
    """All implied constraints (the tightest for each pair); None where no times satisfy them."""
    nodes = {None, *(n for u, v, _ in constraints for n in (u, v))}
    require(len(nodes) <= LARGEST_CONTEXT, f"at most {LARGEST_CONTEXT - 1} times may be compared.")
    table = {(n, n): 0 for n in nodes}
    for u, v, c in constraints:
        table[u, v] = min(c, table.get((u, v), c))
    for w, u, v in product(nodes, repeat=3):
        if (u, w) in table and (w, v) in table:
            through = table[u, w] + table[w, v]
            table[u, v] = min(through, table.get((u, v), through))
    return None if any(table[n, n] < 0 for n in nodes) else table


def implied(context: Context, constraint: Limit) -> bool:
    """Whether every choice of times that the context allows satisfies the constraint."""
    table, (u, v, c) = close(context), constraint
    return table is None or (u == v and c >= 0) or table.get((u, v), c + 1) <= c


@dataclass(frozen=True, slots=True)
class Monomial:
    """`coefficient · Σ_{bound : limits} Π factors`."""

    coefficient: Fraction = Fraction(1)
    bound: tuple[Var, ...] = ()
    limits: Context = frozenset()
    factors: tuple[Atom | App | Prod, ...] = ()

    def times(self, other: "Monomial") -> "Monomial":
        """The product; the two must not share bound indices."""
        bound = self.bound + other.bound
        require(len(bound) <= LARGEST_BINDING, f"at most {LARGEST_BINDING} indices may be bound.")
        coefficient, factors = self.coefficient * other.coefficient, self.factors + other.factors
        return Monomial(coefficient, bound, self.limits | other.limits, factors)

    def put(self, var: Var, value: Ix, *new: Var) -> "Monomial":
        """Replace a bound index by `value`; `new` are bound in its place."""
        bound = (*(v for v in self.bound if v != var), *new)
        values = {var: value}

        def moved(limit: Limit) -> Limit:
            u, v, c = limit
            low, high = (Ix((u,) if u else ()), Ix((v,) if v else (), c))
            return at_most(put(low, values), put(high, values))

        factors = substitute(self.factors, values)
        return Monomial(self.coefficient, bound, frozenset(map(moved, self.limits)), factors)


def few(monomials: Iterator[Monomial]) -> list[Monomial]:
    """The monomials, if they are not too many."""
    found = list(islice(monomials, LARGEST_EXPANSION + 1))
    require(len(found) <= LARGEST_EXPANSION, f"more than {LARGEST_EXPANSION} monomials arise.")
    return found


def expand(term: Term, names: Iterator[str]) -> list[Monomial]:
    """Multiply out. Bound indices get new names, so that products cannot capture."""
    if isinstance(term, Num):
        return [Monomial(Fraction(term.top, term.bottom))]
    if isinstance(term, Add):
        return few(m for t in term.terms for m in expand(t, names))
    if isinstance(term, Mul):
        found = [Monomial()]
        for factor in term.factors:
            more = expand(factor, names)
            found = few(m.times(n) for m in found for n in more)
        return found
    if isinstance(term, Sum):
        var = Var(next(names), term.var.sort)
        times = limits(var, term.low, term.high) if term.low and term.high else frozenset()
        body = expand(substitute(term.body, {term.var: ix(var)}), names)
        return [Monomial(bound=(var,), limits=times).times(m) for m in body]
    return [Monomial(factors=(term,))]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a term stands.

    context: what is known of times; peel: where ranges are cut; names: the labels of indices
    bound outside; depth: how deep the term is nested in arguments; budget: an item for each
    settled monomial that may still arise.
    """

    context: Context
    peel: Ix | None = None
    names: Names = field(default_factory=dict)
    depth: int = 0
    budget: Iterator[int] = field(default_factory=lambda: iter(range(LARGEST_FORM)))


def settle(m: Monomial, scope: Scope, names: Iterator[str]) -> Iterator[Monomial]:
    """Solve determined times, start ranges at 0, split off tops at the peel, unfold products."""
    left = [m]
    while left:
        m = left.pop()
        changed = changed_once(m, scope, names)
        if changed is None:
            yield m
        left.extend(changed or ())


def changed_once(m: Monomial, scope: Scope, names: Iterator[str]) -> list[Monomial] | None:
    """What `m` becomes by the first change that applies, nothing if it is 0; None if none does."""
    known = scope.context | m.limits
    table = close(known)
    if table is None:
        return []
    for v in (v for v in m.bound if v.sort == TIME):
        if moved := settled_time(m, v, table, scope, names):
            return moved
    for k, factor in enumerate(m.factors):
        unfolded = unfold(factor, known, scope.peel) if isinstance(factor, Prod) else None
        if unfolded is not None:
            rest = replace(m, factors=m.factors[:k] + m.factors[k + 1 :])
            return [rest.times(n) for n in expand(unfolded, names)]
    return None


def settled_time(m: Monomial, v: Var, table: dict, scope: Scope, names: Iterator) -> list[Monomial]:
    """The monomials that `m` becomes if something is to be done about its time `v`, or none."""
    equal = [w for u, w in table if u == v != w and table.get((w, v)) == -table[v, w]]
    if equal:  # v is w plus a constant, for a constant w, else a free one, else a bound one
        w = min(equal, key=lambda w: (w is not None, w in m.bound or w in scope.names, str(w)))
        return [m.put(v, Ix((w,) if w else (), table[v, w]))]
    peel = scope.peel
    least = -table.get((None, v), 0)
    if least != 0:
        w = Var(next(names), TIME)
        return [m.put(v, ix(w, least), w)]
    top = table.get((v, peel.vars[0])) if peel else None
    if peel and top is not None and top >= peel.shift:
        below = replace(m, limits=m.limits | {(v, peel.vars[0], top - 1)})
        return [below, m.put(v, Ix(peel.vars, top))]
    return []


def unfold(factor: Prod, context: Context, peel: Ix | None) -> Term | None:
    """One step of a running product: an empty one is 1, a top factor is taken out."""
    low, high, last = factor.low, factor.high, Ix(factor.high.vars, factor.high.shift - 1)
    if implied(context, at_most(high, Ix(low.vars, low.shift - 1))):
        return Num(1)
    at_peel = peel is not None and high.vars == peel.vars and high.shift >= peel.shift
    if (at_peel or low.vars == high.vars) and implied(context, at_most(low, high)):
        top = substitute(factor.factor.body, dict.fromkeys(factor.factor.binders, high))
        return Mul((Prod(low, last, factor.factor), top))
    return None


def normal_form(term: Any, context: Context, peel: Ix | None = None) -> tuple:
    """The canonical form of a term as nested tuples, for all times that `context` allows.

    `peel` is `t + c`: ranges that reach so far are cut there, last step first.
    """
    plain = peel is None or [v.sort for v in peel.vars] == [TIME]
    require(plain, "ranges are peeled at a time variable plus a constant.")
    return form(term, Scope(context, peel))


whole_form = lru_cache(maxsize=100)(normal_form)  # that of the claim is asked for again and again


def form(term: Any, scope: Scope) -> tuple:
    """The normal form of a term where it stands: settled monomials, alike ones collected."""
    names = (f"${scope.depth}_{k}" for k in count())  # no record holds a `$`
    total: dict[tuple, Fraction] = {}
    for raw in expand(term, names):
        for m in settle(raw, scope, names):
            enough = next(scope.budget, None) is not None
            require(enough, f"more than {LARGEST_FORM} monomials arise in one normal form.")
            key = shape(m, scope)
            total[key] = total.get(key, Fraction(0)) + m.coefficient
    return tuple(sorted((k, c.numerator, c.denominator) for k, c in total.items() if c))


def shape(m: Monomial, scope: Scope) -> tuple:
    """A monomial without coefficient and names: its connected components, each numbered."""
    inner, outer = close(scope.context | m.limits) or {}, close(scope.context) or {}
    tighter = [
        ("<=", u, v, c)
        for (u, v), c in inner.items()
        if u != v and (u in m.bound or v in m.bound or outer.get((u, v), c + 1) > c)
    ]
    components: list[tuple[frozenset[Var], list]] = [(frozenset((v,)), []) for v in m.bound]
    for edge in (*m.factors, *tighter):
        joined = [part for part in components if part[0] & free(edge)]
        components = [part for part in components if not part[0] & free(edge)]
        variables = frozenset(v for part in joined for v in part[0])
        components.append((variables, [e for part in joined for e in part[1]] + [edge]))
    return tuple(sorted(numbered(m, *component, inner, scope) for component in components))


def numbered(m: Monomial, variables: frozenset, edges: list, known: dict, scope: Scope) -> tuple:
    """Factors and limits with numbers in place of bound indices: any order of them will do."""

    def picture(edge: Any, names: Names, **budget: Iterator[int]) -> tuple:
        elsewhere = frozenset(m.bound) - free(edge)
        context = frozenset((*p, c) for p, c in known.items() if elsewhere.isdisjoint(p))
        return frozen(edge, Scope(context, scope.peel, scope.names | names, scope.depth, **budget))

    # The proposal may look as often as it likes: each look has a budget of its own.
    near = [(free(edge) & variables, edge) for edge in edges]
    order = propose({v: v.sort for v in variables}, near, picture)
    require(in_order(order) == in_order(variables), "each bound index needs one number.")
    names = {v: ("bound", v.sort, scope.depth, k) for k, v in enumerate(order)}
    seen = sorted(picture(edge, names, budget=scope.budget) for edge in edges)
    return tuple(names.values()), tuple(seen)


def frozen(node: Any, scope: Scope) -> Any:
    """A factor or a limit as nested tuples: indices by their labels, arguments as normal forms."""
    if node is None or isinstance(node, Var):
        return label(node, scope.names)
    if isinstance(node, Ix):
        return tuple(sorted(label(v, scope.names) for v in node.vars)), node.shift
    if isinstance(node, Lam):
        deeper = scope.depth + 1
        own = {v: Var(f"${scope.depth}_{k}_", v.sort) for k, v in enumerate(node.binders)}
        labels = {w: ("argument", w.sort, deeper, k) for k, w in enumerate(own.values())}
        body = substitute(node.body, {v: ix(w) for v, w in own.items()})
        inner = replace(scope, names=scope.names | labels, depth=deeper)
        return tuple(labels.values()), form(body, inner)
    if isinstance(node, Node):
        return (type(node).__name__, *(frozen(part, scope) for part in parts(node)))
    return tuple(frozen(part, scope) for part in node) if isinstance(node, tuple) else node


def label(var: Var | None, names: Names) -> Label:
    """What a variable is called in a form: by its number where it is bound, else by its name."""
    if var is None or var in names:
        return names[var] if var else ("zero", "", 0, 0)
    require("$" not in var.name, "a bound index must have a number.")
    return ("free", f"{var.name}:{var.sort}", 0, 0)
