"""Several update steps on each chunk: their number K is a variable, and everything depends on it.

`W[t, ..., K]` is a weight before chunk t, `W_in[t, j, ..., K]` after j steps on it, and so buffers.
A rule that is linear in its states has a closed form over the steps on a chunk, and what a chunk
makes of its states has one over chunks: `X[t+1] = Σ_y D_Xy[t] y[t] + B_X[t]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

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
from ..checker.terms import (
    TIME,
    Atom,
    Ix,
    Lam,
    Mul,
    Sum,
    Term,
    Var,
    free,
    ix,
    substitute,
)
from ..loops import InnerLoop, Weight
from ..loops.losses import F
from ..program.coefficients import t
from ..program.rules import W_0, G, Line, W
from . import theory
from .bridge import (
    Entry,
    Place,
    Scope,
    added,
    at,
    entry,
    index,
    loss_term,
    place,
    product,
    scalar,
)
from .closed_forms import Closed, LinearLine, NotCoveredError, i, linear, solve, unrolled
from .gates import applied, columns
from .gradients import adjoint
from .linear_attention import PAST, Form, last_step, past_rows, prove_states, sign
from .prover import Prover
from .theory import NOW, T

J, K = Var("j", TIME), Var("K", TIME)
INNER, LAST = ix(J), ix(K)
CHUNK = Var("chunk", TIME)  # in a coefficient, until it is known
BEFORE, STEP, EARLIER = (Var(name, TIME) for name in "npe")  # in what an operator is taken of

Start = Callable[[sp.Symbol], Term]  # a state before the steps on a chunk


def outer(name: str, time: Ix) -> Entry:
    """A state before chunk `time`."""
    return lambda row, col: Atom(name, (time, *row, *col, LAST))


def inner(name: str, time: Ix, step: Ix) -> Entry:
    """A state after `step` steps on chunk `time`."""
    return lambda row, col: Atom(f"{name}_in", (time, step, *row, *col, LAST))


def made(name: str, time: Ix, step: Ix) -> Entry:
    """A gradient, a gate, or what an operator made, on chunk `time` at a step."""
    return lambda row, col: Atom(name, (time, step, LAST, *row, *col))


def timed(names: Scope, time: Ix, step: Ix) -> Scope:
    """The names with the parameters of functions, where they change, at that step."""
    if names.time:
        names.time = (time, step, LAST)
    return names


def reading(loop: InnerLoop) -> Scope:
    """The loop's names as chunk t is read, with the weights between two chunks."""
    time = theory.read_time(loop)
    weights = {w.name: outer(w.name, time) for w in loop.fast_weights}
    return timed(theory.reading(loop, weights), time, at(0))


def storing(loop: InnerLoop, time: Ix, weight: Weight | None = None, **override: Entry) -> Scope:
    """The loop's names at step j on chunk `time`, its loss weighed as in `theory.storing`."""
    weights = {w.name: inner(w.name, time, INNER) for w in loop.fast_weights}
    return timed(theory.storing(loop, time, weight, weights | override), time, INNER)


def gradient(loop: InnerLoop, weight: Weight) -> tuple[DefineGradient, Lam]:
    """The definition of `G_W[t, j, K, ...]`, and its entry as SymPy found it."""
    row, col = theory.ends(loop, weight)
    param = f"X_{weight.name}"
    names = storing(loop, NOW, weight, **{weight.name: theory.symbol(param)})
    now = Lam(row + col, inner(weight.name, NOW, INNER)(place(row), place(col)))
    loss = loss_term(loop.loss.expression, names, theory.weighing(loop, weight, NOW))
    define = DefineGradient(theory.state("G", weight), (T, J, K), param, loss, now)
    return define, Lam(row + col, entry(adjoint(weight.symbol), place(row), place(col), names))


