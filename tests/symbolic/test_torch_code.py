"""The code that runs comes from the expressions that were proved, and computes them."""

import ast

import pytest
import sympy as sp
import torch

from tests.loops.torch_nets import TORCH, features_of, random_arrays
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic.torch_code import loop_code, matrix_code, scalar_code, torch_loop

NETS = [Linear(), MLP(1), *(MLP(d, a) for d in (2, 3) for a in TORCH), *map(SwiGLU, TORCH)]
LOSSES = {
    Frobenius(): lambda f, v: -(f * v).sum(),
    SquaredError(): lambda f, v: ((f - v) ** 2).sum() / 2,
}


def close(actual, expected) -> bool:
    """Equal but for rounding."""
    return torch.allclose(actual, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("net", NETS, ids=str)
def test_the_pieces_are_those_of_autograd(net, loss):
    code = torch_loop(InnerLoop(net, loss))
    for seed in range(3):
        x = random_arrays(net, seed)
        weights = {w.name: x[w.name].clone().requires_grad_() for w in net.weights}
        f = features_of(net, x | weights) @ weights[net.last.name]
        v = torch.randn(f.shape, generator=torch.Generator().manual_seed(seed), dtype=f.dtype)
        of_outputs, *expected = torch.autograd.grad(
            LOSSES[loss](f, v), [f, *weights.values()], retain_graph=True
        )
        given = {w.name: x[w.name] for w in net.weights}
        assert close(code.features(x["X"], **given), features_of(net, x))
        assert close(code.cotangent(f.detach(), v), of_outputs)
        found = code.gradients(x["X"], of_outputs, **given)
        assert list(found) == list(weights)
        assert all(close(found[n], g) for n, g in zip(weights, expected, strict=True))


@pytest.mark.parametrize("net", [MLP(2, "silu"), SwiGLU("tanh")], ids=str)
def test_a_wrong_piece_is_told_apart(net):
    other = type(net)(activation="sigmoid")
    x = random_arrays(net, 0)
    given = {w.name: x[w.name] for w in net.weights}
    slope = torch.ones(len(x["X"]), x[net.last.name].shape[1], dtype=torch.float64)
    mine, wrong = (torch_loop(InnerLoop(n, Frobenius())) for n in (net, other))
    assert not close(mine.features(x["X"], **given), wrong.features(x["X"], **given))
    pairs = (c.gradients(x["X"], slope, **given) for c in (mine, wrong))
    first, second = pairs
    assert not any(close(first[name], second[name]) for name in first)


def test_leading_dimensions_broadcast():
    net = MLP(2, "tanh")
    code = torch_loop(InnerLoop(net, SquaredError()))
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    w1, w2 = (torch.randn(3, *s, dtype=torch.float64) for s in ((4, 6), (6, 2)))
    whole = code.features(x, w1, w2)
    slope = torch.randn(2, 3, 5, 2, dtype=torch.float64)
    gradients = code.gradients(x, slope, w1, w2)
    for b in range(2):
        for h in range(3):
            assert close(whole[b, h], code.features(x[b, h], w1[h], w2[h]))
            alone = code.gradients(x[b, h], slope[b, h], w1[h], w2[h])
            assert all(close(gradients[n][b, h], alone[n]) for n in alone)


RULES = [
    (GradientStep(), lambda g, w, m, e, a: (w - e * g, m)),
    (GradientStep(ascent=True), lambda g, w, m, e, a: (w + e * g, m)),
    (
        GradientStep("per_step", "outside", "per_step"),
        lambda g, w, m, e, a: (w - e * (g + a * m), g + a * m),
    ),
    (
        GradientStep("per_step", "inside", "constant"),
        lambda g, w, m, e, a: (w - (e * g + a * m), e * g + a * m),
    ),
    (
        GradientStep("constant", "inside", "per_step", ascent=True),
        lambda g, w, m, e, a: (w + (e * g + a * m), e * g + a * m),
    ),
]


@pytest.mark.parametrize(("update", "rule"), RULES, ids=[str(u) for u, _ in RULES])
def test_the_update_is_the_rule(update, rule):
    code = torch_loop(InnerLoop(Linear(), Frobenius(), update))
    numbers = torch.randn(5, 3, 2, dtype=torch.float64)
    for mine, expected in zip(code.update(*numbers), rule(*numbers), strict=True):
        assert close(mine, expected)
    others = [other for u, other in RULES if u != update]
    assert not any(
        close(code.update(*numbers)[0], other(*numbers)[0]) for other in others
    )  # each rule is told apart from the others


@pytest.mark.parametrize("net", NETS, ids=str)
def test_the_text_is_the_code(net):
    loop = InnerLoop(net, SquaredError(), GradientStep("per_step", momentum="constant"))
    source = loop_code(loop)
    tree = ast.parse(source)
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions == ["features", "cotangent", "gradients", "update"]
    assert torch_loop(loop).source == source
    weights = [w.name for w in net.weights]
    assert [a.arg for a in tree.body[1].args.args] == ["X", *weights]  # pyright: ignore
    assert [a.arg for a in tree.body[3].args.args] == ["X", "dF", *weights]  # pyright: ignore


def test_nothing_is_computed_that_is_not_used():
    """With the last layer alone trained, no other gradient is formed."""
    loop = InnerLoop(MLP(3, "silu"), Frobenius(), GradientStep(trained="last"))
    code = loop_code(loop)
    assert "dW3 = " in code and "'W3': dW3" in code
    assert not any(f"{name} = " in code for name in ("dW1", "dW2", "dZ1", "dH1", "dZ2", "dH2"))
    everything = loop_code(InnerLoop(MLP(3, "silu"), Frobenius()))
    assert all(f"{name} = " in everything for name in ("dW1", "dW2", "dW3"))


def test_code_is_made_once():
    loop = InnerLoop(SwiGLU(), Frobenius())
    assert torch_loop(loop) is torch_loop(InnerLoop(SwiGLU(), Frobenius()))
    assert torch_loop(loop) is not torch_loop(InnerLoop(SwiGLU(), SquaredError()))


def test_precision_is_that_of_the_inputs():
    code = torch_loop(InnerLoop(MLP(2, "gelu_tanh"), SquaredError()))
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x, w1, w2 = torch.ones(2, 3, dtype=dtype), *torch.ones(2, 3, 3, dtype=dtype)
        assert code.features(x, w1, w2).dtype == dtype
        gradients = code.gradients(x, code.cotangent(x, x), w1, w2)
        assert {g.dtype for g in gradients.values()} == {dtype}


ABSTRACT = [
    (InnerLoop(Features(), Frobenius()), "a concrete net and loss can run"),
    (InnerLoop(Linear(), AbstractLoss()), "a concrete net and loss can run"),
    (InnerLoop(Features(), AbstractLoss()), "a concrete net and loss can run"),
    (InnerLoop(MLP(2, "act"), Frobenius()), "a concrete activation can run; got `act("),
    (InnerLoop(SwiGLU("gate"), Frobenius()), "a concrete activation can run; got `gate("),
]


@pytest.mark.parametrize(("loop", "told"), ABSTRACT, ids=[str(loop) for loop, _ in ABSTRACT])
def test_abstract_loops_are_refused_in_a_sentence(loop, told):
    with pytest.raises(ValueError) as caught:
        torch_loop(loop)
    message = str(caught.value)
    assert told in message and "\n" not in message
    assert message.startswith("only ") and message.endswith(".")


x, y = sp.symbols("x y")


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        (x + y, "(x + y)"),
        (x * y, "(x * y)"),
        (sp.Integer(-2), "-2"),
        (sp.Rational(1, 4), "0.25"),
        (x**3, "x ** 3"),
        (sp.IndexedBase("eta")[x], "eta"),
        (sp.tanh(x), "torch.tanh(x)"),
    ],
    ids=str,
)
def test_scalars_as_code(expression, code):
    assert scalar_code(expression) == code


