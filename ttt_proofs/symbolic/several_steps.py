"""Several update steps on each chunk: their number K is a variable, and everything depends on it.

`W[t, ..., K]` is a weight before chunk t, `W_in[t, j, ..., K]` after j steps on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy as sp

from ..checker.definitions import (
    ONE,
    ZERO,
    Block,
    Define,
    DefineGradient,
    Equation,
    sum_over,
)
from ..checker.proof import Proof
from ..checker.terms import TIME, Add, Atom, Ix, Lam, Mul, Prod, Sum, Term, Var, ix
from ..loops import InnerLoop, Weight
from ..loops.losses import F
from ..program.coefficients import t
from ..program.rules import G, W
from . import theory
from .bridge import (
    MINUS_ONE,
    Entry,
    Place,
    Scope,
    at,
    entry,
    index,
    loss_term,
    place,
    product,
    scalar,
)
from .closed_forms import i
from .gradients import adjoint
from .linear_attention import PAST, Form, last_step, past_rows, sign
from .prover import Prover
from .theory import NOW, T

J, K = Var("j", TIME), Var("K", TIME)
INNER, LAST = ix(J), ix(K)


def covered(loop: InnerLoop) -> bool:
    """Whether the update is a plain step at a rate for all entries, the only one covered here."""
    moved = sp.expand(loop.rule[W] - W)
    scalars = all(c.shape == "scalar" for c in loop.coefficients.values())
    plain = len(loop.rule) == 1 and sp.expand(moved - moved.coeff(G) * G) == 0
    return scalars and plain and not moved.coeff(G).has(W, G)


def outer(weight: Weight, time: Ix) -> Entry:
    """A weight before chunk `time`."""
    return lambda row, col: Atom(weight.name, (time, *row, *col, LAST))


def inner(weight: Weight, time: Ix, step: Ix) -> Entry:
    """A weight after `step` steps on chunk `time`."""
    return lambda row, col: Atom(f"{weight.name}_in", (time, step, *row, *col, LAST))


def timed(names: Scope, time: Ix, step: Ix) -> Scope:
    """The names with the parameters of functions, where they change, at that step."""
    if names.time:
        names.time = (time, step, LAST)
    return names


def reading(loop: InnerLoop) -> Scope:
    """The loop's names as chunk t is read, with the weights between two chunks."""
    time = theory.read_time(loop)
    return timed(
        theory.reading(loop, {w.name: outer(w, time) for w in loop.fast_weights}), time, at(0)
    )


def storing(loop: InnerLoop, time: Ix, weight: Weight | None = None, **override: Entry) -> Scope:
    """The loop's names at step j on chunk `time`, its loss weighed as in `theory.storing`."""
    weights = {w.name: inner(w, time, INNER) for w in loop.fast_weights}
    return timed(theory.storing(loop, time, weight, weights | override), time, INNER)


def rate(loop: InnerLoop, time: sp.Expr) -> sp.Expr:
    """What the gradient of chunk `time` is multiplied by."""
    return sp.expand(loop.rule[W]).coeff(G).subs(t, time)


def gradient(loop: InnerLoop, weight: Weight) -> tuple[DefineGradient, Lam]:
    """The definition of `G_W[t, j, K, ...]`, and its entry as SymPy found it."""
    row, col = theory.ends(loop, weight)
    param = f"X_{weight.name}"
    names = storing(loop, NOW, weight, **{weight.name: theory.symbol(param)})
    now = Lam(row + col, inner(weight, NOW, INNER)(place(row), place(col)))
    loss = loss_term(loop.loss.expression, names, theory.weighing(loop, weight, NOW))
    define = DefineGradient(f"G_{weight.name}", (T, J, K), param, loss, now)
    return define, Lam(row + col, entry(adjoint(weight.symbol), place(row), place(col), names))


def definitions(loop: InnerLoop) -> tuple[Block, ...]:
    """The loop as the checker sees it: chunks, and steps within a chunk."""
    block: list[Define | DefineGradient] = []
    gradients = [gradient(loop, weight)[0] for weight in loop.fast_weights]
    for weight in loop.fast_weights:
        row, col = theory.ends(loop, weight)
        cell = (place(row), place(col))
        slope = Atom(f"G_{weight.name}", (NOW, INNER, LAST, *cell[0], *cell[1]))
        moved = scalar(loop.rule[W], {W: inner(weight, NOW, INNER)(*cell), G: slope})
        block += [
            Define(
                weight.name,
                (T, *row, *col, K),
                inner(weight, NOW, LAST)(*cell),
                theory.start(loop, weight),
            ),
            Define(f"{weight.name}_in", (T, J, *row, *col, K), moved, outer(weight, NOW)(*cell)),
        ]
    row, col = theory.rows(loop), theory.rows(loop, "D_v")
    output = entry(F, place(row), place(col), reading(loop))
    return ((*block, *gradients), (Define("o", (T, *row, *col, K), output),))


def linear_attention(loop: InnerLoop) -> Form:
    """`o_t = φ(q) (W_0 + Σ_i η_i Σ_{j<K} φ_ij(k_i)ᵀ v̂_ij)`: K keys and values for each token."""
    hidden, column = theory.ends(loop, loop.net.last)
    row, old, col = place(theory.rows(loop)), place(past_rows(loop)), place(column)
    read, stored = reading(loop), storing(loop, ix(PAST))
    key = theory.features(loop, stored, old, place(hidden), col)
    value = product([scalar(sign(loop)), theory.cotangent(loop, stored, old, col)])
    steps = Sum(J, at(0), ix(K, -1), sum_over(past_rows(loop), Mul((key, value))))
    return Form(
        every=(T, *theory.rows(loop), *column, K),
        tokens=past_rows(loop),
        query=theory.features(loop, read, row, place(hidden), col),
        key=key,
        value=value,
        stored=steps,
        coefficient=scalar(sign(loop) * rate(loop, i)),
        start=theory.start(loop, loop.net.last),
        last=index(last_step(loop)),
        hidden=hidden,
        gate=theory.output_gate(loop, read, row, col),
    )