def families(loop: InnerLoop, weight: Weight, chunk: Ix, row: Place, col: Place) -> dict[Any, Any]:
    """What coefficients and gates are on a chunk, as functions of the step on it."""
    found = theory.families(loop, weight, row, col)
    for line in loop.rule.of_kind("gate"):
        name = theory.state(line.target.name, weight)
        found[sp.IndexedBase(line.target)] = lambda step, n=name: made(n, chunk, step)((), col)
    for name, coefficient in loop.coefficients.items():
        family = sp.IndexedBase(name)
        if coefficient.every != "loop":
            value = found[family](chunk) if family in found else Atom(name, (chunk,))
            found[family] = lambda step, value=value: value
    return found


def environment(loop: InnerLoop, weight: Weight) -> dict[Any, Any]:
    """What the symbols of an update rule stand for, at one entry of a weight, at step j."""
    row, col = theory.ends(loop, weight)
    cell = place(row), place(col)
    env: dict[Any, Any] = {
        G: made(theory.state("G", weight), NOW, INNER)(*cell),
        W_0: theory.start(loop, weight),
    }
    for line in loop.rule.lines:
        name = theory.state(line.target.name, weight)
        if line.kind == "state":
            env[line.target] = inner(name, NOW, INNER)(*cell)
            env[line.seen] = inner(name, NOW, ix(J, 1))(*cell)
        if line.kind == "operator":
            env[line.seen] = made(name, NOW, ix(J, 1))(*cell)
    for family, value in families(loop, weight, NOW, *cell).items():
        env[family] = lambda step, f=value: f(substitute(step, {T: INNER}))
    env.update(columns(weight, row, cell[1], lambda e: scalar(e, env)))
    return env


def line_definitions(loop: InnerLoop, weight: Weight, line: Line) -> Block:
    """One line of the update rule: a state, over chunks and steps, a gate or an operator."""
    row, col = theory.ends(loop, weight)
    name, env = theory.state(line.target.name, weight), environment(loop, weight)
    if line.kind == "operator":
        place_in = theory.ends(loop, weight, 1)
        (held,) = (s for s in loop.rule.of_kind("state") if s.seen == line.expression.args[1])
        matrix = inner(theory.state(held.target.name, weight), NOW, INNER)
        whole = Lam(sum(place_in, ()), matrix(*map(place, place_in)))
        term = applied(line.expression, place(row + col), whole)
        return (Define(name, (T, J, K, *row, *col), term),)
    term = scalar(line.expression, env)
    if line.kind == "gate":
        first = None if line.start is None else scalar(line.start, env)
        return (Define(name, (T, J, K, *col), term, first),)
    cell, every = (place(row), place(col)), (*row, *col, K)
    if line.target not in loop.rule.states:  # made anew at each step
        return (Define(f"{name}_in", (T, J, *every), term, ZERO),)
    start = theory.start(loop, weight) if line.target == W else ZERO
    return (
        Define(name, (T, *every), inner(name, NOW, LAST)(*cell), start),
        Define(f"{name}_in", (T, J, *every), term, outer(name, NOW)(*cell)),
    )


def definitions(loop: InnerLoop) -> tuple[Block, ...]:
    """The loop as the checker sees it: chunks, and steps within a chunk."""
    moved: list[Define | DefineGradient] = []
    before: list[Define | DefineGradient] = []  # gates that are made of old values
    for weight in loop.fast_weights:
        for line in loop.rule.lines:
            early = line.kind == "gate" and line.start is None
            (before if early else moved).extend(line_definitions(loop, weight, line))
    slopes = [gradient(loop, weight)[0] for weight in loop.fast_weights]
    row, col = theory.rows(loop), theory.rows(loop, "D_v")
    output = entry(F, place(row), place(col), reading(loop))
    return ((*moved, *slopes, *before), (Define("o", (T, *row, *col, K), output),))


