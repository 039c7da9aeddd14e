"""The statement witness: it reads the statement, the definitions, and the real loop."""

import importlib
from dataclasses import replace
from fractions import Fraction

import pytest

from derivations import momentum, momentum_rates_agree, sum_order, unrolled
from ttt_proofs.evidence import statement as module
from ttt_proofs.evidence.statement import gelu_tanh, statement_witness
from ttt_proofs.kernel.definitions import Define
from ttt_proofs.kernel.proof import Proof
from ttt_proofs.kernel.terms import Add, Mul, Num, rebuild
from ttt_proofs.loops import GradientStep, InnerLoop, Linear, SquaredError
from ttt_proofs.symbolic import Part

NAMES = ["single_step", "unrolled", "momentum", "momentum_rate_outside", "momentum_rate_inside",
         "mlp_gradients", "swiglu_gradients"]  # fmt: skip


def restated(derivation) -> list[tuple[InnerLoop, Part]]:
    """Each loop with each statement about it."""
    return [(loop, part) for loop in derivation.loops for part in derivation.restate(loop)]


@pytest.mark.parametrize("name", NAMES)
def test_every_statement_agrees_with_autograd_on_every_loop(name):
    cases = restated(importlib.import_module(f"derivations.{name}").derive())
    assert cases
    for loop, part in cases:
        seen = statement_witness(part, loop, seed=3)
        assert seen.agrees and seen.max_relative_error <= 1e-12, (loop, seen)
        assert seen.what == ("statement",)


def test_a_false_statement_disagrees():
    ((loop, part),) = restated(momentum_rates_agree.derive())
    assert not statement_witness(part, loop, seed=0).agrees


@pytest.mark.parametrize("factor", [2, -1, 0])
def test_a_scaled_right_side_disagrees(factor):
    loop, part = restated(momentum.derive())[0]
    wrong = replace(part.statement, right=Mul((Num(Fraction(factor)), part.statement.right)))
    assert not statement_witness(replace(part, statement=wrong), loop, seed=0).agrees


def test_a_definition_that_is_not_the_loops_disagrees():
    """The kernel would admit it: it is consistent. It is no longer the loop."""
    loop, part = restated(unrolled.derive())[0]

    def doubled(node):
        if isinstance(node, Define) and node.name == "W":
            return replace(node, start=Add((node.start, node.start)))
        return rebuild(node, doubled) if isinstance(node, tuple) else node

    proof = Proof(doubled(part.proof.definitions), part.proof.steps)
    assert not statement_witness(replace(part, proof=proof), loop, seed=0).agrees


def test_another_loop_disagrees():
    loop, part = restated(unrolled.derive())[0]
    other = replace(loop, update=GradientStep(ascent=True))
    assert not statement_witness(part, other, seed=0).agrees


def test_nan_never_agrees(monkeypatch):
    loop, part = restated(unrolled.derive())[0]
    real = module.given
    spoilt = lambda *args: {key: float("nan") for key in real(*args)}  # noqa: E731
    monkeypatch.setattr(module, "given", spoilt)
    assert not statement_witness(part, loop, seed=0).agrees


def test_nothing_is_made_up(monkeypatch):
    loop, part = restated(unrolled.derive())[0]
    real = module.given
    less = lambda *args: {k: v for k, v in real(*args).items() if k.name != "q"}  # noqa: E731
    monkeypatch.setattr(module, "given", less)
    with pytest.raises(ValueError, match="must be given"):
        statement_witness(part, loop, seed=0)


def test_statements_about_something_else_are_refused():
    loop = InnerLoop(Linear(), SquaredError())
    with pytest.raises(ValueError, match="about o or a gradient"):
        statement_witness(sum_order.derive().parts[0], loop, seed=0)


def test_gelu_and_its_derivative():
    step = 1e-6
    for x in (-2.0, -0.3, 0.0, 0.7, 3.0):
        slope = (gelu_tanh(0, x + step) - gelu_tanh(0, x - step)) / (2 * step)
        assert abs(gelu_tanh(1, x) - slope) < 1e-8
    with pytest.raises(ValueError, match="first derivative"):
        gelu_tanh(2, 0.0)
