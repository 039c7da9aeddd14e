"""`Reduction.amplification`: how much larger a small change of the inputs is in the outputs."""

import math
from dataclasses import replace

import pytest
import torch

from ttt_proofs import reduce
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.loops import (
    MLP,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    lact,
)

STEP = GradientStep("per_step", momentum="per_step")
LINEAR = InnerLoop(Linear(), Frobenius(), STEP)
MODEST = [
    LINEAR,
    InnerLoop(Linear(), Frobenius()),
    InnerLoop(Linear(), SquaredError(), STEP, Schedule(4, "causal")),
    InnerLoop(Linear(), SquaredError(), replace(STEP, ascent=True)),
    InnerLoop(DepthwiseConv(3, 2, 2), Frobenius(), GradientStep(), Schedule(4)),
    InnerLoop(MLP(2, "tanh"), SquaredError(), STEP, Schedule(2)),
]
LONG = {"B": 2, "H": 2, "T": 64}


def given(loop, seed=0, **options):
    """Inputs of 64 tokens."""
    return vars(random_inputs(loop, seed, sizes=LONG, **options))


@pytest.mark.parametrize("loop", MODEST, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_linear_loops_hardly_enlarge(loop, seed):
    assert 1 < reduce(loop).amplification(**given(loop, seed)) < 100


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_lact_with_chunks_of_one_token_loses_every_digit_of_float32(dtype):
    """Gradients of rank one, of which Muon enlarges what should be nothing."""
    loop = lact(Schedule(1, "before_update"))
    inputs = given(loop, dtype=dtype)
    assert reduce(loop).amplification(**inputs) > 1e7
    calm = lact(Schedule(32, "before_update"))
    assert reduce(calm).amplification(**given(calm, dtype=dtype)) < 100


def test_a_factor_by_hand():
    """`o = q (1 + k v)` at one token: all of q, k, v moving, at most 1 + 2 kv / (1 + kv) + ..."""
    loop = InnerLoop(Linear(), Frobenius())
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    weights = {"W": torch.tensor([[[-1.0 + 1e-3]]], dtype=torch.float64)}
    found = reduce(loop).amplification(one, one, one, weights=weights, coefficients={"eta": 1.0})
    # The sum is 1e-3, and each of W, k, v and the rate moves it by 1e-7 or so.
    assert 1e3 - 2 < found <= 4e3 + 1
    assert found / 1e3 == pytest.approx(round(found / 1e3), abs=0.01)


def test_it_is_a_number_that_does_not_change():
    inputs = given(LINEAR)
    reduction = reduce(LINEAR)
    first = reduction.amplification(**inputs)
    assert isinstance(first, float) and first == reduction.amplification(**inputs)
    assert first >= reduction.amplification(**inputs, directions=1)
    leaf = inputs | {"q": inputs["q"].clone().requires_grad_()}
    assert reduction.amplification(**leaf) == first and leaf["q"].grad is None


def test_it_goes_on_from_a_state():
    inputs, reduction = given(LINEAR, dtype=torch.float32), reduce(LINEAR)
    _, state = reduction.recurrent(**inputs)
    assert 1 < reduction.amplification(**inputs, initial_state=state) < 100
    silent = inputs | {"v": 0 * inputs["v"]}
    still = state.map(torch.zeros_like)
    assert reduction.amplification(**silent, initial_state=still) == 0.0


def test_what_has_no_digits_or_no_outputs():
    inputs, reduction = given(LINEAR), reduce(LINEAR)
    assert reduction.amplification(**inputs | {"q": 0 * inputs["q"]}) == 0.0
    none = inputs | {n: inputs[n][:, :0] for n in "qkv"}
    none["coefficients"] = {n: x[:, :0] for n, x in inputs["coefficients"].items()}
    assert reduction.amplification(**none) == 0.0
    huge = inputs | {n: 1e200 * inputs[n] for n in "qkv"}
    assert reduction.amplification(**huge) == math.inf


@pytest.mark.parametrize("directions", [0, -1, 1.5, True])
def test_wrong_arguments_are_one_sentence(directions):
    with pytest.raises(ValueError, match=r"^`directions` must be .+; got .+\. Use 4\.$"):
        reduce(LINEAR).amplification(**given(LINEAR), directions=directions)
    with pytest.raises(ValueError, match=r"^`coefficients` must "):
        reduce(LINEAR).amplification(**given(LINEAR) | {"coefficients": None})
