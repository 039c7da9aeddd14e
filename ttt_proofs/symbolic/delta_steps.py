"""K steps of the delta rule on one token, from any state: a sum of powers, and its closed form."""

from __future__ import annotations

import sympy as sp

from ..checker.definitions import ONE, ZERO, Block, Define, Equation, sum_over
from ..checker.proof import Proof
from ..checker.terms import TIME, Add, Atom, Ix, Lam, Mul, Prod, Sum, Term, Var, ix
from ..loops import InnerLoop
from ..program.rules import G, W
from . import theory
from .bridge import MINUS_ONE, Place, at, place, product, scalar
from .linear_attention import PAST
from .prover import Prover
from .several_steps import INNER, LAST, J, K, definitions, gradient, inner, outer
from .theory import NOW, T


class DeltaRule:
    """K steps of the delta rule on one token, from any state: the sum, and the closed form."""

    def __init__(self, loop: InnerLoop) -> None:
        self.loop, self.weight = loop, loop.net.last
        hidden, col = theory.ends(loop, self.weight)
        self.every = (T, *hidden, *col, K)
        self.cell: tuple[Place, Place] = (place(hidden), place(col))
        names = theory.storing(loop, NOW)
        inside = theory.ends(loop, self.weight, 1)[0]
        self.key = theory.features(loop, names, (), place(hidden), ())
        other = theory.features(loop, names, (), place(inside), ())
        self.square = sum_over(inside, Mul((other, other)))
        state = outer(self.weight.name, NOW)(place(inside), place(col))
        read = sum_over(inside, Mul((other, state)))
        self.error = Add((Atom("v", (NOW, *place(col))), Mul((MINUS_ONE, read))))
        self.eta = scalar(-sp.expand(loop.rule[W]).coeff(G))
        self.decay = Add((ONE, Mul((MINUS_ONE, self.eta, self.square))))

    def extra(self) -> Block:
        """What is left of the error after j steps, and how much of it has been stored."""
        left, gain = (Atom(name, (NOW, INNER)) for name in ("rest", "gain"))
        more = Mul((self.eta, Add((ONE, Mul((MINUS_ONE, self.square, gain))))))
        return (
            Define("rest", (T, J), Mul((self.decay, left)), ONE),
            Define("gain", (T, J), Add((gain, more)), ZERO),
        )

    def power(self, last: Ix) -> Prod:
        """`(1 - η ‖φ‖²)` to the power `last`, as a running product."""
        return Prod(at(1), last, Lam((Var("s", TIME),), self.decay))

    def step(self, factor: Term, gained: Term) -> Equation:
        """`factor · W[t + 1] = factor · W[t] + φᵀ (v - φ W[t]) · gained`."""
        after, before = (outer(self.weight.name, time)(*self.cell) for time in (ix(T, 1), NOW))
        stored = product([self.key, self.error, gained])
        return Equation(
            self.every, product([factor, after]), Add((product([factor, before]), stored))
        )

    def sum(self) -> Equation:
        """`W[t + 1] = W[t] + φᵀ (v - φ W[t]) η Σ_{j<K} (1 - η ‖φ‖²)^j`."""
        powers = Sum(J, at(0), ix(K, -1), self.power(INNER))
        return self.step(ONE, Mul((self.eta, powers)))

    def closed(self) -> Equation:
        """`‖φ‖² W[t + 1] = ‖φ‖² W[t] + φᵀ (v - φ W[t]) (1 - (1 - η ‖φ‖²)^K)`."""
        return self.step(self.square, Add((ONE, Mul((MINUS_ONE, self.power(LAST))))))

    def prove(self, goal: Equation) -> Proof:
        """Three inductions over the steps: the weight, what is left, what was gained."""
        prover, name = Prover((*definitions(self.loop), self.extra())), f"{self.weight.name}_in"
        slope = prover.definition(
            theory.state("G", self.weight), entry=gradient(self.loop, self.weight)[1]
        )
        gain, rest = (Atom(symbol, (NOW, INNER)) for symbol in ("gain", "rest"))
        stored = product([self.key, self.error, gain])
        state = Equation(
            self.every,
            inner(self.weight.name, NOW, INNER)(*self.cell),
            Add((outer(self.weight.name, NOW)(*self.cell), stored)),
        )
        gained = prover.definition("gain")
        weight = induct_with(prover, state, name, "gain", slope, gained)
        left = Equation((T,), rest, Add((ONE, Mul((MINUS_ONE, self.square, gain)))))
        both = induct_with(prover, left, "rest", "gain", gained)
        powers = induct(prover, Equation((T,), rest, self.power(INNER)), "rest")
        each = Atom("rest", (NOW, ix(PAST)))
        total = Mul((self.eta, Sum(PAST, at(0), ix(J, -1), each)))
        sums = induct(
            prover,
            Equation((T,), gain, total),
            "gain",
            rewrite=((Add((gain, Mul((self.eta, rest)))), both),),
        )
        number = prover.use(
            prover.begin(goal.every, goal.left), prover.definition(self.weight.name), weight
        )
        if goal == self.sum():
            return prover.claim(prover.use(number, sums, powers), goal)
        before = product([self.square, outer(self.weight.name, NOW)(*self.cell)])
        gone = Add((ONE, Mul((MINUS_ONE, Atom("rest", (NOW, LAST))))))
        number = prover.conclude(number, Add((before, product([self.key, self.error, gone]))), both)
        return prover.claim(prover.use(number, powers), goal)


def induct(
    prover: Prover,
    claim: Equation,
    name: str,
    rewrite: tuple[tuple[Term, int], ...] = (),
) -> int:
    """Prove a statement about the defined symbol `name` by induction over the steps j.

    Each of `rewrite` is a form to bring its definition into, and an equation that shows it.
    """
    base = prover.rearrange(prover.definition(name, start=True), claim.put({J: at(0)}).right)
    assumed = prover.assume(claim)
    goal = claim.put({J: ix(J, 1)})
    number = prover.use(prover.begin(goal.every, goal.left), prover.definition(name))
    for term, source in rewrite:
        number = prover.conclude(number, term, source)
    number = prover.use(number, assumed)
    step = prover.rearrange(number, goal.right, INNER)
    return prover.induct(J, (claim,), [base], [step], 0)


def induct_with(prover: Prover, claim: Equation, name: str, other: str, *theirs: int) -> int:
    """As `induct`, over j, for a claim that also mentions the defined symbol `other`.

    `theirs` unfold what both sides of the step mention.
    """
    base, start = (prover.definition(symbol, start=True) for symbol in (name, other))
    base = prover.conclude(base, claim.put({J: at(0)}).right, start)
    assumed, goal = prover.assume(claim), claim.put({J: ix(J, 1)})
    number = prover.use(prover.begin(goal.every, goal.left), prover.definition(name))
    number = prover.use(number, *theirs) if prover.applies(number, theirs[0]) else number
    number = prover.use(number, assumed)
    step = prover.conclude(number, goal.right, *theirs)
    return prover.induct(J, (claim,), [base], [step], 0)
