"""Gradients: against autograd at random sizes; and the checker accepts them, and no others."""

import pytest
import torch

from tests.loops.torch_nets import TORCH, features_of, random_arrays
from tests.symbolic.values import assigned, matrix
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import Add, CheckerError, Lam, Mul, Num, substitute
from ttt_proofs.checker.terms import ix as index_of
from ttt_proofs.loops import (
    GLU,
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
from ttt_proofs.loops.losses import F
from ttt_proofs.symbolic import gradient_part, theory
from ttt_proofs.symbolic.gradients import Z, adjoint, backward, forward, made

LOSSES = {
    Frobenius(): lambda f, v: -(f * v).sum(),
    SquaredError(): lambda f, v: ((f - v) ** 2).sum() / 2,
}
NETS = [Linear(), MLP(1), *(MLP(d, a) for d in (2, 3, 4) for a in TORCH), *map(SwiGLU, TORCH)]


def drawn(net, seed):
    """X, the weights and V, at random sizes."""
    x = random_arrays(net, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    shape = (len(x["X"]), x[net.last.name].shape[1])
    return x, torch.randn(shape, generator=generator, dtype=torch.float64)


def by_autograd(net, loss, x, v):
    """The gradient in each weight, by PyTorch."""
    weights = {w.name: x[w.name].clone().requires_grad_() for w in net.weights}
    outputs = features_of(net, x | weights) @ weights[net.last.name]
    slopes = torch.autograd.grad(LOSSES[loss](outputs, v), list(weights.values()))
    return dict(zip(weights, slopes, strict=True))


def by_sympy(net, loss, x, v):
    """The gradient in each weight, from the expressions that SymPy found."""
    values = assigned(forward(net), {name: a.numpy() for name, a in x.items()})
    values["dF"] = matrix(loss.gradient, values | {"V": v.numpy()})
    for name, expression in backward(net).items():
        values[name] = matrix(expression, values)
    return {w.name: torch.as_tensor(values[adjoint(w.symbol).name]) for w in net.weights}


def test_what_the_last_layer_makes_is_the_output_unless_a_gate_follows():
    for net in (Linear(), MLP(2), SwiGLU(), GLU()):
        assert dict(forward(net))[made(net)] == net.outputs
        assert made(net) == (Z if isinstance(net, GLU) else F)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("net", NETS, ids=str)
def test_gradients_are_those_of_autograd(net, loss):
    for seed in range(4):
        x, v = drawn(net, seed)
        found, expected = by_sympy(net, loss, x, v), by_autograd(net, loss, x, v)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["dZ1", "dZ2", "dH1", "dH2", "dW1", "dW2", "dW3"])
def test_a_wrong_expression_shows(name, monkeypatch):
    """Doubling any one of the expressions is seen in some weight."""
    net = MLP(3, "tanh")
    wrong = backward(net) | {name: 2 * backward(net)[name]}
    monkeypatch.setitem(globals(), "backward", lambda _: wrong)
    x, v = drawn(net, 0)
    found, expected = by_sympy(net, SquaredError(), x, v), by_autograd(net, SquaredError(), x, v)
    assert not all(torch.allclose(found[n], expected[n], rtol=1e-10) for n in expected)


@pytest.mark.parametrize("net", NETS, ids=str)
def test_each_gradient_has_the_shape_of_its_symbol(net):
    found = backward(net)
    known = {s.name: s for s, _ in net.assignments} | {w.name: w.symbol for w in net.weights}
    assert {w.name for w in net.weights} <= {name[1:] for name in found} <= set(known)
    for name, expression in found.items():
        assert expression.shape == known[name[1:]].shape


def test_the_chain_is_in_an_order_that_can_be_run():
    """Each expression uses the output's adjoint and adjoints that come before it."""
    for net in NETS:
        seen = {adjoint(F).name}
        for name, expression in backward(net).items():
            used = {s.name for s in expression.free_symbols if hasattr(s, "name")}
            assert {n for n in used if n in backward(net)} <= seen
            seen.add(name)


def test_inputs_get_no_gradient():
    assert all("dX" not in backward(net) for net in NETS)


PROVED = [
    (Linear(), SquaredError()),
    (Features(), AbstractLoss()),
    (MLP(2, "act"), AbstractLoss()),
    (MLP(2, "silu"), Frobenius()),
    (MLP(2, "relu"), SquaredError()),
    (MLP(3, "act"), Frobenius()),
    (SwiGLU(), Frobenius()),
    (SwiGLU("act"), AbstractLoss()),
]
CASES = [
    pytest.param(InnerLoop(net, loss), w, id=f"{net}-{loss}-{w.name}")
    for net, loss in PROVED
    for w in net.weights
]


@pytest.mark.parametrize(("loop", "weight"), CASES)
def test_the_kernel_accepts_the_gradient(loop, weight):
    part = gradient_part(loop, weight)
    theorem = Theorem(part.proof)
    assert theorem.statement.equation == part.statement
    assert not theorem.statement.hypotheses


def negative(body):
    return Mul((Num(-1), body))


def doubled(body):
    return Mul((Num(2), body))


def shifted(body):
    return Add((body, Num(1)))


def zero(body):
    return Num(0)


FAULTS = [negative, doubled, shifted, zero]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("loop", "weight"), CASES)
def test_a_wrong_gradient_is_refused_by_the_kernel(loop, weight, fault):
    define, found = theory.gradient_definition(loop, weight), theory.gradient_entry(loop, weight)
    define.equation(found, False)
    with pytest.raises(CheckerError, match="must be the pairing with this gradient; it is not"):
        define.equation(Lam(found.binders, fault(found.body)), False)


