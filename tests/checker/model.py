"""What terms mean, by brute force: small widths and times, random values modulo a prime.

Written from the documentation of `terms`, without any of the checker's algorithms. Numbers may
carry nilpotent parts (`e*e = 0`), so that a derivative is a coefficient.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import product

from ttt_proofs.checker.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Var

PRIME = (1 << 61) - 1
WINDOW = range(-2, 5)  # the entries that a function of a whole sequence looks at

Number = dict[int, int]  # from a set of nilpotents, as bits, to its coefficient


def number(value: int) -> Number:
    """A plain number."""
    return {0: value % PRIME}


def plus(numbers: Iterable[Number]) -> Number:
    """The sum."""
    total: Number = {0: 0}
    for a in numbers:
        for bits, value in a.items():
            total[bits] = (total.get(bits, 0) + value) % PRIME
    return {bits: value for bits, value in total.items() if value or not bits}


def times(numbers: Iterable[Number]) -> Number:
    """The product."""
    total: Number = {0: 1}
    for a in numbers:
        pieces = (
            {x | y: u * v} for (x, u), (y, v) in product(total.items(), a.items()) if not x & y
        )
        total = plus(pieces)
    return total


class Model:
    """Random functions for all symbols; `fixed` gives some of them a meaning."""

    def __init__(
        self,
        seed: int,
        sizes: dict[str, int],
        fixed: dict[str, Callable[..., Number]] | None = None,
    ) -> None:
        self.seed, self.sizes, self.fixed = seed, sizes, fixed or {}

    def oracle(self, *key: object) -> int:
        """A random number that depends on the key."""
        text = repr((self.seed, key)).encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % PRIME

    def range(self, sort: str) -> range:
        """The indices of a width; for a whole sequence, the window."""
        return WINDOW if sort == TIME else range(self.sizes[sort])

    def index(self, index: Ix, env: dict) -> int:
        """The value of an index."""
        return sum(env[v] for v in index.vars) + index.shift

    def symbol(self, name: str, *at: int) -> Number:
        """The value of a symbol."""
        return self.fixed[name](*at) if name in self.fixed else number(self.oracle(name, *at))

    def function(self, fn: str, at: tuple, entries: dict, slots: tuple, level: int = 40) -> Number:
        """`fn[at]` of arguments given entry by entry, differentiated at each slot."""
        if slots:
            epsilon, moved = 1 << level, dict(entries)
            if slots[0] not in moved:
                return number(0)
            moved[slots[0]] = plus((moved[slots[0]], {0: 0, epsilon: 1}))
            value = self.function(fn, at, moved, slots[1:], level + 1)
            return plus({bits ^ epsilon: c} for bits, c in value.items() if bits & epsilon)
        lines = [
            plus(
                [number(self.oracle(fn, at, k))]
                + [times((number(self.oracle(fn, at, k, e)), x)) for e, x in entries.items()]
            )
            for k in range(3)
        ]
        return times(lines)

    def value(self, term, env: dict) -> Number:
        """The value of a term where `env` gives its free indices."""
        if isinstance(term, Num):
            return number(term.top * pow(term.bottom, -1, PRIME))
        if isinstance(term, Atom):
            return self.symbol(term.name, *(self.index(i, env) for i in term.ix))
        if isinstance(term, Add):
            return plus(self.value(t, env) for t in term.terms)
        if isinstance(term, Mul):
            return times(self.value(t, env) for t in term.factors)
        if isinstance(term, Sum):
            values = self.range(term.var.sort)
            if term.low and term.high:
                values = range(self.index(term.low, env), self.index(term.high, env) + 1)
            return plus(self.value(term.body, env | {term.var: n}) for n in values)
        if isinstance(term, Prod):
            values = range(self.index(term.low, env), self.index(term.high, env) + 1)
            lam = term.factor
            inner = (env | dict.fromkeys(lam.binders, n) for n in values)
            return times(self.value(lam.body, e) for e in inner)
        assert isinstance(term, App)
        entries = {(k, e): x for k, lam in enumerate(term.args) for e, x in self.lam(lam, env)}
        at = tuple(self.index(i, env) for i in term.ix)
        slots = tuple((k, tuple(self.index(i, env) for i in e)) for k, e in term.slots)
        return self.function(term.fn, at, entries, slots)

    def lam(self, lam: Lam, env: dict):
        """The entries of an argument."""
        for e in product(*(self.range(v.sort) for v in lam.binders)):
            yield e, self.value(lam.body, env | dict(zip(lam.binders, e, strict=True)))

    # A normal form is nested tuples; this reads one back. Labels are tuples: `("free",
    # "t:time", 0, 0)` is free, all others are bound.

    def meaning(self, form: tuple, env: dict) -> Number:
        """The value of a normal form: a sum of coefficients times monomials."""
        return plus(
            times([number(top * pow(bottom, -1, PRIME)), self.monomial(*key, env)])
            for key, top, bottom in form
        )

    def monomial(self, names: tuple, edges: tuple, env: dict) -> Number:
        """The sum over the names, within the limits among the edges, of the other edges."""
        if not names:
            return self.edges(edges, env)
        first, rest = names[0], names[1:]
        values = range(self.sizes[first[1]]) if first[1] != TIME else self.span(first, edges, env)
        return plus(self.monomial(rest, edges, env | {first: n}) for n in values)

    def span(self, name: tuple, edges: tuple, env: dict) -> range:
        """The times within the limits that involve only known indices."""
        limits = [edge[1:] for edge in edges if edge[0] == "<="]
        known = {(name,) for name in env} | {()}
        high = min(
            self.place(v, env) - u[1] for u, v in limits if u[0] == (name,) and v[0] in known
        )
        low = max(self.place(u, env) - v[1] for u, v in limits if v[0] == (name,) and u[0] in known)
        return range(low, high + 1)

    def edges(self, edges: tuple, env: dict) -> Number:
        """The product of the factors, or 0 outside the limits."""
        limits = (edge[1:] for edge in edges if edge[0] == "<=")
        if any(self.place(low, env) > self.place(high, env) for low, high in limits):
            return number(0)
        return times(self.factor(e, env) for e in edges if e[0] != "<=")

    def place(self, index: tuple, env: dict) -> int:
        """The value of an index in a normal form."""
        return sum(env[name] for name in index[0]) + index[1]

    def factor(self, edge: tuple, env: dict) -> Number:
        """The value of a factor in a normal form."""
        if edge[0] == "Atom":
            return self.symbol(edge[1], *(self.place(i, env) for i in edge[2]))
        if edge[0] == "Prod":
            low, high, (names, body) = edge[1:]
            values = range(self.place(low, env), self.place(high, env) + 1)
            return times(self.meaning(body, env | dict.fromkeys(names, n)) for n in values)
        _, fn, at, args, slots = edge
        entries = {
            (k, e): self.meaning(body, env | dict(zip(names, e, strict=True)))
            for k, (names, body) in enumerate(args)
            for e in product(*(self.range(name[1]) for name in names))
        }
        places = tuple(self.place(i, env) for i in at)
        chosen = tuple((k, tuple(self.place(i, env) for i in e)) for k, e in slots)
        return self.function(fn, places, entries, chosen)


def labels(env: dict[Var, int]) -> dict:
    """The environment in which a normal form is read."""
    return {("free", f"{v.name}:{v.sort}", 0, 0): n for v, n in env.items()}
