"""Nets: names, programs, shapes, what the programs compute, and the errors."""

import re

import pytest
import sympy as sp
import torch
from torch.nn import functional

from tests.loops.torch_nets import TORCH, features_of, random_arrays
from tests.symbolic.values import assigned, scalar
from ttt_proofs.loops import ACTIVATIONS, MLP, Features, Linear, Net, SwiGLU, Weight
from ttt_proofs.program.expressions import RowFunction, activate, gelu_tanh, width

SENTENCE = re.compile(r"`(\w+)` must be .+; got .+\. [A-Z][^\n]*\.")

WEIGHTS = {
    Linear(): [("W", "D_k", "D_v")],
    Features(): [("W", "D_h", "D_v")],
    MLP(1): [("W1", "D_k", "D_v")],
    MLP(2): [("W1", "D_k", "D_1"), ("W2", "D_1", "D_v")],
    MLP(3): [("W1", "D_k", "D_1"), ("W2", "D_1", "D_2"), ("W3", "D_2", "D_v")],
    SwiGLU(): [("W0", "D_k", "D_h"), ("W2", "D_k", "D_h"), ("W1", "D_h", "D_v")],
}


@pytest.mark.parametrize("net", WEIGHTS, ids=str)
def test_weights_by_name_and_width(net):
    assert [(w.name, w.rows.name, w.cols.name) for w in net.weights] == WEIGHTS[net]
    assert net.last is not None and net.last == net.weights[-1]
    for weight in net.weights:
        assert weight.symbol == sp.MatrixSymbol(weight.name, weight.rows, weight.cols)


PROGRAMS = {
    Linear(): [],
    Features(): ["Phi"],
    MLP(1): [],
    MLP(2): ["Z1", "H1"],
    MLP(3): ["Z1", "H1", "Z2", "H2"],
    SwiGLU(): ["A", "B", "H"],
}


@pytest.mark.parametrize("net", PROGRAMS, ids=str)
def test_programs_by_name_and_shape(net):
    assert [symbol.name for symbol, _ in net.assignments] == PROGRAMS[net]
    known = {"X", *(w.name for w in net.weights)}
    for symbol, value in net.assignments:
        assert symbol.shape == value.shape
        assert {s.name for s in value.atoms(sp.MatrixSymbol)} <= known  # nothing before its turn
        known.add(symbol.name)
    assert net.features.shape == (width("L"), net.last.rows)
    assert net.features.name == (PROGRAMS[net] or ["X"])[-1]


def test_abstract_features_are_one_function_of_each_row():
    ((_, value),) = Features("psi").assignments
    assert isinstance(value, RowFunction)
    assert (value.name, value.rows_of.name) == ("psi", "X")
    assert value != Features("phi").assignments[0][1]


RUN = [Linear(), MLP(1), *(MLP(d, a) for d in (2, 3) for a in TORCH), *map(SwiGLU, TORCH)]


@pytest.mark.parametrize("net", RUN, ids=str)
def test_programs_compute_the_net(net):
    x = random_arrays(net, 0)
    values = assigned(net.assignments, {name: a.numpy() for name, a in x.items()})
    torch.testing.assert_close(torch.tensor(values[net.features.name]), features_of(net, x))


@pytest.mark.parametrize(
    ("net", "other"),
    [
        (MLP(2, "silu"), MLP(2, "sigmoid")),
        (MLP(3, "tanh"), MLP(2, "tanh")),
        (SwiGLU("silu"), SwiGLU("gelu_tanh")),
        (SwiGLU("relu"), SwiGLU("identity")),
    ],
    ids=str,
)
def test_another_net_is_told_apart(net, other):
    """The comparison above can fail."""
    x = random_arrays(MLP(3), 0) | random_arrays(net, 0)
    values = assigned(net.assignments, {name: a.numpy() for name, a in x.items()})
    actual, wrong = torch.tensor(values[net.features.name]), features_of(other, x)
    assert actual.shape != wrong.shape or not torch.allclose(actual, wrong)


x = sp.Symbol("x")
POINTS = torch.tensor([-30.0, -2.5, -1.0, -1e-3, 0.0, 1e-3, 0.7, 3.0, 30.0], dtype=torch.float64)


def test_every_named_activation_is_tested():
    assert set(ACTIVATIONS) == set(TORCH)