def one_step(loop: InnerLoop) -> Form:
    """The form of a single step at the summed rate `Σ_{j<K} η`, which is K η for a constant η."""
    form = linear_attention(loop)
    pair = sum_over(form.tokens, Mul((form.key, form.value)))
    total = Sum(J, at(0), ix(K, -1), form.coefficient)
    return replace(form, stored=pair, coefficient=total)


@dataclass
class Unrolled:
    """A proof in the making, with the steps that say what the last layer's weight is."""

    prover: Prover
    within: int  # after j steps on a chunk
    overall: int  # before chunk t
    gradient: int


def unroll(loop: InnerLoop, *extra: Block) -> Unrolled:
    """Two inductions: over the steps on a chunk, then over chunks."""
    weight = loop.net.last
    prover = Prover((*definitions(loop), *extra))
    row, col = theory.ends(loop, weight)
    cell, ends = (place(row), place(col)), row + col
    name = f"G_{weight.name}"
    own = product([scalar(rate(loop, t)), Atom(name, (NOW, ix(PAST), LAST, *place(ends)))])
    before = Sum(PAST, at(0), ix(J, -1), own)
    claim = Equation(
        (T, *ends, K), inner(weight, NOW, INNER)(*cell), Add((outer(weight, NOW)(*cell), before))
    )
    within = induct(prover, claim, J, f"{weight.name}_in")
    each = product([scalar(rate(loop, i)), Atom(name, (ix(PAST), INNER, LAST, *place(ends)))])
    past = Sum(PAST, at(0), ix(T, -1), Sum(J, at(0), ix(K, -1), each))
    claim = Equation((*ends, K), outer(weight, NOW)(*cell), Add((theory.start(loop, weight), past)))
    overall = induct(prover, claim, T, weight.name, within)
    found = prover.definition(name, entry=gradient(loop, weight)[1])
    return Unrolled(prover, within, overall, found)


def induct(
    prover: Prover,
    claim: Equation,
    time: Var,
    name: str,
    *sources: int,
    rewrite: tuple[tuple[Term, int], ...] = (),
) -> int:
    """Prove a statement about the defined symbol `name` by induction on `time`.

    `sources` are used on its definition; each of `rewrite` is a form to bring that into, and an
    equation that shows it.
    """
    base = prover.rearrange(prover.definition(name, start=True), claim.put({time: at(0)}).right)
    assumed = prover.assume(claim)
    goal = claim.put({time: ix(time, 1)})
    number = prover.use(prover.begin(goal.every, goal.left), prover.definition(name))
    for source in sources:
        number = prover.use(number, source)
    for term, source in rewrite:
        number = prover.conclude(number, term, source)
    number = prover.use(number, assumed)
    return prover.induct(
        time, (claim,), [base], [prover.rearrange(number, goal.right, ix(time))], 0
    )


def prove_claim(loop: InnerLoop, goal: Equation) -> Proof:
    """The steps from the loop's definitions to a statement about its output."""
    known = unroll(loop)
    number = known.prover.use(known.prover.definition("o"), known.overall, known.gradient)
    return known.prover.claim(number, goal)


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
        state = outer(self.weight, NOW)(place(inside), place(col))
        read = sum_over(inside, Mul((other, state)))
        self.error = Add((Atom("v", (NOW, *place(col))), Mul((MINUS_ONE, read))))
        self.eta = scalar(-rate(loop, t))
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
        after, before = (outer(self.weight, time)(*self.cell) for time in (ix(T, 1), NOW))
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
        known = unroll(self.loop, self.extra())
        prover, name = known.prover, f"{self.weight.name}_in"
        gain, rest = (Atom(symbol, (NOW, INNER)) for symbol in ("gain", "rest"))
        stored = product([self.key, self.error, gain])
        state = Equation(
            self.every,
            inner(self.weight, NOW, INNER)(*self.cell),
            Add((outer(self.weight, NOW)(*self.cell), stored)),
        )
        gained = prover.definition("gain")
        weight = induct_with(prover, state, name, "gain", known.gradient, gained)
        left = Equation((T,), rest, Add((ONE, Mul((MINUS_ONE, self.square, gain)))))
        both = induct_with(prover, left, "rest", "gain", gained)
        powers = induct(prover, Equation((T,), rest, self.power(INNER)), J, "rest")
        each = Atom("rest", (NOW, ix(PAST)))
        total = Mul((self.eta, Sum(PAST, at(0), ix(J, -1), each)))
        sums = induct(
            prover,
            Equation((T,), gain, total),
            J,
            "gain",
            rewrite=((Add((gain, Mul((self.eta, rest)))), both),),
        )
        number = prover.use(
            prover.begin(goal.every, goal.left), prover.definition(self.weight.name), weight
        )
        if goal == self.sum():
            return prover.claim(prover.use(number, sums, powers), goal)
        before = product([self.square, outer(self.weight, NOW)(*self.cell)])
        gone = Add((ONE, Mul((MINUS_ONE, Atom("rest", (NOW, LAST))))))
        number = prover.conclude(number, Add((before, product([self.key, self.error, gone]))), both)
        return prover.claim(prover.use(number, powers), goal)


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
