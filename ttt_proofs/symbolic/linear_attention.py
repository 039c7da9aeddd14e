"""The linear-attention form of a loop: what it claims, and the steps that prove it.

`o_t = q̂_t (decay · W_0 + Σ_i C(i, t) k̂_iᵀ v̂_i)`, where q̂ and k̂ are features of queries and
keys, v̂ is minus the loss' gradient in the outputs (plus, for ascent), and C comes from the
closed form of the update's recurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import sympy as sp

from ..checker.definitions import ONE, Equation, sum_over
from ..checker.proof import Proof
from ..checker.terms import (
    TIME,
    Add,
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
    symbols,
)
from ..loops import InnerLoop
from ..program.coefficients import t
from ..program.rules import G, Line, W, following, unfolded
from . import theory
from .bridge import at, index, place, product, scalar, variables
from .closed_forms import Closed, LinearLine, NotCoveredError, i, linear, solve
from .gates import applied
from .prover import Prover
from .theory import NOW, T

PAST = Var("i", TIME)


@dataclass(frozen=True)
class Form:
    """The pieces of the linear-attention form, as checker terms.

    `query[l, h]` and `key[m, h]` are features, `value[m, c]` what is stored of a token, `stored`
    what is stored of step i at `[h, c]`: the sum of keyᵀ value over its tokens, or what an
    operator makes of such sums. `coefficient` is the weight of step i at time t, `start` the
    decayed initial state, `gate` multiplies what is read (1 where the net has no gate), `last` is
    the last step that is read in full. A single step (`last` is None) has no sum over i. A causal
    reading has besides the term `newest`: what a token sees of its own chunk. `every` are the
    indices of the output, `tokens` those of a token that was stored, `hidden` the indices h.
    """

    every: tuple[Var, ...]
    tokens: tuple[Var, ...]
    query: Term
    key: Term
    value: Term
    stored: Term
    coefficient: Term
    start: Term
    last: Ix | None
    hidden: tuple[Var, ...]
    gate: Term = ONE
    newest: Term | None = None

    @property
    def state(self) -> Term:
        """What the query meets, `[h, c]`."""
        past = product([self.coefficient, self.stored])
        if self.last is not None:
            past = Sum(PAST, at(0), self.last, past)
        return Add((self.start, past, *([] if self.newest is None else [self.newest])))

    @property
    def term(self) -> Term:
        """`gate Σ_h query (start + Σ_i coefficient stored)`."""
        return product([self.gate, sum_over(self.hidden, Mul((self.query, self.state)))])


def closed_forms(loop: InnerLoop) -> dict[sp.Symbol, Closed]:
    """The closed form of the update's states."""
    return solve(loop.rule)


def last_step(loop: InnerLoop) -> sp.Expr:
    """The last step that the reading at t sees in full: t itself, or t - 1."""
    return t if loop.schedule.read == "after_update" else t - 1


def sign(loop: InnerLoop) -> int:
    """-1 for descent, where v̂ is minus the gradient; +1 for ascent.

    A step ascends where all terms with which its own gradient comes into the weight, or into what
    an operator is applied to, are positive.
    """
    lines = (
        replace(line, expression=line.expression.args[1]) if line.kind == "operator" else line
        for line in loop.rule.lines
        if line.kind != "gate"
    )
    gained = sp.expand(unfolded(lines)[following(W)]).coeff(G)
    terms = sp.Add.make_args(sp.expand(gained))
    return 1 if all(term.as_coeff_Mul()[0] > 0 for term in terms) else -1


def written(loop: InnerLoop, expression: sp.Expr, n: int = 0) -> Term:
    """A coefficient of the last layer's weight, at its n-th row and column, as a term."""
    row, col = (place(end) for end in theory.ends(loop, loop.net.last, n))
    return scalar(expression, theory.families(loop, loop.net.last, row, col))


