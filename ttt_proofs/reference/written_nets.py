"""Each net and each loss that can be run, written out in PyTorch from the fields of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from ttt_proofs.loops import (
    GLU,
    MLP,
    DepthwiseConv,
    Frobenius,
    InnerLoop,
    Linear,
    Loss,
    NegatedValues,
    Net,
    SquaredError,
    SwiGLU,
)

from .arguments import Weights

ENTRYWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


def _linear(net: Linear, w: Weights, x: Tensor) -> Tensor:
    """`x W`: x `[B, H, L, K]` to `[B, H, L, V]`, as for the other nets. Tokens are rows."""
    return x @ w["W"]


def _mlp(net: MLP, w: Weights, x: Tensor) -> Tensor:
    """`out(act(... act(x W1) ...) W_depth)`."""
    for layer in range(1, net.depth):
        x = ENTRYWISE[net.activation](x @ w[f"W{layer}"])
    return ENTRYWISE[net.output_activation](x @ w[f"W{net.depth}"])


def _swiglu(net: SwiGLU, w: Weights, x: Tensor) -> Tensor:
    """`(act(x W0) ⊙ (x W2)) W1`."""
    return (ENTRYWISE[net.activation](x @ w["W0"]) * (x @ w["W2"])) @ w["W1"]


def _glu(net: GLU, w: Weights, x: Tensor) -> Tensor:
    """`act(x W0) ⊙ (x W1)`."""
    return ENTRYWISE[net.activation](x @ w["W0"]) * (x @ w["W1"])


def _depthwise(net: DepthwiseConv, w: Weights, x: Tensor) -> Tensor:
    """`Σ_d x[p + d, c] W[d, c]`, zero outside the image: the L tokens are its pixels by rows."""
    batch, heads, _, channels = x.shape
    margin = net.size // 2
    image = x.reshape(batch, heads, net.height, net.width, channels)
    wide = functional.pad(image, (0, 0, margin, margin, margin, margin))
    windows = w["W"].reshape(batch, heads, net.size, net.size, 1, 1, channels)
    total = torch.zeros_like(image)
    for down in range(net.size):
        for right in range(net.size):
            moved = wide[:, :, down : down + net.height, right : right + net.width]
            total = total + moved * windows[:, :, down, right]
    return total.reshape(x.shape)


def _frobenius(f: Tensor, v: Tensor) -> Tensor:
    """`-⟨f_l, v_l⟩` for each token, `[B, H, L]`; f and v are `[B, H, L, V]`, as below."""
    return -(f * v).sum(-1)


def _squared_error(f: Tensor, v: Tensor) -> Tensor:
    """`½ ‖f_l - v_l‖²`."""
    return ((f - v) ** 2).sum(-1) / 2


FORWARD: dict[type, Callable[..., Tensor]] = {
    Linear: _linear,
    MLP: _mlp,
    SwiGLU: _swiglu,
    GLU: _glu,
    DepthwiseConv: _depthwise,
}
LOSS: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    Frobenius: _frobenius,
    SquaredError: _squared_error,
}


def forward(net: Net, w: Weights, x: Tensor) -> Tensor:
    """The net's outputs `[B, H, L, V]` for a chunk x `[B, H, L, K]`."""
    return FORWARD[type(net)](net, w, x)


def losses(loop: InnerLoop, w: Weights, k: Tensor, v: Tensor) -> Tensor:
    """The loss of each token of a chunk, `[B, H, L]`."""
    loss, sign = sign_of_values(loop.loss)
    return LOSS[type(loss)](forward(loop.net, w, k), sign * v)


def sign_of_values(loss: Loss) -> tuple[Loss, int]:
    """The loss itself, and -1 where it is given negated values, else 1."""
    if not isinstance(loss, NegatedValues):
        return loss, 1
    inner, sign = sign_of_values(loss.loss)
    return inner, -sign
