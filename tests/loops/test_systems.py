"""The nets of LaCT and ViTTT: weights, what they compute, widths with two axes, and the errors."""

import re

import pytest
import sympy as sp
import torch

from tests.loops.torch_nets import TORCH
from tests.symbolic.values import assigned, matrix
from ttt_proofs.loops import (
    GLU,
    MLP,
    AnyNet,
    DepthwiseConv,
    Frobenius,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.program.expressions import RowFunction, Windowed
from ttt_proofs.symbolic.gradients import Z, adjoint, backward, forward

SENTENCE = re.compile(r"`(\w+)` must be .+; got .+\. [A-Z][^\n]*\.")


def arrays(seed: int = 0) -> dict[str, torch.Tensor]:
    """X, the weights and V of a gated linear unit."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"X": (4, 3), "W0": (3, 2), "W1": (3, 2), "V": (4, 2)}
    return {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}


def glu(x: dict, activation: str) -> torch.Tensor:
    """`act(x W0) ⊙ (x W1)` in PyTorch."""
    return TORCH[activation](x["X"] @ x["W0"]) * (x["X"] @ x["W1"])


@pytest.mark.parametrize("activation", TORCH)
def test_a_gated_linear_unit_and_its_gradients(activation):
    net, x = GLU(activation), arrays()
    assert [(w.name, w.rows.name, w.cols.name) for w in net.weights] == [
        ("W0", "D_k", "D_v"),
        ("W1", "D_k", "D_v"),
    ]
    assert net.features.name == "X" and net.gate is not None and not net.has_static_features
    values = assigned(forward(net), {n: a.numpy() for n, a in x.items()})
    torch.testing.assert_close(torch.as_tensor(values["F"]), glu(x, activation))
    assert not torch.allclose(torch.as_tensor(values[Z.name]), glu(x, activation))
    weights = {n: x[n].requires_grad_() for n in ("W0", "W1")}
    loss = ((glu(x, activation) - x["V"]) ** 2).sum() / 2
    expected = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    values["dF"] = matrix(SquaredError().gradient, values | {"V": x["V"].numpy()})
    for name, expression in backward(net).items():
        values[name] = matrix(expression, values)
    for weight, slope in zip(net.weights, expected, strict=True):
        found = torch.as_tensor(values[adjoint(weight.symbol).name])
        torch.testing.assert_close(found, slope, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(found, 2 * slope)


def test_the_gate_of_a_gated_linear_unit_is_not_its_content():
    """W0 and W1 have the same shape: swapped, they make another net."""
    x = arrays()
    values = assigned(forward(GLU()), {n: a.numpy() for n, a in x.items()})
    swapped = glu(x | {"W0": x["W1"], "W1": x["W0"]}, "silu")
    assert not torch.allclose(torch.as_tensor(values["F"]), swapped)


def test_a_convolution_by_name_and_axis():
    net = DepthwiseConv(5, 2, 3)
    assert [(w.name, w.rows.name, w.cols.name) for w in net.weights] == [("W", "D_w", "D_v")]
    assert net.axes == {"L": ("Y", "X"), "D_w": ("D_y", "D_x")} and net.tokens == 6
    assert isinstance(net.outputs, Windowed) and net.outputs.shape == net.features.shape
    assert net.has_static_features and net.gate is None and net.obstacle is None
    assert InnerLoop(net, Frobenius(), schedule=Schedule(6)).axes == net.axes
    assert InnerLoop(Linear(), Frobenius(), schedule=Schedule(single=True)).axes == {"L": ()}
    assert (Linear().tokens, Linear().axes, Linear().gate) == (None, {}, None)


def image(*shape: int) -> torch.Tensor:
    """Random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("size", "height", "wide"), [(3, 2, 3), (1, 1, 2), (5, 2, 2)])
def test_the_convolution_is_that_of_pytorch(size, height, wide):
    """Of two images, one after the other."""
    net, count = DepthwiseConv(size, height, wide), height * wide
    q, w = image(1, 2 * count, 1, 3), image(1, size * size, 3)
    found = net.function(q.reshape(2, count, 3), w.expand(2, -1, -1)).reshape(1, -1, 1, 3)
    images = q[0, :, 0].reshape(2, height, wide, 3).permute(0, 3, 1, 2)
    kernel = w[0].reshape(size, size, 1, 3).permute(3, 2, 0, 1)
    expected = torch.nn.functional.conv2d(images, kernel, padding=size // 2, groups=3)
    expected = expected.permute(0, 2, 3, 1).reshape(2 * count, 3)
    torch.testing.assert_close(found[0, :, 0], expected, rtol=1e-12, atol=1e-13)
    flipped = torch.nn.functional.conv2d(images, kernel.flip(2, 3), padding=size // 2, groups=3)
    assert size == 1 or not torch.allclose(
        found[0, :, 0], flipped.permute(0, 2, 3, 1).reshape(2 * count, 3)
    )


def test_any_net_is_one_function_of_a_row_and_its_parameters():
    net = AnyNet("g")
    assert isinstance(net.outputs, RowFunction) and net.outputs.name == "g"
    assert net.outputs.parameters == (net.last.symbol,) and net.last.name == "Theta"
    assert not net.has_static_features and net.obstacle == "the last layer must be linear"
    assert backward(net)["dTheta"].shape == net.last.symbol.shape
    assert backward(net)["dTheta"].atoms(sp.MatrixSymbol) >= {net.last.symbol}


WRONG = [
    ("size", lambda: DepthwiseConv(2), "odd, so that a window has a middle; got 2"),
    ("size", lambda: DepthwiseConv(0), "got 0"),
    ("size", lambda: DepthwiseConv(-3), "got -3"),
    ("size", lambda: DepthwiseConv(3.0), "got 3.0"),  # pyright: ignore
    ("height", lambda: DepthwiseConv(3, 0), "got 0"),
    ("height", lambda: DepthwiseConv(3, True), "got True"),
    ("width", lambda: DepthwiseConv(3, 1, "2"), "got '2'"),  # pyright: ignore
    ("activation", lambda: GLU("a b"), "got 'a b'"),
    ("activation", lambda: GLU("step"), "got 'step'"),
    ("name", lambda: AnyNet(""), "got ''"),
]


@pytest.mark.parametrize(("field", "make", "told"), WRONG)
def test_a_wrong_net_is_one_sentence(field, make, told):
    with pytest.raises(ValueError, match="must be") as caught:
        make()
    found = SENTENCE.fullmatch(str(caught.value))
    assert found and found[1] == field and told in str(caught.value)


def test_nets_are_equal_by_value():
    nets = [
        GLU(),
        GLU("tanh"),
        SwiGLU(),
        DepthwiseConv(),
        DepthwiseConv(5),
        DepthwiseConv(3, 3),
        DepthwiseConv(3, 2, 3),
        AnyNet(),
        AnyNet("g"),
        MLP(2),
    ]
    assert len(set(nets)) == len(nets) and GLU("silu") == GLU() and DepthwiseConv(3) in nets
