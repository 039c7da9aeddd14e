"""What holds of every operator: second derivatives, empty inputs, float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from tests.kernels.oracles import DEVICE
from ttt_proofs import kernels

Outputs = tuple[Tensor, ...]


class Operator(NamedTuple):
    """A call with all of its inputs, `wide` ones in the states' dtype, and its widths."""

    call: Callable[..., Outputs]
    inputs: str
    key: int = 8
    value: int = 3
    wide: str = "decay eta alpha beta w m"

    def leaves(self, dtype: torch.dtype, B: int = 1, T: int = 5, H: int = 2) -> dict[str, Tensor]:
        """Inputs that want gradients; numbers lie in (0, 1)."""
        shapes = {
            "q": (B, T, H, self.key),
            "k": (B, T, H, self.key),
            "v": (B, T, H, self.value),
            "gate": (H, self.key, self.key),
            "up": (H, self.key, self.key),
            "w": (B, H, self.key, self.value),
            "m": (B, H, self.key, self.value),
        }
        draw = torch.Generator().manual_seed(0)
        made = {}
        for name in self.inputs.split():
            x = torch.randn(shapes.get(name, (B, T, H)), generator=draw, dtype=torch.float64) / 2
            x = x if name in shapes else x.sigmoid()
            kind = torch.promote_types(dtype, torch.float32) if name in self.wide.split() else dtype
            made[name] = x.to(DEVICE, kind).requires_grad_()
        return made


def additive(q, k, v, m, decay=None, **options) -> Outputs:
    return kernels.linear_attention(
        q, k, v, decay=decay, initial_state=m, output_final_state=True, **options
    )


def momentum(q, k, v, eta, alpha, w, m, **options) -> Outputs:
    o, last = kernels.momentum_attention(
        q, k, v, eta, alpha, initial_state=(w, m), output_final_state=True, **options
    )
    return o, *last


def delta(q, k, v, beta, m, **options) -> Outputs:
    return kernels.delta_rule(q, k, v, beta, initial_state=m, output_final_state=True, **options)


def swiglu(q, k, v, gate, up, m, **options) -> Outputs:
    return kernels.swiglu_attention(
        q, k, v, gate, up, initial_state=m, output_final_state=True, **options
    )


def features(q, gate, up) -> Outputs:
    return (kernels.swiglu_features(q, gate, up),)


def with_options(call: Callable[..., Outputs], **options: Any) -> Callable[..., Outputs]:
    return lambda **inputs: call(**inputs, **options)


