"""Short names for terms, and the shortest way to write a proof down."""

from fractions import Fraction

from ttt_proofs.checker.definitions import Equation
from ttt_proofs.checker.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Step,
    Theorem,
    infer,
)
from ttt_proofs.checker.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Var, ix


def time(name: str) -> Var:
    """A time."""
    return Var(name, TIME)


def width(name: str, sort: str = "D") -> Var:
    """An index over a width."""
    return Var(name, sort)


def at(shift: int) -> Ix:
    """The constant index."""
    return Ix((), shift)


def index(value: Var | Ix | int) -> Ix:
    """An index, from whatever stands for one."""
    if isinstance(value, Ix):
        return value
    return ix(value) if isinstance(value, Var) else Ix((), value)


def num(value: int | Fraction) -> Num:
    """A constant."""
    return Num(*Fraction(value).as_integer_ratio())


def atom(name: str, *indices) -> Atom:
    """`name[indices...]`."""
    return Atom(name, tuple(map(index, indices)))


def add(*terms) -> Add:
    """A sum."""
    return Add(terms)


def mul(*factors) -> Mul:
    """A product."""
    return Mul(factors)


def total(var: Var, *rest) -> Sum:
    """`total(h, body)` over a width, `total(i, low, high, body)` over times."""
    if len(rest) == 1:
        return Sum(var, None, None, rest[0])
    low, high, body = rest
    return Sum(var, index(low), index(high), body)


def running(var: Var, low, high, body) -> Prod:
    """A running product."""
    return Prod(index(low), index(high), Lam((var,), body))


def call(fn: str, *args, at=(), slots=()) -> App:
    """`fn[at](args)`; an argument that is no `Lam` is a number."""
    lams = tuple(arg if isinstance(arg, Lam) else Lam((), arg) for arg in args)
    return App(fn, tuple(map(index, at)), lams, slots)


def forall(every, left, right) -> Equation:
    """For all `every`: left = right."""
    return Equation(tuple(every), left, right)


class Script:
    """Records steps; what they conclude is asked of the checker, and replayed by `theorem`."""

    def __init__(self, *blocks) -> None:
        self.blocks = blocks
        self.steps: list[Step] = []

    def add(self, rule, *premises: int) -> int:
        """Append a step and return its number."""
        known = {define.name: define for block in self.blocks for define in block}
        conclusion = infer(known, rule, [self.steps[k].conclusion for k in premises])
        self.steps.append(Step(rule, premises, conclusion))
        return len(self.steps) - 1

    def define(self, name: str, entry=None, start: bool = False) -> int:
        """The equation that defines `name`."""
        return self.add(Definition(name, entry, start))

    def assume(self, equation: Equation) -> int:
        """A hypothesis."""
        return self.add(Assume(equation))

    def begin(self, every, term) -> int:
        """`term = term`."""
        return self.add(Reflexivity(tuple(every), term))

    def calculate(self, target: int, term, *sources: int, peel=None) -> int:
        """The target's right side, after using the sources, is `term`."""
        return self.add(Calculate(term, peel), target, *sources)

    def induct(self, var: Var, predicate, premises, pick: int = 0) -> int:
        """Induction; premises are the base cases, then the steps."""
        return self.add(Induction(var, tuple(predicate), pick), *premises)

    @property
    def proof(self) -> Proof:
        """The record."""
        return Proof(tuple(self.blocks), tuple(self.steps))

    def theorem(self) -> Theorem:
        """The record, replayed."""
        return Theorem(self.proof)


def proof_of(*steps: Step, blocks=()) -> Proof:
    """A record written by hand."""
    return Proof(tuple(blocks), steps)
