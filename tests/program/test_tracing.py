"""What is read off functions, and what is refused: in one sentence, with the user's line."""

import inspect
import re
import subprocess
import sys

import pytest
import sympy as sp
import torch
from torch.nn import functional

from ttt_proofs.program.lowering import read_loss, read_net
from ttt_proofs.program.operations import Abstract, Depthwise, layer_norm, sigmoid, silu, softplus

SENTENCE = re.compile(r"`(net|loss)` must .+; got .+\. [A-Z][^\n]*\.")


def names(function):
    """The weights of a function, in order."""
    return list(inspect.signature(function).parameters)[1:]


def program(function):
    """What is read off a net."""
    return read_net(function, names(function))


def no_gradient(x, W1, W2):
    with torch.no_grad():
        hidden = silu(x @ W1)
    return hidden @ W2


def in_place(x, W1, W2):
    hidden = x @ W1
    hidden += 1
    return hidden @ W2


def assigned(x, W1, W2):
    hidden = x @ W1
    hidden[0] = 1
    return hidden @ W2


def looped(x, W1, W2):
    return sum(part for part in x @ W1) @ W2


HELD = torch.ones(3, 3)
REFUSED = [
    (lambda x, W: torch.cumsum(x @ W, -1), "known operations; got `cumsum`"),
    (lambda x, W: x.exp_() @ W, "in place; got `exp_`"),
    (lambda x, W: functional.relu(x, inplace=True) @ W, "as it is in the table"),
    (lambda x, W: functional.softplus(x, beta=2.0) @ W, "beta=2.0"),
    (lambda x, W: functional.elu(x, 0.5) @ W, "alpha=0.5"),
    (lambda x, W: x @ W if x.sum(-1) > 0 else x, "nothing by its data; got `>`"),
    (lambda x, W: x @ W if x.mean(-1) else x, "nothing by its data; got `if`"),
    (lambda x, W: (x == 0) @ W, "nothing by its data; got `==`"),
    (lambda x, W: x @ W * x.shape[-1], "not depend on sizes, which are unknown"),
    (lambda x, W1, W2: (x @ W1).chunk(2, -1)[0] @ W2, "each width whole; got a split"),
    (lambda x, W1, W2: torch.split(x @ W1, 2, -1)[0] @ W2, "each width whole; got a split"),
    (lambda x, W1, W2: (x @ W1)[..., :3] @ W2, "each width whole; got `[...]`"),
    (looped, "each width whole"),
    (in_place, "in place; got `+=`"),
    (assigned, "in place; got `[...] =`"),
    (no_gradient, "all its gradients; got a change of PyTorch's gradient mode"),
    (lambda x, W: x.detach() @ W, "all its gradients; got `detach`"),
    (lambda x, W: x @ HELD @ W, "every tensor as an argument"),
    (lambda x, W: x @ W * 0, "no part that is 0 for all inputs; got 0 from `matmul`"),
    (lambda x, W1, W2: ((x - x) @ W1) @ W2, "0 for all inputs; got 0 from `add`"),
    (lambda x, W1, W2: torch.tanh(0.0 * (x @ W1)) @ W2, "0 for all inputs; got 0 from `scale`"),
    (lambda x, W: torch.einsum("lk,kv->lv", HELD, W) + x, "every tensor as an argument"),
    (lambda x, W: (x @ x.mT) @ x @ W, "read each token alone; got a sum over tokens, `matmul`"),
    (lambda x, W: torch.softmax(x @ x.mT, -1) @ W, "read each token alone"),
    (lambda x, W: torch.softmax(x, 0) @ W, "not mix tokens; got `softmax` over axis 0"),
    (lambda x, W: (x @ W).sum(0), "each sum is over the last axis; got `sum` over axis 0"),
    (lambda x, W: x * x.sum() @ W, "got `sum` over all axes"),
    (lambda x, W: x * x.sum(-1) @ W, "Write keepdim=True"),
    (lambda x, W1, W2: x @ (W1 @ W2), "apply weights to tokens; got `matmul` of weights alone"),
    (lambda x, W1, W2: x @ silu(W1) @ W2, "apply weights to tokens; got `silu`"),
    (lambda x, W: x * 1e-20 @ W, "below 2**53; got 1e-20"),
    (lambda x, W: functional.softplus(x, threshold=1.0) @ W, "got threshold=1.0"),
    (lambda x, W: functional.softplus(x, 1, 19.0) @ W, "got threshold=19.0"),
    (lambda x, W: torch.softmax(x, -1, torch.float32) @ W, "keep its dtype"),
    (lambda x, W: functional.softmax(x, -1, dtype=torch.float32) @ W, "keep its dtype"),
    (lambda x, W: torch.add(x, x, alpha=x) @ W, "add multiples by a number"),
    (lambda x, W: torch.einsum("...,...->...", x, x) @ W, "contract two matrices by `einsum`"),
    (lambda x, W: x @ W + torch.zeros(1, device=x.device), "known operations; got `device`"),
    (lambda x, W: x.data @ W, "known operations; got `data`"),
    (lambda x, W: x * float("nan") @ W, "below 2**53; got nan"),
    (lambda x, W: 1 / x @ W, "known operations; got `/`"),
    (lambda x, W: x / x @ W, "divide by numbers only; got `/`"),
    (lambda x, W: x**0.5 @ W, "powers 1 to 9; got `** 0.5`"),
    (lambda x, W: (x + x.mT) @ W, "have as many rows on both sides of `+`; got L and D_k"),
    (lambda x, W: x.mT @ x @ W, "read each token alone"),
    (lambda x, W: (x @ W).sum(-1), "return rows [L, D_v]; got `sum`"),
    (lambda x, W: torch.einsum("lk,kv->vk", x, W), "contract two matrices by `einsum`"),
]


