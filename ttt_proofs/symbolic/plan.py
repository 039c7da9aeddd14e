"""The plan of a loop: whether and how it runs in parallel over time, read off its program.

One step of a loop reads the gradient, and each line of the update reads what the lines before it
made and what the states were. What a line reads, directly or through others, decides: a state that
only linear lines lead back to is scanned; an operator that nothing leads back to is a map on all
steps at once; a nonlinear line on a cycle runs step by step, and the cycle is the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import sympy as sp

from ..checker.terms import Add, App, Atom, Mul, Prod, Term, ix, parts, symbols
from ..loops import InnerLoop
from ..program.coefficients import Shape, united
from ..program.dataflow import reached
from ..program.rules import G, Line, Rule, W, unfolded
from . import theory
from .bridge import place
from .linear_attention import PAST, past_rows

TILE = 64  # tokens of a tile, where nothing else is asked for


class NotParallelError(ValueError):
    """The loop has no parallel form; the message names the obstruction."""


Parallel = Literal["additive", "gated", "affine", "composed", "sequential"]

PARAMETERS = "the kernel's parameters are updated, so φ depends on the state"
BY_TOKEN = "each token has an update of its own, with gradients at the chunk's start"
NORM = "each column is divided by a norm of the state that it is part of"
OPERATED = "an operator is applied to a state that is made of what it has made"
UNKNOWN = "the value is an unknown function of the state, perhaps not affine"
DEGREE = "the value is not affine in the state"
NONLINEAR = "a nonlinear function is taken of a gradient that depends on the state"
MIXED = "the value is affine in the state, but not alike in all columns: no S ← A S + B"
AFFINE = "the value is affine in the state: S ← A S + B"
COMPOSED = "a scan of the accumulator, an operator on each step, then a sum"
ADDITIVE = "neither features nor values depend on the state: S ← S + U"
DECAY = "the state decays by factors that do not depend on it: S ← a S + U"
MOMENTUM = "momentum couples accumulator and state by a 2×2 gate; values depend on neither"


@dataclass(frozen=True)
class Plan:
    """How a loop runs: the word for it and the reason.

    word: "additive" (S ← S + U), "gated" (a linear map of buffers and state that data alone give),
    "affine" (S ← A S + B, values depend on the state), "composed" (scans, with an operator on
    every step between them) or "sequential". shape: which entries of the states their transition
    tells apart, the finest of the coefficients in the update's lines.
    """

    word: Parallel
    reason: str
    shape: Shape = "scalar"


@cache
def plan_of(loop: InnerLoop) -> Plan:
    """The plan of a loop, a pure function of its program."""
    return planned(loop, None if loop.net.obstacle else value(loop))


def planned(loop: InnerLoop, stored: Term | None) -> Plan:
    """The plan of a loop that stores this value of a token; of None, that is outside the theory."""
    rule = loop.rule
    if stored is None:
        return Plan("sequential", f"the theory assumes that {loop.net.obstacle}")
    if not loop.is_static:
        return Plan("sequential", PARAMETERS)
    if loop.schedule.by_token:
        return Plan("sequential", BY_TOKEN)
    names = {weight.name for weight in loop.fast_weights}
    degree = degree_in(stored, names | {f"{name}_in" for name in names})
    alone = {line.kind for line in on_a_cycle(rule, feedback=False)}
    if "gate" in alone:
        return Plan("sequential", NORM)
    if curved := nonlinear(rule):
        return Plan(
            "sequential", f"the update is not linear: {curved.target} ← {curved.expression}"
        )
    if degree is None:
        return Plan("sequential", UNKNOWN)
    if degree > 1:
        return Plan("sequential", DEGREE)
    if "operator" in alone:
        return Plan("sequential", OPERATED)
    if any(line.kind != "state" for line in on_a_cycle(rule, feedback=degree != 0)):
        return Plan("sequential", NONLINEAR)
    shape = finest(loop)
    if degree == 1 and loop.loss.proportion is None:
        return Plan("sequential", MIXED)
    if degree == 1:
        return Plan("affine", AFFINE, shape)
    if rule.of_kind("operator"):
        return Plan("composed", COMPOSED, shape)
    if rule.buffers:
        count = len(rule.states)
        several = f"the buffers and the state are coupled by a {count}×{count} gate"
        reason = MOMENTUM if count == 2 else f"{several}; values depend on none of them"
        return Plan("gated", reason, shape)
    if sp.expand(rule[W]).coeff(W) != 1:
        return Plan("gated", DECAY, shape)
    return Plan("additive", ADDITIVE, shape)


def value(loop: InnerLoop) -> Term:
    """What is stored of a token, but for its sign: the loss' gradient in what the net makes."""
    names, (_, col) = theory.storing(loop, ix(PAST)), theory.ends(loop, loop.net.last)
    return theory.cotangent(loop, names, place(past_rows(loop)), place(col))


def degree_in(term: Term, names: set[str]) -> int | None:
    """A bound on the degree of the term in these symbols; None inside an unknown function."""
    if isinstance(term, Atom):
        return int(term.name in names)
    if isinstance(term, App | Prod):
        return None if symbols(term) & names else 0
    inner = [degree_in(part, names) for part in parts(term) if isinstance(part, Term)]
    if isinstance(term, Add | Mul):
        inner = [degree_in(part, names) for part in parts(term)[0]]
    known = [d for d in inner if d is not None]
    if len(known) < len(inner):
        return None
    return sum(known) if isinstance(term, Mul) else max(known, default=0)


def on_a_cycle(rule: Rule, *, feedback: bool) -> list[Line]:
    """The lines that read, through others and from step to step, what they have made.

    feedback: whether the gradient reads the weight.
    """
    edges = rule.reads | {G: {W} if feedback else set()}
    return [line for line in rule.lines if line.target in reached(line.target, edges.__getitem__)]


def nonlinear(rule: Rule) -> Line | None:
    """The first state's line that is not linear in states, gradient and what operators make."""
    variables = [G] + [x for line in rule.of_kind("state") for x in (line.target, line.seen)]
    variables += [line.target for line in rule.of_kind("operator")]
    for line in rule.of_kind("state"):
        terms = sp.expand(line.expression)
        slopes = sp.Tuple(*(sp.diff(terms, x) for x in variables))
        rest = terms.xreplace(dict.fromkeys(variables, sp.Integer(0)))
        if slopes.has(*variables) or sp.expand(rest) != 0:
            return line
    return None


def finest(loop: InnerLoop) -> Shape:
    """The finest shape of a coefficient in the lines; rows and columns together are entries."""
    used = {x.name for line in loop.rule.lines for x in line.expression.atoms(sp.Symbol)}
    return united(c.shape for name, c in loop.coefficients.items() if name in used)


def transition(rule: Rule) -> sp.Matrix:
    """How the states (buffers first) depend on those of the step before."""
    made = unfolded(rule.of_kind("state"))
    states = [line.target for line in rule.of_kind("state")]
    return sp.Matrix([[sp.expand(row).coeff(s) for s in states] for row in made.values()])
