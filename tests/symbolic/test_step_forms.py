"""Closed forms of recurrences: what is proved, what is refused, and planted faults."""

import re
from dataclasses import replace

import pytest

from tests.loops.layers import CARRIED, LAYERS, OPEN, PROVED
from ttt_proofs import reduce
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import Atom, CheckerError, Prod, Sum, rebuild
from ttt_proofs.evidence.exact import refute
from ttt_proofs.render import proof_text, text
from ttt_proofs.symbolic.closed_forms import NotCoveredError
from ttt_proofs.symbolic.step_forms import claim, prove_claim, step_form
from ttt_proofs.symbolic.step_plan import step_plan
from ttt_proofs.symbolic.step_terms import definitions
from ttt_proofs.symbolic.theory import T

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


KEYS = "Σ_a q[t,a] · (@_start[t+1,a,c] + Σ_{i=0}^{t} @_key[i,t+1,a] · v[i,c])"
WRITES = "Σ_a q[t,a] · (S_start[t+1,a,c] + Σ_{i=0}^{t} S_write[i,t+1,a,c])"
FORMS = {
    "delta by rows": KEYS.replace("@", "C").replace("start[t+1,a,c]", "start[t+1,c,a]"),
    "reflected": KEYS.replace("@", "S"),
    "asymmetric": KEYS.replace("@", "S"),
    "gated delta": KEYS.replace("@", "S"),
    "crossed": KEYS.replace("@", "A"),
    "token shift": KEYS.replace("@", "S"),
    "through": KEYS.replace("@", "S"),
    "spread": "Σ_a q[t,a] · (S_start[t,a,c] + Σ_{i=0}^{t−1} S_key[i,t,a] · n[i+1,c])",
    "weighed": WRITES,
    "leaning": WRITES,
    "two-sided": WRITES,
    "turned": "(Σ_a (Σ_a′ q[t,a′] · (S_start[t+1,a′,a] + Σ_{i=0}^{t} S_write[i,t+1,a′,a])) · "
    "k[t,a]) · v[t,c]",
}
CARRIED_ON = """S_start[0,a,c] = S_0[a,c]
S_start[t+1,a,c] = α[t] · (S_start[t,a,c] − β[t] · k[t,a] · Σ_a′ k[t,a′] · S_start[t,a′,c])
S_key[i,0,a] = 0
S_key[i,t+1,a] = α[t] · (S_key[i,t,a] − β[t] · k[t,a] · Σ_a′ k[t,a′] · S_key[i,t,a′]) + β[t] · \
[i = t] · k[t,a]""".replace("\\\n", "")


@pytest.mark.parametrize("name", CARRIED)
def test_carried_writes_are_proved_and_not_refuted(name):
    layer, word = CARRIED[name]
    reduction = reduce(layer)
    proof, statement = reduction.theorem.proof, reduction.theorem.statement
    assert statement.hypotheses == () and statement.equation == claim(step_form(layer))
    assert (reduction.parallel, text(reduction.output)) == (word, FORMS[name])
    assert reduction.assumptions == ()
    assert refute(statement.equation, proof.definitions, seed=1) is None
    assert proof_text(reduction.theorem) and reduction.latex()


def test_a_reduction_says_how_keys_are_carried_on():
    reduction = reduce(CARRIED["gated delta"][0])
    shown = "\n".join(f"{text(e.left)} = {text(e.right)}" for e in reduction.carried)
    assert shown == CARRIED_ON
    assert all(line in str(reduction) for line in shown.splitlines())
    assert r"S^{\mathrm{key}}_{i,t+1,a} &=" in reduction.latex() and "[i = t]" in reduction.latex()


def another_time(node, name: str):
    """The term with what is carried, of symbols that end so, taken a step earlier."""
    node = rebuild(node, another_time, name)
    if isinstance(node, Atom) and node.name.endswith(name):
        k = next(n for n, index in enumerate(node.ix) if T in index.vars)
        moved = replace(node.ix[k], shift=node.ix[k].shift - 1)
        return replace(node, ix=(*node.ix[:k], moved, *node.ix[k + 1 :]))
    return node


def one_write_less(node):
    """The term with sums over tokens that end a token earlier."""
    node = rebuild(node, one_write_less)
    if isinstance(node, Sum) and node.high is not None:
        return replace(node, high=replace(node.high, shift=node.high.shift - 1))
    return node


FAULTS = {
    "a key or write one token old": lambda node: another_time(another_time(node, "_key"), "_write"),
    "a start one token old": lambda node: another_time(node, "_start"),
    "the last write left out": one_write_less,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CARRIED)
def test_what_is_carried_wrongly_is_refused_by_the_checker_and_in_exact_arithmetic(name, fault):
    form = step_form(CARRIED[name][0])
    goal = claim(form)
    wrong = replace(goal, right=FAULTS[fault](goal.right))
    assert wrong != goal
    with pytest.raises(CheckerError, match="must have one normal form"):
        Theorem(prove_claim(form, wrong))
    assert refute(wrong, form.definitions, seed=1) is not None


CAUSES = {
    "squashed": r"S is made of `tanh` of a state in line \d+ of layers.py.",
    "multiplied": r"S is made of a product of two states in line \d+ of layers.py.",
    "crossed and squashed": r"B is made of `tanh` of a state in line \d+ of layers.py.",
}


@pytest.mark.parametrize("name", OPEN)
def test_what_has_no_closed_form_is_refused_with_the_cause(name):
    layer, word = OPEN[name]
    with pytest.raises(NotCoveredError, match=CAUSES[name]) as error:
        reduce(layer)
    assert re.fullmatch(r"the states [^\n]+\. Run it with [\w.]+\.", str(error.value))
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