@pytest.mark.parametrize(("function", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_cannot_be_read_is_refused_with_its_line(function, told):
    with pytest.raises(ValueError) as caught:
        program(function)
    message = str(caught.value)
    assert SENTENCE.fullmatch(message) and told in message, message
    lines, first = inspect.getsourcelines(function)
    (line,) = re.findall(r"in line (\d+) of test_tracing\.py", message)
    assert first <= int(line) < first + len(lines)


WHOLE = [
    (lambda x, W: None, "return what it makes of its arguments; got a NoneType"),
    (lambda x, W: W, "depend on every argument; got `x` unused"),
    (lambda x, W, U: x @ W, "depend on every argument; got `U` unused"),
    (lambda x, W: x @ (x.mT @ W), "read each token alone"),
]


@pytest.mark.parametrize(("function", "told"), WHOLE, ids=[told for _, told in WHOLE])
def test_what_is_no_net_is_one_sentence(function, told):
    with pytest.raises(ValueError) as caught:
        program(function)
    assert SENTENCE.fullmatch(str(caught.value)) and told in str(caught.value)


def glu(x, W1, W2):
    return silu(x @ W1) @ W2


SAME = {
    "methods": lambda x, W1, W2: silu(x.matmul(W1)).mm(W2),
    "torch": lambda x, W1, W2: torch.matmul(functional.silu(torch.mm(x, W1)), W2),
    "einsum": lambda x, W1, W2: torch.einsum(
        "lh,hv->lv", functional.silu(torch.einsum("...lk,...kh->...lh", x, W1)), W2
    ),
    "turned": lambda x, W1, W2: (W2.mT @ functional.silu(W1.T @ x.transpose(-1, -2))).mT,
    "ellipsis": lambda x, W1, W2: torch.einsum(
        "...h,vh->...v", functional.silu(torch.einsum("k...,kh->...h", x.mT, W1)), W2.mT
    ),
    "copies": lambda x, W1, W2: silu((x.clone() @ W1).contiguous()) @ W2,
}


@pytest.mark.parametrize("way", SAME)
def test_one_net_written_in_several_ways(way):
    found, expected = program(SAME[way]), program(glu)
    assert found == expected and hash(found) == hash(expected)
    assert found != program(lambda x, W1, W2: sigmoid(x @ W1) @ W2)


def test_multiples_are_added_as_they_are():
    expected = program(lambda x, W: (x - 0.5 * (x * x)) @ W)
    assert program(lambda x, W: torch.sub(x, x * x, alpha=0.5) @ W) == expected
    assert program(lambda x, W: torch.add(x, x * x, alpha=-0.5) @ W) == expected
    assert program(lambda x, W: x.sub(x * x, alpha=0.4) @ W) != expected


def test_layers_of_pytorch_are_the_functions_that_they_call():
    softmax, threshold = torch.nn.Softmax(-1), torch.nn.Softplus(threshold=20.0)
    assert program(lambda x, W: softmax(x) @ W) == program(lambda x, W: torch.softmax(x, -1) @ W)
    assert program(lambda x, W: threshold(x) @ W) == program(lambda x, W: softplus(x) @ W)


def test_widths_are_equal_by_equations_alone():
    deep = program(lambda x, W1, W2, W3: silu(silu(x @ W1) @ W2) @ W3)
    assert [[str(n) for n in w.shape] for w in deep.weights] == [
        ["D_k", "D_1"],
        ["D_1", "D_2"],
        ["D_2", "D_v"],
    ]
    residual = program(lambda x, W1, W2: (x + silu(x @ W1)) @ W2)
    assert [str(n) for n in residual.weights[0].shape] == ["D_k", "D_k"]
    gated = program(lambda x, W: x * (x @ W))  # which makes keys as wide as values
    assert [str(n) for n in (*gated.input.shape, *gated.last.shape)] == ["L", "D_v"] + ["D_v"] * 2


def test_vectors_are_single_rows():
    found = program(lambda x, W1, b, g, W2: (silu(x @ W1 + b) * g) @ W2)
    shapes = {w.name: [str(n) for n in w.shape] for w in found.weights}
    assert shapes["b"] == shapes["g"] == ["one", "D_1"] and found.obstacle is None


@pytest.mark.parametrize(
    ("function", "last", "gate", "static"),
    [
        (lambda x, W: x @ W, "W", False, True),
        (lambda x, W: silu(x) @ W, "W", False, True),
        (lambda x, W: torch.softmax(x, -1) @ W, "W", False, True),
        (lambda x, W: 3 * (x @ W), "W", False, True),
        (lambda x, W: x * (x @ W), "W", True, True),
        (glu, "W2", False, False),
        (lambda x, A, B: silu(x @ A) * (x @ B), "B", True, False),
        (lambda x, A, B: (x @ A) * silu(x @ B), "A", True, False),
        (lambda x, A, B: (x @ A) * (x @ B), "B", True, False),
        (lambda x, A, g: (x @ A) * g, "A", True, False),
        (lambda x, W: Abstract("phi", width="D_h")(x) @ W, "W", False, False),
        (lambda x, W: x @ W.mT, "W_T", False, True),
        (lambda x, W: Depthwise(3, 2, 2)(x, W), "W", False, True),
    ],
)
def test_the_last_layer_is_split_off(function, last, gate, static):
    found = program(function)
    assert found.obstacle is None and found.last.name == last
    assert (found.gate is not None, found.is_static) == (gate, static)
    assert isinstance(found.features, sp.MatrixSymbol)


def test_the_state_is_the_one_that_is_named():
    bilinear = lambda x, A, B: (x @ A) * (x @ B)  # noqa: E731
    assert read_net(bilinear, ["A", "B"], state="A").last.name == "A"
    with pytest.raises(ValueError, match=r"`state` must be a weight of the net, A, B; got 'C'\."):
        read_net(bilinear, ["A", "B"], state="C")
    assert read_net(glu, ["W1", "W2"], state="W1").obstacle


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (
            lambda x, W: layer_norm(x @ W),
            r"must be linear; `layer_norm` in line \d+ of test_\w+.py ",
        ),
        (lambda x, W: torch.tanh(x @ W), "must be linear; `tanh` in line"),
        (lambda x, W, b: x @ W + b, r"must have no bias; `b` is added in line \d+"),
        (lambda x, W: x @ W + x, r"must be linear; `\+` in line"),
        (lambda x, W: x @ W @ W, "must be `features @ W`; `@` in line"),
    ],
)
def test_what_follows_the_last_layer_is_the_obstacle(function, why):
    found = program(function)
    assert re.search(why, found.obstacle or "") and not found.is_static
    assert found.outputs.shape == (found.input.shape[0], found.outputs.shape[1])


