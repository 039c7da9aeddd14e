"""The code that runs comes from the expressions that were proved, and computes them."""

import ast
from dataclasses import replace

import pytest
import sympy as sp
import torch

from tests.loops.torch_nets import TORCH, features_of, random_arrays
from ttt_proofs.loops import (
    ACTIVATIONS,
    GLU,
    MLP,
    AbstractLoss,
    AnyNet,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.program.operators import RUNNABLE
from ttt_proofs.symbolic.torch_code import loop_code, matrix_code, scalar_code
from ttt_proofs.symbolic.torch_loop import compiled, torch_loop

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
        ones = dict.fromkeys(given, 1)
        found = code.gradients(x["X"], of_outputs, ones, **given)
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
    ones = dict.fromkeys(given, 1)
    pairs = (c.gradients(x["X"], slope, ones, **given) for c in (mine, wrong))
    first, second = pairs
    assert not any(close(first[name], second[name]) for name in first)


def test_leading_dimensions_broadcast():
    net = MLP(2, "tanh")
    code = torch_loop(InnerLoop(net, SquaredError()))
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    w1, w2 = (torch.randn(3, *s, dtype=torch.float64) for s in ((4, 6), (6, 2)))
    whole = code.features(x, w1, w2)
    slope = torch.randn(2, 3, 5, 2, dtype=torch.float64)
    rows = {name: torch.randn(2, 3, 5, 1, dtype=torch.float64) for name in ("W1", "W2")}
    gradients = code.gradients(x, slope, rows, w1, w2)
    for b in range(2):
        for h in range(3):
            assert close(whole[b, h], code.features(x[b, h], w1[h], w2[h]))
            some = {name: y[b, h] for name, y in rows.items()}
            alone = code.gradients(x[b, h], slope[b, h], some, w1[h], w2[h])
            assert all(close(gradients[n][b, h], alone[n]) for n in alone)


RULES = [
    (GradientStep(), lambda g, w, m, e, a: (w - e * g, g)),
    (GradientStep(ascent=True), lambda g, w, m, e, a: (w + e * g, g)),
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
    (GradientStep(None), lambda g, w, m, e, a: (w - g, g)),
    (
        GradientStep("per_token", "inside", "constant"),
        lambda g, w, m, e, a: (w - g - a * m, g + a * m),
    ),
]


def updated(code, g, w, m, e, a, w_0=None) -> tuple:
    """The code's own update, called by the names of its arguments."""
    known = {"G": g, "W": w, "M": m, "eta": e, "alpha": a, "W_0": w_0}
    names = code.update.__code__.co_varnames[: code.update.__code__.co_argcount]
    return code.update(**{name: known[name] for name in names})


@pytest.mark.parametrize(("update", "rule"), RULES, ids=[str(u) for u, _ in RULES])
def test_the_update_is_the_rule(update, rule):
    code = torch_loop(InnerLoop(Linear(), Frobenius(), update))
    numbers = torch.randn(5, 3, 2, dtype=torch.float64)
    found = updated(code, *numbers)
    assert len(found) == 1 + len(code.buffers) == 1 + bool(update.momentum)
    for mine, expected in zip(found, rule(*numbers), strict=False):
        assert close(mine, expected)
    others = [other for u, other in RULES if u != update]
    assert not any(close(found[0], other(*numbers)[0]) for other in others)  # each is told apart


@pytest.mark.parametrize("net", NETS, ids=str)
def test_the_text_is_the_code(net):
    loop = InnerLoop(net, SquaredError(), GradientStep("per_step", momentum="constant"))
    source = loop_code(loop)
    tree = ast.parse(source)
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions == [
        "net",
        "features",
        "outputs",
        "cotangent",
        "values",
        "gradients",
        "next_M",
        "next_W",
        "update",
    ]
    assert torch_loop(loop).source == source
    weights = [w.name for w in net.weights]
    arguments = [[a.arg for a in f.args.args] for f in tree.body[1:]]  # pyright: ignore
    assert arguments[0] == arguments[1] == ["X", *weights]
    assert arguments[5] == ["X", "dF", "rows", *weights]
    assert arguments[-1] == ["G", "W", "M", "eta", "alpha", "W_0"]


def test_nothing_is_computed_that_is_not_used():
    """With the last layer alone trained, no other gradient is formed."""
    loop = InnerLoop(MLP(3, "silu"), Frobenius(), trained="last")
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
        ones = {"W1": 1, "W2": 1}
        gradients = code.gradients(x, code.cotangent(x, x), ones, w1, w2)
        assert {g.dtype for g in gradients.values()} == {dtype}


ABSTRACT = [
    (InnerLoop(Features(), Frobenius()), "a concrete net and loss can run"),
    (InnerLoop(Linear(), AbstractLoss()), "a concrete net and loss can run"),
    (InnerLoop(Features(), AbstractLoss()), "a concrete net and loss can run"),
    (InnerLoop(MLP(2, "act"), Frobenius()), "a concrete activation can run; got `act("),
    (InnerLoop(SwiGLU("gate"), Frobenius()), "a concrete activation can run; got `gate("),
    (InnerLoop(GLU("gate"), Frobenius()), "a concrete activation can run; got `gate("),
    (InnerLoop(AnyNet(), Frobenius()), "a concrete net and loss can run"),
    *(
        (InnerLoop(Linear(), Frobenius(), rule), f"only a concrete {told}")
        for rule, told in (
            (GradientStep(clip="r"), "gate of columns can run; got the unknown r. Choose"),
            (GradientStep(orthogonal="o"), "operator can run; got o. Choose one of muon, muon_"),
            (GradientStep(weight_norm="n"), "gate of columns can run; got the unknown n. Choose"),
        )
    ),
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
        (ACTIVATIONS["tanh"](x), "torch.tanh(x)"),
    ],
    ids=str,
)
def test_scalars_as_code(expression, code):
    assert scalar_code(expression) == code


