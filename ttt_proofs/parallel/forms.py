"""The loop as a recurrence, as masked attention, as a scan of affine maps, or composed.

Inputs as in flash-linear-attention: q, k `[B, T, H, K]`, v `[B, T, H, V]`, weights
`[H, rows, cols]`. A rate or momentum is None where the loop has none, a number where it is
constant, `[B, N, H]` per step, of which there are N = ceil(T / chunk), and `[B, T, H]` per token:
for the rate, one such tensor for each trained weight, by name. Of a depthwise convolution q, k
and v have their channels last. All forms return outputs `[B, T, H, V]` and the final weights
`[B, H, rows, cols]`, in the dtype of the inputs, and differentiate in every tensor.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..symbolic.linear_attention import sign
from ..symbolic.torch_code import TorchLoop, torch_loop
from .chunks import Chunks, at, chunks
from .inputs import Number, Outputs, Rates, Weights


def recurrent(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Rates,
              momentum: Number | None) -> Outputs:  # fmt: skip
    """One chunk after the other, with the derived gradients, for every loop that can run.

    Readings have a dimension of their own, after the heads: a chunk has as many gradients and
    states as it is read with, one for all its tokens, or for a causal reading one for each.
    """
    code, x = torch_loop(loop), chunks(loop, q, k, v, weights, rate, momentum)
    last, schedule = loop.net.last.name, loop.schedule
    causal = schedule.read == "causal"
    now = x.weights
    held = {w.name: torch.zeros_like(now[w.name]) for w in loop.trained}
    length = x.k.shape[3] if causal else 1
    each = x.k.new_ones(length, length).tril()[..., None]  # [readings, L, 1]
    outputs = [x.v[:, :, :0]]
    for n in range(x.steps):
        q_n, k_n, v_n, *rows_n = (y[:, :, n : n + 1] for y in (x.q, x.k, x.v, *x.rows.values()))
        rows = dict(zip(x.rows, (row * each for row in rows_n), strict=True))
        eta, alpha, before = at(x.eta, n), at(x.alpha, n), now
        for _ in range(schedule.steps):
            made = code.outputs(k_n, code.features(k_n, **now) @ now[last], **now)
            gradients = code.gradients(k_n, code.cotangent(made, v_n), rows, **now)
            moved = {name: code.update(g, now[name], held[name], eta, alpha, x.weights[name])
                     for name, g in gradients.items()}  # fmt: skip
            now = now | {name: w for name, (w, _) in moved.items()}
            held = {name: m for name, (_, m) in moved.items()}
        state = before if schedule.read == "before_update" else now
        q_n = q_n.transpose(2, 3) if causal else q_n  # [B, H, readings, tokens of each, K]
        made = code.outputs(q_n, code.features(q_n, **state) @ state[last], **state)
        outputs.append(made.transpose(2, 3) if causal else made)
        if causal:  # the last reading has seen all of the chunk
            now, held = ({name: y[:, :, -1:] for name, y in all_.items()} for all_ in (now, held))
    return x.whole(torch.cat(outputs, dim=2), now)


def linear(code: TorchLoop, x: Chunks, g: Tensor, w: Tensor, m: Tensor, n: int | None = None
           ) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The next W and M, of chunk n or of all at once, of what the rule is but for its gates."""
    eta, alpha = (y if n is None else at(y, n) for y in (x.eta, x.alpha))
    m = code.accumulate(g, m, 1, eta, alpha)
    return code.move(w, m, 1, eta, None), m


def masks(loop: InnerLoop, x: Chunks) -> tuple[Tensor, Tensor]:
    """What the gradient of chunk i weighs in W after n chunks, and in each accumulator.

    `[B, H, N + 1, N]`, in which row 0 holds before all, and `[B, H, N·steps, N]`, for `steps`
    updates a chunk. The update rule itself, run on unit gradients: nothing is divided, so zeros are
    harmless.
    """
    code = torch_loop(loop)
    w = m = x.k.new_zeros(*x.k.shape[:2], 1, 1, x.steps)
    units = torch.eye(x.steps, dtype=w.dtype, device=w.device)
    after, held = [w], [w[:, :, :0]]
    for n, _ in product(range(x.steps), range(loop.schedule.steps)):
        w, m = linear(code, x, units[n].expand_as(w), w, m, n)
        after.append(w)
        held.append(m)
    each = loop.schedule.steps
    return torch.cat(after[::each], dim=2).squeeze(3), torch.cat(held, dim=2).squeeze(3)