@pytest.mark.parametrize("name", ["X", "F", "V", "o", "q", "dW", "M_W", "G_W", "W_0", "torch"])
def test_a_name_that_means_something_else_is_refused(name):
    with pytest.raises(ValueError, match=f"names of their own; got '{name}', which .* Rename it"):
        read_net(glu, ["W", name])


@pytest.mark.parametrize("pair", [("dense", "d"), ("dZ1", "W"), ("H1", "Z1"), ("w", "dW")])
def test_other_names_do_not_collide(pair):
    found = read_net(glu, pair)
    made = {symbol.name for symbol, _ in found.assignments}
    assert not (made | {f"d{name}" for name in made}) & set(pair)


LOSSES = [
    (lambda f, v: f * v, "one number a token, [L]; got a matrix from `multiply`"),
    (lambda f, v: (f * v).sum(), "each sum is over the last axis; got `sum` over all axes"),
    (lambda f, v: (f - v).square().mean(), "got `mean` over all axes"),
    (lambda f, v: (f.mT @ v).sum(-1), "read each token alone"),
    (lambda f, v: (f - v).abs().sum(-1), "known operations; got `abs`"),
    (lambda f, v: Abstract("ell", scalar=True)(v, f), "outputs first and values second"),
    (lambda f, v: softplus(Abstract("ell", scalar=True)(f, v)), "add abstract losses up"),
    (lambda f, v: functional.mse_loss(f, v), "known operations; got `mse_loss`"),
]


