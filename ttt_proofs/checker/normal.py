"""The normal form: sums of indexed monomials.

A term expands to monomials `coefficient · Σ_{indices : limits} Π factors`. Exchanging two
sums changes nothing, since a monomial has one *set* of bound indices and one *set* of
limits. What remains is bookkeeping, each piece canonical by itself:

* a time index that the limits determine is replaced by its value;
* a time index starts at 0 (it is shifted), and where the caller says so the top of its
  range is split off, with running products unfolded there;
* a set of limits (`u - v <= c` over the integers) is closed by shortest paths: two sets that
  allow the same times close to the same table;
* bound names come from colour refinement, with permutations only within ties;
* arguments of functions are normal forms again, so functions respect equality.

Two terms with one normal form are equal for every size of the widths and all times that
the context allows. The converse is not claimed.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import count, pairwise, product

from .terms import TIME, Add, App, Atom, Ix, Lam, Mul, Node, Num, Prod, Sum, Term, Var
from .terms import free, ix, parts, put, require, substitute

Le = tuple[Var | None, Var | None, int]  # (u, v, c): u - v <= c
Context = frozenset[Le]


def at_most(low: Ix, high: Ix) -> Le:
    """The constraint `low <= high`."""
    plain = all([v.sort for v in index.vars] in ([], [TIME]) for index in (low, high))
    require(plain, "a bound of a time range must be one time variable plus a constant.")
    u, v = (index.vars[0] if index.vars else None for index in (low, high))
    return (u, v, high.shift - low.shift)


def limits(var: Var, low: Ix, high: Ix) -> Context:
    """The constraints `low <= var <= high`."""
    return frozenset((at_most(low, Ix((var,))), at_most(Ix((var,)), high)))


def naturals(variables: frozenset[Var]) -> Context:
    """`0 <= v` for each of the time variables: free times are natural numbers."""
    return frozenset((None, v, 0) for v in variables if v.sort == TIME)


@lru_cache(maxsize=50_000)
def close(constraints: Context) -> dict[tuple[Var | None, Var | None], int] | None:
    """All implied constraints (the tightest for each pair); None where no times satisfy them."""
    nodes = {None, *(n for u, v, _ in constraints for n in (u, v))}
    table = {(n, n): 0 for n in nodes}
    for u, v, c in constraints:
        table[u, v] = min(c, table.get((u, v), c))
    for w, u, v in product(nodes, repeat=3):
        if (u, w) in table and (w, v) in table:
            through = table[u, w] + table[w, v]
            table[u, v] = min(through, table.get((u, v), through))
    return None if any(table[n, n] < 0 for n in nodes) else table


def implied(context: Context, constraint: Le) -> bool:
    """Whether every choice of times that the context allows satisfies the constraint."""
    table, (u, v, c) = close(context), constraint
    return table is None or (u == v and c >= 0) or table.get((u, v), c + 1) <= c


class Monomial(Node):
    """`coefficient · Σ_{bound : limits} Π factors`."""

    coefficient: Fraction = Fraction(1)
    bound: tuple[Var, ...] = ()
    limits: frozenset[Le] = frozenset()
    factors: tuple[Atom | App | Prod, ...] = ()

    def times(self, other: "Monomial") -> "Monomial":
        """The product; the two must not share bound indices."""
        return Monomial(
            self.coefficient * other.coefficient,
            self.bound + other.bound,
            self.limits | other.limits,
            self.factors + other.factors,
        )

    def put(self, var: Var, value: Ix, *new: Var) -> "Monomial":
        """Replace a bound index by `value`; `new` are bound in its place."""
        bound = tuple(v for v in self.bound if v != var) + new
        s = {var: value}
        times = frozenset(
            at_most(put(Ix((u,) if u else ()), s), put(Ix((v,) if v else (), c), s))
            for u, v, c in self.limits
        )
        return Monomial(self.coefficient, bound, times, substitute(self.factors, s))


def expand(term: Term, names: Iterator[str]) -> list[Monomial]:
    """Multiply out. Bound indices get new names, so that products cannot capture."""
    if isinstance(term, Num):
        return [Monomial(term.value)]
    if isinstance(term, Add):
        return [m for t in term.terms for m in expand(t, names)]
    if isinstance(term, Mul):
        choices = product(*(expand(factor, names) for factor in term.factors))
        return [reduce(Monomial.times, choice, Monomial()) for choice in choices]
    if isinstance(term, Sum):
        var = Var(next(names), term.var.sort)
        times = limits(var, term.low, term.high) if term.low and term.high else frozenset()
        body = expand(substitute(term.body, {term.var: ix(var)}), names)
        return [Monomial(Fraction(1), (var,), times).times(m) for m in body]
    return [Monomial(factors=(term,))]


def settle(m: Monomial, context: Context, peel: Ix | None, names: Iterator[str]) -> list[Monomial]:
    """Solve determined times, start ranges at 0, split off tops at `peel`, unfold products."""
    table = close(context | m.limits)
    if table is None:
        return []
    for v in (v for v in m.bound if v.sort == TIME):
        for w in sorted((b for a, b in table if a == v != b), key=str):
            if table[v, w] + table.get((w, v), 1 - table[v, w]) == 0:  # v is w plus a constant
                return settle(m.put(v, Ix((w,) if w else (), table[v, w])), context, peel, names)
        if table.get((None, v), 0) != 0:
            w = Var(next(names), TIME)
            return settle(m.put(v, ix(w, -table[None, v]), w), context, peel, names)
        top = table.get((v, peel.vars[0])) if peel else None
        if peel and top is not None and top >= peel.shift:
            below = replace(m, limits=m.limits | {(v, peel.vars[0], top - 1)})
            last = m.put(v, Ix(peel.vars, top))
            return [n for part in (below, last) for n in settle(part, context, peel, names)]
    for k, factor in enumerate(m.factors):
        unfolded = unfold(factor, context | m.limits, peel) if isinstance(factor, Prod) else None
        if unfolded is not None:
            rest = replace(m, factors=m.factors[:k] + m.factors[k + 1 :])
            return [
                s
                for n in expand(unfolded, names)
                for s in settle(rest.times(n), context, peel, names)
            ]
    return [m]


def unfold(factor: Prod, context: Context, peel: Ix | None) -> Term | None:
    """One step of a running product: an empty one is 1, a top factor is taken out."""
    low, high, last = factor.low, factor.high, Ix(factor.high.vars, factor.high.shift - 1)
    if implied(context, at_most(high, Ix(low.vars, low.shift - 1))):
        return Num(Fraction(1))
    at_peel = peel is not None and high.vars == peel.vars and high.shift >= peel.shift
    if (at_peel or low.vars == high.vars) and implied(context, at_most(low, high)):
        top = substitute(factor.factor.body, dict.fromkeys(factor.factor.binders, high))
        return Mul((Prod(low, last, factor.factor), top))
    return None


def normal_form(term, context: Context, peel=None, labels=None, depth: int = 0) -> tuple:
    """The canonical form of a term as nested tuples, for all times that `context` allows.

    `peel` is `t + c`: ranges that reach so far are cut there, last step first. `labels` names
    the free indices of a term that is nested `depth` deep.
    """
    require(peel is None or len(peel.vars) == 1, "ranges are peeled at a time variable plus c.")
    names = (f"${depth}_{k}" for k in count())  # users cannot write `$`
    total: dict[tuple, Fraction] = {}
    for raw in expand(term, names):
        for m in settle(raw, context, peel, names):
            key = frozen_monomial(m, context, labels or {}, depth, peel)
            total[key] = total.get(key, Fraction(0)) + m.coefficient
    return tuple(sorted((k, c.numerator, c.denominator) for k, c in total.items() if c))


whole_form = lru_cache(maxsize=100)(normal_form)  # that of the claim is asked for again and again


def frozen_monomial(m: Monomial, context: Context, labels: dict, depth: int, peel: Ix | None):
    """A monomial's canonical form: its connected components, each with canonical names."""
    inner, outer = close(context | m.limits) or {}, close(context) or {}
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

    def freeze(edge: object, names: dict) -> tuple:
        near = free(edge) | {None}
        known = frozenset((*pair, c) for pair, c in inner.items() if near.issuperset(pair))
        return frozen(edge, known, labels | names, depth, peel)

    return tuple(sorted(canonical(*component, freeze, depth) for component in components))


