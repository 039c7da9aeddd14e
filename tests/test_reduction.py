"""`reduce`: classes and reasons, what is refused, and 200 random loops against autograd."""

import copy
import doctest
import importlib
import pickle
import pkgutil
import random
import types
from cProfile import Profile
from dataclasses import replace
from typing import Any

import pytest
import sympy as sp
import torch

import ttt_proofs
from tests.loops.random_loops import random_loop
from ttt_proofs import reduce
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import symbols
from ttt_proofs.evidence.autograd import autograd_witness
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.evidence.statement import statement_witness
from ttt_proofs.loops import (
    GLU,
    MLP,
    AbstractLoss,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.parallel import forms
from ttt_proofs.reduction import NotCoveredError, NotParallelError, Reduction
from ttt_proofs.symbolic import Part
from ttt_proofs.symbolic.plan import plan_of

HEAVY = GradientStep("per_step", "outside", "per_step")

UPDATED = "the kernel's parameters are updated, so φ depends on the state"
NOT_AFFINE = "an unknown function of the state"
AFFINE = "the value is affine in the state: S ← A S + B"
ADDITIVE = "neither features nor values depend on the state: S ← S + U"
GATED = "2×2 gate"

COMPOSED = "a scan of the accumulator, an operator on each step, then a sum"
NORMALISED = "each column is divided by a norm of the state that it is part of"
NONLINEAR = "a nonlinear function is taken of a gradient that depends on the state"

REASONS = {UPDATED, NOT_AFFINE, AFFINE, ADDITIVE, GATED, COMPOSED, NORMALISED, NONLINEAR}

CLIPPED, MUON, NORMED = (
    GradientStep(**{name: value})
    for name, value in (
        ("clip", "column_norm"),
        ("orthogonal", "muon"),
        ("weight_norm", "initial_norm"),
    )
)
IMAGE = Schedule(4)

CLASSES = [
    # a linear net has no features to train: its kernel is static either way
    (InnerLoop(Linear(), Frobenius()), True, "additive", ADDITIVE),
    (InnerLoop(Linear(), Frobenius(), trained="last"), True, "additive", ADDITIVE),
    (InnerLoop(MLP(1), Frobenius()), True, "additive", ADDITIVE),
    (InnerLoop(Linear(), Frobenius(), HEAVY), True, "gated", GATED),
    (InnerLoop(Linear(), SquaredError()), True, "affine", AFFINE),
    (InnerLoop(Linear(), SquaredError(), HEAVY), True, "affine", AFFINE),
    (InnerLoop(Linear(), AbstractLoss()), True, "sequential", NOT_AFFINE),
    (InnerLoop(MLP(2), Frobenius(), trained="last"), True, "additive", ADDITIVE),
    (InnerLoop(MLP(3, "act"), Frobenius(), HEAVY, trained="last"), True, "gated", GATED),
    (InnerLoop(SwiGLU(), SquaredError(), HEAVY, trained="last"), True, "affine", AFFINE),
    (InnerLoop(SwiGLU(), AbstractLoss(), trained="last"), True, "sequential", NOT_AFFINE),
    (InnerLoop(Features(), Frobenius(), trained="last"), True, "additive", ADDITIVE),
    (InnerLoop(Features(), SquaredError(), trained="last"), True, "affine", AFFINE),
    (InnerLoop(Features(), AbstractLoss(), trained="last"), True, "sequential", NOT_AFFINE),
    (InnerLoop(MLP(2), Frobenius()), False, "sequential", UPDATED),
    (InnerLoop(MLP(2, "identity"), Frobenius()), False, "sequential", UPDATED),
    (InnerLoop(SwiGLU(), SquaredError()), False, "sequential", UPDATED),
    (InnerLoop(Features(), Frobenius()), False, "sequential", UPDATED),
    (InnerLoop(Features(), AbstractLoss()), False, "sequential", UPDATED),
    # operators and norms
    (InnerLoop(Linear(), Frobenius(), MUON), True, "composed", COMPOSED),
    (
        InnerLoop(SwiGLU(), Frobenius(), replace(HEAVY, orthogonal="muon"), trained="last"),
        True,
        "composed",
        COMPOSED,
    ),
    (InnerLoop(Linear(), SquaredError(), MUON), True, "sequential", NONLINEAR),
    (InnerLoop(Linear(), SquaredError(), CLIPPED), True, "sequential", NONLINEAR),
    (InnerLoop(Linear(), Frobenius(), CLIPPED), True, "additive", ADDITIVE),
    (InnerLoop(Linear(), Frobenius(), replace(HEAVY, clip="column_norm")), True, "gated", GATED),
    (InnerLoop(Linear(), Frobenius(), NORMED), True, "sequential", NORMALISED),
    (
        InnerLoop(Linear(), Frobenius(), replace(MUON, weight_norm="any")),
        True,
        "sequential",
        NORMALISED,
    ),
    (InnerLoop(MLP(2), Frobenius(), NORMED), False, "sequential", UPDATED),
    # the other nets and rates
    (InnerLoop(GLU(), Frobenius()), False, "sequential", UPDATED),
    (InnerLoop(GLU(), Frobenius(), trained="last"), True, "additive", ADDITIVE),
    (InnerLoop(GLU(), SquaredError(), trained="last"), True, "affine", AFFINE),
    (InnerLoop(DepthwiseConv(), Frobenius(), schedule=IMAGE), True, "additive", ADDITIVE),
    (InnerLoop(DepthwiseConv(), SquaredError(), HEAVY, IMAGE), True, "affine", AFFINE),
    (
        InnerLoop(Linear(), Frobenius(), GradientStep("per_token", "inside", "per_token")),
        True,
        "gated",
        GATED,
    ),
    (InnerLoop(Linear(), SquaredError(), GradientStep(None)), True, "affine", AFFINE),
    # more steps on a chunk
    (InnerLoop(Linear(), Frobenius(), schedule=Schedule(2, steps=3)), True, "additive", ADDITIVE),
    (InnerLoop(SwiGLU(), Frobenius(), schedule=Schedule(2, steps=3)), False, "sequential", UPDATED),
]


@pytest.mark.parametrize(
    ("loop", "static", "parallel", "reason"),
    CLASSES,
    ids=[f"{c[2]}-{n}" for n, c in enumerate(CLASSES)],
)
def test_static_or_dynamic_and_the_parallel_class(loop, static, parallel, reason):
    found = reduce(loop)
    assert (found.static, found.parallel) == (static, parallel)
    assert reason in found.reason and "\n" not in found.reason
    assert not any(other in found.reason for other in REASONS - {reason})
    assert found.loop == loop


def test_the_schedule_does_not_change_the_class():
    for loop, _, parallel, _ in CLASSES[:18:3]:
        for schedule in (Schedule(3), Schedule(2, "before_update")):
            assert plan_of(replace(loop, schedule=schedule)).word == parallel


eta, alpha = sp.symbols("eta alpha")
t = sp.Symbol("t", integer=True)
eta_t, alpha_t = (sp.IndexedBase(n)[t] for n in ("eta", "alpha"))

GATES = [
    (GradientStep(), [[1]]),
    (GradientStep("per_step", ascent=True), [[1]]),
    (GradientStep(momentum="constant"), [[alpha, 0], [-eta * alpha, 1]]),
    (GradientStep(momentum="constant", place="inside"), [[alpha, 0], [-alpha, 1]]),
    (
        GradientStep("per_step", momentum="per_step", ascent=True),
        [[alpha_t, 0], [eta_t * alpha_t, 1]],
    ),
    (GradientStep("per_step", "inside", "per_step"), [[alpha_t, 0], [-alpha_t, 1]]),
]


@pytest.mark.parametrize(("update", "gates"), GATES, ids=[str(u) for u, _ in GATES])
def test_gates_take_one_state_to_the_next(update, gates):
    found = reduce(InnerLoop(Linear(), Frobenius(), update)).gates
    assert found == sp.Matrix(gates)
    others = [sp.Matrix(g) for _, g in GATES if g != gates]
    assert found not in others


def test_pieces_are_those_of_the_theorem():
    found = reduce(InnerLoop(MLP(2, "act"), SquaredError(), HEAVY, trained="last"))
    assert isinstance(found, Reduction) and isinstance(found.theorem, Theorem)
    assert not found.theorem.statement.hypotheses
    assert found.theorem.statement.equation.right == found.form.term
    assert symbols(found.query) == {"q", "W1"} and symbols(found.key) == {"k", "W1"}
    assert symbols(found.value) == {"k", "v", "W1", "W2"}
    assert symbols(found.coefficient) == {"eta", "alpha"}
    assert symbols(found.state0) == {"W2_0"}


def test_each_trained_weight_has_a_theorem():
    everything = reduce(InnerLoop(SwiGLU("act"), Frobenius()))
    assert list(everything.gradients) == ["W0", "W2", "W1"]
    last = reduce(InnerLoop(SwiGLU("act"), Frobenius(), trained="last"))
    assert list(last.gradients) == ["W1"]
    for reduction in (everything, last):
        for name, theorem in reduction.gradients.items():
            assert isinstance(theorem, Theorem) and not theorem.statement.hypotheses
            assert symbols(theorem.statement.equation.left) == {f"G_{name}"}


UNCOVERED = [
    (MLP(2, bias=True), "the theorems assume that the last layer must have no bias; got MLP("),
    (MLP(1, bias=True), "the theorems assume that the last layer must have no bias; got MLP("),
    (MLP(2, output_activation="tanh"), "the theorems assume that the last layer must be linear"),
    (MLP(1, output_activation="silu"), "the theorems assume that the last layer must be linear"),
    (MLP(2, output_activation="act"), "the theorems assume that the last layer must be linear"),
]


@pytest.mark.parametrize(("net", "told"), UNCOVERED, ids=[str(n) for n, _ in UNCOVERED])
def test_loops_outside_the_theorems_name_the_assumption(net, told):
    for loss in (Frobenius(), AbstractLoss()):
        with pytest.raises(NotCoveredError) as caught:
            reduce(InnerLoop(net, loss))
        message = str(caught.value)
        assert message.startswith(told) and message.endswith(". Change the net.")
        assert "\n" not in message
    reduce(
        InnerLoop(
            replace(net, bias=False, output_activation="identity"), Frobenius(), trained="last"
        )
    )


SENTENCE = r"^`loop` must be an InnerLoop or a Recurrence; got \w+\. Build one\.$"


@pytest.mark.parametrize("wrong", [None, Linear(), "loop", InnerLoop])
def test_what_is_no_loop_is_one_sentence(wrong):
    with pytest.raises(TypeError, match=SENTENCE):
        reduce(wrong)


SEQUENTIAL = [
    (InnerLoop(MLP(2), Frobenius()), UPDATED),
    (InnerLoop(Linear(), AbstractLoss()), NOT_AFFINE),
]


@pytest.mark.parametrize(("loop", "reason"), SEQUENTIAL, ids=["updated", "not affine"])
def test_a_sequential_loop_says_why_it_has_no_parallel_form(loop, reason):
    found, x = reduce(loop), random_inputs(loop, 0)
    with pytest.raises(NotParallelError) as caught:
        found.parallel_form(x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients)
    assert reason in str(caught.value) and str(caught.value).endswith("Use .recurrent.")
    with pytest.raises(NotParallelError, match=reason):
        found.attention(x.q, x.k, weights=x.weights, coefficients=x.coefficients)


def test_values_that_depend_on_the_state_have_no_attention_matrix():
    loop = InnerLoop(Linear(), SquaredError())
    x = random_inputs(loop, 0)
    with pytest.raises(NotParallelError, match="an attention matrix needs the additive or"):
        reduce(loop).attention(x.q, x.k, weights=x.weights, coefficients=x.coefficients)


def test_an_abstract_loop_reduces_and_does_not_run():
    loop = InnerLoop(Features(), AbstractLoss())
    found, x = reduce(loop), random_inputs(loop, 0)
    for run in (found.code, lambda: found.recurrent(**vars(x))):
        with pytest.raises(ValueError, match="only a loop with a concrete net and loss can run"):
            run()


ATTENTION = [
    InnerLoop(net, Frobenius(), update, schedule, trained="last")
    for net in (Linear(), MLP(2, "silu"))
    for update in (GradientStep(), HEAVY, replace(HEAVY, place="inside", ascent=True))
    for schedule in (Schedule(), Schedule(3), Schedule(2, "before_update"))
]


def derivative(found: Reduction, x) -> torch.Tensor:
    """`∂o[t] / ∂v[s]` of the loop run step by step, `[H, T, T]`, for one sequence and value."""

    def outputs(v):
        o, _ = found.recurrent(x.q, x.k, v, weights=x.weights, coefficients=x.coefficients)
        return o

    jacobian = torch.autograd.functional.jacobian(outputs, x.v)
    assert isinstance(jacobian, torch.Tensor)
    jacobian = jacobian[0, :, :, 0, 0, :, :, 0]  # [T, H, T, H]
    return jacobian.diagonal(dim1=1, dim2=3).permute(2, 0, 1)


@pytest.mark.parametrize("loop", ATTENTION, ids=range(len(ATTENTION)))
def test_attention_is_the_derivative_of_outputs_by_values(loop):
    """`o = q̂ S_0 + A v̂` with the reduction's own v̂, minus the gradient for descent: here ±v."""
    found = reduce(loop)
    x = random_inputs(loop, 0, sizes={"B": 1, "T": 7, "H": 2, "D_v": 1})
    scores = found.attention(x.q, x.k, weights=x.weights, coefficients=x.coefficients)
    assert scores.shape == (1, 2, 7, 7)
    expected = derivative(found, x) * (-1 if loop.update.ascent else 1)
    assert torch.allclose(scores[0], expected, rtol=1e-11, atol=1e-14)
    above = torch.ones(7, 7).triu(loop.schedule.chunk)
    assert not (scores[0] * above).any()  # nothing is read from later chunks
    wrong = found.attention(x.k, x.q, weights=x.weights, coefficients=x.coefficients)
    assert not torch.allclose(wrong[0], expected)


@pytest.mark.parametrize(("batch", "tokens"), [(0, 5), (2, 0), (1, 1)])
def test_attention_at_the_edges(batch, tokens):
    loop = ATTENTION[1]
    x = random_inputs(loop, 0, sizes={"B": batch, "T": tokens, "H": 3})
    found = reduce(loop).attention(x.q, x.k, weights=x.weights, coefficients=x.coefficients)
    assert found.shape == (batch, 3, tokens, tokens)


# The sweep: eight batches of 25 loops, each from its own seed.

BATCHES, EACH = 8, 25


def expected_class(loop: InnerLoop) -> str:
    """The class as one would say it of these nets, losses and rules."""
    rule = loop.update
    one = isinstance(loop.net, Linear | DepthwiseConv)
    layers = 1 if one else getattr(loop.net, "depth", 2)
    if (loop.trained == "all" and layers > 1) or rule.weight_norm:
        return "sequential"
    if "SquaredError" in str(loop.loss):
        return "sequential" if rule.clip or rule.orthogonal else "affine"
    if rule.orthogonal:
        return "composed"
    return "gated" if rule.momentum else "additive"


def tensors(loop: InnerLoop) -> int:
    """Outputs, final weights, and gradients in q, k, v, weights, rates and momenta."""
    rates = {"per_step": 1, "per_token": len(loop.fast_weights)}.get(str(loop.update.rate), 0)
    momenta = loop.update.momentum in ("per_step", "per_token")
    return 4 + 2 * len(loop.net.weights) + rates + momenta


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_loops_reduce_and_agree_with_autograd(batch):
    rng = random.Random(batch)
    for _ in range(EACH):
        loop, seed = random_loop(rng), rng.getrandbits(32)
        found = reduce(loop)
        assert found.parallel == expected_class(loop), loop
        seen = autograd_witness(found, seed=seed, trials=1)
        assert seen.agrees and seen.max_relative_error <= 1e-12, (loop, seed, seen)
        assert len(seen.what) == (1 + (found.parallel != "sequential")) * tensors(loop), loop
        proved = Part("", found.theorem.statement.equation, found.theorem.proof)
        assert statement_witness(proved, loop, seed=seed).agrees, (loop, seed)


def test_the_sweep_is_wide():
    loops = []
    for batch in range(BATCHES):
        rng = random.Random(batch)
        for _ in range(EACH):
            loops.append(random_loop(rng))
            rng.getrandbits(32)
    assert len(loops) == 200 and len(set(loops)) > 190
    assert {type(loop.net) for loop in loops} == {Linear, MLP, SwiGLU, GLU, DepthwiseConv}
    assert {expected_class(loop) for loop in loops} == {
        "sequential",
        "affine",
        "composed",
        "gated",
        "additive",
    }
    assert len({loop.update for loop in loops}) > 100
    assert {loop.schedule.chunk for loop in loops} == {1, 2, 3, 4, 6}
    assert {loop.schedule.read for loop in loops} == {"after_update", "before_update", "causal"}
    assert {loop.schedule.steps for loop in loops} == {1, 2}


def ascending(loop: InnerLoop) -> InnerLoop:
    """The step in the other direction."""
    return replace(loop, update=replace(loop.update, ascent=not loop.update.ascent))


def other_loss(loop: InnerLoop) -> InnerLoop:
    """The other loss."""
    loss = SquaredError() if loop.loss == Frobenius() else Frobenius()
    return replace(loop, loss=loss)


def other_place(loop: InnerLoop) -> InnerLoop:
    """The rate on the other side of the accumulator."""
    place = "inside" if loop.update.place == "outside" else "outside"
    return replace(loop, update=replace(loop.update, place=place))


@pytest.mark.parametrize("fault", [ascending, other_loss, other_place])
def test_the_sweep_would_catch_a_fault(fault, monkeypatch):
    """Code of another loop, behind the same reduction, is caught by one trial each time."""
    torch_loop, rng, caught = forms.torch_loop, random.Random(0), 0
    while caught < 3:
        loop = replace(random_loop(rng), net=Linear())
        rule = loop.update
        moves = rule.momentum is not None and rule.rate == "per_step" and not rule.orthogonal
        if fault is other_place and not moves:
            continue
        found = reduce(loop)
        assert autograd_witness(found, seed=1, trials=1).agrees
        with monkeypatch.context() as patch:
            patch.setattr(forms, "torch_loop", lambda loop: torch_loop(fault(loop)))
            assert not autograd_witness(found, seed=1, trials=1).agrees, loop
        caught += 1


MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(ttt_proofs.__path__, "ttt_proofs.")
    if not info.name.endswith("__main__")
)


