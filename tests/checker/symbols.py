"""Random terms over symbols whose indices fit, and small changes that may change the meaning."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

from tests.checker.build import at, running, time, total, width
from tests.checker.generate import Terms
from ttt_proofs.checker.terms import (
    TIME,
    Add,
    Atom,
    Ix,
    Mul,
    Num,
    Prod,
    Sum,
    Var,
    in_order,
    inside,
    ix,
    rebuild,
    substitute,
)

TIMES = [time(name) for name in ("i", "t", "i_", "h")]
WIDTHS = [width("i"), width("h"), width("h", "E"), width("t", "E")]
SHAPES = {"A": (TIME,), "B": (TIME, "D"), "C": ("D",), "K": (), "V": ("E",), "W": (TIME, TIME)}


class Symbols(Terms):
    """Random terms over symbols with indices that mostly fit; `shapes` grows with a proof."""

    names = ("i", "t", "h", "i_")

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.shapes: dict[str, tuple[str, ...]] = dict(SHAPES)
        self.favourite = ""

    def index(self, scope: list[Var]) -> Ix:
        """A random index, also where nothing is in scope."""
        return super().index(scope) if scope else at(self.random.randint(-1, 2))

    def atom(self, scope: list[Var]) -> Atom:
        """A random atom, rarely with an index too few."""
        name = self.random.choice([*self.shapes])
        if self.favourite in self.shapes and self.flip(0.5):
            name = self.favourite
        indices = [self.fitting(sort, scope) for sort in self.shapes[name]]
        return Atom(name, tuple(indices[1:] if self.flip(0.02) else indices))

    def fitting(self, sort: str, scope: list[Var]) -> Ix:
        """An index of this sort, mostly."""
        own = [v for v in scope if v.sort == sort]
        if not own or self.flip(0.08):
            return self.index(scope)
        if sort != TIME:
            return ix(self.random.choice(own))
        more = 2 if self.flip(0.05) else 1
        return Ix(
            in_order(self.random.choices(own, k=more)), self.random.choice([0, 0, 0, 0, 1, -1])
        )

    def ranged(self, scope: Sequence[Var]) -> Any:
        """A sum or product over a range that ends near a time."""
        inner, names = time(self.random.choice(self.names)), [v for v in scope if v.sort == TIME]
        last = self.random.choice([v for v in [*names, time("t"), time("i")] if v != inner])
        low, high = at(self.random.choice([-1, 0, 0, 1])), ix(last, self.random.randint(-1, 1))
        body = self.term([*(v for v in scope if v != inner), inner], 0)
        if self.flip(0.5):
            return running(inner, low, high, body)
        return total(inner, low, high, body)

    def summed_over(self, var: Var, body) -> Sum:
        """The sum of a term over an index."""
        if var.sort != TIME:
            return total(var, body)
        others = [v for v in (time("t"), time("i")) if v != var]
        return total(var, self.random.choice([-1, 0, 0, 1]), self.bound(others), body)

    def at_one_place(self, node, kinds, change) -> Any:
        """The term with a change at one place, if there is one for it."""
        found = len(inside(node, kinds))
        if not found:
            return node
        place, number = self.random.randrange(found), count()

        def visit(part):
            if isinstance(part, kinds) and next(number) == place:
                return change(part)
            return rebuild(part, visit)

        return visit(node)

    def spoiled(self, node) -> Any:
        """A small change somewhere, that may or may not change the meaning."""
        near = inside(node, Var)

        def change(part):
            if isinstance(part, Ix):
                if part.vars and self.flip(0.3):
                    alike = [v for v in near if v.sort == part.vars[0].sort]
                    return ix(self.random.choice(alike), part.shift)
                return Ix(part.vars, part.shift + self.random.choice([-1, 1]))
            if isinstance(part, Num):
                return Num(part.top + 1, part.bottom)
            if isinstance(part, Atom):
                alike = [n for n, shape in self.shapes.items() if len(shape) == len(part.ix)]
                return Atom(self.random.choice([*alike, part.name]), part.ix)
            return type(part)((part.terms if isinstance(part, Add) else part.factors)[1:])

        return self.at_one_place(node, Ix | Num | Atom | Add | Mul, change)

    def split(self, node) -> Any:
        """The last step of a range taken out somewhere: false if the range may be empty."""

        def change(part: Sum | Prod) -> Any:
            if part.high is None:
                return part
            last, less = part.high, Ix(part.high.vars, part.high.shift - 1)
            if isinstance(part, Prod):
                top = substitute(part.factor.body, dict.fromkeys(part.factor.binders, last))
                return Mul((replace(part, high=less), top))
            return Add((replace(part, high=less), substitute(part.body, {part.var: last})))

        return self.at_one_place(node, Sum | Prod, change)

    def rewritten(self, node) -> Any:
        """Something like the term: most often equal to it."""
        change = self.random.choice([self.scrambled, self.scrambled, self.split, self.spoiled])
        return change(node)
