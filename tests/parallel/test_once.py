"""A function that refuses its second derivative does so on every path, and costs nothing else."""

import weakref

import pytest
import torch

from ttt_proofs.parallel.once import once


@once("`product`")
class Product(torch.autograd.Function):
    """x y² z for each entry, of which z is not saved, and nothing differentiable in the last."""

    @staticmethod
    def forward(ctx, x, y, z, count):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y, x * y * y, y * y * z)
        return x * y * y * z, None

    @staticmethod
    def backward(ctx, grad, _):
        x, y, of_z, of_x = ctx.saved_tensors
        needs = ctx.needs_input_grad
        each = (grad * of_x, grad * of_x * x * 2 / y, grad * of_z)
        return *(g if need else None for g, need in zip(each, needs, strict=False)), None


@once("`double`")
class Double(torch.autograd.Function):
    """2 x; its backward returns one tensor and no tuple."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def inputs():
    """Three tensors that want gradients."""
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(5, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_first_derivative_is_as_it_was(create_graph):
    x, y, z = inputs()
    found = torch.autograd.grad(
        Product.apply(x, y, z, 3)[0].sum(), (x, y, z), create_graph=create_graph
    )
    true = (y * y * z, 2 * x * y * z, x * y * y)
    for a, b in zip(found, true, strict=True):
        assert torch.equal(a, b) or torch.allclose(a, b, rtol=1e-14)
        assert a.requires_grad == create_graph


@pytest.mark.parametrize("loss", [torch.sum, lambda o: o.square().sum()], ids=["linear", "square"])
@pytest.mark.parametrize("by", range(3))
@pytest.mark.parametrize("of", range(3))
def test_no_other_path_hides_the_error(of, by, loss):
    leaves = inputs()
    x, y, z = (leaf * 1 for leaf in leaves)
    other = torch.stack([leaf.sum() for leaf in leaves]).sum().pow(4)
    grads = torch.autograd.grad(
        loss(Product.apply(x, y, z, 3)[0]) + other, leaves, create_graph=True
    )
    with pytest.raises(RuntimeError, match="`product` must be differentiated once; got a second"):
        torch.autograd.grad(grads[of].sum(), leaves[by])


def test_what_the_incoming_gradient_depends_on_is_a_path():
    x, y, z = (leaf.detach() for leaf in inputs())
    x.requires_grad_()
    weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(
        (Product.apply(x, y, z, 3)[0] * weight).sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(grad.sum() + weight.pow(4).sum(), weight)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
def test_accumulated_gradients_refuse_too():
    x = inputs()[0]
    (Double.apply(x).sum() + x.pow(4).sum()).backward(create_graph=True)
    assert torch.allclose(x.grad, 2 + 4 * x**3)
    with pytest.raises(RuntimeError, match="differentiated once"):
        x.grad.sum().backward()
    x.grad = None


def test_gradients_may_be_changed_in_place():
    x = inputs()[0]
    (grad,) = torch.autograd.grad(Double.apply(x).sum(), x, create_graph=True)
    grad.mul_(3)
    assert torch.equal(grad, torch.full_like(x, 6))


def test_nothing_is_kept_for_it():
    x, y, z = inputs()
    passing, outer = z * 1, torch.ones_like(x)
    o, gone = Product.apply(x, y, passing, 3)[0], weakref.ref(passing.untyped_storage())
    assert gone() is not None
    del passing
    assert gone() is None  # z was not saved, and is not kept to have a path to it
    grads = torch.autograd.grad(o, (x, y, z), outer, create_graph=True)
    gone = [weakref.ref(grad.untyped_storage()) for grad in (*grads, outer)]
    assert None not in [each() for each in gone]
    del grads, outer
    assert [each() for each in gone] == [None] * 4


def test_without_gradients_there_is_no_graph():
    x, y, z = inputs()
    with torch.no_grad():
        assert Product.apply(x, y, z, 3)[0].grad_fn is None
    assert Product.apply(x.detach(), y.detach(), z.detach(), 3)[0].grad_fn is None
