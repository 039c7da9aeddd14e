"""Closed forms of recurrences: what is proved, what is refused, and planted faults."""

import re
from dataclasses import replace

import pytest

from tests.loops.layers import LAYERS, OPEN, PROVED
from ttt_proofs import reduce
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import CheckerError, Prod, rebuild
from ttt_proofs.evidence.exact import refute
from ttt_proofs.render import proof_text, text
from ttt_proofs.symbolic.parts import NotCoveredError
from ttt_proofs.symbolic.step_forms import claim, prove_claim, step_form
from ttt_proofs.symbolic.step_plan import step_plan
from ttt_proofs.symbolic.step_terms import definitions

GATED = (
    "Σ_a q[t,a] · ((Π_{s=0}^{t} @) · S_0[a,c] + Σ_{i=0}^{t} (Π_{s=i+1}^{t} @) · k[i,a] · v[i,c])"
)
STATED = {
    "additive": "Σ_a q[t,a] · (S_0[a,c] + Σ_{i=0}^{t} k[i,a] · v[i,c])",
    "scalar gate": GATED.replace("@", "α[s]"),
    "row gate": GATED.replace("@", "α[s,a]"),
    "column gate": GATED.replace("@", "α[s,c]"),
    "entry gate": GATED.replace("@", "α[s,a,c]"),
    "one gate": GATED.replace("@", "α"),
    "one gate of rows": GATED.replace("@", "α[a]"),
    "retention": GATED.replace("@", "31/32"),
    "read before": GATED.replace("@", "α[s]").replace("{t}", "{t−1}"),
    "momentum": "Σ_a q[t,a] · ((Π_{s=0}^{t} α[s]) · S_0[a,c] + (Σ_{j=0}^{t} (Π_{s=j+1}^{t} α[s]) · "
    "Π_{s=0}^{j} η[s]) · M_0[a,c] + Σ_{i=0}^{t} θ[i] · (Σ_{j=i}^{t} (Π_{s=j+1}^{t} α[s]) · "
    "Π_{s=i+1}^{j} η[s]) · k[i,a] · v[i,c])",
    "vector": "(Σ_a q[t,a] · k[t,a]) · ((Π_{s=0}^{t} α[s]) · n_0[c] + Σ_{i=0}^{t} "
    "(Π_{s=i+1}^{t} α[s]) · v[i,c])",
}


@pytest.mark.parametrize("name", PROVED)
def test_the_form_is_proved_and_not_refuted(name):
    layer, word = PROVED[name]
    reduction = reduce(layer)
    statement = reduction.theorem.statement
    assert statement.hypotheses == () and statement.equation == claim(step_form(layer))
    assert reduction.parallel == word
    assert reduction.assumptions == ()
    if name in STATED:
        assert text(reduction.output) == STATED[name]
    assert refute(statement.equation, definitions(layer), seed=1) is None
    assert proof_text(reduction.theorem) and reduction.latex()


def shifted(node):
    """The term with each running product begun a step earlier."""
    node = rebuild(node, shifted)
    if isinstance(node, Prod) and node.low.vars:
        return replace(node, low=replace(node.low, shift=node.low.shift - 1))
    return node


def late(node):
    """The term with each running product ended a step earlier: a decay that comes one step late."""
    node = rebuild(node, late)
    if isinstance(node, Prod):
        return replace(node, high=replace(node.high, shift=node.high.shift - 1))
    return node


DECAYING = [name for name in PROVED if name not in ("additive", "kept", "overwritten")]


@pytest.mark.parametrize("fault", [shifted, late], ids=["own decay", "late decay"])
@pytest.mark.parametrize("name", DECAYING)
def test_a_decay_one_step_off_is_refused_by_the_checker_and_in_exact_arithmetic(name, fault):
    form = step_form(PROVED[name][0])
    goal = claim(form)
    wrong = replace(goal, right=fault(goal.right))
    assert wrong != goal
    with pytest.raises(CheckerError, match="must have one normal form"):
        Theorem(prove_claim(form, wrong))
    assert refute(wrong, definitions(form.layer), seed=1) is not None


def test_reading_before_the_step_is_not_reading_after_it():
    after, before = (step_form(PROVED[n][0]) for n in ("scalar gate", "read before"))
    with pytest.raises(CheckerError):
        Theorem(prove_claim(after, claim(before)))
    with pytest.raises(CheckerError):
        Theorem(prove_claim(before, claim(after)))


CAUSES = {
    "delta by rows": "the transition of C is a matrix made of k: its closed form is not written",
    "reflected": "the transition of n is a matrix made of k: its closed form is not written yet.",
    "two-sided": "the transition of S is a matrix made of k and v: its closed form is not",
    "asymmetric": "the transition of S is a matrix made of k and q: its closed form is not",
    "weighed": "the transition of S is a matrix made of k and v: its closed form is not written",
    "turned": r"S reads a state in another shape in line \d+ of \w+.py: its closed form is",
    "leaning": "the transition of S is a matrix made of k and v: its closed form is not",
    "spread": r"S reads a state in another shape in line \d+ of \w+.py: its closed form is",
    "token shift": r"S reads a state in another shape in line \d+ of \w+.py: its closed form is",
    "gated delta": "the transition of S is a matrix made of k: its closed form is not written yet.",
    "squashed": r"S is made of `tanh` of a state in line \d+ of layers.py.",
    "crossed": "the states A and B read each other's past: their closed form is not written yet.",
    "multiplied": r"S is made of a product of two states in line \d+ of layers.py.",
    "through": r"S is made of a product of two states in line \d+ of layers.py.",
}


@pytest.mark.parametrize("name", OPEN)
def test_what_has_no_closed_form_is_refused_with_the_cause(name):
    layer, word = OPEN[name]
    with pytest.raises(NotCoveredError, match=CAUSES[name]) as error:
        reduce(layer)
    assert re.fullmatch(r"[^\n]+\. It runs all the same: [\w.]+\.", str(error.value))
    assert step_plan(layer).plan.word == word


SHAPES = {
    "additive": "scalar",
    "scalar gate": "scalar",
    "row gate": "row",
    "column gate": "column",
    "entry gate": "entry",
    "one gate of rows": "row",
    "through": "row",
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_plan_says_what_its_factors_tell_apart(name):
    assert step_plan(LAYERS[name][0]).plan.shape == SHAPES[name]