def test_examples_in_docstrings_are_true():
    """All modules; those of Triton kernels, where Triton is missing, have nothing to load."""
    attempted = {}
    for name in MODULES:
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, name
        attempted[name] = result.attempted
    for name in ("reduction", "loops.loop", "reference.oracle"):
        assert attempted[f"ttt_proofs.{name}"] > 0


def test_a_false_example_would_be_seen():
    module = types.ModuleType("false", ">>> 1 + 1\n3\n")
    assert doctest.testmod(module, report=False, verbose=False).failed == 1


COPIED = [
    InnerLoop(Linear(), Frobenius()),
    InnerLoop(SwiGLU(), SquaredError(), HEAVY, trained="last"),
    InnerLoop(DepthwiseConv(), Frobenius(), CLIPPED, IMAGE),
    InnerLoop(Features(), Frobenius(), GradientStep(momentum="per_token")),
]


@pytest.mark.parametrize("loop", COPIED, ids=str)
def test_a_reduction_copies_pickles_and_prints(loop, monkeypatch):
    """Its theorem is replayed when it is loaded."""
    found = reduce(loop)
    gates = found.gates
    for twin in (copy.copy(found), copy.deepcopy(found)):
        assert twin == found and str(twin) == str(found) and twin.gates == gates
    replayed = []

    def seen(proof):
        replayed.append(proof)
        return Theorem(proof)

    kept = pickle.dumps(found)
    monkeypatch.setattr("ttt_proofs.reduction.Theorem", seen)
    loaded = pickle.loads(kept)
    assert loaded == found and str(loaded) == str(found) and repr(loaded) == repr(found)
    assert loaded.gates == gates and loaded.gradients == found.gradients
    assert found.theorem.proof in replayed


