"""`prove`, `refute`, `verify`: what they say, and that each witness can say no."""

import json
import math
from dataclasses import replace

import pytest
import torch

from derivations import (
    momentum,
    momentum_rates_agree,
    sum_order,
    swiglu_gradients,
    weight_norm_is_plain_sum,
)
from ttt_proofs import Evidence, Refutation, Theorem, prove, refute, verify
from ttt_proofs.checker.definitions import Equation
from ttt_proofs.checker.proof import Assume, Calculate, Proof, Sequent, Step
from ttt_proofs.checker.terms import Add, CheckerError
from ttt_proofs.evidence import proof_score as proof_score_module
from ttt_proofs.evidence import report as report_module
from ttt_proofs.evidence import status as status_module
from ttt_proofs.evidence.report import Report, decide
from ttt_proofs.evidence.statement import FloatModel
from ttt_proofs.evidence.types import Observation
from ttt_proofs.parallel import forms
from ttt_proofs.symbolic import Derivation


def doubled(derivation: Derivation) -> Derivation:
    """The derivation with its first statement's right side doubled, in the record too."""
    part = derivation.parts[0]
    e = part.statement
    wrong = Equation(e.every, e.left, Add((e.right, e.right)))
    last = part.proof.steps[-1]
    step = Step(replace(last.rule, term=wrong.right), last.premises, Sequent((), wrong))
    proof = Proof(part.proof.definitions, (*part.proof.steps[:-1], step))
    return replace(derivation, parts=(replace(part, statement=wrong, proof=proof),))


def test_prove_gives_the_theorem_of_the_claim():
    part = sum_order.derive().parts[0]
    theorem = prove(part.statement, part.proof)
    assert type(theorem) is Theorem
    assert theorem.statement.equation == part.statement


def test_prove_refuses_steps_that_end_elsewhere():
    part, other = sum_order.derive().parts[0], doubled(sum_order.derive()).parts[0]
    with pytest.raises(CheckerError, match="end with the claim"):
        prove(other.statement, part.proof)


def test_prove_refuses_steps_that_leave_a_hypothesis():
    e = doubled(sum_order.derive()).parts[0].statement
    assumed = Proof((), (Step(Assume(e), (), Sequent((e,), e)),))
    with pytest.raises(CheckerError, match="no hypothesis"):
        prove(e, assumed)


def test_verify_reports_what_holds():
    report = verify(sum_order.derive())
    assert report.outcome == "holds"
    assert report.as_stated
    assert report.proof["status"] == "proved"
    assert report.exact["status"] == "agrees"
    assert report.mutants["survivors"] == []
    assert str(report).startswith("sum_order: holds | proof proved (2 steps)")


def test_verify_reports_what_is_false():
    report = verify(doubled(sum_order.derive()))
    assert report.outcome == "fails"
    assert not report.as_stated
    assert report.proof["status"] == "refused"
    assert isinstance(report.counterexample, Refutation)


def test_a_claim_that_says_that_it_fails_is_as_stated():
    report = verify(momentum_rates_agree.derive())
    assert (report.outcome, report.as_stated) == ("fails", True)
    assert report.counterexample is not None
    assert all(size <= 2 for _, size in report.counterexample.sizes)
    assert all(abs(int(value)) <= 99 for _, value in report.counterexample.values)


def test_refute_finds_nothing_against_what_holds():
    assert refute(sum_order.derive()) is None


def test_a_proved_claim_that_the_exact_witness_refutes_is_undecided_never_holds():
    proved, refuted = {"status": "proved"}, {"status": "refuted"}
    assert decide(proved, refuted, {"status": "agrees"}) == "undecided"


@pytest.mark.parametrize("status", ["disagrees", "broken"])
def test_a_proved_claim_that_autograd_contradicts_is_not_said_to_hold(status):
    assert decide({"status": "proved"}, {"status": "agrees"}, {"status": status}) == "undecided"


