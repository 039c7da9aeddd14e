"""The real inner loop, chunk by chunk, in float64.

Nothing here is derived: each net and each loss is written out in PyTorch from the fields that
describe it, and `torch.autograd.grad` differentiates the loss itself. Everything that the
package derives is compared with this, so this uses none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from ttt_proofs.loops import (
    MLP,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Net,
    SquaredError,
    SwiGLU,
)

Weights = dict[str, Tensor]

ENTRYWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


def run_loop(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Mapping[str, Tensor],
    rate: float | Tensor,
    momentum: float | Tensor | None = None,
) -> tuple[Tensor, Weights]:
    """The outputs and the final weights of the inner loop, by running it.

    For each chunk of `loop.schedule.chunk` tokens (the last may be shorter), with G the gradient
    of the chunk's loss, summed over its tokens, in the weights as they were before the chunk:

        M <- η_in G + α M,    W <- W - η_out M    (+ for ascent; M starts at 0)

    η is η_in where the rate is inside and η_out where it is outside, the other is 1; without
    momentum `W <- W - η G`. Then, or before that, the chunk's queries are read: `net(Q; W)`.
    Weights that are not trained stay as they are. Heads and batch entries are independent.

    Shapes, with N = ceil(T / chunk) steps:
        q, k: `[B, T, H, K]`; v: `[B, T, H, V]`.
        weights: each `[H, rows, cols]`, by name as in `loop.net.weights`; shared by the batch.
        rate: a number where `loop.update.rate` is "constant", `[B, N, H]` where "per_step".
        momentum: likewise by `loop.update.momentum`, and None where that is None.
        Returns `[B, T, H, V]` and, for every weight, `[B, H, rows, cols]`.
    Every dtype is taken and converted to float64; both results are float64. Gradients flow from
    the results through the inner gradients to every argument that requires them; the arguments
    are not changed. T = 0 and B = 0 give empty results. NaN stays NaN.

    Raises ValueError for what is abstract or has a bias, since there is nothing to run, and for
    names and shapes that do not match.
    Source: the inner loop of Section 3 and Theorems 5.1 to 5.3 of arXiv 2602.21204.

    By hand, Frobenius with k = 1, 2; v = 3, 1; W = 1; η = ½: W becomes 1 + 3/2, then 5/2 + 1.

    >>> from ttt_proofs.loops import Frobenius, InnerLoop, Linear
    >>> q, k, v = (torch.tensor(x).view(1, 2, 1, 1) for x in ([1., 1.], [1., 2.], [3., 1.]))
    >>> o, final = run_loop(InnerLoop(Linear(), Frobenius()), q, k, v,
    ...                     weights={"W": torch.ones(1, 1, 1)}, rate=0.5)
    >>> o.flatten().tolist(), final["W"].item()
    ([2.5, 3.5], 3.5)
    """
    _check(loop, q, k, v, weights)
    batch, length, heads, _ = q.shape
    scalars = (batch, -(-length // loop.schedule.chunk), heads)
    given = [t for t in (q, k, v, rate, momentum, *weights.values()) if isinstance(t, Tensor)]
    outer = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    tokens = [x.to(torch.float64).transpose(1, 2) for x in (q, k, v)]
    rates = _per_step("rate", loop.update.rate, rate, scalars, q.device)
    momenta = None
    if loop.update.momentum is not None or momentum is not None:
        momenta = _per_step("momentum", loop.update.momentum, momentum, scalars, q.device)
    wide = {name: weight.to(torch.float64) for name, weight in weights.items()}
    state = {name: weight.expand(batch, *weight.shape).clone() for name, weight in wide.items()}
    with torch.enable_grad():
        outputs, state = _steps(loop, tokens, state, rates, momenta, outer)
    return outputs.transpose(1, 2).contiguous(), state


def _steps(
    loop: InnerLoop,
    tokens: list[Tensor],
    state: Weights,
    rates: Tensor,
    momenta: Tensor | None,
    outer: bool,
) -> tuple[Tensor, Weights]:
    """Every chunk in turn: q, k `[B, H, T, K]` and v `[B, H, T, V]` to `[B, H, T, V]`.

    `outer` says whether gradients will be taken through the inner ones.
    """
    q, k, v = tokens
    chunk = loop.schedule.chunk
    forward = partial(FORWARD[type(loop.net)], loop.net)
    memory = {name: torch.zeros_like(weight) for name, weight in state.items()}
    outputs = [torch.zeros_like(v[:, :, :0])]
    for n in range(rates.shape[1]):
        here = slice(n * chunk, (n + 1) * chunk)
        if loop.schedule.read == "before_update":
            outputs.append(forward(state, q[:, :, here]))
        eta = rates[:, n, :, None, None]
        alpha = None if momenta is None else momenta[:, n, :, None, None]
        gradient = _inner_gradient(loop, state, k[:, :, here], v[:, :, here], outer)
        state, memory = _update(loop.update, state, memory, gradient, eta, alpha)
        if loop.schedule.read == "after_update":
            outputs.append(forward(state, q[:, :, here]))
        if not outer:
            outputs[-1] = outputs[-1].detach()
            state = {name: weight.detach() for name, weight in state.items()}
    return torch.cat(outputs, dim=2), state


def _inner_gradient(loop: InnerLoop, state: Weights, k: Tensor, v: Tensor, outer: bool) -> Weights:
    """The gradient of the chunk's loss in each trained weight, `[B, H, rows, cols]`, by autograd.

    The loss sums over batch and heads, which gives each its own gradient.
    """
    trained = tuple(state) if loop.update.trained == "all" else (_last(loop.net),)
    for name in trained:
        if not state[name].requires_grad:
            state[name] = state[name].detach().requires_grad_()
    loss = LOSS[type(loop.loss)](FORWARD[type(loop.net)](loop.net, state, k), v)
    inputs = [state[name] for name in trained]
    return dict(zip(trained, torch.autograd.grad(loss, inputs, create_graph=outer), strict=True))


def _update(
    rule: GradientStep,
    state: Weights,
    memory: Weights,
    gradient: Weights,
    eta: Tensor,
    alpha: Tensor | None,
) -> tuple[Weights, Weights]:
    """The weights and the accumulators after one step; those without a gradient stay."""
    state, memory = dict(state), dict(memory)
    for name, slope in gradient.items():
        if alpha is None:
            move = eta * slope
        elif rule.place == "inside":
            move = memory[name] = eta * slope + alpha * memory[name]
        else:
            memory[name] = slope + alpha * memory[name]
            move = eta * memory[name]
        state[name] = state[name] + move if rule.ascent else state[name] - move
    return state, memory


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


def _frobenius(f: Tensor, v: Tensor) -> Tensor:
    """`-⟨F, V⟩`, summed over everything; f and v are `[B, H, L, V]`, as for the other losses."""
    return -(f * v).sum()


def _squared_error(f: Tensor, v: Tensor) -> Tensor:
    """`½ ‖F - V‖²`."""
    return ((f - v) ** 2).sum() / 2


FORWARD: dict[type, Callable[..., Tensor]] = {Linear: _linear, MLP: _mlp, SwiGLU: _swiglu}
LOSS: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    Frobenius: _frobenius,
    SquaredError: _squared_error,
}


def _per_step(
    name: str,
    kind: str | None,
    value: float | Tensor | None,
    shape: tuple[int, int, int],
    device: torch.device,
) -> Tensor:
    """The rate or the momentum as `[B, N, H]` in float64."""
    if value is None or kind is None:
        need = "given, for the loop has one" if value is None else "None, for the loop has none"
        raise ValueError(f"`{name}` must be {need}; got {_shown(value)}. "
                         "Change it, or the loop's GradientStep.")  # fmt: skip
    wanted = () if kind == "constant" else shape
    number = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    if not number or (value.shape if isinstance(value, Tensor) else ()) != wanted:
        need = "one number" if kind == "constant" else f"a tensor [B, N, H] = {list(shape)}"
        raise ValueError(f"`{name}` must be {need}, for the loop's is {kind}; got "
                         f"{_shown(value)}. Reshape it, or change GradientStep.")  # fmt: skip
    return torch.as_tensor(value, dtype=torch.float64, device=device).expand(shape)


def _last(net: Net) -> str:
    """The name of the last layer's weight."""
    return f"W{net.depth}" if isinstance(net, MLP) else "W1" if isinstance(net, SwiGLU) else "W"


