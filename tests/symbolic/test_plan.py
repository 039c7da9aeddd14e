"""Parallel classes: degrees of terms, and what is read off a form rather than off the loop."""

from dataclasses import replace

import pytest
import sympy as sp

from ttt_proofs.checker.terms import Add, Atom, Mul
from ttt_proofs.loops import (
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    Update,
    column_norm,
    lact,
    ladder,
    operator,
    zeros_like,
)
from ttt_proofs.program.coefficients import t
from ttt_proofs.symbolic import several_steps
from ttt_proofs.symbolic.linear_attention import linear_attention
from ttt_proofs.symbolic.plan import degree_in, plan_of, planned, transition


def test_degrees():
    values = {
        loss: linear_attention(InnerLoop(Linear(), loss)).value
        for loss in (Frobenius(), SquaredError(), AbstractLoss())
    }
    assert [degree_in(v, {"W"}) for v in values.values()] == [0, 1, None]
    assert [degree_in(v, {"v"}) for v in values.values()] == [1, 1, None]
    delta = values[SquaredError()]
    assert degree_in(Mul((delta, delta)), {"W"}) == 2
    assert degree_in(Add((delta, Mul((delta, delta, delta)))), {"W"}) == 3
    assert degree_in(Mul((Atom("x", ()), Atom("W", ()))), {"W"}) == 1
    assert degree_in(Mul((values[AbstractLoss()], Atom("x", ()))), {"x"}) == 1
    assert degree_in(Mul((values[AbstractLoss()], Atom("x", ()))), {"W"}) is None


def test_the_class_is_read_off_the_form():
    """A value that holds the state, whatever the loop says, is no additive one."""
    loop = InnerLoop(Linear(), Frobenius())
    for loss, found in (
        (Frobenius(), "additive"),
        (SquaredError(), "affine"),
        (AbstractLoss(), "sequential"),
    ):
        assert planned(loop, linear_attention(InnerLoop(Linear(), loss)).value).word == found
    twice = linear_attention(InnerLoop(Linear(), SquaredError()))
    squared = planned(loop, Mul((twice.value, twice.value)))
    assert (squared.word, squared.reason) == ("sequential", "the value is not affine in the state")


def test_values_that_depend_on_the_state_within_a_chunk_count():
    """With several steps the state is `W_in`: a name that must not be overlooked."""
    schedule = Schedule(2, steps=3)
    for loss, found in (
        (Frobenius(), "additive"),
        (SquaredError(), "affine"),
        (AbstractLoss(), "sequential"),
    ):
        loop = InnerLoop(Features(), loss, schedule=schedule, trained="last")
        assert planned(loop, several_steps.linear_attention(loop).value).word == found
        assert plan_of(loop).word == found


def test_the_ladder_from_lact_to_linear_attention():
    classes = {name: plan_of(loop).word for name, loop in ladder().items()}
    assert classes == {
        "baseline": "sequential",
        "v1": "sequential",
        "v2": "composed",
        "v3": "composed",
        "v4": "composed",
        "v5": "composed",
        "v6": "additive",
    }
    static = replace(lact().update, weight_norm=None)
    delta = replace(lact(), update=static, loss=SquaredError(), trained="last")
    assert plan_of(delta).word == "sequential"


def step(rule, *buffers: str, loss=None) -> InnerLoop:
    """A linear net under an update rule that is written as code."""
    update = Update(rule, dict.fromkeys(buffers, zeros_like))
    return InnerLoop(Linear(), loss or Frobenius(), update)


def gated_buffer(W, g, M):
    M = M / 2 + g
    return W - M / (column_norm(M) + 1), M


def of_the_old_weight(W, g):
    return W / (column_norm(W) + 1) - g


def of_its_own(W, g, M):
    moved = M + g
    M = moved / (column_norm(moved) + 1)
    return W - M, M


def operated(W, g):
    return operator("muon")(W - g)


OF_STATE, OF_GRADIENT = "each column is divided by a norm of the state", "a nonlinear function is"
CURVED = [
    (step(gated_buffer, "M"), "gated", "momentum couples"),
    (step(gated_buffer, "M", loss=SquaredError()), "sequential", OF_GRADIENT),
    (step(of_the_old_weight), "sequential", OF_STATE),
    (step(of_the_old_weight, loss=SquaredError()), "sequential", OF_STATE),
    (step(of_its_own, "M"), "sequential", OF_STATE),
    (step(operated), "sequential", "an operator is applied to a state that is made of what it"),
]


@pytest.mark.parametrize(("loop", "word", "reason"), CURVED, ids=str)
def test_the_reason_is_what_leads_back_to_itself(loop, word, reason):
    """A norm of a buffer is one of the state only where it scales the state that it is taken of."""
    plan = plan_of(loop)
    assert plan.word == word and plan.reason.startswith(reason)


alpha, eta = (sp.IndexedBase(name)[t] for name in ("alpha", "eta"))
norm, constant = sp.IndexedBase("N")[t + 1], sp.Symbol("eta")
HELD = {"momentum": "per_step", "rate": "per_step"}

TRANSITIONS = [
    (GradientStep(None), [[1]]),
    (GradientStep("per_token", "inside", ascent=True), [[1]]),
    (GradientStep(weight_norm="n"), [[norm]]),
    (GradientStep(**HELD, weight_norm="n"), [[alpha, 0], [-norm * eta * alpha, norm]]),
    (GradientStep(**HELD, orthogonal="muon"), [[alpha, 0], [0, 1]]),
    (GradientStep(orthogonal="muon"), [[0, 0], [0, 1]]),
    (GradientStep(**HELD, clip="column_norm"), [[alpha, 0], [-eta * alpha, 1]]),
]


@pytest.mark.parametrize(("update", "gates"), TRANSITIONS, ids=[str(u) for u, _ in TRANSITIONS])
def test_transitions_take_one_state_to_the_next(update, gates):
    found = transition(update.rule)
    assert sp.simplify(found - sp.Matrix(gates)).is_zero_matrix
    assert sum(found == sp.Matrix(g) for _, g in TRANSITIONS if g != gates) == 0