def test_a_proved_claim_that_the_exact_witness_doubts_is_not_said_to_hold():
    doubted = {"status": "disagrees"}
    assert decide({"status": "proved"}, doubted, {"status": "agrees"}) == "undecided"


def test_agreement_alone_never_makes_a_claim_hold():
    for proof in ("skipped", "refused"):
        assert decide({"status": proof}, {"status": "agrees"}, {"status": "agrees"}) == "undecided"


def test_a_surviving_mutant_is_not_as_stated(monkeypatch):
    real = status_module.score

    def careless(*args, **kwargs):
        return replace(real(*args, **kwargs), survivors=("planted",))

    monkeypatch.setattr(status_module, "score", careless)
    report = verify(sum_order.derive())
    assert not report.as_stated
    assert report.mutants["survivors"] == ["planted"]


def test_corruptions_of_proofs_are_counted_by_kind():
    derivation = momentum.derive()
    report = verify(derivation, witnesses=["proof", "exact"])
    assert report.as_stated
    for kind in ("definitions", "steps", "predicates"):
        found = report.mutants[kind]
        assert 10 <= found["total"] == found["killed_by_proof"] <= 20
        assert found["status"] == "killed" and found["survivors"] == []
    few = report.mutants["predicates"]["total"]
    derivation = replace(derivation, parts=derivation.parts[:1])
    every = verify(derivation, witnesses=["proof", "exact"], every_mutant=True)
    assert every.as_stated and every.mutants["predicates"]["total"] > 4 * few


def test_a_claim_that_fails_has_no_proof_to_corrupt():
    report = verify(momentum_rates_agree.derive(), witnesses=["proof", "exact"])
    assert report.mutants["steps"]["status"] == "not_applicable"
    assert report.mutants["total"] > 0 and report.as_stated


def test_a_surviving_corruption_is_not_as_stated(monkeypatch):
    real = proof_score_module.infer

    def careless(known, rule, premises):
        if not isinstance(rule, Calculate):
            return real(known, rule, premises)
        hypotheses = tuple(dict.fromkeys(h for p in premises for h in p.hypotheses))
        return Sequent(hypotheses, replace(premises[0].equation, right=rule.term))

    monkeypatch.setattr(proof_score_module, "infer", careless)
    report = verify(momentum.derive(), witnesses=["proof", "exact"])
    assert report.mutants["status"] == "survived" and not report.as_stated
    kinds = [report.mutants[kind]["survivors"] for kind in ("definitions", "steps", "predicates")]
    assert all(kinds) and report.mutants["survivors"] == [name for kind in kinds for name in kind]


def test_a_blind_exact_witness_shows_in_the_mutants(monkeypatch):
    def blind(*_args, **_kwargs):
        return Evidence(True, 1, (2,), -60.0, 0)

    monkeypatch.setattr(status_module, "exact_witness", blind)
    assert not verify(momentum_rates_agree.derive()).as_stated


def test_a_useless_bound_is_reported_as_undecided(monkeypatch):
    def vague(*_args, **_kwargs):
        return Evidence(False, 2, (2,), -1.0, 0, "the bound is too large")

    monkeypatch.setattr(status_module, "exact_witness", vague)
    report = verify(sum_order.derive())
    assert (report.exact["status"], report.exact["error_bound_log2"]) == ("undecided", -1.0)
    assert "too large" in report.exact["reason"]
    assert report.counterexample is None and not report.as_stated


def test_reports_are_deterministic_and_plain_data():
    first, second = (verify(sum_order.derive(), seed=3) for _ in range(2))
    assert first == second
    assert isinstance(first, Report)
    assert first.json()["name"] == "sum_order"


def test_parts_are_counted_together():
    derivation = swiglu_gradients.derive()
    report = verify(derivation, witnesses=["proof"])
    assert report.proof["steps"] == sum(len(part.proof.steps) for part in derivation.parts)
    assert all(f"{part.label}: " in report.statement for part in derivation.parts)