def combined(mask: Tensor, matrices: Tensor) -> Tensor:
    """`Σ_i mask[n, i] matrices[i]`: `[B, H, M, N]` and `[B, H, N, D, V]` to `[B, H, M, D, V]`."""
    return (mask @ matrices.flatten(3)).unflatten(3, matrices.shape[3:])


def read(loop: InnerLoop, states: Tensor) -> Tensor:
    """What each chunk is read with, of the N + 1 entries that hold before all and after each."""
    return states[:, :, :-1] if loop.schedule.read == "before_update" else states[:, :, 1:]


def given(loop: InnerLoop, x: Chunks, keys: Tensor) -> tuple[Tensor, Tensor, Number]:
    """The gradients in what the last layer makes, their sums over each chunk, and its gates.

    For values that do not depend on the state: `[B, H, N, L, V]`, `[B, H, N, D, V]` and gates
    `[B, H, N, 1, V]`, or 1.
    """
    code = torch_loop(loop)
    values = code.values(x.k, code.cotangent(torch.zeros_like(x.v), x.v), **x.weights)
    gradients = keys.mT @ (x.rows[loop.net.last.name] * values)
    return values, gradients, code.clip(gradients, x.eta)


def features(loop: InnerLoop, x: Chunks) -> tuple[Tensor, Tensor]:
    """Those of what is read with and those of the keys, `[B, H, N, L, D]`; they do not change."""
    code = torch_loop(loop)
    return code.features(x.q, **x.weights), code.features(x.k, **x.weights)


def finished(loop: InnerLoop, x: Chunks, made: Tensor, final: Tensor) -> Outputs:
    """Outputs and weights, of what the last layer makes for each token and its final weight."""
    outputs = torch_loop(loop).outputs(x.q, made, **x.weights)
    return x.whole(outputs, x.weights | {loop.net.last.name: final})


def scores(loop: InnerLoop, x: Chunks, queries: Tensor, keys: Tensor, after: Tensor) -> Tensor:
    """`(Φ(Q) Φ(K)ᵀ) ⊙ C`, `[B, H, N·L, N·L]`, the rates per token included."""
    length = keys.shape[3]
    weights = sign(loop) * read(loop, after)
    each = weights.repeat_interleave(length, dim=2).repeat_interleave(length, dim=3)
    each = each.tril() if loop.schedule.read == "causal" else each
    rows = x.rows[loop.net.last.name].flatten(2, 3)
    return (queries.flatten(2, 3) @ keys.flatten(2, 3).mT) * each * rows.mT


def attention(loop: InnerLoop, q: Tensor, k: Tensor, weights: Weights, rate: Rates,
              momentum: Number | None) -> Tensor:  # fmt: skip
    """`(Φ(Q) Φ(K)ᵀ) ⊙ C`, `[B, H, T, T]`: what multiplies v̂ of each token.

    v̂ is minus the gradient (plus, for ascent) in what the last layer makes, times the gates of
    its chunk if it is clipped. A convolution has a matrix for each channel: `[B, H·V, T, T]`.
    """
    tokens, like = q.shape[1], q.new_zeros(*q.shape[:3], weights[loop.net.last.name].shape[-1])
    x = chunks(loop, q, k, like, weights, rate, momentum)
    return scores(loop, x, *features(loop, x), masks(loop, x)[0])[..., :tokens, :tokens]


def masked(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Rates,
           momentum: Number | None) -> Outputs:  # fmt: skip
    """`O = Φ(Q) W_0 + ((Φ(Q) Φ(K)ᵀ) ⊙ C) V̂`, for values that do not depend on the state."""
    x = chunks(loop, q, k, v, weights, rate, momentum)
    first, (after, _) = x.weights[loop.net.last.name], masks(loop, x)
    queries, keys = features(loop, x)
    values, gradients, gates = given(loop, x, keys)
    stored = sign(loop) * gates * values
    past = scores(loop, x, queries, keys, after) @ stored.flatten(2, 3)
    final = first + combined(after[:, :, -1:], gates * gradients)
    return finished(loop, x, queries @ first + past.unflatten(2, stored.shape[2:4]), final)