def linear_attention(
    loop: InnerLoop, *, coefficient: sp.Expr | None = None, scale: sp.Expr | int = 1
) -> Form:
    """The form that the loop should have.

    `coefficient`, a SymPy expression in i and t, replaces the one found from the recurrence;
    `scale`, an expression in i, is written into the values instead of the coefficient.
    """
    closed, last = closed_forms(loop), last_step(loop)
    read = t if loop.schedule.read == "causal" else last
    operator = None if closed[W].input == G else loop.rule.line(closed[W].input)
    direction = 1 if operator else sign(loop)  # the operator's argument has the sign
    found = sp.expand(direction * closed[W].weight(i, read))
    weights = found if coefficient is None else sp.sympify(coefficient)
    parts = pieces(loop, ix(PAST), scale)
    stored = of_tokens(loop, parts)
    newest = None
    if loop.schedule.read == "causal":
        seen = Atom("visible", (*place(theory.rows(loop)), *place(past_rows(loop))))
        own = product([written(loop, weights), of_tokens(loop, parts, seen)])
        newest = substitute(own, {PAST: NOW})
    if operator:
        stored = operated(loop, stored, operator, closed)
    return Form(
        **parts,
        stored=stored,
        coefficient=written(loop, weights),
        start=product([written(loop, closed[W].decay(read)), theory.start(loop, loop.net.last)]),
        last=index(last),
        newest=newest,
    )


def single_step(loop: InnerLoop, scale: sp.Expr | int) -> Form:
    """One step, for updates without momentum: the state before it plays the part of the start.

    The rate, the coefficients that multiply the gradient as they are, is in the `scale` of the
    values; the coefficient is the rest.
    """
    rule = sp.expand(loop.rule[W])
    rates = [c.symbol(name) for name, c in loop.coefficients.items()]
    factors = sp.Mul.make_args(sp.factor(rule.coeff(G)))
    rest = sp.Mul(*(factor for factor in factors if factor not in rates))
    before = Atom(loop.net.last.name, (NOW, *place(theory.cell(loop, loop.net.last))))
    parts = pieces(loop, NOW, scale)
    return Form(
        **parts,
        stored=of_tokens(loop, parts),
        coefficient=written(loop, sp.expand(sign(loop) * rest)),
        start=product([written(loop, rule.coeff(W)), before]),
        last=None,
    )


def past_rows(loop: InnerLoop) -> tuple[Var, ...]:
    """The index variables of a token that was stored."""
    return variables("L", loop.axes, 1) if "L" in loop.axes else (Var("m", "L"),)


def pieces(loop: InnerLoop, past: Ix, scale: sp.Expr | int) -> dict[str, Any]:
    """Query, key, value and gate of the loop, stored at the time `past`."""
    hidden, column = theory.ends(loop, loop.net.last)
    row, old, col = place(theory.rows(loop)), place(past_rows(loop)), place(column)
    value = theory.cotangent(loop, theory.storing(loop, past), old, col)
    return {
        "every": (T, *theory.rows(loop), *column),
        "tokens": past_rows(loop),
        "query": theory.features(loop, theory.reading(loop), row, place(hidden), col),
        "key": theory.features(loop, theory.storing(loop, past), old, place(hidden), col),
        "value": product([scalar(sign(loop) * sp.sympify(scale)), value]),
        "hidden": hidden,
        "gate": theory.output_gate(loop, theory.reading(loop), row, col),
    }


def of_tokens(loop: InnerLoop, parts: dict[str, Any], *factors: Term) -> Term:
    """The sum of keyᵀ value over the tokens of a step, at `[h, c]`."""
    return sum_over(past_rows(loop), Mul((*factors, parts["key"], parts["value"])))