@dataclass
class StepsForm:
    """The states of the last layer after some chunks, and after some steps on the next.

    Sums over what was put in run over `chunk` and `step`, and over `own` steps on the next chunk.
    scale: what multiplies inputs. put: what stands for them, on a chunk at a step; by default
    their symbols. n: at which row and column of the weight, so that one form can stand within
    another.
    """

    loop: InnerLoop
    scale: int = 1
    put: Callable[[Ix, Ix], Term] | None = None
    n: int = 0
    chunk: Var = PAST
    step: Var = J
    own: Var = PAST

    @property
    def cell(self) -> tuple[Place, Place]:
        """The row and the column of the weight."""
        row, col = theory.ends(self.loop, self.loop.net.last, self.n)
        return place(row), place(col)

    @cached_property
    def steps(self) -> dict[sp.Symbol, Closed]:
        """The closed forms over the steps on a chunk."""
        return solve(self.loop.rule)

    @cached_property
    def chunks(self) -> dict[sp.Symbol, Closed]:
        """The closed forms over chunks; the inputs are what each chunk adds, by its state."""
        solved: dict[sp.Symbol, Closed] = {}
        for state in (s for s in self.steps if s in self.loop.rule.states):
            factors = {y: self.passed(state, y) for y in self.steps[state].starts}
            own = factors.pop(state)
            through = {(y, 1): factor for y, factor in factors.items() if factor != 0}
            line = LinearLine(state, own, {state: sp.Integer(1)}, through)
            solved[state] = unrolled(line, solved)
        return solved

    def passed(self, state: sp.Symbol, origin: sp.Symbol) -> sp.Expr:
        """By what a chunk multiplies a state on its way into another, as a family over chunks."""
        found = self.steps[state].starts[origin](t)
        return found if found.is_Integer else sp.IndexedBase(f"D_{state}_{origin}")[t]

    def on_chunk(self, expression: sp.Expr, chunk: Ix, time: Ix, step: Ix = INNER) -> Term:
        """A coefficient over the steps on a chunk, with these for t and i."""
        known = families(self.loop, self.loop.net.last, ix(CHUNK), *self.cell)
        term = scalar(expression, known)
        return substitute(term, {T: time, PAST: step, CHUNK: chunk})

    def over_chunks(self, expression: sp.Expr, time: Ix, chunk: Ix = INNER) -> Term:
        """A coefficient over chunks, with these for t and i."""
        passed = {
            sp.IndexedBase(f"D_{state}_{y}"): partial(self.by_chunk, found(t))
            for state, closed in self.steps.items()
            for y, found in closed.starts.items()
        }
        return substitute(scalar(expression, passed), {T: time, PAST: chunk})

    def by_chunk(self, expression: sp.Expr, chunk: Ix) -> Term:
        """A coefficient over all steps on a chunk; its sum is not over the j around it."""
        j, u = (sp.Symbol(name, integer=True) for name in "ju")
        return self.on_chunk(expression.xreplace({j: u}), chunk, ix(K, -1))

    def given(self, x: sp.Symbol, chunk: Ix, step: Ix) -> Term:
        """An input at a step; what an operator makes of step j is its value j + 1."""
        if self.put is not None:
            return self.put(chunk, step)
        late = Ix(step.vars, step.shift + (x != G))
        return made(theory.state(x.name, self.loop.net.last), chunk, late)(*self.cell)

    def within(self, state: sp.Symbol, chunk: Ix, step: Ix, start: Start) -> Term:
        """A state after `step` steps on a chunk, in what the states were before them."""
        if state not in self.loop.rule.states:
            return self.anew(state, chunk, step, start)
        closed = self.steps[state]
        parts = [
            product([self.on_chunk(found(t - 1), chunk, step), start(y)])
            for y, found in closed.starts.items()
            if found(t) != 0 and y in self.loop.rule.states
        ]
        weight = sp.expand(self.scale * closed.weight(i, t - 1))
        factor = self.on_chunk(weight, chunk, step, ix(self.own))
        each = product([factor, self.given(closed.input, chunk, ix(self.own))])
        parts.append(Sum(self.own, at(0), Ix(step.vars, step.shift - 1), each))
        return added(parts)

    def anew(self, state: sp.Symbol, chunk: Ix, step: Ix, start: Start) -> Term:
        """A state that each step makes anew, for an operator, of its gradient and of the others."""
        now = Ix(step.vars, step.shift - 1)
        kept = {s: closed for s, closed in self.steps.items() if s in self.loop.rule.states}
        line = linear(self.loop.rule.line(state), self.loop.rule, kept)
        parts = [
            product([self.on_chunk(self.scale * factor, chunk, now), self.given(x, chunk, now)])
            for x, factor in line.direct.items()
            if factor != 0
        ]
        for (y, lag), factor in line.through.items():
            held = self.within(y, chunk, Ix(step.vars, step.shift - lag), start)
            parts.append(product([self.on_chunk(factor, chunk, now), held]))
        return added(parts)

    def start(self, state: sp.Symbol, time: Ix) -> Term | None:
        """What is left of the first weight in a state before chunk `time`."""
        found = self.chunks[state].starts.get(W)
        if found is None:
            return None
        weight = theory.start(self.loop, self.loop.net.last, self.n)
        return product([self.over_chunks(found(t - 1), time), weight])

    def coefficients(
        self, state: sp.Symbol, time: Ix, chunk: Ix, step: Ix
    ) -> dict[sp.Symbol, Term]:
        """By input, its factor at a step on a chunk, in a state before chunk `time`."""
        found: dict[sp.Symbol, list[Term]] = {}
        for source, weight in self.chunks[state].weights.items():
            own = sp.expand(self.scale * self.steps[source].weight(i, t))
            parts = [
                self.over_chunks(weight(i, t - 1), time, chunk),
                self.on_chunk(own, chunk, ix(K, -1), step),
            ]
            found.setdefault(self.steps[source].input, []).append(product(parts))
        return {x: added(parts) for x, parts in found.items()}

    def before(self, state: sp.Symbol, time: Ix) -> Term:
        """A state before chunk `time`."""
        start, chunk, step = self.start(state, time), ix(self.chunk), ix(self.step)
        parts = [] if start is None else [start]
        for x, factor in self.coefficients(state, time, chunk, step).items():
            each = product([factor, self.given(x, chunk, step)])
            over = Sum(self.step, at(0), ix(K, -1), each)
            parts.append(Sum(self.chunk, at(0), Ix(time.vars, time.shift - 1), over))
        return added(parts)