@pytest.mark.parametrize("wrong", [x**y, 1 / x, sp.exp(x), sp.Function("f")(x)], ids=str)
def test_scalars_without_code_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^only a concrete activation can run; got `"):
        scalar_code(wrong)


def test_powers_bind_as_in_the_expression():
    """`(x + y)²` and `x + y²` differ, and so does their code."""
    for expression in ((x + y) ** 2, x + y**2, -(x**2), (-x) ** 2, (2 * x) ** 3):
        value = eval(scalar_code(expression), {"x": 3.0, "y": 5.0})
        assert value == float(expression.subs({x: 3, y: 5})), expression


def test_products_of_matrices_keep_their_order():
    a, b = (sp.MatrixSymbol(n, 3, 3) for n in "ab")
    values = {n: torch.randn(3, 3, dtype=torch.float64) for n in "ab"}
    for e, expected in (
        (2 * a * b.T, 2 * values["a"] @ values["b"].T),
        (a + b * a, values["a"] + values["b"] @ values["a"]),
        (sp.HadamardProduct(a, b) * a, (values["a"] * values["b"]) @ values["a"]),
        ((a - b).T * a, (values["a"] - values["b"]).T @ values["a"]),
    ):
        assert close(eval(matrix_code(e), {"torch": torch}, values), expected)
    assert not close(eval(matrix_code(a * b), {}, values), eval(matrix_code(b * a), {}, values))
