"""In which weights a net is linear: the program's word, against the net on numbers."""

import pytest
import torch

from tests.contract.foreign import again, gate, module
from ttt_proofs import reduce
from ttt_proofs.loops import (
    GLU,
    MLP,
    DepthwiseConv,
    Features,
    Frobenius,
    InnerLoop,
    Linear,
    Net,
    SwiGLU,
)
from ttt_proofs.program import linearity
from ttt_proofs.program.linearity import linear_weights

SIZE = 4  # of all widths


def squared(x, W, U):
    return ((x @ W) ** 2) @ U


def shifted(x, W, U):
    return (x @ W + 1) @ U


def twice(x, W, U):
    return (x @ W) * (x @ W) @ U


def residual(x, A, B, U):
    return (x @ A + torch.sin(x) @ A + (x @ B) * x @ A) @ U


def added(x, A, B, U):
    return (x @ A + x @ B) @ U


def mean(x, A, B, U):
    return (torch.tanh(x @ B) * (x @ A).mean(-1, keepdim=True)) @ U


def normed(x, A, U):
    return torch.nn.functional.rms_norm(x @ A, (SIZE,)) @ U


def transposed(x, A, U):
    return (torch.relu(x) @ A.T - 2 * (x @ A.T)) @ U


def of_code(code, state=None):
    return InnerLoop(code, Frobenius(), state=state).net


NETS = {
    "linear": (Linear(), ("W",)),
    "deep and linear": (MLP(3, "identity"), ("W1", "W2", "W3")),
    "deep": (MLP(3), ("W3",)),
    "relu": (MLP(2, "relu"), ("W2",)),
    "bias": (MLP(2, bias=True), ()),
    "output": (MLP(2, output_activation="tanh"), ()),
    "SwiGLU": (SwiGLU(), ("W2", "W1")),
    "GLU": (GLU(), ("W1",)),
    "GLU of the identity": (GLU("identity"), ("W0", "W1")),
    "convolution": (DepthwiseConv(3, 2, 2), ("W",)),
    "modules": (module.LOOPS["all"].net, ("out_weight_T",)),
    "softmax gate": (gate.LOOPS["softmax"].net, ("W",)),
    "tied": (again.LOOPS["twice"].net, ("U",)),
    "residual": (again.LOOPS["residual"].net, ()),
    "squared": (of_code(squared), ("U",)),
    "shifted": (of_code(shifted), ("U",)),
    "a product with itself": (of_code(twice), ("U",)),
    "sums": (of_code(residual), ("A", "U")),
    "one of two": (of_code(added), ("U",)),
    "mean": (of_code(mean), ("A", "U")),
    "norm": (of_code(normed), ("U",)),
    "transpose": (of_code(transposed), ("A", "U")),
}


def linear_on_numbers(net: Net) -> set[str]:
    """The weights at whose random sums the net is the sum of what it is at each."""
    make = torch.Generator().manual_seed(0)

    def drawn(rows):
        return torch.randn(rows, SIZE, generator=make, dtype=torch.float64)

    def at(name, value):
        return net.function(x, *(value if w == name else given[w] for w in given))

    x = drawn(SIZE)
    given = {w.name: drawn(net.fixed.get(w.rows.name, SIZE)) for w in net.weights}
    found = set()
    for name, one in given.items():
        other = drawn(len(one))
        whole = at(name, 2 * one - 3 * other)
        if torch.allclose(whole, 2 * at(name, one) - 3 * at(name, other), rtol=1e-9, atol=1e-9):
            found.add(name)
    return found


@pytest.mark.parametrize("name", NETS)
def test_the_program_says_in_which_weights_a_net_is_linear(name):
    net, expected = NETS[name]
    assert linear_weights(net.traced) == expected


RUN = [name for name in NETS if name not in ("modules", "convolution")]


@pytest.mark.parametrize("name", RUN)
def test_on_numbers_it_is_linear_in_these_and_no_others(name):
    net, _ = NETS[name]
    assert linear_on_numbers(net) == set(linear_weights(net.traced))


FAULTS = {
    "functions are linear": ("of_function", lambda value, inner: inner),
    "constants are of degree 1": ("CONSTANT", (1, 1)),
    "products take the last": ("product", lambda factors: [*factors][-1]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, monkeypatch):
    monkeypatch.setattr(linearity, *FAULTS[fault])
    assert any(linear_on_numbers(NETS[n][0]) != set(linear_weights(NETS[n][0].traced)) for n in RUN)


def test_a_reduction_says_it():
    reduction = reduce(InnerLoop(SwiGLU(), Frobenius(), trained="last"))
    assert reduction.linear_in == ("W2",)
    assert "\nlinear also in W2, each with the others fixed\n" in str(reduction)
    for net in (Linear(), MLP(2), Features()):
        reduction = reduce(InnerLoop(net, Frobenius(), trained="last"))
        assert reduction.linear_in == () and "linear also" not in str(reduction)