@pytest.mark.parametrize("wrong", [x**y, 1 / x, sp.sinh(x), sp.Function("f")(x)], ids=str)
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


GATED = GradientStep(
    "constant",
    "inside",
    "constant",
    clip="column_norm",
    orthogonal="muon",
    weight_norm="initial_norm",
)
WRITTEN = [
    InnerLoop(SwiGLU(), Frobenius(), GATED),
    InnerLoop(GLU(), SquaredError(), replace(GATED, orthogonal="muon_bfloat16")),
    InnerLoop(DepthwiseConv(), Frobenius(), replace(GATED, orthogonal=None), Schedule(4)),
    InnerLoop(Linear(), Frobenius()),
]


@pytest.mark.parametrize("loop", WRITTEN, ids=str)
def test_the_text_stands_by_itself(loop):
    """It imports torch alone, has each function that it calls, and none that it does not need."""
    tree = ast.parse(loop_code(loop))
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imported] == ["import torch"]
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    rule = loop.update
    named = {rule.orthogonal} - {None} | ({"column_norm"} if rule.clip else set())
    assert named <= called <= defined
    pasted = {"column_norm", "muon", "muon_bfloat16"} & defined
    assert pasted == named | ({"muon"} if rule.orthogonal else set())
    assert ("windows" in defined) == isinstance(loop.net, DepthwiseConv)


def gated(g, w, m, e, a, w_0):
    """The whole rule at once, in plain PyTorch."""
    g = e * g
    g = g / (g.norm(dim=-2, keepdim=True) + 1)
    m = a * m - g
    left, values, right = torch.linalg.svd(m / (m.norm() + 1e-7), full_matrices=False)
    for x, y, z in (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ):
        values = x * values + y * values**3 + z * values**5
    w = w + left @ values.diag() @ right
    return w * w_0.norm(dim=-2, keepdim=True) / (w.norm(dim=-2, keepdim=True) + 1e-5), m


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3), (1, 4), (4, 1)])
def test_clip_operator_and_norm_are_the_rule(shape):
    code = torch_loop(InnerLoop(Linear(), Frobenius(), GATED))
    g, w, m, w_0 = torch.randn(4, *shape, dtype=torch.float64)
    numbers = (g, w, m, 0.3, 0.7, w_0)
    for mine, expected in zip(updated(code, *numbers), gated(*numbers), strict=True):
        assert close(mine, expected)