def canonical(variables: frozenset[Var], edges: list, freeze: Callable, depth: int) -> tuple:
    """The least frozen form over all namings that colour refinement cannot tell apart."""

    def refined(colours: dict[Var, int]) -> dict[Var, int]:
        names = {v: (1, v.sort, 0, c) for v, c in colours.items()}
        seen = {
            v: repr(
                (c, sorted(freeze(e, names | {v: (2, "", 0, 0)}) for e in edges if v in free(e)))
            )
            for v, c in colours.items()
        }
        order = sorted(set(seen.values()))
        finer = {v: order.index(text) for v, text in seen.items()}
        return finer if len(order) in (len({*colours.values()}), len(colours)) else refined(finer)

    def search(colours: dict[Var, int]) -> tuple:
        ties = [c for c, d in pairwise(sorted(colours.values())) if c == d]
        if ties:
            tied = [v for v in colours if colours[v] == ties[0]]
            own: dict = {w: (4, "", depth, k) for k, w in enumerate(colours)}
            # Where exchanging the first with v or with w gives one picture, v and w are twins:
            # a symmetry of the edges takes one to the other, and trying one of them is enough.
            few = {
                repr(sorted(freeze(e, own | {v: own[tied[0]], tied[0]: own[v]}) for e in edges)): v
                for v in tied
            }
            return min(
                search(refined({w: 2 * c + (w != v) for w, c in colours.items()}))
                for v in few.values()
            )
        ranked = sorted(colours, key=lambda v: colours[v])
        names = {v: (3, v.sort, depth, k) for k, v in enumerate(ranked)}
        return (tuple(names.values()), tuple(sorted(freeze(e, names) for e in edges)))

    sorts = sorted({v.sort for v in variables})
    colours = {v: sorts.index(v.sort) for v in variables}
    return search(colours if len(sorts) == len(variables) else refined(colours))


def frozen(node, context: Context, labels: dict, depth: int, peel: Ix | None):
    """A factor or a limit as nested tuples: indices by their labels, arguments as normal forms."""

    def inner(node):
        if node is None or isinstance(node, Var):
            return labels.get(node) or (0, f"{node.name}:{node.sort}" if node else "", 0, 0)
        if isinstance(node, Ix):
            return (tuple(sorted(map(inner, node.vars))), node.shift)
        if isinstance(node, Lam):
            new = {v: Var(f"${depth}_{k}_", v.sort) for k, v in enumerate(node.binders)}
            own = {w: (4, w.sort, depth, k) for k, w in enumerate(new.values())}
            body = substitute(node.body, {v: ix(w) for v, w in new.items()})
            return tuple(own.values()), normal_form(body, context, peel, labels | own, depth + 1)
        if isinstance(node, Node):
            return (type(node).__name__, *map(inner, parts(node)))
        return tuple(map(inner, node)) if isinstance(node, tuple) else node

    return inner(node)