def test_nothing_of_a_reduction_can_be_changed():
    """So that a copy may be the reduction itself."""
    found = reduce(InnerLoop(Linear(), Frobenius(), HEAVY))
    with pytest.raises(TypeError):
        found.gates[0, 0] = 0
    with pytest.raises(TypeError):
        found.gradients["W"] = None
    with pytest.raises(AttributeError):
        found.loop = None


def test_that_chunks_have_one_length_is_said_where_there_are_chunks():
    def told(chunk: int, read: Any = "after_update") -> bool:
        reduction = reduce(InnerLoop(Linear(), Frobenius(), schedule=Schedule(chunk, read)))
        assert ("one length" in str(reduction)) == any(
            "one length" in a for a in reduction.assumptions
        )
        return "all chunks have one length" in str(reduction)

    assert told(2) and told(3, "before_update") and told(4, "causal")
    assert not told(1) and not told(1, "before_update")


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu", "act"])
def test_a_proof_costs_what_its_net_costs(activation):
    def calls(depth: int) -> int:
        """Of functions, which no other work on the machine adds to."""
        loop, profile = InnerLoop(MLP(depth, activation), SquaredError(), GradientStep()), Profile()
        profile.runcall(reduce, loop)
        return sum(entry.callcount for entry in profile.getstats())

    calls(2)  # what is made once
    assert calls(8) < 2**3 * calls(4)  # at most with the third power of the depth
