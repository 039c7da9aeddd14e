"""Nets and losses written as code: what they are, that they run, and what is proved of them."""

import copy
import pickle
import re

import pytest
import sympy as sp
import torch
from torch import nn
from torch.nn import functional

from tests.symbolic.values import matrix
from ttt_proofs.checker.proof import replay
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.loops.code import TracedLoss, TracedNet
from ttt_proofs.loops.losses import F, V
from ttt_proofs.program.expressions import VALUE, InverseWidth
from ttt_proofs.program.operations import exp, layer_norm, sigmoid, silu, sin, softplus
from ttt_proofs.symbolic.parts import attention_form, gradient_part
from ttt_proofs.symbolic.records import digest


def net(x, W1, W2):
    return silu(x @ W1) @ W2


def inner(f, v):
    return -(f * v).sum(-1)


def square(f, v):
    return ((f - v) ** 2).sum(-1) / 2


def quartic(f, v):
    return ((f - v) ** 4).sum(-1)


@pytest.mark.parametrize("losses", [(inner, Frobenius()), (square, SquaredError())])
@pytest.mark.parametrize("nets", [(net, MLP()), (lambda x, W: x @ W, Linear())])
def test_code_has_the_proofs_of_the_library(nets, losses):
    for read in ("after_update", "before_update"):
        loops = [
            InnerLoop(n, loss, GradientStep("per_step"), Schedule(16, read))
            for n, loss in zip(nets, losses, strict=True)
        ]
        code, library = (digest(attention_form(loop)[1].proof) for loop in loops)
        assert code == library
    assert code != digest(attention_form(InnerLoop(MLP(2, "tanh"), losses[1]))[1].proof)


NETS = {
    "layer norm": lambda x, W1, g, b, W2: (layer_norm(silu(x @ W1)) * g + b) @ W2,
    "gate and bias": lambda x, W0, b, W1: sigmoid(x @ W0 + b) * (x @ W1),
    "residual": lambda x, W1, W2: (x + silu(x @ W1)) @ W2,
    "square last layer": lambda x, W: x * (x @ W),
    "mean": lambda x, W1, W2: 3 * (x * (x @ W1).mean(-1, keepdim=True)) @ W2,
    "composed": lambda x, W1, W2: exp(sin(x @ W1)) @ W2,
    "used twice": lambda x, W1, W2: (silu(h := x @ W1) * h + h) @ W2,
    "obstacle": lambda x, W, b: layer_norm(x @ W + b),
    "names": lambda x, dense, d: silu(x @ dense) @ d,
    "module": nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3, False)),
}
LOSSES = {
    "inner": inner,
    "square": square,
    "quartic": quartic,
    "negated": lambda f, v: quartic(f, -v),
    "library negated": lambda f, v: Frobenius()(f, -v),
    "mean": lambda f, v: (f - v).square().mean(-1),
    "logistic": lambda f, v: softplus(-(f * v).sum(-1)),
    "margin": lambda f, v: ((f * v).sum(-1) - 1) ** 2 / 2,
    "huber": lambda f, v: softplus(f - v).sum(-1) + softplus(v - f).sum(-1),
    "powers": lambda f, v: (f * f * v * f).sum(-1) + f.sum(-1) ** 2,
    "outputs alone": lambda f, v: 0.5 * f.sum(-1),
    "composed": lambda f, v: exp(sin(f) * v).sum(-1) - 2 * (f * v).sum(-1),
}


@pytest.mark.parametrize("name", NETS)
def test_the_checker_verifies_the_gradients_of_a_net(name):
    """Which it refuses where one is not the differential's; and the form, where there is one."""
    loop = InnerLoop(NETS[name], inner, GradientStep("per_step"), Schedule(3))
    for weight in loop.fast_weights:
        replay(gradient_part(loop, weight).proof)
    if loop.net.obstacle is None:
        replay(attention_form(loop)[1].proof)


@pytest.mark.parametrize("name", LOSSES)
def test_the_checker_verifies_the_gradient_of_a_loss(name):
    loop = InnerLoop(Linear(), LOSSES[name], GradientStep("per_step"), Schedule(3))
    replay(gradient_part(loop, loop.net.last).proof)
    replay(attention_form(loop)[1].proof)