def linear_attention(loop: InnerLoop) -> Form:
    """`o_t = φ(q) (W_0 + Σ_i Σ_{j<K} C_tij φ_ij(k_i)ᵀ v̂_ij)`: K keys and values for each token."""
    hidden, column = theory.ends(loop, loop.net.last)
    row, old, col = place(theory.rows(loop)), place(past_rows(loop)), place(column)
    read, stored = reading(loop), storing(loop, ix(PAST))
    key = theory.features(loop, stored, old, place(hidden), col)
    value = product([scalar(sign(loop)), theory.cotangent(loop, stored, old, col)])
    pair = sum_over(past_rows(loop), Mul((key, value)))
    found = StepsForm(loop, sign(loop))
    if found.steps[W].input != G:
        found, pair = StepsForm(loop), operated(loop, pair)
    last = index(last_step(loop))
    time = Ix(last.vars, last.shift + 1)
    (factor,) = found.coefficients(W, time, ix(PAST), INNER).values()
    apart = J not in free(factor)
    each = pair if apart else product([factor, pair])
    start = found.start(W, time)
    return Form(
        every=(T, *theory.rows(loop), *column, K),
        tokens=past_rows(loop),
        query=theory.features(loop, read, row, place(hidden), col),
        key=key,
        value=value,
        stored=Sum(J, at(0), ix(K, -1), each),
        coefficient=factor if apart else ONE,
        start=ZERO if start is None else start,
        last=last,
        hidden=hidden,
        gate=theory.output_gate(loop, read, row, col),
    )


