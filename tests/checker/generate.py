"""Random terms, made to trip over names; and rewritings that keep their meaning."""

from typing import Any

from ttt_proofs.checker.terms import (
    TIME,
    Add,
    App,
    Atom,
    Ix,
    Lam,
    Mul,
    Node,
    Num,
    Prod,
    Sum,
    Var,
    free,
    ix,
    parts,
    rebuild,
    substitute,
)

# Few names, each with several sorts, and long tails: what a renaming might collide with.
NAMES = ["i", "i_", "i__", "j", "i____", "h"]
SORTS = [TIME, TIME, "D", "E"]
FREE = [Var("i", TIME), Var("t", TIME), Var("i_", TIME), Var("i", "D"), Var("h", "E")]


class Terms:
    """A source of random terms; `random` decides everything."""

    names = NAMES

    def __init__(self, random) -> None:
        self.random = random

    def flip(self, chance: float) -> bool:
        """True with the given chance."""
        return self.random.random() < chance

    def index(self, scope: list[Var]) -> Ix:
        """A random index."""
        if self.flip(0.12):
            return Ix((), self.random.randint(-1, 2))
        v = self.random.choice(scope)
        return ix(v, self.random.choice([0, 0, 0, 1, -1]) if v.sort == TIME else 0)

    def bound(self, scope: list[Var]) -> Ix:
        """A random bound of a time range."""
        times = [v for v in scope if v.sort == TIME]
        return self.index(times) if times and self.flip(0.8) else Ix((), self.random.randint(-1, 2))

    def atom(self, scope: list[Var]) -> Atom:
        """A random atom."""
        indices = tuple(self.index(scope) for _ in range(self.random.choice([1, 1, 2])))
        return Atom(self.random.choice("AB"), indices)

    def lam(self, scope: list[Var], depth: int, number: int) -> Lam:
        """A random argument."""
        binders: dict[str, Var] = {}
        for _ in range(number):
            v = Var(self.random.choice(self.names), self.random.choice(SORTS))
            binders.setdefault(v.name, v)
        inner = [*(v for v in scope if v not in binders.values()), *binders.values()]
        return Lam(tuple(binders.values()), self.term(inner, depth - 1))

    def term(self, scope: list[Var], depth: int):
        """A random term with its free indices in `scope`."""
        kinds = ["sum", "sum", "sum", "add", "mul", "mul", "app", "prod"]
        kind = self.random.choice(kinds if depth > 0 else ["atom"])
        if kind == "atom":
            return Num(self.random.randint(-1, 2)) if self.flip(0.1) else self.atom(scope)
        if kind in ("add", "mul"):
            pieces = tuple(self.term(scope, depth - 1) for _ in range(2))
            return Add(pieces) if kind == "add" else Mul(pieces)
        if kind == "app":
            number = self.random.choice([0, 0, 1])
            at = (self.index(scope),) if self.flip(0.3) else ()
            slots = ((0, tuple(self.index(scope) for _ in range(number))),)
            arg = self.lam(scope, depth, number)
            return App(self.random.choice("fg"), at, (arg,), slots if self.flip(0.2) else ())
        if kind == "prod":
            inner = Var(self.random.choice(self.names), TIME)
            body = self.term([*(v for v in scope if v != inner), inner], depth - 2)
            return Prod(self.bound(scope), self.bound(scope), Lam((inner,), body))
        var = Var(self.random.choice(self.names), self.random.choice(SORTS))
        around = [v for v in scope if v != var]
        low, high = (self.bound(around), self.bound(around)) if var.sort == TIME else (None, None)
        return Sum(var, low, high, self.term([*around, var], depth - 1))

    # Rewritings that keep the meaning, each one that the normal form promises to see through.

    def scrambled(self, node) -> Any:
        """An equal term: shuffled, renamed, sums exchanged and shifted."""
        if not isinstance(node, Node):
            return tuple(map(self.scrambled, node)) if isinstance(node, tuple) else node
        node = rebuild(node, self.scrambled)
        if isinstance(node, Add | Mul):
            (pieces,) = parts(node)
            shuffled = self.random.sample(pieces, len(pieces))
            return self.distributed(type(node)(tuple(shuffled)))
        if isinstance(node, Sum):
            return self.summed(self.exchanged(self.shifted(self.rebound(node))))
        if isinstance(node, Lam) and len(node.binders) == 1:
            (old,) = node.binders
            new = self.new_name(old, node)
            return Lam((new,), substitute(node.body, {old: ix(new)}))
        return node

    def new_name(self, old: Var, node) -> Var:
        """A name for a bound index that is not free in the node."""
        new = Var(self.random.choice([*self.names, "fresh"]), old.sort)
        return old if new in free(node) else new

    def rebound(self, node: Sum) -> Sum:
        """The same sum over another name."""
        new = self.new_name(node.var, node)
        return Sum(new, node.low, node.high, substitute(node.body, {node.var: ix(new)}))

    def shifted(self, node: Sum) -> Sum:
        """The same sum over a shifted time, from a constant: only such ranges are shifted back."""
        if not node.low or not node.high or node.low.vars or self.flip(0.5):
            return node
        c = self.random.choice([-1, 1, 2])
        low, high = (Ix(b.vars, b.shift - c) for b in (node.low, node.high))
        return Sum(node.var, low, high, substitute(node.body, {node.var: ix(node.var, c)}))

    def exchanged(self, node: Sum) -> Sum:
        """Two sums in the other order, where neither depends on the other."""
        inner = node.body
        if not isinstance(inner, Sum) or inner.var == node.var:
            return node
        apart = node.var not in free((inner.low, inner.high))
        if not apart or inner.var in free((node.low, node.high)):
            return node
        return Sum(inner.var, inner.low, inner.high, Sum(node.var, node.low, node.high, inner.body))

    def summed(self, node: Sum):
        """A sum of a sum, as a sum of sums."""
        if not isinstance(node.body, Add) or self.flip(0.5):
            return node
        return Add(tuple(Sum(node.var, node.low, node.high, t) for t in node.body.terms))

    def distributed(self, node: Add | Mul):
        """`a (b + c)` as `a b + a c`, and `a Σ b` as `Σ a b`."""
        if isinstance(node, Add) or len(node.factors) != 2:
            return node
        first, second = node.factors
        if isinstance(second, Add):
            return Add(tuple(Mul((t, first)) for t in second.terms))
        if isinstance(second, Sum) and second.var not in free(first):
            return Sum(second.var, second.low, second.high, Mul((second.body, first)))
        return node
