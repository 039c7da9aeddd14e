"""The statement witness: it reads the statement, the definitions, and the real loop."""

import importlib
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from derivations import momentum, momentum_rates_agree, sum_order, unrolled
from tests.evidence.updates import MUON, UPDATES, loop_of
from ttt_proofs.checker.definitions import Define
from ttt_proofs.checker.proof import Proof
from ttt_proofs.checker.terms import Add, App, Lam, Mul, Num, rebuild
from ttt_proofs.evidence import statement as module
from ttt_proofs.evidence.statement import FloatModel, Floats, statement_witness
from ttt_proofs.loops import (
    GLU,
    MLP,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.program.operations import ENTRYWISE
from ttt_proofs.symbolic import Part, attention_part, gradient_part

NAMES = [
    "single_step",
    "unrolled",
    "momentum",
    "momentum_rate_outside",
    "momentum_rate_inside",
    "mlp_gradients",
    "swiglu_gradients",
]


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
    """The checker would admit it: it is consistent. It is no longer the loop."""
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


@pytest.mark.parametrize("fn", ["gelu", "gelu_tanh", "silu", "softplus", "sin"])
def test_functions_and_their_derivatives_are_those_that_run(fn):
    model, step = FloatModel(Floats(), {}, (), 0, {}), 1e-6

    def value(x: float, order: int = 0) -> float:
        argument = Lam((), Num(*Fraction(x).as_integer_ratio()))
        return model.value(App(fn, (), (argument,), ((0, ()),) * order), {})

    for x in (-2.0, -0.3, 0.7, 3.0):
        run = ENTRYWISE[fn](torch.tensor(x, dtype=torch.float64)).item()
        assert value(x) == pytest.approx(run, rel=1e-12)
        slope = (value(x + step) - value(x - step)) / (2 * step)
        assert abs(value(x, 1) - slope) < 1e-8
    with pytest.raises(ValueError, match="must be given"):
        value(1.0, 2)


EACH = GradientStep("per_token", "inside", momentum="per_token")
FULL = replace(EACH, clip="column_norm", orthogonal="muon", weight_norm="initial_norm")
NEW = {
    "no rate": InnerLoop(Linear(), Frobenius(), GradientStep(None)),
    "rates and momenta per token": InnerLoop(MLP(2, "tanh"), SquaredError(), EACH, Schedule(3)),
    "causal": InnerLoop(Linear(), Frobenius(), EACH, Schedule(3, "causal")),
    "single tokens": InnerLoop(MLP(2, "tanh"), SquaredError(), EACH, Schedule(single=True)),
    "LaCT": InnerLoop(SwiGLU(), Frobenius(), FULL, Schedule(3, "before_update")),
    "gated": InnerLoop(GLU(), Frobenius(), GradientStep(clip="column_norm"), Schedule(2)),
    "keys, negated": InnerLoop(
        Linear(), NegatedValues(SquaredError()), EACH, Schedule(2, read_with="key")
    ),
    "wide and tall": InnerLoop(
        MLP(2, "relu"),
        Frobenius(),
        GradientStep(momentum="per_step", orthogonal="muon"),
        Schedule(4),
    ),
    "image": InnerLoop(
        DepthwiseConv(3, 2, 3),
        SquaredError(),
        replace(EACH, clip="column_norm", weight_norm="initial_norm"),
        Schedule(6),
    ),
    "causal image": InnerLoop(DepthwiseConv(3, 2, 2), Frobenius(), EACH, Schedule(4, "causal")),
}


@pytest.mark.parametrize("name", NEW)
def test_every_option_agrees_with_autograd(name):
    loop = NEW[name]
    parts = [attention_part(loop), *(gradient_part(loop, weight) for weight in loop.fast_weights)]
    for part in parts:
        seen = statement_witness(part, loop, seed=1)
        assert seen.agrees and seen.tolerance == 1e-12, (part.label, seen)


@pytest.mark.parametrize("loss", [Frobenius(), SquaredError()], ids=str)
@pytest.mark.parametrize("name", list(UPDATES | MUON))
def test_updates_of_ones_own_agree_with_autograd(name, loss):
    loop = loop_of((UPDATES | MUON)[name], loss)
    for part in (attention_part(loop), gradient_part(loop, loop.net.last)):
        seen = statement_witness(part, loop, seed=1)
        assert seen.agrees and seen.tolerance == 1e-12, (part.label, seen)


@pytest.mark.parametrize(("name", "other"), [("decay", "forgetting"), ("forgetting", "decay")])
def test_another_update_of_the_same_coefficients_disagrees(name, other):
    loop, rival = loop_of(UPDATES[name]), loop_of(UPDATES[other])
    assert loop.coefficients == rival.coefficients
    assert not statement_witness(attention_part(loop), rival, seed=1).agrees


def shifted(values, name):
    """The values of one symbol, each that of the next place."""
    places = [query for query in values if query.name == name]
    return dict(zip(places, [values[q] for q in places[1:] + places[:1]], strict=True))


def other(name, change):
    """All values of one symbol changed."""
    return lambda values: {q: change(x) for q, x in values.items() if q.name == name}


FAULTS = [
    ("LaCT", "epsilon", other("epsilon", lambda x: 1e-4)),
    (
        "LaCT",
        "rates of another weight",
        lambda values: {q: values[q._replace(name="eta_W1")] for q in values if q.name == "eta_W0"},
    ),
    ("rates and momenta per token", "rates one token late", lambda v: shifted(v, "eta_W1")),
    ("rates and momenta per token", "momentum summed", other("alpha", lambda x: 3 * x)),
    ("rates and momenta per token", "momentum one step late", lambda v: shifted(v, "alpha")),
    ("causal", "all tokens are seen", other("visible", lambda x: 1.0)),
    (
        "causal",
        "the token itself is not seen",
        lambda values: {q: float(q.place[0] > q.place[1]) for q in values if q.name == "visible"},
    ),
    (
        "causal image",
        "other pixels are seen",
        lambda values: {
            q: values[q._replace(place=q.place[2:] + q.place[:2])]
            for q in values
            if q.name == "visible"
        },
    ),
    (
        "image",
        "the edge is not zero",
        lambda values: {q: 1.0 for q in values if q.name == "q" and 0 in q.place[1:3]},
    ),
    (
        "image",
        "the window is transposed",
        lambda values: {
            q: values[q._replace(place=(q.place[1], q.place[0], q.place[2]))]
            for q in values
            if q.name == "W_0"
        },
    ),
    ("image", "one pixel late", lambda values: shifted(values, "k")),
    ("keys, negated", "values are negated twice", other("v", lambda x: -x)),
]


@pytest.mark.parametrize(("name", "what", "fault"), FAULTS, ids=[what for _, what, _ in FAULTS])
def test_a_fault_in_what_is_given_disagrees(name, what, fault, monkeypatch):
    loop, real = NEW[name], module.given
    changed = []

    def spoilt(*args):
        values = real(*args)
        wrong = fault(values)
        changed.append(any(values[q] != x for q, x in wrong.items()))
        return values | wrong

    monkeypatch.setattr(module, "given", spoilt)
    assert not statement_witness(attention_part(loop), loop, seed=1).agrees
    assert changed == [True]


@pytest.mark.parametrize("name", ["LaCT", "wide and tall"])
@pytest.mark.parametrize("fault", ["four steps", "a sign", "columns reversed"])
def test_another_muon_disagrees(name, fault, monkeypatch):
    real = module.NEWTON_SCHULZ
    if fault == "four steps":
        monkeypatch.setattr(module, "NEWTON_SCHULZ", real[:4])
    elif fault == "a sign":
        a, b, c = real[4]
        monkeypatch.setattr(module, "NEWTON_SCHULZ", (*real[:4], (a, b, -c)))
    else:
        twisted = lambda x: module.muon([row[::-1] for row in x])  # noqa: E731
        monkeypatch.setitem(module.Floats.operators, "muon", twisted)
    assert not statement_witness(attention_part(NEW[name]), NEW[name], seed=1).agrees


def test_muon_brings_singular_values_near_one():
    assert module.muon([[0.0, 0.0], [0.0, 0.0]]) == [[0.0, 0.0], [0.0, 0.0]]
    for rows in ([[3.0, 1.0, 0.0], [1.0, -2.0, 5.0]], [[3.0, 1.0], [1.0, -2.0], [0.0, 5.0]]):
        made = torch.tensor(module.muon(rows), dtype=torch.float64)
        given = torch.tensor(rows, dtype=torch.float64)
        assert made.shape == given.shape
        assert (torch.linalg.svdvals(made) - 1).abs().max() < 0.05
        u, _, v = torch.linalg.svd(given, full_matrices=False)
        assert (made - u @ v).abs().max() < 0.05  # the polar factor


def test_an_operator_without_values_is_refused():
    loop = InnerLoop(Linear(), Frobenius(), GradientStep(orthogonal="muon_bfloat16"))
    with pytest.raises(ValueError, match=r"`muon_bfloat16.*must be given"):
        statement_witness(attention_part(loop), loop, seed=0)
