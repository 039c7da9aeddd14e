"""A loop as the kernel sees it: definitions of its weights, gradients and outputs."""

from __future__ import annotations

from fractions import Fraction

import sympy as sp

from ..kernel.definitions import Block, Define, DefineGradient
from ..kernel.terms import TIME, Atom, Ix, Lam, Num, Term, Var, ix
from ..loops import InnerLoop, Weight
from ..loops.loop import NEXT_M, G, M, W
from ..loops.losses import F
from .bridge import Entry, Scope, entry, loss_term, scalar, variable
from .gradients import adjoint, backward, forward

T = Var("t", TIME)
NOW, NEXT = ix(T), ix(T, 1)


def symbol(name: str, *first: Ix) -> Entry:
    """The matrix `name[first..., row, col]`."""
    return lambda row, col: Atom(name, (*first, row, col))


def scope(loop: InnerLoop, data: str, time: Ix, tokens: Ix, **override: Entry) -> Scope:
    """Names of the loop's matrices, with the parameters at `time`, reading `data` at `tokens`."""
    trained = {weight.name for weight in loop.trained}
    entries = {
        weight.name: symbol(weight.name, *((time,) if weight.name in trained else ()))
        for weight in loop.net.weights
    }
    entries |= {"X": symbol(data, tokens), "V": symbol("v", tokens)} | override
    values = {name.name: value for name, value in forward(loop.net)}
    values |= backward(loop.net) | {adjoint(F).name: loop.loss.gradient}
    dynamic = loop.update.trained == "all"
    return Scope(entries, values, time if dynamic else None)


def features(loop: InnerLoop, data: str, time: Ix, tokens: Ix) -> Entry:
    """`φ_time(data_tokens)`, entry by entry."""
    names = scope(loop, data, time, tokens)
    return lambda row, col: entry(loop.net.features, row, col, names)


def cotangent(loop: InnerLoop, time: Ix) -> Entry:
    """`∂L/∂F` at `time`, entry by entry."""
    names = scope(loop, "k", time, time)
    return lambda row, col: entry(adjoint(F), row, col, names)


def indices(weight: Weight) -> tuple[Var, Var]:
    """The index variables of a weight's rows and columns."""
    return variable(weight.rows.name), variable(weight.cols.name)


def point(weight: Weight) -> str:
    """The name of the symbol at which a weight's gradient is taken."""
    return f"X_{weight.name}"


def state(name: str, weight: Weight) -> str:
    """The name of a weight's sequence: its own for W, `M_...` and `G_...` for the others."""
    return weight.name if name == "W" else f"{name}_{weight.name}"


def start(weight: Weight) -> Term:
    """The initial weight."""
    return Atom(f"{weight.name}_0", tuple(map(ix, indices(weight))))


def weight_definitions(loop: InnerLoop) -> Block:
    """How the trained weights move: accumulators, weights, gradients, at all times at once."""
    moved: dict[str, list[Define]] = {"M": [], "W": []}
    gradients: list[DefineGradient] = []
    for weight in loop.trained:
        every = tuple(map(ix, indices(weight)))
        env: dict[sp.Expr, Term] = {
            value: Atom(state(value.name, weight), (NOW, *every)) for value in (W, M, G)
        }
        env[NEXT_M] = Atom(state("M", weight), (NEXT, *every))
        for value, expression in loop.update.recurrence.items():
            first = start(weight) if value == W else Num(Fraction(0))
            define = Define(state(value.name, weight), (T, *indices(weight)),
                            scalar(expression, env), first)  # fmt: skip
            moved[value.name].append(define)
        gradients.append(gradient_definition(loop, weight))
    return (*moved["M"], *moved["W"], *gradients)


def gradient_definition(loop: InnerLoop, weight: Weight) -> DefineGradient:
    """`G_W[t, ...]`: the gradient of the loss on chunk t in this weight, at time t."""
    names = scope(loop, "k", NOW, NOW, **{weight.name: symbol(point(weight))})
    now = Lam(indices(weight), symbol(weight.name, NOW)(*map(ix, indices(weight))))
    return DefineGradient(state("G", weight), (T,), point(weight),
                          loss_term(loop.loss.expression, names), now)  # fmt: skip


def gradient_entry(loop: InnerLoop, weight: Weight) -> Lam:
    """The gradient that SymPy found, as a function of the weight."""
    names = scope(loop, "k", NOW, NOW, **{weight.name: symbol(point(weight))})
    row, col = indices(weight)
    return Lam((row, col), entry(adjoint(weight.symbol), ix(row), ix(col), names))


def read_time(loop: InnerLoop) -> Ix:
    """The time of the parameters that chunk t is read with."""
    return NEXT if loop.schedule.read == "after_update" else NOW


def output_definition(loop: InnerLoop) -> Define:
    """`o[t, l, c]`: the net at the query."""
    row, col = variable("L"), variable("D_v")
    names = scope(loop, "q", read_time(loop), NOW)
    return Define("o", (T, row, col), entry(F, ix(row), ix(col), names))


def definitions(loop: InnerLoop) -> tuple[Block, ...]:
    """The loop, as definitions that the kernel admits."""
    return (weight_definitions(loop), (output_definition(loop),))