def operated(
    loop: InnerLoop, stored: Term, operator: Line, closed: dict[sp.Symbol, Closed]
) -> Term:
    """What the operator makes of its state after step i, at `[h, c]`."""
    outer, inner = (theory.cell(loop, loop.net.last, n) for n in (0, 1))
    there = dict(zip(outer, place(inner), strict=True))
    state = next(s for s in closed if following(s) == operator.expression.args[1])
    if closed[state].input != G:
        raise NotCoveredError(
            f"the theorems assume operators that are taken of gradients; {operator.target} is "
            f"taken of {state}, which {closed[state].input} leads to. Use one operator."
        )
    buffers = {s: found for s, found in closed.items() if s in loop.rule.buffers}
    line = loop.rule.line(state)
    made = linear(line, loop.rule, buffers) if state not in buffers else None
    direct = sp.Integer(0) if made is None else made.direct.get(G, sp.Integer(0))
    own = written(loop, sign(loop) * direct.subs(t, i), 1)
    held = [product([own, substitute(stored, there)])] if direct != 0 else []
    for weight, last in earlier(state, made, buffers):
        n = Var("j" if all(c.depth == 0 for c in buffers.values()) else "u", TIME)  # j is inside
        found = sign(loop) * weight(sp.Symbol(n.name, integer=True))
        each = product([written(loop, found, 1), substitute(stored, there | {PAST: ix(n)})])
        held.append(Sum(n, at(0), ix(PAST, last), each))
    whole = held[0] if len(held) == 1 else Add(tuple(held))
    return applied(operator.expression, place(outer), Lam(inner, whole))


def earlier(
    state: sp.Symbol, made: LinearLine | None, buffers: dict[sp.Symbol, Closed]
) -> Iterator[tuple[Callable[[sp.Expr], sp.Expr], int]]:
    """How earlier steps come into what step i gives an operator, and how late the last is.

    By the state itself, if it is a buffer, or else by those that it is made of.
    """
    if made is None:
        yield lambda step: buffers[state].weight(step, i), 0
        return
    for (by, lag), factor in sorted(made.through.items(), key=lambda item: item[0][1]):
        weight = buffers[by].weight
        yield lambda step, f=factor, w=weight, n=lag: f.subs(t, i) * w(step, i - n), -lag


def each_outer_product(loop: InnerLoop) -> Form:
    """The loop's form with the operator on every token's keyᵀ value, as Eq. (1) prints it."""
    (operator,) = loop.rule.of_kind("operator")
    plain = linear_attention(without(loop, operator))
    outer, inner = (theory.cell(loop, loop.net.last, n) for n in (0, 1))
    alone = Mul((plain.coefficient, plain.key, plain.value))
    there = substitute(alone, dict(zip(outer, place(inner), strict=True)))
    stored = sum_over(
        past_rows(loop), applied(operator.expression, place(outer), Lam(inner, there))
    )
    return replace(plain, stored=stored, coefficient=ONE)


def without(loop: InnerLoop, operator: Line) -> InnerLoop:
    """The loop with what the operator is taken of in the place of what it makes."""
    rule, seen = loop.rule, operator.expression.args[1]
    (state,) = (line for line in rule.of_kind("state") if line.seen == seen)
    alone = state.target not in rule.buffers
    taken = {operator.seen: state.expression if alone else seen}
    kept = [
        line for line in rule.lines if line not in ((operator, state) if alone else (operator,))
    ]
    lines = tuple(
        replace(line, expression=sp.expand(line.expression.xreplace(taken))) for line in kept
    )
    return loop.under(replace(rule, lines=lines))


def claim(form: Form) -> Equation:
    """`o[t, l, c] = ` the form, for every t, l and c."""
    return Equation(form.every, Atom("o", place(form.every)), form.term)


def scores(form: Form) -> Equation:
    """The claim with queries times keys first: `o = gate (q̂ S_0 + Σ_i C Σ_m (q̂ k̂ᵀ) v̂)`.

    For forms without an operator, with a coefficient that is the same for all rows of the state;
    `ValueError` for another. Source: Section 6.2, Appendix H.
    """
    if free(form.coefficient) & set(form.hidden):
        raise ValueError(
            "queries can meet keys first where the coefficient is the same for all rows of the "
            f"state; got {form.coefficient}. Leave `scores` out."
        )
    meet = sum_over(form.hidden, Mul((form.query, form.key)))
    past: Term = product([form.coefficient, sum_over(form.tokens, Mul((meet, form.value)))])
    if form.last is not None:
        past = Sum(PAST, at(0), form.last, past)
    terms = [sum_over(form.hidden, Mul((form.query, form.start))), past]
    if form.newest is not None:
        seen = Atom("visible", (*place(form.every[1:-1]), *place(form.tokens)))
        own = sum_over(form.tokens, Mul((seen, meet, form.value)))
        terms.append(substitute(product([form.coefficient, own]), {PAST: NOW}))
    return replace(claim(form), right=product([form.gate, Add(tuple(terms))]))


