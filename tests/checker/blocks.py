"""Random blocks of definitions, and what they define by brute force, if they define anything.

Written from the documentation of `definitions`, without the checker's order: a value is found by
asking for the values that its definition mentions, and a value that is asked for while it is
being found has no definition. Values out of range are random, as those of any other symbol.
"""

from itertools import product
from random import Random

from tests.checker.build import add, call, mul, time, total, width
from tests.checker.model import Model, Number
from ttt_proofs.checker.definitions import Block, Define, DefineGradient
from ttt_proofs.checker.terms import TIME, Atom, Ix, Lam, Num, Var, ix

MOST = 40  # values that wait for one another: more of them are taken to go on for ever


class Endless(Exception):
    """A value that needs itself, or ever more values."""


def recursive_time(define: Define) -> int:
    """The place of the time that a definition with a start recurses over."""
    return 1 if len(define.every) > 1 and define.every[1].sort == TIME else 0


class Solved(Model):
    """A model in which the definitions hold: the values are found by asking for them."""

    def __init__(self, seed: int, sizes: dict[str, int], *blocks: Block) -> None:
        super().__init__(seed, sizes)
        self.defined = {define.name: define for block in blocks for define in block}
        self.found: dict[tuple, Number] = {}
        self.waiting: set[tuple] = set()

    def symbol(self, name: str, *at: int) -> Number:
        """The value of a symbol, defined or free."""
        define = self.defined.get(name)
        if define is None or not self.inside(define, at):
            return super().symbol(name, *at)
        key = (name, *at)
        if key not in self.found:
            if key in self.waiting or len(self.waiting) > MOST:
                raise Endless(key)
            self.waiting.add(key)
            try:
                self.found[key] = (
                    self.slope(define, at)
                    if isinstance(define, DefineGradient)
                    else self.follow(define, at)
                )
            finally:
                self.waiting.remove(key)
        return self.found[key]

    def inside(self, define: Define | DefineGradient, at: tuple[int, ...]) -> bool:
        """Whether the definition speaks of this value."""
        every = define.every
        if isinstance(define, DefineGradient):
            every += define.at.binders
        return len(every) == len(at) and all(
            n >= 0 if v.sort == TIME else n in self.range(v.sort)
            for v, n in zip(every, at, strict=True)
        )

    def follow(self, define: Define, at: tuple[int, ...]) -> Number:
        """The defining term, one step earlier if there is a start."""
        env = dict(zip(define.every, at, strict=True))
        if define.start is None:
            return self.value(define.term, env)
        time = define.every[recursive_time(define)]
        if env[time]:
            return self.value(define.term, env | {time: env[time] - 1})
        return self.value(define.start, {v: n for v, n in env.items() if v != time})

    def slope(self, define: DefineGradient, at: tuple[int, ...]) -> Number:
        """The derivative of the loss when one entry of the parameter moves."""
        n = len(define.every)
        env, cell = dict(zip(define.every, at[:n], strict=True)), at[n:]

        def moved(*entry: int) -> Number:
            point = self.value(
                define.at.body, env | dict(zip(define.at.binders, entry, strict=True))
            )
            return point | ({1: 1} if entry == cell else {})

        before, self.fixed = self.fixed, {define.param: moved}
        try:
            return {0: self.value(define.loss, env).get(1, 0)}
        finally:
            self.fixed = before

    def breach(self, top: int = 2):
        """A defining equation that fails for small indices, or None; `Endless` if there is none."""
        for define in self.defined.values():
            if isinstance(define, DefineGradient):
                ranges = [self.ranged(v, top) for v in (*define.every, *define.at.binders)]
                for at in product(*ranges):
                    self.symbol(define.name, *at)
                continue
            for start in (False, True) if define.start else (False,):
                equation = define.equation(None, start)
                for at in product(*(self.ranged(v, top) for v in equation.every)):
                    env = dict(zip(equation.every, at, strict=True))
                    if self.value(equation.left, env) != self.value(equation.right, env):
                        return equation, at
        return None

    def ranged(self, v: Var, top: int) -> range:
        """Small values of an index."""
        return range(top + 1) if v.sort == TIME else self.range(v.sort)


ORDERS = ["", "t", "t", "th", "tj", "tj", "tjh", "tjs", "tjs", "tjsh", "ht", "tht"]


class Blocks:
    """A source of random blocks; most are refused, and all symbols are small."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def block(self) -> Block:
        """A block of up to three definitions, one a gradient perhaps."""
        number = self.random.randint(1, 3)
        self.shapes = {f"x{k}": self.shape() for k in range(number)}
        slopes = [name for name in self.shapes if self.random.random() < 0.2][:1]
        made = [
            self.gradient(name) if name in slopes else self.define(name) for name in self.shapes
        ]
        return tuple(made)

    def shape(self) -> tuple[Var, ...]:
        """The indices of a symbol."""
        order = self.random.choice(ORDERS)
        names = [("h" if letter == "h" else letter, k) for k, letter in enumerate(order)]
        return tuple(
            width(name) if name == "h" else time(name if name not in order[:k] else "u")
            for name, k in names
        )

    def index(self, place: int, scope: list[Var]) -> Ix:
        """An index, most often of the time that belongs at this place."""
        if self.random.random() < 0.15 or not scope:
            return Ix((), self.random.randint(-1, 2))
        own = [v for v in scope if v.name == "tjs"[min(place, 2)]]
        v = own[0] if own and self.random.random() < 0.75 else self.random.choice(scope)
        shift = self.random.choice([-2, -1, -1, 0, 0, 0, 1]) if v.sort == TIME else 0
        return ix(v, shift)

    def atom(self, scope: list[Var]) -> Atom:
        """A symbol of the block."""
        name, every = self.random.choice([*self.shapes.items()])
        return Atom(name, tuple(self.index(k, scope) for k in range(len(every))))

    def term(self, every: tuple[Var, ...]):
        """A sum of a few values, some of them under a sum or a function."""
        number = Num(self.random.randint(1, 9))
        pieces: list = [number]
        for _ in range(self.random.choice([0, 1, 1, 2])):
            kind, bound = self.random.random(), self.random.choice([time("i"), time("j")])
            if kind < 0.15 and bound not in every:
                pieces.append(total(bound, 0, 1, self.atom([*every, bound])))
            elif kind < 0.25:
                pieces.append(call("f", self.atom([*every])))
            else:
                pieces.append(mul(self.atom([*every]), number))
        return add(*pieces)

    def define(self, name: str) -> Define:
        """A definition, most often a recursion."""
        every = self.shapes[name]
        if not every or every[0].sort != TIME or self.random.random() < 0.35:
            return Define(name, every, self.term(every))
        k = 1 if len(every) > 1 and every[1].sort == TIME else 0
        return Define(name, every, self.term(every), self.term(every[:k] + every[k + 1 :]))

    def gradient(self, name: str) -> DefineGradient:
        """A gradient of a square, in a number."""
        every, param = self.shapes[name], Atom("X", ())
        loss = mul(add(param, self.term(every)), add(param, Num(2)))
        return DefineGradient(name, every, "X", loss, Lam((), self.term(every)))