def _shapes(net: Net, key: int, value: int, weights: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """`[rows, cols]` of each weight by name; hidden widths are taken from what arrives."""

    def cols(name: str) -> int:
        return weights[name].shape[-1] if name in weights and weights[name].ndim else 0

    if isinstance(net, SwiGLU):
        hidden = cols("W0")
        return {"W0": [key, hidden], "W2": [key, hidden], "W1": [hidden, value]}
    names = [f"W{n}" for n in range(1, net.depth + 1)] if isinstance(net, MLP) else ["W"]
    widths = [key, *map(cols, names[:-1]), value]
    return {name: list(pair) for name, pair in zip(names, pairwise(widths), strict=True)}


def _check(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the loop can be run, and names and shapes match."""
    net = loop.net
    _known("net", net, type(net), {kind: kind.__name__ for kind in FORWARD})
    _known("loss", loop.loss, type(loop.loss), {kind: kind.__name__ for kind in LOSS})
    for field in ("activation", "output_activation"):
        name = getattr(net, field, "identity")
        _known(field, name, name, {known: known for known in ENTRYWISE})
    if getattr(net, "bias", False):
        raise ValueError("`bias` must be False for a loop to be run, for its weights name no bias; "
                         f"got {net!r}. Drop the bias.")  # fmt: skip
    ranks = [x.ndim if isinstance(x, Tensor) else None for x in (q, k, v)]
    if ranks != [4, 4, 4] or k.shape != q.shape or v.shape[:3] != q.shape[:3]:
        raise ValueError("`q`, `k`, `v` must be [B, T, H, K], [B, T, H, K], [B, T, H, V]; got "
                         f"{', '.join(map(_shown, (q, k, v)))}. Reshape them.")  # fmt: skip
    wanted = _shapes(net, q.shape[3], v.shape[3], weights)
    if set(weights) != set(wanted):
        raise ValueError(f"`weights` must be named {', '.join(wanted)}; got "
                         f"{', '.join(weights) or 'none'}. Rename them.")  # fmt: skip
    for name, shape in wanted.items():
        if list(weights[name].shape) != [q.shape[2], *shape]:
            raise ValueError(f"`weights[{name!r}]` must be [H, rows, cols] = "
                             f"{[q.shape[2], *shape]} to match q, k, v and the other weights; got "
                             f"{_shown(weights[name])}. Reshape it.")  # fmt: skip


def _known(field: str, value: object, key: object, table: Mapping[object, str]) -> None:
    """Raise ValueError unless the key is one that can be run."""
    if key not in table:
        raise ValueError(f"`{field}` must be one of {', '.join(table.values())} for a loop to be "
                         f"run; got {value!r}. Put one of these in its place.")  # fmt: skip


def _shown(value: object) -> str:
    """A tensor by its shape, anything else as it is written."""
    return str(list(value.shape)) if isinstance(value, Tensor) else repr(value)
