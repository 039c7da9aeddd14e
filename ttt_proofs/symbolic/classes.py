"""Parallel classes: whether and how a loop runs in parallel over time, by its rule and form."""

from __future__ import annotations

from typing import Literal

import sympy as sp

from ..checker.terms import Add, App, Atom, Mul, Prod, Term, parts, symbols
from ..loops import InnerLoop
from .linear_attention import Form

Parallel = Literal["additive", "gated", "affine", "composed", "sequential"]


def classify(loop: InnerLoop, form: Form) -> tuple[Parallel, str]:
    """The parallel class and the reason for it: by the rule, and the values of the proved form."""
    rule = loop.update
    if not loop.is_static:
        return "sequential", "the kernel's parameters are updated, so φ depends on the state"
    if rule.weight_norm:
        return "sequential", "each column is divided by a norm of the state that it is part of"
    trained = {weight.name for weight in loop.fast_weights}
    degree = degree_in(form.value, trained | {f"{name}_in" for name in trained})
    if degree is None:
        return "sequential", "the value is an unknown function of the state, perhaps not affine"
    if degree > 1:
        return "sequential", "the value is not affine in the state"
    if degree == 1 and (rule.clip or rule.orthogonal):
        return "sequential", "a nonlinear function is taken of a gradient that depends on the state"
    if degree == 1:
        return "affine", "the value is affine in the state: S ← A S + B"
    if rule.orthogonal:
        return "composed", "a scan of the accumulator, an operator on each step, then a sum"
    if rule.momentum is None:
        return "additive", "neither features nor values depend on the state: S ← S + U"
    return "gated", "momentum couples accumulator and state by a 2×2 gate; values depend on neither"


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


def transition(loop: InnerLoop) -> sp.Matrix:
    """How the states (accumulator first) depend on those of the step before."""
    following: dict[sp.Basic, sp.Expr] = {}
    for line in loop.rule.of_kind("state"):
        following[line.seen] = sp.expand(line.expression.xreplace(following))
    states = [line.target for line in loop.rule.of_kind("state")]
    return sp.Matrix([[row.coeff(state) for state in states] for row in following.values()])
