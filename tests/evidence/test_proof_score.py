"""Corrupted proofs are refused; where the checker is made careless, corruptions survive."""

from dataclasses import replace

import pytest

from derivations import (
    inner_steps,
    mlp_gradients,
    momentum,
    parallel_form,
    squared_error_is_affine,
    unrolled,
)
from ttt_proofs.checker.definitions import Equation
from ttt_proofs.checker.proof import Calculate, Definition, Induction, Proof, Sequent, Step, replay
from ttt_proofs.checker.terms import Atom, CheckerError, ix, put_symbol
from ttt_proofs.evidence import proof_score as scoring
from ttt_proofs.evidence.corruptions import PLACES, Corruption, corruptions
from ttt_proofs.evidence.proof_score import Judge, proof_score
from ttt_proofs.symbolic import Part

REAL = scoring.infer
PARTS = {
    "momentum": momentum.derive().parts[0],
    "unrolled": unrolled.derive().parts[1],
    "gradients": mlp_gradients.derive().parts[0],
    "affine": squared_error_is_affine.derive().parts[0],
}


def score(part: Part, kind: str, most: int | None = 20):
    return proof_score(part.statement, part.proof, kind, seed=0, most=most)


def hypotheses(premises):
    return tuple(dict.fromkeys(h for p in premises for h in p.hypotheses))


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("name", PARTS)
def test_corruptions_are_refused_or_explained(name, kind):
    found = score(PARTS[name], kind)
    assert not found.survivors
    assert found.total == found.killed_by_proof
    assert found.total >= 10 or (kind == "predicates" and name in ("gradients", "affine"))
    assert all(why for _, why in found.equivalent)
    assert len(found.equivalent) < 12


def test_every_predicate_of_momentum_is_refused():
    found = score(PARTS["momentum"], "predicates", None)
    assert found.total >= 100 and not found.survivors


def test_an_equivalent_definition_is_listed_with_its_reason():
    found = score(parallel_form.derive().parts[0], "definitions", None)
    assert not found.survivors and found.total > 50
    told = dict(found.equivalent)
    # -1 · 0 starts like 0; with the Frobenius loss a gradient does not depend on where it is taken
    assert "definition of M_W, start, sign 1" in told
    assert any(name.startswith("definition of G_W, point") for name in told)
    assert not any(name.startswith("definition of W,") for name in told)


def careless(kind, conclude):
    """An `infer` that takes one kind of step without looking."""
    return lambda known, rule, premises: (
        conclude(known, rule, premises) if isinstance(rule, kind) else REAL(known, rule, premises)
    )


def calculate(known, rule, premises):
    """A calculation that compares nothing."""
    equation = replace(premises[0].equation, right=rule.term)
    return Sequent(hypotheses(premises), equation)


def induction(known, rule, premises):
    """An induction that does not look at its premises."""
    e = rule.predicate[rule.pick]
    return Sequent((), replace(e, every=(rule.time, *e.every)))


def gradient(known, rule, premises):
    """A definition that takes whatever gradient is given."""
    if rule.entry is None:
        return REAL(known, rule, premises)
    define, entry = known[rule.name], rule.entry
    every = define.every + entry.binders
    right = put_symbol(entry.body, define.param, define.at)
    return Sequent((), Equation(every, Atom(rule.name, tuple(map(ix, every))), right))


@pytest.mark.parametrize(
    ("fault", "kind", "name"),
    [
        ((Calculate, calculate), "definitions", "momentum"),
        ((Calculate, calculate), "steps", "momentum"),
        ((Calculate, calculate), "predicates", "momentum"),
        ((Induction, induction), "steps", "unrolled"),
        ((Induction, induction), "predicates", "unrolled"),
        ((Definition, gradient), "steps", "gradients"),
    ],
)
def test_a_rule_that_does_not_check_lets_corruptions_survive(monkeypatch, fault, kind, name):
    monkeypatch.setattr(scoring, "infer", careless(*fault))
    found = score(PARTS[name], kind, 60)
    assert found.survivors and found.killed_by_proof < found.total
    assert all(
        "exact arithmetic refutes" in why or "do not notice" in why for _, why in found.survivors
    )


def test_circular_definitions_that_are_admitted_survive(monkeypatch):
    assert not score(PARTS["momentum"], "definitions", None).survivors
    monkeypatch.setattr(scoring, "admit", lambda blocks: None)
    found = score(PARTS["momentum"], "definitions", None)
    assert any("finds no value" in why for _, why in found.survivors)


def test_values_that_rest_on_hundreds_of_others_are_worked_out():
    # with K + 1 for K in a gradient's point, each step needs twice as many before it
    part = inner_steps.derive().parts[2]
    judge = Judge(part.statement, part.proof, 0)
    deep = [
        c
        for c in corruptions(part.proof, "definitions", None, "")
        if c.name.startswith("definition of G_W, point, shifted time")
    ]
    assert any(c.site.startswith("K+1 ") for c in deep)
    assert {judge.says(c)[0] for c in deep} <= {"killed", "equivalent"}


def replayed(proof: Proof, corruption: Corruption) -> bool:
    """Whether the corrupted proof, its conclusions worked out anew, replays to the same end."""
    blocks = corruption.definitions or proof.definitions
    known = {define.name: define for block in blocks for define in block}
    steps: list[Step] = []
    for k, step in enumerate(proof.steps):
        rule = corruption.rules.get(k, step.rule)
        try:
            shown = REAL(known, rule, [steps[p].conclusion for p in step.premises])
        except (CheckerError, ValueError):
            shown = step.conclusion
        steps.append(Step(rule, step.premises, shown))
    try:
        return replay(Proof(blocks, tuple(steps))) == proof.steps[-1].conclusion
    except CheckerError:
        return False


@pytest.mark.parametrize("kind", PLACES)
def test_the_quick_way_says_what_replaying_the_whole_proof_says(kind):
    part = parallel_form.derive().parts[0]
    judge = Judge(part.statement, part.proof, 0)
    chosen = [c for c in corruptions(part.proof, kind, 24, "whole") if not c.given]
    words = [judge.says(c)[0] for c in chosen]
    assert [word == "equivalent" for word in words] == [replayed(part.proof, c) for c in chosen]
    assert kind != "definitions" or {"killed", "equivalent"} == set(words)


def test_a_false_premise_that_nobody_needs_survives():
    part = PARTS["momentum"]
    *steps, last = part.proof.steps
    extra = next(s for s in steps if isinstance(s.rule, Definition) and s.rule.name == "o")
    proof = Proof(part.proof.definitions, (*steps, extra, last))
    judge = Judge(part.statement, proof, 0)
    every = corruptions(proof, "steps", None, "")
    words = {judge.says(c)[0] for c in every if len(steps) in c.given}
    assert words == {"survived"}