def test_a_transposed_gradient_is_refused():
    """The indices in the other order are those of another shape."""
    loop = InnerLoop(Linear(), Frobenius())
    (weight,) = loop.fast_weights
    define, found = theory.gradient_definition(loop, weight), theory.gradient_entry(loop, weight)
    with pytest.raises(CheckerError, match="the gradient must have indices of the widths"):
        define.equation(Lam(found.binders[::-1], found.body), False)


def other_activation(expressions):
    """The slope of another function in the backward pass."""
    return expressions | {"dZ1": backward(MLP(2, "tanh"))["dZ1"]}


def no_slope(expressions):
    """The activation's derivative left out."""
    return expressions | {"dZ1": expressions["dH1"]}


def twice(expressions):
    """The last layer's gradient added to itself."""
    return expressions | {"dW2": expressions["dW2"] + expressions["dW2"]}


@pytest.mark.parametrize("fault", [other_activation, no_slope, twice])
def test_a_fault_in_the_backward_pass_is_refused_by_the_kernel(fault, monkeypatch):
    loop = InnerLoop(MLP(2, "silu"), AbstractLoss(), GradientStep())
    wrong = fault(dict(backward(loop.net)))
    monkeypatch.setattr(theory, "backward", lambda net: wrong)
    with pytest.raises(CheckerError):
        for weight in loop.fast_weights:
            Theorem(gradient_part(loop, weight).proof)


def test_the_gradient_is_taken_at_the_present_weights():
    """At another time it is another gradient: the index in the record matters."""
    loop = InnerLoop(Linear(), SquaredError())
    part = gradient_part(loop, loop.fast_weights[0])
    *steps, last = part.proof.steps
    later = {theory.T: index_of(theory.T, 1)}
    moved = substitute(part.statement.right, later)
    assert moved != part.statement.right
    equation = type(part.statement)(part.statement.every, part.statement.left, moved)
    sequent = type(last.conclusion)((), equation)
    rule = type(last.rule)(moved, getattr(last.rule, "peel", None))
    forged = type(part.proof)(
        part.proof.definitions, (*steps, type(last)(rule, last.premises, sequent))
    )
    with pytest.raises(CheckerError):
        Theorem(forged)
