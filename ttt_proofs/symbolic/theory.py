"""A loop as the checker sees it: definitions of its weights, gradients and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import sympy as sp

from ..checker.definitions import ONE, ZERO, Block, Define, DefineGradient
from ..checker.terms import TIME, Atom, Ix, Lam, Term, Var, ix
from ..loops import InnerLoop, Weight
from ..loops.losses import F
from ..program.expressions import Windowed
from ..program.rules import W_0, G, Line, W, following
from .bridge import (
    Entry,
    Place,
    Scope,
    entry,
    loss_term,
    place,
    product,
    scalar,
    shifted,
    variables,
)
from .closed_forms import NotCoveredError
from .gates import applied, columns
from .gradients import adjoint, backward, forward, made

T = Var("t", TIME)
NOW, NEXT = ix(T), ix(T, 1)
SEEN_TAIL = "_seen"

Weigh = Callable[[Place], list[Term]]  # the factors by which a token's loss is weighed


def symbol(name: str, *first: Ix) -> Entry:
    """The matrix `name[first..., row, col]`."""
    return lambda row, col: Atom(name, (*first, *row, *col))


def rows(loop: InnerLoop, sort: str = "L") -> tuple[Var, ...]:
    """The index variables of a width: one, or several where it is a product."""
    return variables(sort, loop.axes)


def ends(loop: InnerLoop, weight: Weight, n: int = 0) -> tuple[tuple[Var, ...], tuple[Var, ...]]:
    """The index variables of a weight's rows and of its columns."""
    row, col = (variables(size.name, loop.axes, n) for size in (weight.rows, weight.cols))
    if weight.rows == weight.cols:  # a square one: its rows by names that nothing else has
        row = tuple(Var(f"{v.name}r", v.sort) for v in row)
    return row, col


def cell(loop: InnerLoop, weight: Weight, n: int = 0) -> tuple[Var, ...]:
    """The index variables of a weight, those of its rows first."""
    row, col = ends(loop, weight, n)
    return row + col


def weighing(loop: InnerLoop, weight: Weight, time: Ix, seen_by: Place | None = None) -> Weigh:
    """The factors of each token's loss in the weight's gradient, as a function of the token.

    The coefficient that weighs the loss, if one does, and whether the token `seen_by` sees it.
    """

    def factors(token: Place) -> list[Term]:
        found: list[Term] = []
        if name := loop.loss_weights.get(weight.name):
            found.append(Atom(name, (time, *token)))
        if seen_by is not None:
            found.append(Atom("visible", (*seen_by, *token)))
        return found

    return factors


def scope(
    loop: InnerLoop,
    data: str,
    time: Ix,
    tokens: Ix,
    weigh: Weigh = lambda token: [],
    override: Mapping[str, Entry] = MappingProxyType({}),
) -> Scope:
    """Names of the loop's matrices, with the parameters at `time`, reading `data` at `tokens`.

    `weigh` gives the factors of a token's loss, `override` names that stand for something else.
    """
    trained = {weight.name for weight in loop.fast_weights}
    entries = {
        weight.name: symbol(weight.name, *((time,) if weight.name in trained else ()))
        for weight in loop.net.weights
    }
    entries |= {"X": symbol(data, tokens), "V": symbol("v", tokens)} | dict(override)
    values = {name.name: value for name, value in forward(loop.net)} | backward(loop.net)
    names = Scope(entries, values, () if loop.is_static else (time,), loop.axes)
    names.entries = entries | {
        adjoint(F).name: lambda row, col: product(
            [*weigh(row), entry(loop.loss.gradient, row, col, names)]
        )
    }
    return names


def read_data(loop: InnerLoop) -> str:
    """What the loop is read with: queries, or keys in their place."""
    return "q" if loop.schedule.read_with == "query" else "k"


def read_time(loop: InnerLoop) -> Ix:
    """The time of the parameters that chunk t is read with."""
    return NEXT if loop.schedule.read == "after_update" else NOW


def reading(loop: InnerLoop, override: Mapping[str, Entry] = MappingProxyType({})) -> Scope:
    """The names as chunk t is read."""
    return scope(loop, read_data(loop), read_time(loop), NOW, override=override)


def storing(
    loop: InnerLoop,
    time: Ix,
    weight: Weight | None = None,
    override: Mapping[str, Entry] = MappingProxyType({}),
) -> Scope:
    """The names as chunk `time` is stored, its loss weighed for this weight, or for the last."""
    weigh = weighing(loop, weight or loop.net.last, time)
    return scope(loop, "k", time, time, weigh, override)