OPERATORS = {
    "additive": Operator(additive, "q k v m"),
    "additive, exclusive": Operator(with_options(additive, exclusive=True), "q k v m"),
    "decay": Operator(additive, "q k v m decay"),
    "decay, wide values": Operator(additive, "q k v m decay", value=260),
    "momentum": Operator(momentum, "q k v eta alpha w m"),
    "momentum, segments": Operator(with_options(momentum, segments=2), "q k v eta alpha w m"),
    "delta": Operator(delta, "q k v beta m"),
    "delta, narrow keys": Operator(delta, "q k v beta m", key=2),
    "swiglu": Operator(swiglu, "q k v gate up m"),
    "swiglu, segments": Operator(with_options(swiglu, segments=2), "q k v gate up m"),
    "features": Operator(features, "q gate up"),
}
LOSSES = {
    "linear": lambda outputs: outputs[0].sum(),  # its gradient in the outputs has no graph
    "square": lambda outputs: sum(y.square().sum() for y in outputs),
    "last output": lambda outputs: outputs[-1].sum(),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


@every_operator
@pytest.mark.parametrize("loss", LOSSES)
def test_a_second_derivative_is_refused_whatever_else_depends_on_the_inputs(name, loss):
    operator = OPERATORS[name]
    leaves = operator.leaves(torch.float32)
    other = torch.stack([x.sum() for x in leaves.values()]).sum().pow(4)
    total = LOSSES[loss](operator.call(**leaves)) + other
    grads = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
    for grad in grads:
        for leaf in leaves.values():
            with pytest.raises(RuntimeError, match="must be differentiated once; got a second"):
                torch.autograd.grad(grad.sum(), leaf, retain_graph=True)


@every_operator
def test_so_is_one_in_a_single_input_or_in_what_the_loss_depends_on(name):
    operator = OPERATORS[name]
    for wanted in operator.inputs.split():
        leaves = operator.leaves(torch.float32)
        for n, x in leaves.items():
            x.requires_grad_(n == wanted)
        outputs = operator.call(**leaves)
        depends = [y for y in outputs if y.requires_grad]
        weight = torch.ones((), device=DEVICE, requires_grad=True)
        total = weight * sum(y.sum() for y in depends) + leaves[wanted].pow(4).sum()
        (grad,) = torch.autograd.grad(total, leaves[wanted], create_graph=True)
        for leaf in (leaves[wanted], weight):
            with pytest.raises(RuntimeError, match="must be differentiated once; got a second"):
                torch.autograd.grad(grad.sum() + weight.pow(4), leaf, retain_graph=True)


@every_operator
def test_the_first_derivative_is_the_same_with_a_graph(name):
    operator = OPERATORS[name]
    leaves = operator.leaves(torch.float32)
    plain, graphed = (
        torch.autograd.grad(
            LOSSES["square"](operator.call(**leaves)), list(leaves.values()), create_graph=graph
        )
        for graph in (False, True)
    )
    for a, b in zip(plain, graphed, strict=True):
        assert torch.equal(a, b) and b.requires_grad and not a.requires_grad


@every_operator
def test_autocast_around_a_call_or_its_gradients_changes_nothing(name):
    operator = OPERATORS[name]
    leaves = operator.leaves(torch.float32)

    def found() -> Outputs:
        outputs = operator.call(**leaves)
        weights = [torch.ones_like(y) for y in outputs]
        return *outputs, *torch.autograd.grad(outputs, list(leaves.values()), weights)

    plain = found()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        cast = found()
    for a, b in zip(plain, cast, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("B", "T", "H"), [(0, 4, 2), (2, 0, 2), (2, 4, 0), (0, 0, 0)])
def test_empty_inputs_all_have_gradients_of_zeros(name, dtype, B, T, H):
    operator = OPERATORS[name]
    for read in range(len(operator.call(**operator.leaves(dtype, B, T, H)))):
        leaves = operator.leaves(dtype, B, T, H)
        outputs = operator.call(**leaves)
        outputs[read].sum().backward()
        own = {1: {"m"}, 2: {"w"}}  # of outputs and one state
        own = {1: {"w"}, 2: {"m"}} if len(outputs) == 3 else own
        for n, x in leaves.items():
            assert x.grad is not None, n
            expected = torch.ones_like(x) if n in own.get(read, ()) and T == 0 else 0 * x
            assert torch.equal(x.grad, expected), n


@every_operator
def test_without_tokens_states_stay_what_they_are(name):
    operator = OPERATORS[name]
    leaves = operator.leaves(torch.float32, B=2, T=0)
    o, *last = operator.call(**leaves)
    assert o.numel() == 0 and o.shape[:3] == (2, 0, 2)
    for state, n in zip(last, [n for n in ("w", "m") if n in leaves], strict=True):
        assert torch.equal(state, leaves[n]) and state is not leaves[n]


SCALED = [(name, factor) for name in ("all", "each") for factor in (0.0, 1e-7, 1e-5)]


@pytest.mark.parametrize("name", [name for name in OPERATORS if "," not in name])
@pytest.mark.parametrize(("scaled", "factor"), [*SCALED, ("v", 300.0)])
def test_float16_is_finite(name, scaled, factor):
    """1e-7 is below half of the least number that float16 keeps all bits of."""
    operator = OPERATORS[name]
    names = operator.inputs.split()
    tokens = [n for n in names if n in ("q", "k", "v", "gate", "up")]
    for chosen in {"all": [tokens], "each": [[n] for n in names], "v": [["v"]]}[scaled]:
        leaves = {
            n: (x.detach() * (factor if n in chosen else 1.0)).requires_grad_()
            for n, x in operator.leaves(torch.float16, H=1).items()
        }
        outputs = operator.call(**leaves)
        grads = torch.autograd.grad(sum(y.float().sum() for y in outputs), list(leaves.values()))
        for y in (*outputs, *grads):
            assert y.isfinite().all(), chosen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gate_below_all_float16_numbers_is_closed(dtype):
    """-10^6 is minus infinity in float16, where silu is 0 all the same, and its slope too."""
    x = torch.full((1, 2, 1, 8), 1e3, dtype=dtype, device=DEVICE).requires_grad_()
    gate = torch.full((1, 8, 8), -125.0, dtype=dtype, device=DEVICE).requires_grad_()
    up = torch.full((1, 8, 8), 1e-3, dtype=dtype, device=DEVICE).requires_grad_()
    y = kernels.swiglu_features(x, gate, up)
    assert not y.any()
    for grad in torch.autograd.grad(y.float().sum(), (x, gate, up)):
        assert torch.equal(grad, torch.zeros_like(grad))
    x = x.detach()
    x[0, 1, 0, 3] = float("nan")
    y = kernels.swiglu_features(x, gate, up)
    assert not y[0, 0].any() and y[0, 1].isnan().all()
