"""Random definitions, and random recursions whose closed form is known."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.checker.blocks import Blocks
from tests.checker.build import add, at, atom, call, mul, num, running, time, total, width
from tests.checker.symbols import TIMES, WIDTHS, Symbols
from ttt_proofs.checker.definitions import Block, Define, DefineGradient, Equation
from ttt_proofs.checker.terms import TIME, Atom, Ix, Lam, Var, ix, substitute


@dataclass(frozen=True)
class Ladder:
    """A recursion over `time`, with `rest` besides: what it starts from, and what it comes to.

    `defined` says whether it is a definition, or else two hypotheses.
    """

    name: str
    time: Var
    outer: tuple[Var, ...]
    rest: tuple[Var, ...]
    start: Any
    term: Any
    closed: Any
    defined: bool

    def at(self, index: Ix) -> Atom:
        """The symbol."""
        return ladder_atom(self.name, self.outer, index, self.rest)

    def predicate(self, var: Var) -> Equation:
        """The closed form at the time `var`."""
        closed = substitute(self.closed, {self.time: ix(var)})
        return Equation((*self.outer, *self.rest), self.at(ix(var)), closed)

    def starting(self) -> Equation:
        """The start."""
        return Equation((*self.outer, *self.rest), self.at(at(0)), self.start)

    def going(self) -> Equation:
        """The step."""
        every = (*self.outer, self.time, *self.rest)
        return Equation(every, self.at(ix(self.time, 1)), self.term)


def ladder_atom(name: str, outer: tuple[Var, ...], index: Ix, rest: tuple[Var, ...]) -> Atom:
    """`name[outer, index, rest]`."""
    return Atom(name, (*map(ix, outer), index, *map(ix, rest)))


class Definers:
    """A source of blocks of definitions; `ladders` and `entries` say what is known of them."""

    def __init__(self, random: Random) -> None:
        self.random, self.terms = random, Symbols(random)
        self.flip, self.choice = self.terms.flip, random.choice
        self.ladders: list[Ladder] = []
        self.entries: dict[str, Lam] = {}

    def any_block(self) -> Block:
        """A block of any kind, rarely admitted."""
        return Blocks(self.random).block()

    def new(self, letter: str) -> str:
        """A name for a symbol, rarely one that is taken."""
        number = 0 if self.flip(0.03) else len(self.terms.shapes)
        return f"{letter}{number}"

    def scope(self, most: int = 2) -> tuple[Var, ...]:
        """Some times, then some widths, with different names."""
        found: dict[str, Var] = {}
        times = self.random.sample(TIMES, self.random.randint(0, most))
        for v in times + self.random.sample(WIDTHS, self.choice([0, 0, 1, 1, 2])):
            found.setdefault(v.name, v)
        return tuple(found.values())

    def ladder(self, defined: bool) -> Ladder:
        """A recursion whose closed form is known."""
        names = self.scope(3)
        times = [v for v in names if v.sort == TIME] or [time("k")]
        var, outer = times[0], tuple(times[1:2])
        rest = tuple(v for v in names if v.sort != TIME)
        name, scope = self.new("S" if defined else "H"), [*outer, *rest]
        start = self.terms.term(scope, self.choice([0, 0, 1]))
        stray = [self.choice(TIMES)] if self.flip(0.12) else []
        u = self.terms.term([var, *scope, *stray], self.choice([0, 0, 1]))
        now = ladder_atom(name, outer, ix(var, int(self.flip(0.03))), rest)
        if outer and self.flip(0.2):
            start = add(start, Atom(name, (ix(outer[0], -1), at(1), *map(ix, rest))))
        b, c = (time(new) for new in ("b", "c" if self.flip(0.5) else "i__"))
        then = substitute(u, {var: ix(b)})
        kind = self.choice(["sum", "sum", "product", "linear", "constant"])
        if kind == "sum":
            term, closed = add(now, u), add(start, total(b, 0, ix(var, -1), then))
        elif kind == "product":
            term, closed = mul(now, u), mul(start, running(b, 0, ix(var, -1), then))
        elif kind == "linear":
            a = self.terms.atom([var, *rest])
            gap = running(c, ix(b, 1), ix(var, -1), substitute(a, {var: ix(c)}))
            decay = running(c, 0, ix(var, -1), substitute(a, {var: ix(c)}))
            term = add(mul(a, now), u)
            closed = add(mul(decay, start), total(b, 0, ix(var, -1), mul(then, gap)))
        else:
            term, closed = now, start
        if self.flip(0.05):
            term = now  # which the closed form does not know
        if self.flip(0.05):
            start = self.terms.spoiled(start)
        return Ladder(name, var, outer, rest, start, term, closed, defined)

    def ladder_block(self) -> Block:
        """A recursion as a definition."""
        ladder = self.ladder(True)
        self.ladders.append(ladder)
        every = (*ladder.outer, ladder.time, *ladder.rest)
        return (Define(ladder.name, every, ladder.term, ladder.start),)

    def twins(self) -> Block:
        """Two symbols that become each other: a proof needs both at once."""
        first, other = self.ladder(True), self.new("T")
        pair = [
            replace(first, name=name, term=ladder_atom(then, (), ix(first.time), first.rest))
            for name, then in ((first.name, other), (other, first.name))
        ]
        rest = list(first.rest)
        start = self.terms.term(rest, 1)
        pair = [replace(p, outer=(), start=start, closed=start) for p in pair]
        self.ladders += pair
        return tuple(Define(p.name, (p.time, *p.rest), p.term, start) for p in pair)

    def gradient(self) -> Block:
        """The gradient of a loss in a number or a vector, which is known."""
        every, name = self.scope(), self.new("G")
        scope, c = list(every), width("c")
        u, w = (self.terms.term(scope, self.choice([0, 0, 1])) for _ in range(2))
        if self.flip(0.5):
            y = atom("Y")
            loss, entry = mul(add(y, u), add(y, w)), Lam((), add(y, y, u, w))
            point = Lam((), self.terms.term(scope, 1))
        else:
            fn, weight = self.choice(["f", "g"]), self.terms.atom([*scope, c])
            inner = total(c, mul(atom("Y", c), weight))
            slope = call(fn, inner, slots=((0, ()),))
            loss = add(call(fn, inner), mul(u, total(c, mul(atom("Y", c), atom("Y", c)))))
            e = width(self.choice(["c", "i", "e"]))
            entry = Lam(
                (e,), add(mul(slope, substitute(weight, {c: ix(e)})), mul(num(2), u, atom("Y", e)))
            )
            point = Lam((c,), self.terms.term([*scope, c], 1))
        self.entries[name] = entry
        return (DefineGradient(name, every, "Y", loss, point),)
