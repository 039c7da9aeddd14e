"""The PyTorch code of nets and losses that are written as code, against autograd."""

import pytest
import torch

from tests.loops.test_code import LOSSES, NETS, net, random, square
from ttt_proofs.loops import GradientStep, InnerLoop, Linear, NegatedValues, Schedule
from ttt_proofs.loops.code import TracedLoss
from ttt_proofs.symbolic.torch_code import loop_code

SIZES = {"D_k": 4, "D_v": 3, "D_1": 8, "one": 1}
RATED = GradientStep("per_token", "inside")


def errors(loop: InnerLoop) -> list[float]:
    """How far the code's cotangent and its weighed gradients are from those of autograd."""
    names: dict = {}
    exec(loop_code(loop), names)
    keys = SIZES[loop.net.traced.input.shape[1].name]
    shapes = [(2, SIZES[w.rows.name], SIZES[w.cols.name]) for w in loop.net.weights]
    k, v, *weights = random(0, (2, 6, keys), (2, 6, SIZES["D_v"]), *shapes)
    for weight in weights:
        weight.requires_grad_()
    f = loop.net.function(k, *weights)
    tokens = loop.loss.function(f, v)
    (expected,) = torch.autograd.grad(tokens.sum(), f, retain_graph=True)
    slope = names["cotangent"](f, v)
    found = [(slope - expected).abs().max().item()]
    known = {w.name: w for w in loop.net.weights}
    rows = {name: torch.rand(2, 6, 1, dtype=torch.float64) for name in known}
    slopes = names["gradients"](k, slope.expand(f.shape), rows, *weights)
    for name, weight in zip(known, weights, strict=True):
        counted = (tokens * rows[name][..., 0]).sum()
        (expected,) = torch.autograd.grad(counted, weight, retain_graph=True)
        assert slopes[name].shape == expected.shape
        found.append(((slopes[name] - expected).abs().max() / expected.abs().max()).item())
    return found


@pytest.mark.parametrize("name", NETS)
def test_the_gradients_of_a_net(name):
    assert max(errors(InnerLoop(NETS[name], square, RATED, Schedule(6)))) < 1e-12


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("nets", [Linear(), net], ids=["linear", "mlp"])
def test_the_gradient_of_a_loss(name, nets):
    assert max(errors(InnerLoop(nets, LOSSES[name], RATED, Schedule(6)))) < 1e-12


@pytest.mark.parametrize("name", LOSSES)
def test_values_that_are_negated(name):
    """By the library, or in a function of one's own."""
    loss = LOSSES[name]
    negated = InnerLoop(Linear(), NegatedValues(TracedLoss(loss)), schedule=Schedule(6))
    written = InnerLoop(Linear(), lambda f, v: loss(f, -v), schedule=Schedule(6))
    f, v = random(1, (2, 6, 3), (2, 6, 3))
    slopes = []
    for loop in (negated, written):
        names: dict = {}
        exec(loop_code(loop), names)
        slopes.append(names["cotangent"](f, v))
    torch.testing.assert_close(*slopes)