@pytest.mark.parametrize("name", TORCH)
def test_activations_are_those_of_pytorch(name):
    value = scalar(ACTIVATIONS[name](x), {x: POINTS.numpy()})
    torch.testing.assert_close(torch.as_tensor(value), TORCH[name](POINTS), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", TORCH)
def test_derivatives_are_those_of_pytorch(name):
    """Also at 0, where relu has none."""
    points = POINTS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(TORCH[name](points).sum(), points)
    value = scalar(sp.sympify(ACTIVATIONS[name](x)).diff(x), {x: POINTS.numpy()})
    actual = torch.as_tensor(value, dtype=torch.float64).expand_as(expected)
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-15)


def test_gelu_expands_to_what_pytorch_computes():
    run = sp.lambdify(x, gelu_tanh.expression(x), "numpy")
    torch.testing.assert_close(torch.as_tensor(run(POINTS.numpy())), TORCH["gelu_tanh"](POINTS))
    exact = functional.gelu(POINTS)
    assert not torch.allclose(torch.as_tensor(run(POINTS.numpy())), exact, rtol=1e-5, atol=0)


def test_identity_changes_nothing():
    m = sp.MatrixSymbol("Z", 2, 3)
    assert activate("identity", m) is m


def test_an_unknown_activation_is_abstract():
    m = sp.MatrixSymbol("Z", 2, 3)
    function = activate("act", m).function
    assert function.expr == sp.Function("act")(*function.variables)
    assert activate("other", m).function.expr != sp.Function("act")(*function.variables)


def test_nets_are_equal_by_value_and_can_be_keys():
    assert MLP(2, "silu") == MLP() and hash(MLP(2, "silu")) == hash(MLP())
    assert Weight("W", width("a"), width("b")) == Weight("W", width("a"), width("b"))
    different = [
        Linear(),
        Features(),
        Features("psi"),
        MLP(1),
        MLP(2),
        MLP(2, "tanh"),
        MLP(2, bias=True),
        MLP(2, output_activation="tanh"),
        SwiGLU(),
        SwiGLU("relu"),
        SwiGLU("tanh"),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("net", WEIGHTS, ids=str)
def test_nets_do_not_change(net):
    for name in ("depth", "activation", "name", "weights"):
        with pytest.raises(AttributeError):
            setattr(net, name, 3)


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (MLP(2, bias=True), "the last layer must have no bias"),
        (MLP(1, output_activation="relu"), "the last layer must be linear"),
        (MLP(2, output_activation="act"), "the last layer must be linear"),
        *((net, None) for net in WEIGHTS),
        (MLP(2, output_activation="identity"), None),
    ],
    ids=str,
)
def test_what_the_theorems_do_not_cover(net, why):
    assert net.obstacle == why


def test_a_net_without_weights_has_no_meaning():
    for part in ("weights", "assignments"):
        with pytest.raises(NotImplementedError):
            getattr(Net(), part)


WRONG = [
    ("depth", lambda: MLP(0), "got 0. Use 1 for a linear net."),
    ("depth", lambda: MLP(-2), "got -2."),
    ("depth", lambda: MLP(2.0), "got 2.0."),  # pyright: ignore
    ("depth", lambda: MLP("2"), "got '2'."),  # pyright: ignore
    ("depth", lambda: MLP(None), "got None."),  # pyright: ignore
    ("activation", lambda: MLP(2, ""), "got ''. Known "),
    ("activation", lambda: MLP(2, "a b"), "got 'a b'."),
    ("activation", lambda: MLP(2, 3), "got 3."),  # pyright: ignore
    ("output_activation", lambda: MLP(2, output_activation="1x"), "got '1x'."),
]


@pytest.mark.parametrize(("field", "make", "told"), WRONG)
def test_a_wrong_net_is_one_sentence(field, make, told):
    with pytest.raises(ValueError) as caught:
        make()
    message = str(caught.value)
    found = SENTENCE.fullmatch(message)
    assert found and found[1] == field, message
    assert told in message


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("activation", lambda: MLP(2, "step")),  # a piece of relu; its derivative is not taken
        ("activation", lambda: SwiGLU("step")),
        ("depth", lambda: MLP(True)),
        ("bias", lambda: MLP(2, bias="no")),  # pyright: ignore
        ("bias", lambda: MLP(2, bias=1)),  # pyright: ignore
        ("activation", lambda: SwiGLU("a b")),
        ("activation", lambda: SwiGLU(3)),  # pyright: ignore
        ("name", lambda: Features("a b")),
        ("name", lambda: Features(3)),  # pyright: ignore
    ],
)
def test_a_value_that_fails_only_later_is_refused_at_once(field, make):
    with pytest.raises(ValueError, match=rf"^`{field}` must be .+; got .+\. [A-Z]"):
        make()