def test_assumptions_are_told():
    report = verify(momentum.derive(), witnesses=["proof"])
    assert any("differentiable" in line for line in report.proof["assumptions"])


def test_unknown_witnesses_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"among proof, exact, autograd, kernel; got magic\."):
        verify(sum_order.derive(), witnesses=["magic"])


def test_counterexamples_read_as_a_sentence():
    found = Refutation((("a[0]", "1"),), "2", "3", (("t", 0),))
    text = "With t = 0 and a[0] = 1, the left side is 2 and the right side 3."
    assert str(found) == text


def test_a_disagreement_without_a_counterexample_is_not_a_refutation(monkeypatch):
    monkeypatch.setattr(report_module, "find_counterexample", lambda *_args, **_kwargs: None)
    report = verify(momentum_rates_agree.derive(), witnesses=["proof", "exact"])
    assert report.exact["status"] == "disagrees"
    assert report.outcome == "undecided"
    assert not report.as_stated


def spoilt(fault):
    """The recurrence that reductions run, with a fault in its outputs."""
    real = forms.recurrent

    def run(*given, **others):
        o, state = real(*given, **others)
        return fault(o), state

    return run


def raising(o):
    """A fault that raises."""
    raise ZeroDivisionError("mine")


FAULTS = {
    "NaN": lambda o: o * math.nan,
    "one NaN": lambda o: torch.where(torch.arange(o.numel()).view(o.shape) == 0, math.nan, o),
    "infinity": lambda o: o / 0,
    "a shape": lambda o: o[:, :1],
    "finite": lambda o: o * 1.001,
    "raises": raising,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_reduction_does_not_make_a_claim_fail_as_stated(name, monkeypatch):
    """It is the statement that should differ from the loop, in finite numbers."""
    sound = verify(momentum_rates_agree.derive(), witnesses=["autograd"])
    assert sound.autograd["status"] == "disagrees" and sound.as_stated
    monkeypatch.setattr(forms, "recurrent", spoilt(FAULTS[name]))
    report = verify(momentum_rates_agree.derive(), witnesses=["autograd"])
    assert report.autograd["status"] == "broken" and not report.as_stated
    assert report.autograd["reason"] and json.dumps(report.json())
    held = verify(momentum.derive(), witnesses=["proof", "autograd"])
    assert held.autograd["status"] == ("disagrees" if name == "finite" else "broken")
    assert held.outcome == "undecided" and not held.as_stated


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_statement_that_is_not_evaluated_does_not_fail_as_stated(value, monkeypatch):
    def wrong(*_given, **_others):
        return value if value is not None else raising(None)

    monkeypatch.setattr(FloatModel, "value", wrong)
    report = verify(momentum_rates_agree.derive(), witnesses=["autograd"])
    assert report.autograd["status"] == "broken" and not report.as_stated
    assert not verify(momentum.derive(), witnesses=["autograd"]).as_stated


def test_a_statement_that_rounding_hides_does_not_fail_as_stated(monkeypatch):
    seen = Observation(
        False, 1e-9, 1e-12, 1, "cpu", "float64", ("statement",), "statement", 1e9, undecided=1
    )
    monkeypatch.setattr("ttt_proofs.evidence.statement.statement_witness", lambda *_, **__: seen)
    report = verify(momentum_rates_agree.derive(), witnesses=["autograd"])
    assert report.autograd["status"] == "broken" and not report.as_stated
    assert report.autograd["amplification"] == 1e9
    assert "rounding" in report.autograd["meaningless"]


def test_amplification_is_told_where_it_was_measured():
    plain, normed = (
        verify(d.derive(), witnesses=["autograd"]).autograd
        for d in (momentum, weight_norm_is_plain_sum)
    )
    assert plain["amplification"] is None and normed["amplification"] > 0
    assert "meaningless" not in plain and "meaningless" not in normed
