"""The linear-attention form of a loop: what it claims, and the steps that prove it.

`o_t = q̂_t (decay · W_0 + Σ_i C(i, t) k̂_iᵀ v̂_i)`, where q̂ and k̂ are features of queries and
keys, v̂ is minus the loss' gradient in the outputs (plus, for ascent), and C comes from the
closed form of the update's recurrence.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import sympy as sp

from ..kernel.definitions import Equation, sum_over
from ..kernel.proof import Proof
from ..kernel.terms import TIME, Add, Atom, Ix, Mul, Num, Sum, Term, Var, at, ix
from ..loops import InnerLoop
from ..loops.loop import W, t
from . import theory
from .bridge import index, product, scalar, variable
from .prover import Prover
from .recurrence import Closed, i, solve
from .theory import NOW, T

PAST, PAST_ROW = Var("i", TIME), Var("m", "L")


@dataclass(frozen=True)
class Form:
    """The pieces of the linear-attention form, as kernel terms.

    `query[l, h]` and `key[l', h]` are features, `value[l', c]` what is stored, `coefficient`
    the weight of step i at time t, `start` the decayed initial state, `last` the last step
    that is read. A single step (`last` is None) has no sum over i.
    """

    query: Term
    key: Term
    value: Term
    coefficient: Term
    start: Term
    last: Ix | None
    hidden: Var

    @property
    def term(self) -> Term:
        """`Σ_h query (start + Σ_i coefficient Σ_l' key value)`."""
        past = product([self.coefficient, sum_over((PAST_ROW,), Mul((self.key, self.value)))])
        if self.last is not None:
            past = Sum(PAST, at(0), self.last, past)
        return sum_over((self.hidden,), Mul((self.query, Add((self.start, past)))))


def closed_forms(loop: InnerLoop) -> dict[sp.Symbol, Closed]:
    """The closed form of the update's states."""
    return solve(loop.update.recurrence)


def last_step(loop: InnerLoop) -> sp.Expr:
    """The last step that the reading at t sees: t itself, or t - 1."""
    return t if loop.schedule.read == "after_update" else t - 1


def sign(loop: InnerLoop) -> int:
    """-1 for descent, where v̂ is minus the gradient; +1 for ascent."""
    return 1 if loop.update.ascent else -1


def linear_attention(loop: InnerLoop, *, coefficient: sp.Expr | None = None,
                     scale: sp.Expr | int = 1) -> Form:  # fmt: skip
    """The form that the loop should have.

    `coefficient`, a SymPy expression in i and t, replaces the one found from the recurrence;
    `scale`, an expression in i, is written into the values instead of the coefficient.
    """
    closed, last = closed_forms(loop)[W], last_step(loop)
    found = sp.expand(sign(loop) * closed.weight(i, last))
    weights = scalar(found if coefficient is None else coefficient)
    start = product([scalar(closed.decay(last)), theory.start(loop.net.last)])
    return pieces(loop, ix(PAST), scale, weights, start, index(last))


def single_step(loop: InnerLoop, scale: sp.Expr | int) -> Form:
    """One step: the state before it plays the part of the start."""
    weight = loop.net.last
    now = Atom(weight.name, (NOW, *map(ix, theory.indices(weight))))
    return pieces(loop, NOW, scale, Num(Fraction(1)), now, None)


def pieces(loop: InnerLoop, past: Ix, scale: sp.Expr | int, coefficient: Term, start: Term,
           last: Ix | None) -> Form:  # fmt: skip
    """Query, key and value of the loop, written at the times `past`, with what is given."""
    hidden, row, col = variable(loop.net.last.rows.name), variable("L"), variable("D_v")
    value = theory.cotangent(loop, past)(ix(PAST_ROW), ix(col))
    return Form(
        query=theory.features(loop, "q", theory.read_time(loop), NOW)(ix(row), ix(hidden)),
        key=theory.features(loop, "k", past, past)(ix(PAST_ROW), ix(hidden)),
        value=product([scalar(sign(loop) * sp.sympify(scale)), value]),
        coefficient=coefficient,
        start=start,
        last=last,
        hidden=hidden,
    )


def claim(form: Form) -> Equation:
    """`o[t, l, c] = ` the form, for every t, l and c."""
    every = (T, variable("L"), variable("D_v"))
    return Equation(every, Atom("o", tuple(map(ix, every))), form.term)


def predicate(loop: InnerLoop) -> tuple[Equation, ...]:
    """What holds after t steps: each state of the last layer, in terms of its gradients."""
    weight = loop.net.last
    row, col = theory.indices(weight)
    entry = (ix(row), ix(col))
    parts = []
    for value, closed in closed_forms(loop).items():
        gradient = Atom(theory.state("G", weight), (ix(PAST), *entry))
        written = product([scalar(closed.weight(i, t - 1)), gradient])
        right: Term = Sum(PAST, at(0), ix(T, -1), written)
        if value == W:
            first = product([scalar(closed.decay(t - 1)), theory.start(weight)])
            right = Add((first, right))
        left = Atom(theory.state(value.name, weight), (NOW, *entry))
        parts.append(Equation((row, col), left, right))
    return tuple(parts)


def prove_unrolled(prover: Prover, loop: InnerLoop) -> int:
    """Prove by induction what the last layer's weight is after t steps; returns that step."""
    parts = predicate(loop)
    bases, steps, assumed = [], [], [prover.assume(part) for part in parts]
    names = [part.left.name for part in parts if isinstance(part.left, Atom)]
    for part, name in zip(parts, names, strict=True):
        first = prover.definition(name, start=True)
        bases.append(prover.rearrange(first, part.put({T: at(0)}).right))
    for part, name in zip(parts, names, strict=True):
        goal = part.put({T: ix(T, 1)})
        number = prover.use(prover.begin(part.every, goal.left), prover.definition(name))
        for source in [*steps, *assumed]:  # new values first: they bring in the old ones
            if prover.applies(number, source):
                number = prover.use(number, source)
        steps.append(prover.rearrange(number, goal.right, NOW))
    return prover.induct(T, parts, bases, steps, len(parts) - 1)


def prove_claim(loop: InnerLoop, goal: Equation, *, unroll: bool = True) -> Proof:
    """The steps from the loop's definitions to `goal`, a statement about its output.

    With `unroll`, W is traced back to its start by induction; without, by one step only.
    Whether the steps lead there is for the kernel to say: make a `Theorem` of the result.
    """
    prover = Prover(theory.definitions(loop))
    weight = loop.net.last
    gradient = prover.definition(
        theory.state("G", weight), entry=theory.gradient_entry(loop, weight)
    )
    before = prove_unrolled(prover, loop) if unroll else prover.definition(weight.name)
    number = prover.use(prover.definition("o"), before)
    return prover.claim(prover.use(number, gradient), goal)
