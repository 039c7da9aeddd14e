"""The oracle for the library's own loops, written apart, chunk by chunk, in float64.

Nothing here is derived: each net, loss and update of the library is written out once more in
PyTorch, and `torch.autograd.grad` differentiates the loss itself. Everything that the package
makes of a loop is compared with this, so this uses none of it: not the program, the rule or the
functions of a net, a loss or an update, but the fields that describe it (`fields`). So it is the
one place outside `loops` that knows what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttt_proofs.loops import GradientStep, InnerLoop

from .arguments import Given, Weights, steps
from .library_update import CLIPS, NORMS, OPERATORS, column_norms, update
from .written_nets import ENTRYWISE, FORWARD, LOSS, forward, losses, sign_of_values


def fields(part: object) -> dict[str, Any]:
    """What describes a net or an update of the library: its fields by name."""
    return dict(vars(part))


def covers(loop: InnerLoop) -> bool:
    """Whether this oracle runs the loop: the library's own classes, all names known, no bias."""
    known = type(loop.net) in FORWARD and type(sign_of_values(loop.loss)[0]) in LOSS
    by_chunk = loop.schedule.update == "chunk"
    if not known or not by_chunk or type(loop.update) is not GradientStep:
        return False
    net, rule = fields(loop.net), fields(loop.update)
    activations = [net.get(field, "identity") for field in ("activation", "output_activation")]
    tables = {"clip": CLIPS, "orthogonal": OPERATORS, "weight_norm": NORMS}
    return (
        all(name in ENTRYWISE for name in activations)
        and all(rule[field] is None or rule[field] in table for field, table in tables.items())
        and not net.get("bias", False)
    )


@dataclass(frozen=True)
class _Inner:
    """The loop with what it is given: the tokens are `[B, H, T, K or V]`.

    rates: `[B, H, N]`, or 1 where there are none; weighing: for each weight that has them, what
    weighs the tokens' losses, `[B, H, T]`; momenta: `[B, H, N]` or None; norms: those of the
    columns at the start, `[B, H, 1, cols]`; outer: whether gradients will be taken through the
    inner ones.
    """

    loop: InnerLoop
    q: Tensor
    k: Tensor
    v: Tensor
    rates: Tensor | float
    weighing: Weights
    momenta: Tensor | None
    norms: Weights
    outer: bool


def _inner(given: Given) -> _Inner:
    """The rates and momenta of each step, and what weighs each token."""
    norms = {name: column_norms(x) for name, x in given.weights.items()}
    numbers = _rates(given), _weighing(given), _momenta(given)
    return _Inner(given.loop, given.q, given.k, given.v, *numbers, norms, given.outer)


def run(given: Given) -> tuple[Tensor, Weights]:
    """Every chunk in turn: the outputs `[B, H, T, V]` and the final weights `[B, H, rows, cols]`.

    Each chunk takes, as often as the schedule says, the gradient of the loss, summed over the
    chunk's tokens, at the current weights.
    """
    inner, state = _inner(given), given.weights
    schedule, net = inner.loop.schedule, inner.loop.net
    asked = inner.k if schedule.read_with == "key" else inner.q
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


def first_gradient(given: Given) -> Weights:
    """The gradient of the first chunk's loss in each weight that moves, `[B, H, rows, cols]`."""
    inner, here = _inner(given), slice(0, given.loop.schedule.chunk)
    return _gradient(inner, here, given.weights, _each(inner, here), here.stop)


def _step(
    inner: _Inner, here: slice, state: Weights, memory: Weights, count: int
) -> tuple[Weights, Weights]:
    """The weights and buffers after one update that counts `count` tokens of the chunk."""
    chunk = here.start // inner.loop.schedule.chunk
    eta, alpha = 1.0, 0.0
    if isinstance(inner.rates, Tensor):
        eta = inner.rates[:, :, chunk, None, None]
    if inner.momenta is not None:
        alpha = inner.momenta[:, :, chunk, None, None]
    slopes = _gradient(inner, here, state, _each(inner, here), count)
    rule = fields(inner.loop.update)
    return update(state, memory, slopes, eta, alpha, inner.norms, **rule)


def _each(inner: _Inner, here: slice) -> Weights:
    """What weighs a chunk's tokens, `[B, H, L]`, for each weight that has it."""
    return {name: rate[:, :, here] for name, rate in inner.weighing.items()}


def _gradient(inner: _Inner, here: slice, state: Weights, each: Weights, count: int) -> Weights:
    """The gradient of the loss in each weight that moves, `[B, H, rows, cols]`, by autograd.

    The loss counts the first `count` tokens of the chunk, weighed by what `each` has for
    that weight; it sums over batch and heads, which gives each its own gradient.
    """
    leaves = {n: w if w.requires_grad else w.detach().requires_grad_() for n, w in state.items()}
    per_token = losses(inner.loop, leaves, inner.k[:, :, here], inner.v[:, :, here])
    slopes: Weights = {}
    for name in (weight.name for weight in inner.loop.fast_weights):
        weighed = per_token * each[name] if name in each else per_token
        loss = weighed[:, :, :count].sum()
        (slopes[name],) = torch.autograd.grad(
            loss, leaves[name], create_graph=inner.outer, retain_graph=True
        )
    return slopes


def _rates(given: Given) -> Tensor | float:
    """The rate of each step `[B, H, N]`, or 1."""
    one = fields(given.loop.update)["rate"] in (None, "per_token")
    return 1.0 if one else _of_steps(given, given.coefficients["eta"])


def _weighing(given: Given) -> Weights:
    """The rate of each token, or another number that weighs its loss, by weight, `[B, H, T]`."""
    names = dict(given.loop.loss_weights)
    if fields(given.loop.update)["rate"] == "per_token":
        names = {weight.name: f"eta_{weight.name}" for weight in given.loop.fast_weights}
    return {name: given.coefficients[c].transpose(1, 2) for name, c in names.items()}


def _momenta(given: Given) -> Tensor | None:
    """The momentum of each step, `[B, H, N]`; None where there is none."""
    kind, chunk = fields(given.loop.update)["momentum"], given.loop.schedule.chunk
    if kind is None:
        return None
    each = given.coefficients["alpha"]
    if kind != "per_token":
        return _of_steps(given, each)
    starts = range(0, each.shape[1], chunk)
    means = [each[:, start : start + chunk].mean(1, keepdim=True) for start in starts]
    return torch.cat([each[:, :0], *means], dim=1).transpose(1, 2)


def _of_steps(given: Given, number: Tensor) -> Tensor:
    """One number, or `[B, N, H]`, as `[B, H, N]`."""
    batch, heads, length, _ = given.q.shape
    return number.expand(batch, steps(given.loop, length), heads).transpose(1, 2)