def operated(loop: InnerLoop, pair: Term) -> Term:
    """What the operator makes of its state after step j on chunk i, at `[h, c]`."""
    here, there = (theory.cell(loop, loop.net.last, n) for n in (0, 1))
    moved = dict(zip(here, place(there), strict=True))

    def put(chunk: Ix, step: Ix) -> Term:
        return substitute(pair, moved | {PAST: chunk, J: step})

    found = StepsForm(loop, sign(loop), put, 1, BEFORE, EARLIER, STEP)
    line = loop.rule.line(found.steps[W].input)
    (state,) = (s.target for s in loop.rule.of_kind("state") if s.seen == line.expression.args[1])
    inputs = {x: found.steps[x].input for x in (state, *found.steps[state].starts)}
    if {*inputs.values()} != {G}:
        raise NotCoveredError(
            f"the theorems assume operators that are taken of gradients; {line.target} is taken of "
            f"{state}, which {' and '.join(x.name for x in inputs.values())} lead to. Use one."
        )
    held = found.within(state, ix(PAST), ix(J, 1), lambda y: found.before(y, ix(PAST)))
    return applied(line.expression, place(here), Lam(there, held))


def one_step(loop: InnerLoop) -> Form:
    """The form of a single step at the summed rate `Σ_{j<K} η`, which is K η for a constant η.

    Raises `NotCoveredError` where steps on a chunk count differently.
    """
    form, found = linear_attention(loop), StepsForm(loop)
    factors = found.coefficients(W, NOW, ix(PAST), INNER)
    if G not in factors or J in free(factors[G]):
        raise NotCoveredError(
            "a single step can stand for several where each is a plain gradient step; got "
            f"{loop.update}. Take one step a chunk."
        )
    pair = sum_over(form.tokens, Mul((form.key, form.value)))
    total = Sum(J, at(0), ix(K, -1), form.coefficient)
    return replace(form, stored=pair, coefficient=total)


def prove_claim(loop: InnerLoop, goal: Equation) -> Proof:
    """The steps from the loop's definitions to a statement about its output."""
    prover, form, weight = Prover(definitions(loop)), StepsForm(loop), loop.net.last
    row, col = theory.ends(loop, weight)
    cell, ends = (place(row), place(col)), row + col
    names = {s: theory.state(s.name, weight) for s in loop.rule.states}
    within, before = [], []
    for s, name in names.items():
        right = form.within(s, NOW, INNER, lambda y: outer(names[y], NOW)(*cell))
        within.append(Equation((T, *ends, K), inner(name, NOW, INNER)(*cell), right))
        before.append(Equation((*ends, K), outer(name, NOW)(*cell), form.before(s, NOW)))
    late = (max(x.late for x in forms.values()) for forms in (form.steps, form.chunks))
    steps = {
        name: take()
        for name, take in prove_states(prover, tuple(within), ix(J, -next(late)), J).items()
    }
    chunks = prove_states(prover, tuple(before), ix(T, -next(late)), T, [*steps.values()])
    number = prover.use(prover.definition("o"), chunks[weight.name]())
    for line in reversed(loop.rule.of_kind("operator")):
        number = prover.use(number, prover.definition(theory.state(line.target.name, weight)))
        for kept in reversed(loop.rule.of_kind("state")):
            if kept.target not in loop.rule.states:
                own = prover.definition(theory.state(kept.target.name, weight) + "_in")
                number = prover.use(number, own)
        for s in loop.rule.buffers:
            for source in (steps[f"{names[s]}_in"], chunks[names[s]]()):
                number = prover.use(number, source)
    found = prover.definition(theory.state("G", weight), entry=gradient(loop, weight)[1])
    return prover.claim(prover.use(number, found), goal)
