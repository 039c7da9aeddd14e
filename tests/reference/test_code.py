"""Loops of nets and losses that are written as code run as those of the library that they equal."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.reference.samples import sample, sample_coefficients
from tests.reference.test_by_autograd import GIVEN, TITANS, TOLERANCE, distance
from ttt_proofs import check
from ttt_proofs.evidence.autograd import autograd_witness
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.loops import (
    GLU,
    MLP,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.reduction import reduce
from ttt_proofs.reference import run_loop


def linear(x, W):
    """One matrix."""
    return x @ W


def deep(x, W1, W2):
    """Two layers."""
    return torch.tanh(x @ W1) @ W2


def swiglu(x, W0, W2, W1):
    """The net of LaCT."""
    return (functional.silu(x @ W0) * torch.einsum("lk,kh->lh", x, W2)) @ W1


def glu(x, W0, W1):
    """A gate on what the last layer makes."""
    return functional.silu(x @ W0) * (x @ W1)


def inner(f, v):
    """Minus the inner product of each token."""
    return -torch.einsum("lv,lv->l", f, v)


def half(f, v):
    """Half the squared distance of each token."""
    return (f - v).pow(2).sum(dim=-1) / 2


EACH = GradientStep("per_token", "inside", "per_token")
PAIRS = [
    (linear, inner, Linear(), Frobenius()),
    (linear, half, Linear(), SquaredError()),
    (deep, half, MLP(2, "tanh"), SquaredError()),
    (swiglu, inner, SwiGLU(), Frobenius()),
    (glu, half, GLU(), SquaredError()),
]


@pytest.mark.parametrize("read", ["before_update", "after_update"])
@pytest.mark.parametrize("pair", PAIRS)
def test_code_runs_as_the_library_does(pair, read):
    net, loss, *library = pair
    ours = InnerLoop(net, loss, EACH, Schedule(3, read))
    theirs = InnerLoop(*library, EACH, Schedule(3, read))
    assert [w.name for w in ours.net.weights] == [w.name for w in theirs.net.weights]
    assert distance(lambda _, *a, **o: run_loop(ours, *a, **o), theirs, 5) <= TOLERANCE


MODULE = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)).double()
CODES = [
    InnerLoop(deep, half, TITANS, Schedule(2), coefficients=GIVEN),
    InnerLoop(swiglu, inner, TITANS, Schedule(2, "before_update"), coefficients=GIVEN),
    InnerLoop(MODULE, half, GradientStep("per_step", momentum="per_step"), Schedule(2)),
]


@pytest.mark.parametrize("loop", CODES, ids=str)
def test_what_is_derived_of_code_agrees_with_the_code(loop):
    seen = autograd_witness(reduce(loop), seed=1, trials=2)
    assert seen.agrees and seen.tolerance == 1e-12


@pytest.mark.parametrize("loop", CODES, ids=str)
def test_check_runs_the_code(loop):
    found = reduce(loop)
    assert check(found.recurrent, loop, trials=3)
    rival = InnerLoop(loop.net, loop.loss, GradientStep(None), loop.schedule)

    def plain(q, k, v, weights):
        return reduce(rival).recurrent(q, k, v, weights=weights)

    assert check(plain, loop).kind == "wrong"


def test_a_module_is_run_with_the_weights_that_are_given():
    loop = CODES[2]
    x = random_inputs(loop, 0, sizes={"B": 1, "T": 1, "H": 1})
    given = {name: w.clone() for name, w in x.weights.items()}
    before = [p.detach().clone() for p in MODULE.parameters()]
    o, _ = run_loop(InnerLoop(MODULE, half, loop.update, Schedule(2, "before_update")), **vars(x))
    last = [w.name for w in loop.net.weights if w.name == loop.net.last.name]
    hidden = torch.tanh(x.q[0, :, 0] @ given["p0_weight"][0].mT + given["p0_bias"][0])
    torch.testing.assert_close(o[0, :, 0], hidden @ given[last[0]][0])
    assert all(map(torch.equal, before, MODULE.parameters()))


def test_a_copy_that_lost_its_code_has_no_oracle():
    loop = InnerLoop(lambda x, W: x @ W, half, GradientStep())
    copy = pickle.loads(pickle.dumps(loop))
    assert copy == loop
    qkv, weights = sample(loop)
    given = {"weights": weights, "coefficients": sample_coefficients(loop)}
    run_loop(loop, *qkv, **given)
    for run in (lambda: run_loop(copy, *qkv, **given), lambda: check(lambda q, k, v: v, copy)):
        with pytest.raises(
            ValueError, match=r"must be at hand .+; got a copy without its code\..+"
        ):
            run()
