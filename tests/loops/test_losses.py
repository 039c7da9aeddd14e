"""Losses: what they compute, and their gradients against autograd."""

import pytest
import sympy as sp
import torch

from tests.symbolic.values import matrix
from ttt_proofs.loops import AbstractLoss, Frobenius, Loss, NegatedValues, SquaredError
from ttt_proofs.loops.losses import F, V
from ttt_proofs.program.expressions import RowLoss, RowLossGradient

TORCH = {
    Frobenius(): lambda f, v: -(f * v).sum(),
    SquaredError(): lambda f, v: torch.nn.functional.mse_loss(f, v, reduction="sum") / 2,
    NegatedValues(Frobenius()): lambda f, v: (f * v).sum(),
    NegatedValues(SquaredError()): lambda f, v: ((f + v) ** 2).sum() / 2,
    NegatedValues(NegatedValues(SquaredError())): lambda f, v: ((f - v) ** 2).sum() / 2,
}


def outputs_and_values(seed: int):
    """F and V at random sizes."""
    generator = torch.Generator().manual_seed(seed)
    rows, cols = (int(torch.randint(1, 6, (), generator=generator)) for _ in range(2))
    f, v = torch.randn(2, rows, cols, generator=generator, dtype=torch.float64)
    return f.requires_grad_(), v


def numbers(expression, f, v):
    """The expression at these outputs and values."""
    return torch.as_tensor(matrix(expression, {"F": f.detach().numpy(), "V": v.numpy()}))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", TORCH, ids=str)
def test_the_expression_is_the_loss(loss, seed):
    f, v = outputs_and_values(seed)
    torch.testing.assert_close(numbers(loss.expression, f, v), TORCH[loss](f, v).detach())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", TORCH, ids=str)
def test_the_gradient_is_that_of_autograd(loss, seed):
    f, v = outputs_and_values(seed)
    (expected,) = torch.autograd.grad(TORCH[loss](f, v), f)
    torch.testing.assert_close(numbers(loss.gradient, f, v), expected)


@pytest.mark.parametrize(
    ("loss", "wrong"),
    [
        (Frobenius(), V),
        (Frobenius(), -F),
        (SquaredError(), V - F),
        (SquaredError(), F + V),
        (SquaredError(), 2 * (F - V)),
        (SquaredError(), F),
        (NegatedValues(SquaredError()), F - V),
        (NegatedValues(Frobenius()), -V),
    ],
    ids=str,
)
def test_a_wrong_gradient_is_told_apart(loss, wrong):
    f, v = outputs_and_values(0)
    (expected,) = torch.autograd.grad(TORCH[loss](f, v), f)
    assert not torch.allclose(numbers(wrong, f, v), expected)


@pytest.mark.parametrize("loss", [*TORCH, AbstractLoss()], ids=str)
def test_gradients_have_the_shape_of_the_outputs(loss):
    assert loss.gradient.shape == F.shape == V.shape
    assert loss.expression.atoms(sp.MatrixSymbol) == {F, V}


def test_gradients_are_as_short_as_in_the_paper():
    assert Frobenius().gradient == -V
    assert SquaredError().gradient == F - V


def test_an_abstract_loss_keeps_its_name():
    loss = AbstractLoss("rho")
    assert isinstance(loss.expression, RowLoss) and isinstance(loss.gradient, RowLossGradient)
    assert loss.expression.name == loss.gradient.name == "rho"
    assert loss.expression != AbstractLoss().expression


def test_losses_are_equal_by_value_and_can_be_keys():
    assert Frobenius() == Frobenius() and AbstractLoss() == AbstractLoss("ell")
    losses = {Frobenius(), SquaredError(), AbstractLoss(), AbstractLoss("rho"), Frobenius()}
    assert len(losses) == 4
    with pytest.raises(AttributeError):
        AbstractLoss().name = "rho"  # pyright: ignore


@pytest.mark.parametrize("inner", [*TORCH, AbstractLoss()], ids=str)
def test_negated_values_are_those_of_the_loss_that_is_given_them(inner):
    assert NegatedValues(inner) == NegatedValues(inner) != inner
    (values,) = {m for m in NegatedValues(inner).expression.atoms(sp.MatrixSymbol) if m != F}
    assert values == V and NegatedValues(inner).is_entrywise == inner.is_entrywise
    assert NegatedValues(inner).proportion == inner.proportion


@pytest.mark.parametrize("wrong", [None, Frobenius, 3, lambda f, v: -(f * v).sum(-1)])
def test_negated_values_of_what_is_no_loss_are_refused(wrong):
    with pytest.raises(TypeError, match=r"^`loss` must be a Loss; got .+\. In a function"):
        NegatedValues(wrong)


def test_a_loss_without_an_expression_has_no_meaning():
    with pytest.raises(NotImplementedError):
        _ = Loss().gradient


@pytest.mark.parametrize("name", ["a b", "", None, 3])
def test_a_name_that_fails_only_later_is_refused_at_once(name):
    with pytest.raises(ValueError, match=r"^`name` must be .+; got .+\. [A-Z]"):
        AbstractLoss(name)