FAULTS = {
    "no constant in the norm": (" + 1e-05)", ")"),
    "norms of rows": ("(x, dim=-2", "(x, dim=-1"),
    "clipped without the 1": ("column_norm((G * eta)) + 1)", "column_norm((G * eta)))"),
    "the rate left out": ("column_norm((G * eta))", "column_norm(G)"),
    "a step too few": ("        (2.8366, -3.0525, 1.2012),\n", ""),
    "another coefficient": ("2.9270", "2.9370"),
    "not transposed back": ("return X.mT if tall else X", "return X if tall else X.mT"),
    "the other sign": ("(-1 * G * eta * R)", "(G * eta * R)"),
    "not normalised": ("* N)", "* 1)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_rule_shows(fault):
    source = loop_code(InnerLoop(Linear(), Frobenius(), GATED))
    sound, wrong = FAULTS[fault]
    assert source.count(sound) == 1
    code = compiled(InnerLoop(Linear(), Frobenius(), GATED), source.replace(sound, wrong))
    g, w, m, w_0 = torch.randn(4, 3, 3, dtype=torch.float64)
    numbers = (g, w, m, 0.3, 0.7, w_0)
    assert not close(updated(code, *numbers)[0], gated(*numbers)[0])


def test_a_zero_matrix_stays_zero():
    """Nothing to divide by, and slopes that are finite."""
    zero = torch.zeros(2, 4, 3, dtype=torch.float64, requires_grad=True)
    for function in RUNNABLE.values():
        assert torch.equal(function(zero), zero)
        (slope,) = torch.autograd.grad(function(zero).sum(), zero)
        assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_muon_in_bfloat16_is_muon_but_for_its_precision(dtype):
    g = torch.randn(3, 8, 5, dtype=torch.float64).to(dtype)
    one, other = (function(g) for function in RUNNABLE.values())
    assert one.dtype == other.dtype == dtype
    error = (one - other).abs().max()
    assert error < 0.1  # a value near 1, some ten products at 2^-8
    assert (error > 0) == (dtype != torch.bfloat16)
    assert torch.equal(other, other.to(torch.bfloat16).to(dtype))


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("image", [(1, 1), (2, 3), (4, 2)])
def test_windows_make_a_depthwise_convolution(image, size):
    height, width = image
    net = DepthwiseConv(size, height, width)
    code = torch_loop(InnerLoop(net, Frobenius(), schedule=Schedule(height * width)))
    names: dict = {}
    exec(code.source, names)
    x = torch.randn(2, 3 * height * width, 2, 4, dtype=torch.float64)
    w = torch.randn(2, size * size, 4, dtype=torch.float64)
    seen = names["windows"](x, size, height, width)
    assert seen.shape == (2, 3 * height * width, 8, size * size)
    found = torch.einsum("bthd,hd->bth", seen, w.mT.flatten(0, 1))
    images = x.reshape(6, height, width, 8).permute(0, 3, 1, 2)
    kernel = w.mT.reshape(8, 1, size, size)
    by_torch = torch.nn.functional.conv2d(images, kernel, padding=size // 2, groups=8)
    assert close(found, by_torch.permute(0, 2, 3, 1).reshape(found.shape))
    if size > 1 and height * width > 1:
        turned = torch.nn.functional.conv2d(images, kernel.flip(2, 3), padding=size // 2, groups=8)
        assert not close(found, turned.permute(0, 2, 3, 1).reshape(found.shape))


@pytest.mark.parametrize("name", TORCH)
def test_a_gate_on_the_outputs(name):
    """Outputs, gradients and what the last layer is given back, by autograd; rates by token."""
    code = torch_loop(InnerLoop(GLU(name), SquaredError()))
    x, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    w0, w1 = torch.randn(2, 3, 2, dtype=torch.float64).requires_grad_()
    rows = {w: torch.rand(5, 1, dtype=torch.float64) for w in ("W0", "W1")}
    made = x @ w1
    outputs = TORCH[name](x @ w0) * made
    assert close(code.features(x, w0, w1), x) and close(code.outputs(x, made, w0, w1), outputs)
    losses = ((outputs - v) ** 2).sum(1, keepdim=True) / 2
    slope, into = torch.autograd.grad(losses.sum(), [outputs, made], retain_graph=True)
    assert close(code.values(x, slope, w0, w1), into)
    found = code.gradients(x, slope, rows, w0, w1)
    for weight, w in (("W0", w0), ("W1", w1)):
        (expected,) = torch.autograd.grad(
            (rows[weight] * losses).sum(), w, retain_graph=True, allow_unused=True
        )
        assert close(found[weight], expected)
        other = rows["W1" if weight == "W0" else "W0"]
        (wrong,) = torch.autograd.grad((other * losses).sum(), w, retain_graph=True)
        assert not close(found[weight], wrong)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_negated_values_are_minus_the_values(loss):
    f, v = torch.randn(2, 4, 3, dtype=torch.float64)
    code, other = (torch_loop(InnerLoop(Linear(), each)) for each in (loss, NegatedValues(loss)))
    assert close(other.cotangent(f, v), code.cotangent(f, -v))
    assert not close(other.cotangent(f, v), code.cotangent(f, v))


@pytest.mark.parametrize("scale", [6e4, 1.0, 1e-3, 1e-5])
@pytest.mark.parametrize("target", "RN")
def test_norms_have_the_range_of_float32(target, scale):
    """Of matrices whose norms leave float16, or whose squares do."""
    code = torch_loop(InnerLoop(Linear(), Frobenius(), replace(GATED, orthogonal=None)))
    (line,) = (step for step in code.lines if step.target == target)
    g = ((2 * torch.rand(2, 8, 5, dtype=torch.float64) - 1) * scale).half()
    given = {"G": g, "W": g, "M_next": g * 0, "U": g * 0, "W_0": g.flip(-1), "eta": 1.0}
    found = line.made(given)
    wide = {n: x.double() if isinstance(x, torch.Tensor) else x for n, x in given.items()}
    assert found.dtype == torch.float16
    assert torch.allclose(found.double(), line.made(wide), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("scale", [6e4, 1.0, 1e-3, 1e-5])
def test_operators_have_the_range_of_float32(scale):
    g = ((2 * torch.rand(2, 8, 5, dtype=torch.float64) - 1) * scale).half()
    found = RUNNABLE["muon"](g)
    assert found.dtype == torch.float16
    assert torch.allclose(found.double(), RUNNABLE["muon"](g.double()), rtol=0.02, atol=0.02)


def named(x, dense, dW):
    return torch.tanh(x @ dense) @ dW


def test_a_matrix_whose_name_begins_as_those_of_gradients_do():
    """Tokens' weights are on the cotangents, and not on what is merely called `dense`."""
    of_code = InnerLoop(named, SquaredError())
    code = torch_loop(of_code)
    x, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    weights = {
        "dense": torch.randn(3, 4, dtype=torch.float64, requires_grad=True),
        "dW": torch.randn(4, 2, dtype=torch.float64, requires_grad=True),
    }
    rows = {n: torch.rand(5, 1, dtype=torch.float64) for n in weights}
    f = named(x, **weights)
    assert close(code.net(x, **weights), f)
    losses = ((f - v) ** 2).sum(1, keepdim=True) / 2
    (slope,) = torch.autograd.grad(losses.sum(), f, retain_graph=True)
    found = code.gradients(x, slope, rows, **weights)
    for n, w in weights.items():
        (expected,) = torch.autograd.grad((rows[n] * losses).sum(), w, retain_graph=True)
        assert close(found[n], expected)


def normed(x, W1, b, W2):
    h = torch.nn.functional.layer_norm(x @ W1 + b, (4,))
    return (h - h.mean(-1, keepdim=True) + torch.nn.functional.gelu(h)) @ W2


def test_row_functions_means_and_vectors():
    """The net, its gradients with tokens' weights, and second derivatives, by autograd."""
    code = torch_loop(InnerLoop(normed, SquaredError()))
    x, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    shapes = {"W1": (3, 4), "b": (1, 4), "W2": (4, 2)}
    weights = {
        n: torch.randn(*s, dtype=torch.float64, requires_grad=True) for n, s in shapes.items()
    }
    rows = {n: torch.rand(5, 1, dtype=torch.float64) for n in weights}
    f = normed(x, **weights)
    assert close(code.net(x, **weights), f)
    assert close(code.outputs(x, code.features(x, **weights) @ weights["W2"], **weights), f)
    losses = ((f - v) ** 2).sum(1, keepdim=True) / 2
    slope = code.cotangent(code.net(x, **weights), v)
    found = code.gradients(x, slope, rows, **weights)
    for n, w in weights.items():
        (expected,) = torch.autograd.grad((rows[n] * losses).sum(), w, create_graph=True)
        assert close(found[n], expected)
        one, other = (
            torch.autograd.grad(g.square().sum(), weights["W1"], retain_graph=True)[0]
            for g in (found[n], expected)
        )
        assert close(one, other)