def features(loop: InnerLoop, names: Scope, token: Place, row: Place, col: Place) -> Term:
    """φ of a token, at a row of the last layer's weight, for one of its columns.

    Only the features of a convolution depend on the column: each channel has its own window.
    """
    if isinstance(loop.net.outputs, Windowed):
        return names.entries["X"](shifted(token, row), col)
    return entry(loop.net.features, token, row, names)


def output_gate(loop: InnerLoop, names: Scope, token: Place, col: Place) -> Term:
    """The gate on what is read of a token, 1 where the net has none."""
    return ONE if loop.net.gate is None else entry(loop.net.gate, token, col, names)


def cotangent(loop: InnerLoop, names: Scope, token: Place, col: Place) -> Term:
    """The loss' gradient in what the last layer makes of a token."""
    return entry(adjoint(made(loop.net)), token, col, names)


def state(name: str, weight: Weight) -> str:
    """The name of a weight's sequence: its own for W, `M_...`, `G_...`, ... for the others."""
    return weight.name if name == "W" else f"{name}_{weight.name}"


def start(loop: InnerLoop, weight: Weight, n: int = 0) -> Term:
    """The initial weight, at its n-th row and column."""
    return Atom(f"{weight.name}_0", place(cell(loop, weight, n)))


def environment(loop: InnerLoop, weight: Weight) -> dict[Any, Any]:
    """What the symbols of an update rule stand for, at one entry of a weight, at time t."""
    row, col = ends(loop, weight)
    at = place(row + col)
    env: dict[Any, Any] = {G: Atom(state("G", weight), (NOW, *at)), W_0: start(loop, weight)}
    for line in loop.rule.lines:
        name = state(line.target.name, weight)
        if line.kind == "state":
            env[line.target] = Atom(name, (NOW, *at))
        if line.kind != "gate":
            env[line.seen] = Atom(name, (NEXT, *at))
    env.update(families(loop, weight, place(row), place(col)))
    env.update(columns(weight, row, place(col), lambda e: scalar(e, env)))  # norms in norms, too
    return env


def families(loop: InnerLoop, weight: Weight, row: Place, col: Place) -> dict[Any, Any]:
    """What changes from step to step or from entry to entry: gates and shaped coefficients."""
    found: dict[Any, Any] = {
        sp.IndexedBase(line.target): partial(indexed, state(line.target.name, weight), None, col)
        for line in loop.rule.of_kind("gate")
    }
    at = {"row": row, "column": col, "entry": row + col}
    for name, coefficient in loop.coefficients.items():
        if coefficient.shape in at:
            every = () if coefficient.every == "loop" else None
            found[sp.IndexedBase(name)] = partial(indexed, name, every, at[coefficient.shape])
    return found


def indexed(name: str, times: Place | None, rest: Place, time: Ix) -> Atom:
    """`name[time, rest]`; other times instead of that one where they are given."""
    return Atom(name, (*((time,) if times is None else times), *rest))


def weight_definitions(loop: InnerLoop) -> Block:
    """How the fast weights move: buffers, weights, gradients, at all times at once.

    Raises `NotCoveredError` for updates by token, which need a second time within a chunk.
    """
    if loop.schedule.by_token:
        raise NotCoveredError(
            "the theorems are about one update for each chunk; got an update for each token, with "
            f"gradients at the chunk's start, in {loop.schedule}. Run it, or update by chunk."
        )
    moved: dict[sp.Symbol, list[Define | DefineGradient]] = {s: [] for s in targets(loop).defined}
    for weight in loop.fast_weights:
        for line in loop.rule.lines:
            moved[line.target].append(definition(loop, weight, line))
        moved[G].append(gradient_definition(loop, weight))
    return tuple(define for group in moved.values() for define in group)


@dataclass(frozen=True)
class Targets:
    """What the lines of an update define: `states` beside the weight, and all lines by time.

    `later` are those with new values, in order, the weight's the last; `before` are gates that
    are made of old values and the gradient.
    """

    states: tuple[sp.Symbol, ...]
    later: tuple[sp.Symbol, ...]
    before: tuple[sp.Symbol, ...]

    @property
    def defined(self) -> tuple[sp.Symbol, ...]:
        """All, and the gradient, in the order in which definitions are written."""
        return (*self.later, G, *self.before)

    @property
    def unfolding(self) -> tuple[sp.Symbol, ...]:
        """All, and the gradient, in the order in which a weight is traced back to it."""
        return (*reversed(self.later), *reversed(self.before), G)


