"""The table of operations: each call of PyTorch against mpmath, derivatives against autograd."""

import mpmath
import pytest
import sympy as sp
import torch

from ttt_proofs.loops import ACTIVATIONS
from ttt_proofs.program import operations
from ttt_proofs.program.functions import Whole
from ttt_proofs.program.operations import ENTRYWISE, OPERATIONS, ROWWISE, Abstract, Depthwise

mpmath.mp.dps = 30
POINTS = (-30.0, -2.5, -1.0, -1e-3, 1e-3, 0.7, 3.0, 30.0)

# By hand, from the definitions; nothing of the package.
EXACT = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "gelu_tanh": lambda x: (
        x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)))
    ),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "exp": mpmath.exp,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "square": lambda x: x**2,
}


def numbers(values) -> torch.Tensor:
    """Numbers in float64."""
    return torch.tensor([float(x) for x in values], dtype=torch.float64)


def test_every_row_is_tested():
    assert set(EXACT) == set(ENTRYWISE)
    assert set(ACTIVATIONS) == {"identity", "relu", "sigmoid", "silu", "tanh", "gelu_tanh"}


@pytest.mark.parametrize("name", ENTRYWISE)
def test_each_call_computes_its_function(name):
    expected = numbers(EXACT[name](mpmath.mpf(x)) for x in POINTS)
    found = ENTRYWISE[name](numbers(POINTS))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ENTRYWISE)
def test_each_expression_is_the_function_that_is_called(name):
    x = sp.Symbol("x")
    value = ENTRYWISE[name](x)
    whole = value.expression(x) if isinstance(value, Whole) else value
    whole = whole.replace(
        lambda e: type(e).__name__ == "sigmoid", lambda e: 1 / (1 + sp.exp(-e.args[0]))
    )
    whole = whole.replace(
        lambda e: type(e).__name__ == "step", lambda e: sp.Heaviside(e.args[0], 0)
    )
    for point in (-2.5, 0.7, 3.0):
        assert float(whole.subs(x, point)) == pytest.approx(float(EXACT[name](mpmath.mpf(point))))


@pytest.mark.parametrize("name", [row.name for row in ENTRYWISE.values() if row.slope])
def test_each_derivative_is_that_of_autograd(name):
    """Also of what a derivative is differentiated to, as layers that learn through it do."""
    x = numbers((*POINTS, 0.0)).requires_grad_()
    (expected,) = torch.autograd.grad(ENTRYWISE[name](x).sum(), x, create_graph=True)
    found = operations.compiled(ENTRYWISE[name].slope)(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    (second,) = torch.autograd.grad(expected.sum(), x)
    if not found.requires_grad:  # a slope with steps alone
        assert not second.any()
        return
    (again,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(again[:-1], second[:-1], rtol=1e-11, atol=1e-13)  # elu' has a kink


@pytest.mark.parametrize("name", ROWWISE)
def test_functions_of_rows(name):
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    var = x.var(-1, keepdim=True, unbiased=False)
    expected = {
        "layer_norm": (x - x.mean(-1, keepdim=True)) / (var + 1e-5).sqrt(),
        "rms_norm": x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt(),
        "normalize": x / x.square().sum(-1, keepdim=True).sqrt(),
        "softmax": x.exp() / x.exp().sum(-1, keepdim=True),
    }
    torch.testing.assert_close(OPERATIONS[name](x), expected[name])


@pytest.mark.parametrize(("size", "height", "wide"), [(3, 2, 3), (1, 1, 2), (5, 2, 2)])
def test_the_convolution_is_that_of_pytorch(size, height, wide):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, height * wide, 3, generator=g, dtype=torch.float64)
    w = torch.randn(2, size**2, 3, generator=g, dtype=torch.float64)
    found = Depthwise(size, height, wide)(x, w)
    for each, image, window in zip(found, x, w, strict=True):
        image = image.T.reshape(1, 3, height, wide)
        kernel = window.T.reshape(3, 1, size, size)
        expected = torch.nn.functional.conv2d(image, kernel, padding=size // 2, groups=3)
        torch.testing.assert_close(each, expected.reshape(3, -1).T)


@pytest.mark.parametrize(
    ("call", "count"),
    [(Abstract("act"), 1), (Abstract("phi", width="D_h"), 1), (Abstract("ell", scalar=True), 2)],
)
def test_an_abstract_function_does_not_run_and_says_its_name(call, count):
    told = rf"`{call.name}` must be a concrete function for a loop to be run; got an abstract one\."
    with pytest.raises(ValueError, match=told):
        call(*[torch.ones(2, 3)] * count)


def test_what_is_no_tensor_is_one_sentence():
    with pytest.raises(TypeError, match=r"`silu` must be called on tensors; got str\. Convert"):
        operations.silu("x")


@pytest.mark.parametrize("name", ["silu", "layer_norm", "a b", "", None, "step"])
def test_an_abstract_function_has_a_name_of_its_own(name):
    with pytest.raises(ValueError, match=r"^`name` must be"):
        Abstract(name)