@pytest.mark.parametrize(
    ("loss", "proportion"),
    [
        (inner, 0),
        (square, 1),
        (lambda f, v: (f - v).square().sum(-1) + (f * v).sum(-1), 2),
        (lambda f, v: 0.5 * f.sum(-1), 0),
        (LOSSES["mean"], 2 * InverseWidth(VALUE, "F", -1)),
        (lambda f, v: ((f - v) * (f - v) * 3).sum(-1), 6),
        (lambda f, v: (f * f / 2 - f * v).sum(-1), 1),
        (lambda f, v: (0.5 * (f - v) ** 2 + 0.1 * f**2).sum(-1), sp.Rational(6, 5)),
        (lambda f, v: (0.5 * (f - v) ** 2 + 0.0 * f**4).sum(-1), 1),
        (lambda f, v: (torch.sigmoid(v) * (f - v) ** 2).sum(-1), None),
        (LOSSES["margin"], None),
        (LOSSES["quartic"], None),
        (lambda f, v: (f * f * v).sum(-1), None),
        (lambda f, v: f.sum(-1) ** 2, None),
        (LOSSES["logistic"], None),
    ],
)
def test_in_which_losses_the_gradient_is_in_proportion_to_the_outputs(loss, proportion):
    assert TracedLoss(loss).proportion == proportion
    assert Frobenius().proportion == 0 and SquaredError().proportion == 1


@pytest.mark.parametrize("name", LOSSES)
def test_the_channels_of_a_convolution_do_not_meet_in_the_loss(name):
    """Checked on the gradient itself: another column moves it, or none does."""
    loss = TracedLoss(LOSSES[name])
    f, v = random(4, (2, 3), (2, 3))
    moved = [x + torch.tensor([0.0, 0.3, 0.0], dtype=torch.float64) for x in (f, v)]
    slopes = []
    for outputs, values in ((f, v), moved):
        outputs = outputs.clone().requires_grad_()
        slopes += torch.autograd.grad(loss.function(outputs, values).sum(), outputs)
    apart = torch.equal(slopes[0][:, ::2], slopes[1][:, ::2]) and name != "mean"  # over a width
    assert loss.is_entrywise == apart
    if apart:
        assert InnerLoop(DepthwiseConv(), LOSSES[name], schedule=Schedule(4)).loss == loss
    else:
        with pytest.raises(
            ValueError, match=r"`loss` must compare entry by entry .*; got Tr.*\. S"
        ):
            InnerLoop(DepthwiseConv(), LOSSES[name], schedule=Schedule(4))
    InnerLoop(DepthwiseConv(), AbstractLoss(), schedule=Schedule(4))  # proved, not run