def predicate(loop: InnerLoop) -> tuple[Equation, ...]:
    """What holds after t steps: each state of the last layer, in terms of its inputs."""
    weight = loop.net.last
    every = theory.cell(loop, weight)
    entry = place(every)
    parts = []
    for value, closed in closed_forms(loop).items():
        if value not in loop.rule.states:
            continue
        later = 0 if closed.input == G else 1  # what the operator makes in step i is U[i + 1]
        made = Atom(theory.state(closed.input.name, weight), (ix(PAST, later), *entry))
        each = product([written(loop, closed.weight(i, t - 1)), made])
        right: Term = Sum(PAST, at(0), ix(T, -1), each)
        if value == W:
            decay = written(loop, closed.decay(t - 1))
            right = Add((product([decay, theory.start(loop, weight)]), right))
        left = Atom(theory.state(value.name, weight), (NOW, *entry))
        parts.append(Equation(every, left, right))
    return tuple(parts)


def newest(loop: InnerLoop) -> Ix:
    """Where ranges are cut: at t, or as much before it as old values come late."""
    return ix(T, -max(closed.late for closed in closed_forms(loop).values()))


def prove_unrolled(prover: Prover, loop: InnerLoop) -> dict[str, Callable[[], int]]:
    """Prove by induction what the last layer's states are after t steps, as `prove_states` does."""
    return prove_states(prover, predicate(loop), newest(loop))


def prove_states(
    prover: Prover,
    parts: tuple[Equation, ...],
    peel: Ix = NOW,
    time: Var = T,
    within: Sequence[int] = (),
) -> dict[str, Callable[[], int]]:
    """Prove by induction what sequences are at t, each part `name[t, ...] = ...` of one of them.

    peel: where ranges of times are cut as the time t becomes t + 1. within: equations to use first.
    Returns for each sequence's name the function that takes the induction's last step for it.
    """
    bases, steps, assumed = [], [], [prover.assume(part) for part in parts]
    names = [part.left.name for part in parts if isinstance(part.left, Atom)]
    for part, name in zip(parts, names, strict=True):
        first = prover.definition(name, start=True)
        bases.append(prover.rearrange(first, part.put({time: at(0)}).right))
    for part, name in zip(parts, names, strict=True):
        goal = part.put({time: ix(time, 1)})
        number = prover.use(prover.begin(part.every, goal.left), prover.definition(name))
        for source in [*within, *steps, *assumed]:  # new values first: they bring in the old ones
            if prover.applies(number, source):
                number = prover.use(number, source)
        steps.append(prover.rearrange(number, goal.right, peel))
    return {
        name: partial(prover.induct, time, parts, bases, steps, pick)
        for pick, name in enumerate(names)
    }


def prove_claim(loop: InnerLoop, goal: Equation, *, unroll: bool = True) -> Proof:
    """The steps from the loop's definitions to `goal`, a statement about its output.

    With `unroll`, W is traced back to its start by induction; without, by one step only.
    Whether the steps lead there is for the checker to say: make a `Theorem` of the result.
    """
    prover = Prover(theory.definitions(loop))
    weight, causal = loop.net.last, loop.schedule.read == "causal"
    gradients = [
        prover.definition(
            theory.state("G", weight) + tail, entry=theory.gradient_entry(loop, weight, bool(tail))
        )
        for tail in (("", theory.SEEN_TAIL) if causal else ("",))
    ]
    known = prove_unrolled(prover, loop) if unroll else {}
    lines = [line for line in reversed(loop.rule.lines) if line.kind != "gate"]
    last, *others = (theory.state(line.target.name, weight) for line in lines)
    number = prover.definition("o")
    for name in (last + theory.SEEN_TAIL, last, *others):
        if name in symbols(prover.right(number)):
            number = prover.use(number, known.get(name, partial(prover.definition, name))())
    for gradient in gradients:
        number = prover.use(number, gradient)
    return prover.claim(number, goal, newest(loop) if causal else None)
