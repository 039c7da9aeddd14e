"""Corruptions reach every definition, step and predicate, and are always the same."""

import pytest

from derivations import momentum, swiglu_gradients
from ttt_proofs.checker.definitions import Define, DefineGradient
from ttt_proofs.checker.proof import Assume, Calculate, Definition, Induction, Reflexivity
from ttt_proofs.evidence.corruptions import PLACES, corruptions, unused
from ttt_proofs.evidence.mutants import OPERATORS

PROOF = momentum.derive().parts[0].proof
GRADIENT = swiglu_gradients.derive().parts[1].proof


def every(kind, proof=PROOF):
    return list(corruptions(proof, kind, None, "seed"))


def test_each_term_of_each_definition_is_corrupted():
    reached = {c.name.rpartition(", ")[0] for c in every("definitions")}
    reached |= set(unused(PROOF))
    wanted = set()
    for define in (d for block in PROOF.definitions for d in block):
        of = f"definition of {define.name}"
        if isinstance(define, DefineGradient):
            wanted |= {f"{of}, loss", f"{of}, point"}
        else:
            assert isinstance(define, Define)
            wanted |= {of} | ({f"{of}, start"} if define.start else set())
    assert reached == wanted


def test_a_definition_that_no_step_uses_is_told_apart():
    assert unused(GRADIENT) == [] == unused(PROOF)
    steps = tuple(step for step in PROOF.steps if not isinstance(step.rule, Definition))
    idle = type(PROOF)(PROOF.definitions, steps)
    assert every("definitions", idle) == [] and len(unused(idle)) >= 5


def test_one_definition_changes_at_a_time():
    for c in every("definitions"):
        assert c.definitions is not None
        old = [d for block in PROOF.definitions for d in block]
        new = [d for block in c.definitions for d in block]
        differ = [b for a, b in zip(old, new, strict=True) if a != b]
        assert [d.name for d in differ] == [c.redefined]
        assert not c.rules and not c.given


def test_each_step_but_the_last_is_corrupted_in_what_it_is_given_and_in_what_it_concludes():
    found = every("steps")
    given = {k for c in found for k in c.given}
    assert given == set(range(len(PROOF.steps) - 1))
    for kind in (Assume, Calculate, Reflexivity):
        where = {k for k in given if isinstance(PROOF.steps[k].rule, kind)}
        assert where and where <= {k for c in found for k in c.rules}
    for c in found:
        assert len(c.rules) + len(c.given) == 1
        for k, rule in c.rules.items():
            assert type(rule) is type(PROOF.steps[k].rule) and rule != PROOF.steps[k].rule
        for k, sequent in c.given.items():
            assert sequent != PROOF.steps[k].conclusion
            assert sequent.equation.left == PROOF.steps[k].conclusion.equation.left


def test_a_gradient_that_a_step_gives_is_corrupted():
    (k,) = [n for n, s in enumerate(GRADIENT.steps) if isinstance(s.rule, Definition)]
    changed = [c.rules[k] for c in every("steps", GRADIENT) if k in c.rules]
    assert len(changed) > 10
    assert all(isinstance(r, Definition) and r.entry is not None for r in changed)


def test_each_predicate_is_corrupted_alone_and_throughout():
    found = every("predicates")
    inductions = [k for k, s in enumerate(PROOF.steps) if isinstance(s.rule, Induction)]
    for k in inductions:
        rule = PROOF.steps[k].rule
        assert isinstance(rule, Induction)
        for j in range(len(rule.predicate)):
            of = f"induction {k}, equation {j}"
            assert any(c.name.rpartition(", ")[0] == of for c in found)
            assert any(c.name.startswith(f"{of}, throughout") for c in found)
    for c in found:
        kinds = {type(rule) for rule in c.rules.values()}
        # throughout: where it is assumed, where it is shown at 0 and at t + 1, and in the induction
        assert kinds == ({Induction, Assume, Calculate} if "throughout" in c.name else {Induction})


@pytest.mark.parametrize("kind", PLACES)
def test_a_choice_is_small_varied_and_determined_by_the_seed(kind):
    def chosen(seed):
        return [c.name for c in corruptions(PROOF, kind, 20, seed)]

    assert chosen("a") == chosen("a") != chosen("b")
    assert len(chosen("a")) == len(set(chosen("a"))) == 20
    operators = {next(o for o in OPERATORS if f", {o} " in name) for name in chosen("a")}
    assert len(operators) >= 5
    assert len(every(kind)) > 20
