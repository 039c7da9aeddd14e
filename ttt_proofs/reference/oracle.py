"""The real inner loop, chunk by chunk, in float64.

Nothing here is derived: each net, loss and update rule is written out in PyTorch from the fields
that describe it, and `torch.autograd.grad` differentiates the loss itself. Everything that the
package derives is compared with this, so this uses none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttt_proofs.loops import InnerLoop

from .arguments import Rate, check, momenta, rates
from .nets import Weights, forward, losses, trained
from .rule import column_norms, update


def run_loop(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Mapping[str, Tensor],
    rate: Rate = None,
    momentum: float | Tensor | None = None,
) -> tuple[Tensor, Weights]:
    """The outputs and the final weights of the inner loop, by running it.

    For each chunk of `loop.schedule.chunk` tokens (the last may be shorter, images are whole), as
    often as `loop.schedule.steps` says: take the gradient of the loss, summed over the chunk's
    tokens, at the current weights, and move each trained weight by `loop.update`. Then, or before
    that, read `net(Q; W)`; a causal reading reads each token after one update, made from before
    the chunk, that counts the losses of the tokens up to it, with the chunk's rate and momentum.
    Heads and batch entries are independent.

    Shapes, with N = ceil(T / chunk):
        q, k: `[B, T, H, K]`; v: `[B, T, H, V]`.
        weights: each `[H, rows, cols]`, by name as in `loop.net.weights`; shared by the batch.
        rate, momentum: a number where `loop.update` has "constant", `[B, N, H]` where "per_step",
            None where None. Per token, rate has `[B, T, H]` for each trained weight's name, and
            weighs the losses in the gradient for that weight; momentum, `[B, T, H]`, is averaged
            over the chunk.
        Returns `[B, T, H, V]` and, for every weight, `[B, H, rows, cols]`.
    All is converted to float64; so are the results. Gradients flow from the results through the
    inner gradients to every argument that requires them; the arguments are not changed. T = 0
    and B = 0 give empty results. NaN stays NaN.

    Raises ValueError for what is abstract or has a bias, since there is nothing to run, and for
    names and shapes that do not match.
    Source: Section 3, Theorems 5.1 to 5.3, Appendices E to G of arXiv 2602.21204.

    By hand, Frobenius with k = 1, 2; v = 3, 1; W = 1; η = ½: W becomes 1 + 3/2, then 5/2 + 1.

    >>> from ttt_proofs.loops import Frobenius, InnerLoop, Linear
    >>> q, k, v = (torch.tensor(x).view(1, 2, 1, 1) for x in ([1., 1.], [1., 2.], [3., 1.]))
    >>> o, final = run_loop(InnerLoop(Linear(), Frobenius()), q, k, v,
    ...                     weights={"W": torch.ones(1, 1, 1)}, rate=0.5)
    >>> o.flatten().tolist(), final["W"].item()
    ([2.5, 3.5], 3.5)
    """
    check(loop, q, k, v, weights)
    given = [q, k, v, momentum, *weights.values()]
    given += rate.values() if isinstance(rate, Mapping) else [rate]
    needed = any(isinstance(x, Tensor) and x.requires_grad for x in given)
    outer = needed and torch.is_grad_enabled()
    if not outer:
        q, k, v, weights, rate, momentum = map(_detached, (q, k, v, weights, rate, momentum))
    double = {name: x.to(torch.float64) for name, x in weights.items()}
    state = {name: x.expand(q.shape[0], *x.shape).clone() for name, x in double.items()}
    q64, k64, v64 = (x.to(torch.float64).transpose(1, 2) for x in (q, k, v))
    norms = {name: column_norms(x) for name, x in state.items()}
    scalars = rates(loop, rate, q), momenta(loop, momentum, q)
    with torch.enable_grad():
        outputs, state = _chunks(_Inner(loop, q64, k64, v64, *scalars, norms, outer), state)
    return outputs.transpose(1, 2).contiguous(), state


def _detached(value: Any) -> Any:
    """An argument of `run_loop` without its history, so that the inner gradients keep none."""
    if isinstance(value, Mapping):
        return {name: _detached(x) for name, x in value.items()}
    return value.detach() if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class _Inner:
    """The loop with what it is given in float64: the tokens are `[B, H, T, K or V]`.

    `rates` and `momenta` are as in `arguments`; `norms` are those of the columns at the start,
    `[B, H, 1, cols]`; `outer` says whether gradients will be taken through the inner ones.
    """

    loop: InnerLoop
    q: Tensor
    k: Tensor
    v: Tensor
    rates: Tensor | Weights | float
    momenta: Tensor | None
    norms: Weights
    outer: bool


def _chunks(inner: _Inner, state: Weights) -> tuple[Tensor, Weights]:
    """Every chunk in turn: the outputs `[B, H, T, V]` and the final weights."""
    schedule, net = inner.loop.schedule, inner.loop.net
    asked = inner.k if schedule.query == "key" else inner.q
    memory = {name: torch.zeros_like(weight) for name, weight in state.items()}
    outputs = [torch.zeros_like(inner.v[:, :, :0])]
    for start in range(0, asked.shape[2], schedule.chunk):
        here = slice(start, start + schedule.chunk)
        queries = asked[:, :, here]
        if schedule.read == "before_update":
            outputs.append(forward(net, state, queries))
        if schedule.read == "causal":
            for token in range(queries.shape[2]):
                seen, _ = _step(inner, here, state, memory, token + 1)
                outputs.append(forward(net, seen, queries)[:, :, token : token + 1])
        for _ in range(schedule.steps):
            state, memory = _step(inner, here, state, memory, schedule.chunk)
        if schedule.read == "after_update":
            outputs.append(forward(net, state, queries))
    return torch.cat(outputs, dim=2), state


def _step(
    inner: _Inner, here: slice, state: Weights, memory: Weights, count: int
) -> tuple[Weights, Weights]:
    """The weights and accumulators after one update that counts `count` tokens of the chunk."""
    rule, chunk = inner.loop.update, here.start // inner.loop.schedule.chunk
    eta, alpha = inner.rates, 0.0
    each: Weights = {}
    if isinstance(eta, dict):  # they weigh the losses instead
        each, eta = {name: rate[:, :, here] for name, rate in eta.items()}, 1.0
    if isinstance(eta, Tensor):
        eta = eta[:, :, chunk, None, None]
    if inner.momenta is not None:
        alpha = inner.momenta[:, :, chunk, None, None]
    gradient = _gradient(inner, here, state, each, count)
    return update(rule, state, memory, gradient, eta, alpha, inner.norms)


def _gradient(inner: _Inner, here: slice, state: Weights, each: Weights, count: int) -> Weights:
    """The gradient of the loss in each trained weight, `[B, H, rows, cols]`, by autograd.

    The loss counts the first `count` tokens of the chunk, weighed by the rates `each` has for
    that weight; it sums over batch and heads, which gives each its own gradient.
    """
    leaves = {n: w if w.requires_grad else w.detach().requires_grad_() for n, w in state.items()}
    values = -inner.v if inner.loop.schedule.negate_values else inner.v
    per_token = losses(inner.loop, leaves, inner.k[:, :, here], values[:, :, here])
    gradient: Weights = {}
    for name in trained(inner.loop):
        weighed = per_token * each[name] if name in each else per_token
        loss = weighed[:, :, :count].sum()
        (gradient[name],) = torch.autograd.grad(
            loss, leaves[name], create_graph=inner.outer, retain_graph=True
        )
    return gradient