def composed(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Rates,
             momentum: Number | None) -> Outputs:  # fmt: skip
    """A scan, a map on each chunk, a scan: an operator on accumulators that data alone make.

    The accumulators of all chunks are masked sums of their gradients; the operator takes them as
    one batch; what it makes moves the state, whose prefix sums are what each chunk is read with.
    Source: Appendix E of arXiv 2602.21204, with the operator where the update has it.
    """
    code, x = torch_loop(loop), chunks(loop, q, k, v, weights, rate, momentum)
    first, (_, held) = x.weights[loop.net.last.name], masks(loop, x)
    queries, keys = features(loop, x)
    _, gradients, gates = given(loop, x, keys)
    steps, each = code.orthogonal(combined(held, gates * gradients)), loop.schedule.steps
    moves = torch.zeros_like(gradients)
    for s in range(each):
        moves = code.move(moves, steps[:, :, s::each], 1, x.eta, None)
    states = torch.cat([first, first + moves.cumsum(2)], dim=2)
    return finished(loop, x, queries @ read(loop, states), states[:, :, -1:])


def scanned(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Rates,
            momentum: Number | None) -> Outputs:  # fmt: skip
    """A scan of affine maps on (momentum, state), for values that are affine in the state.

    Gates on the outputs make the map another one for each column: columns are then heads.
    """
    gated = loop.net.gate is not None
    code, x = torch_loop(loop), chunks(loop, q, k, v, weights, rate, momentum, apart=gated)
    first, rows = x.weights[loop.net.last.name], x.rows[loop.net.last.name]
    queries, keys = features(loop, x)
    width = first.shape[-2]

    def values(made: Tensor, v: Tensor) -> Tensor:
        outputs = code.outputs(x.k, made, **x.weights)
        return code.values(x.k, code.cotangent(outputs, v), **x.weights)

    zero = torch.zeros_like(x.v[..., :1])
    slope = values(zero + 1, zero) - values(zero, zero)  # values are slope·(φ(k) W) + constant
    constant = values(torch.zeros_like(x.v), x.v)
    turn, shift = keys.mT @ (rows * slope * keys), keys.mT @ (rows * constant)
    # M and W after a chunk, as they depend on M, W and 1 before it: D, D and V columns.
    none, one = torch.zeros_like(turn), torch.eye(width, dtype=q.dtype, device=q.device)
    m, w = (torch.cat([*y, torch.zeros_like(shift)], dim=-1)
            for y in ((none + one, none), (none, none + one)))  # fmt: skip
    source = torch.cat([none, none, shift], dim=-1)
    for _ in range(loop.schedule.steps):
        w, m = linear(code, x, turn @ w + source, w, m)
    a, b = scan(*torch.cat([m, w], dim=-2).split([2 * width, first.shape[-1]], dim=-1))
    start = torch.cat([torch.zeros_like(first), first], dim=-2)
    states = torch.cat([start, a @ start + b], dim=2)
    if loop.schedule.read == "causal":
        past_m, past = states[:, :, :-1].split(width, dim=-2)
        idle, _ = linear(code, x, torch.zeros_like(past), past, past_m)
        nought = zero[:, :, :, :1]
        fresh, _ = linear(code, x, nought + 1, nought, nought)  # what a gradient weighs at once
        stored = rows * (slope * (keys @ past) + constant)
        made = queries @ idle + fresh * ((queries @ keys.mT).tril() @ stored)
    else:
        made = queries @ read(loop, states)[..., width:, :]
    return finished(loop, x, made, states[:, :, -1:, width:])


def scan(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """All prefixes of the maps `x ↦ a_n x + b_n` along dimension 2, in log2(N) rounds."""
    reach = 1
    while reach < a.shape[2]:
        later, earlier = a[:, :, reach:], a[:, :, :-reach]
        b = torch.cat([b[:, :, :reach], later @ b[:, :, :-reach] + b[:, :, reach:]], dim=2)
        a = torch.cat([a[:, :, :reach], later @ earlier], dim=2)
        reach *= 2
    return a, b