def random(seed, *shapes):
    """Tensors in float64."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_autograd(name):
    loss = TracedLoss(LOSSES[name])
    f, v = random(0, (5, 3), (5, 3))
    f.requires_grad_()
    tokens = loss.function(f, v)
    assert tokens.shape == (5,)
    (expected,) = torch.autograd.grad(tokens.sum(), f)
    given = {"F": f.detach().numpy(), "V": v.numpy(), "L": 5, "D_v": 3, "one": 1}
    torch.testing.assert_close(torch.as_tensor(matrix(loss.gradient, given)), expected)
    total = torch.as_tensor(matrix(loss.expression, given), dtype=torch.float64)
    torch.testing.assert_close(total, tokens.sum().detach())
    assert not torch.allclose(torch.as_tensor(matrix(loss.gradient + F, given)), expected)


def test_a_quartic_loss_is_not_taken_for_an_affine_one():
    assert TracedLoss(quartic).gradient != TracedLoss(square).gradient
    assert TracedLoss(square).gradient == SquaredError().gradient == F - V
    negated = TracedLoss(lambda f, v: square(f, -v))
    assert negated.gradient == F + V


@pytest.mark.parametrize("library", [Linear(), MLP(3, "tanh"), MLP(2, bias=True), SwiGLU("relu")])
def test_library_nets_and_their_code_run_alike(library):
    size = {"D_k": 3, "D_v": 2, "D_1": 4, "D_2": 5, "D_h": 4, "one": 1}
    shapes = [(2, 1, size[w.rows.name], size[w.cols.name]) for w in library.weights]
    x, *weights = random(1, (2, 3, 6, 3), *shapes)
    found = library.function(x, *weights)
    assert found.shape == (2, 3, 6, 2)
    for b in range(2):
        given = [w[b, 0] for w in weights]
        torch.testing.assert_close(library(x[b, 1], *given), found[b, 1])


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (0, 3)])
def test_code_runs_for_each_entry_of_the_leading_dimensions(lead):
    """Also what can only take matrices: `einsum` without dots, `linear`, vectors `[cols]`."""

    def code(x, W1, b, W2):
        return torch.einsum("lh,hv->lv", functional.linear(x, W1, b).tanh(), W2)

    traced = TracedNet(code)
    assert [w.rows.name for w in traced.weights] == ["D_1", "one", "D_1"]
    x, *ws = random(2, (*lead, 6, 3), (*lead, 4, 3), (*lead, 1, 4), (*lead, 4, 2))
    for w in ws:
        w.requires_grad_()
    found = traced.function(x, *ws)
    W1, b, W2 = ws
    torch.testing.assert_close(found, torch.tanh(x @ W1.mT + b) @ W2)
    slopes = torch.autograd.grad(found.sum(), ws)
    assert [s.shape for s in slopes] == [w.shape for w in ws]


def test_a_module_is_a_net_and_stays_as_it_was():
    module = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3, bias=False)).double()
    before = {name: id(p) for name, p in module.named_parameters()}
    traced = TracedNet(module)
    shapes = [(w.name, w.rows.name, w.cols.name) for w in traced.weights]
    assert shapes == [
        ("p0_weight", "D_1", "D_k"),
        ("p0_bias", "one", "D_1"),
        ("p2_weight_T", "D_1", "D_v"),
    ]
    assert traced.obstacle is None and traced.last.name == "p2_weight_T"
    (x,) = random(3, (2, 5, 4))
    first, bias, last = module.parameters()
    given = (first.expand(2, 8, 4), bias.expand(2, 1, 8), last.mT.expand(2, 8, 3))
    torch.testing.assert_close(traced.function(x, *given), module(x))
    assert {name: id(p) for name, p in module.named_parameters()} == before
    with pytest.raises(ValueError, match="known operations; got `dropout`"):
        TracedNet(nn.Sequential(module, nn.Dropout()))
    assert {name: id(p) for name, p in module.named_parameters()} == before


def test_a_frozen_parameter_moves_only_if_it_is_named():
    module = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False))
    assert len(InnerLoop(module, inner).fast_weights) == 2
    module[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="has frozen ones; got 'all' and p0_weight without"):
        InnerLoop(module, inner)
    assert len(InnerLoop(module, inner, trained="last").fast_weights) == 1
    both = ("p0_weight", "p2_weight_T")
    assert len(InnerLoop(module, inner, trained=both).fast_weights) == 2


def test_two_are_equal_if_what_was_read_is():
    def make(act):
        def same_name(x, W1, W2):
            return act(x @ W1) @ W2

        return TracedNet(same_name)

    assert make(silu) == TracedNet(net) and hash(make(silu)) == hash(TracedNet(net))
    assert make(silu) != make(sigmoid) and make(silu).where == make(sigmoid).where
    assert TracedNet(lambda x, A, B: silu(x @ A) @ B) != TracedNet(net)  # its weights' names
    three, five = (TracedNet(DepthwiseConv(size).function) for size in (3, 5))
    assert three != five  # another window
    assert TracedLoss(quartic) != TracedLoss(square)
    assert TracedLoss(lambda f, v: 1 - quartic(f, v)) != TracedLoss(quartic)
    loops = {InnerLoop(net, loss) for loss in (quartic, square, quartic)}
    assert len(loops) == 2


def test_a_copy_keeps_code_that_can_be_imported():
    loop = InnerLoop(net, quartic)
    for twin in (copy.copy(loop), copy.deepcopy(loop), pickle.loads(pickle.dumps(loop))):
        assert twin == loop and hash(twin) == hash(loop) and repr(twin) == repr(loop)
        assert twin.net.code is net and twin.loss.code is quartic
    local = TracedNet(lambda x, W: x @ W)
    assert copy.deepcopy(local).function(*random(0, (2, 3), (3, 2))).shape == (2, 2)
    lost = pickle.loads(pickle.dumps(local))
    assert lost == local and lost.traced == local.traced
    with pytest.raises(ValueError, match=r"must be at hand .*; got a copy without its code\. Def"):
        lost.function(*random(0, (2, 3), (3, 2)))


def test_it_says_where_it_is_from_and_what_it_is():
    assert re.search(
        r"TracedNet\(.*test_code\.net: Z1 = X\*W1; .*F = H1\*W2\)", repr(TracedNet(net))
    )
    assert re.search(
        r"TracedLoss\(.*test_code\.inner: Trace\(-F\*V\.T\)\)", repr(TracedLoss(inner))
    )


WRONG = [
    (ValueError, lambda: TracedNet(lambda x: x), "`net` must have a weight"),
    (ValueError, lambda: TracedNet(lambda x, *W: x), "`net` must name each tensor"),
    (ValueError, lambda: TracedLoss(lambda f: f), "`loss` must take outputs and values"),
    (ValueError, lambda: TracedNet(nn.Conv1d(3, 3, 1)), "`net` must have matrices and vectors"),
    (TypeError, lambda: InnerLoop(Linear, inner), "`net` must be a"),
    (TypeError, lambda: InnerLoop(Linear(), SquaredError), "`loss` must be a"),
    (TypeError, lambda: InnerLoop(SquaredError(), quartic), "`net` must be a"),
    (ValueError, lambda: InnerLoop(SquaredError(), net), "`loss` must take outputs and values"),
    (TypeError, lambda: InnerLoop(net, MLP()), "`loss` must be a"),
    (ValueError, lambda: InnerLoop(MLP(), inner, state="W1"), "`state` must be W2"),
    (ValueError, lambda: InnerLoop(net, inner, state="W3"), "`state` must be a weight of the net"),
]


@pytest.mark.parametrize(("kind", "make", "told"), WRONG, ids=[told for *_, told in WRONG])
def test_what_is_no_net_or_loss_is_one_sentence(kind, make, told):
    with pytest.raises(kind) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(told) and re.fullmatch(r"`\w+` must .+; got .+\. [A-Z].*\.", message)


def test_what_is_abstract_is_proved_and_not_run():
    loss = AbstractLoss("ell")
    loop = InnerLoop(net, lambda f, v: 2 * loss(f, -v))
    replay(gradient_part(loop, loop.net.last).proof)
    with pytest.raises(ValueError, match="`ell` must be a concrete function"):
        loop.loss.function(*random(0, (2, 3), (2, 3)))


def test_widths_that_code_has_as_numbers():
    def code(x, W1, W2):
        return functional.layer_norm(x @ W1, (4,)) @ W2

    assert TracedNet(code).fixed == {"D_1": 4, "one": 1} and TracedNet(net).fixed == {"one": 1}

    def torn(x, W1, W2):
        return functional.layer_norm(functional.layer_norm(x @ W1, (4,)), (5,)) @ W2

    with pytest.raises(ValueError, match="one number for a width; got 4 and 5 for D_1"):
        TracedNet(torn)

    def four(f, v):
        return -(functional.layer_norm(f, (4,)) * v).sum(-1)

    def five(f, v):
        return -(functional.layer_norm(f, (5,)) * v).sum(-1)

    def other(x, W):
        return functional.layer_norm(x @ W, (5,))

    assert TracedLoss(four).fixed == {"D_v": 4} and TracedLoss(inner).fixed == {}
    assert TracedLoss(four) != TracedLoss(five)
    assert InnerLoop(code, four).fixed == {"D_1": 4, "D_v": 4, "one": 1}
    with pytest.raises(ValueError, match="one number for the width D_v; got 5 and 4"):
        InnerLoop(other, four)


@pytest.mark.parametrize("lead", [(), (0, 2), (2, 0), (3,)], ids=str)
def test_code_runs_on_sequences_of_any_number(lead):
    """Of none, too, the result has the right shape: outputs of a net, losses of tokens."""
    loop = InnerLoop(lambda x, W: torch.tanh(x @ W), lambda f, v: ((f - v) ** 3).sum(-1))
    x, W = torch.ones(*lead, 3, 4), torch.ones(*lead, 4, 5)
    outputs = loop.net.function(x, W)
    assert outputs.shape == (*lead, 3, 5)
    assert loop.loss.function(outputs, outputs).shape == (*lead, 3)