@pytest.mark.parametrize(("function", "told"), LOSSES, ids=[told for _, told in LOSSES])
def test_what_is_no_loss_of_tokens_is_refused_with_its_line(function, told):
    with pytest.raises(ValueError) as caught:
        read_loss(function)
    message = str(caught.value)
    assert SENTENCE.fullmatch(message) and told in message and "of test_tracing.py" in message


def test_a_loss_depends_on_its_outputs():
    with pytest.raises(ValueError, match="must depend on its outputs; got a function of the val"):
        read_loss(lambda f, v: v.sum(-1))
    with pytest.raises(ValueError, match="depend on its outputs; got one in which the outputs can"):
        read_loss(lambda f, v: (v * v).sum(-1) + f.sum(-1) - f.sum(-1))
    with pytest.raises(ValueError, match="no part that is 0 for all inputs; got 0 from `add`"):
        read_loss(lambda f, v: ((f - f) * v).sum(-1))


@pytest.mark.parametrize(
    "off",
    [
        lambda x, A, W: (x + 0.0 * torch.tanh(x)) @ A @ W,
        lambda x, A, W: (0 * x - (0.0 * x - x)) @ A @ W,
        lambda x, A, W: (x @ A + 0.0) @ W - 0 * (x @ A @ W),
    ],
)
def test_a_part_that_is_switched_off_is_left_out(off):
    assert str(program(off)) == str(program(lambda x, A, W: x @ A @ W))


WITHOUT = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = sys.modules["flint"] = None
from ttt_proofs.loops import GradientStep, InnerLoop, Schedule
from ttt_proofs.program.operations import silu
loop = InnerLoop(lambda x, A, B: silu(x @ A) @ B, lambda f, v: ((f - v) ** 4).sum(-1))
print(loop.net.assignments, loop.loss.gradient)
"""


def test_reading_needs_no_torch():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "X*A" in run.stdout and "4*x**3" in run.stdout