def targets(loop: InnerLoop) -> Targets:
    """What the loop's update defines."""
    before = [x for x in loop.rule.of_kind("gate") if x.start is None]
    later = (x.target for x in loop.rule.lines if x not in before)
    states = (x.target for x in loop.rule.of_kind("state")[:-1])
    return Targets(tuple(states), tuple(later), tuple(x.target for x in before))


def definition(loop: InnerLoop, weight: Weight, line: Line) -> Define:
    """One line of the update rule, for all times: a state from its start, a gate, an operator."""
    row, col = ends(loop, weight)
    name, env = state(line.target.name, weight), environment(loop, weight)
    if line.kind == "operator":
        inner = cell(loop, weight, 1)
        (held,) = (s for s in loop.rule.of_kind("state") if s.seen == line.expression.args[1])
        matrix = Lam(inner, Atom(state(held.target.name, weight), (NOW, *place(inner))))
        return Define(name, (T, *row, *col), applied(line.expression, place(row + col), matrix))
    term = scalar(line.expression, env)
    if line.kind == "gate":
        first = None if line.start is None else scalar(line.start, env)
        return Define(name, (T, *col), term, first)
    first = start(loop, weight) if line.target == W else ZERO
    return Define(name, (T, *row, *col), term, first)


def gradient_definition(loop: InnerLoop, weight: Weight, seen: bool = False) -> DefineGradient:
    """`G_W[t, ...]`: the gradient of the loss on chunk t in this weight, at time t.

    With `seen`, of the part of the loss that token l sees, `G_W_seen[t, l, ...]`.
    """
    tail, by = (SEEN_TAIL, rows(loop)) if seen else ("", ())
    param = f"X_{weight.name}{tail}"
    weigh = weighing(loop, weight, NOW, place(by) if seen else None)
    names = scope(loop, "k", NOW, NOW, override={weight.name: symbol(param)})
    every = cell(loop, weight)
    now = Lam(every, Atom(weight.name, (NOW, *place(every))))
    return DefineGradient(
        state("G", weight) + tail,
        (T, *by),
        param,
        loss_term(loop.loss.expression, names, weigh),
        now,
    )


def gradient_entry(loop: InnerLoop, weight: Weight, seen: bool = False) -> Lam:
    """The gradient that SymPy found, as a function of the weight."""
    tail, by = (SEEN_TAIL, place(rows(loop))) if seen else ("", None)
    param = f"X_{weight.name}{tail}"
    weigh = weighing(loop, weight, NOW, by)
    names = scope(loop, "k", NOW, NOW, weigh, {weight.name: symbol(param)})
    row, col = ends(loop, weight)
    return Lam(row + col, entry(adjoint(weight.symbol), place(row), place(col), names))


def seen_definitions(loop: InnerLoop) -> Block:
    """The last layer as each token of chunk t sees it: one update by the tokens up to it."""
    weight = loop.net.last
    at = place(cell(loop, weight))
    env = environment(loop, weight)
    env[G] = Atom(state("G", weight) + SEEN_TAIL, (NOW, *place(rows(loop)), *at))
    for line in loop.rule.lines:  # all are states where a loop is read causally
        env[line.seen] = scalar(line.expression, env)
    every = (T, *rows(loop), *cell(loop, weight))
    return (
        gradient_definition(loop, weight, seen=True),
        Define(weight.name + SEEN_TAIL, every, env[following(W)]),
    )


def output_definition(loop: InnerLoop) -> Define:
    """`o[t, l, c]`: the net at the query."""
    row, col = rows(loop), rows(loop, "D_v")
    override: dict[str, Entry] = {}
    if loop.schedule.read == "causal":
        override = {loop.net.last.name: symbol(loop.net.last.name + SEEN_TAIL, NOW, *place(row))}
    output = entry(F, place(row), place(col), reading(loop, override))
    return Define("o", (T, *row, *col), output)


def definitions(loop: InnerLoop) -> tuple[Block, ...]:
    """The loop, as definitions that the checker admits."""
    weights = weight_definitions(loop)
    if loop.schedule.read == "causal":
        weights = (*weights, *seen_definitions(loop))
    return (weights, (output_definition(loop),))
