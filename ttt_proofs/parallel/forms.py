"""The loop as a recurrence, tile by tile, by a scan, or composed; and its attention matrix.

Inputs as in flash-linear-attention: q, k `[B, T, H, K]`, v `[B, T, H, V]`, weights
`[H, rows, cols]`. A rate or momentum is None where the loop has none, a number where it is
constant, `[B, N, H]` per step, of which there are N = ceil(T / chunk), and `[B, T, H]` per token:
for the rate, one such tensor for each trained weight, by name. Of a depthwise convolution q, k
and v have their channels last. All forms start from `initial_state` if there is one, return
outputs `[B, T, H, V]` in the dtype of v and the `State`, and differentiate in every tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..symbolic.linear_attention import sign
from ..symbolic.torch_code import torch_loop
from .calls import form
from .chunks import Chunks, Outputs, at, chunks
from .gates import coefficients
from .inputs import Number, Rates, Weights, wide
from .maps import Along, fold
from .pieces import Piece
from .state import State
from .tiles import (
    TILE,
    Features,
    constant_values,
    is_affine,
    leaving,
    numbers,
    seen,
    tiled,
    tiles,
    weighed,
)
from .tiles import features as featured

CACHED = 2**19  # numbers of a tensor in a segment: 2 MiB in float32, which allocators keep


@form
def recurrent(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    rate: Rates,
    momentum: Number | None,
    initial_state: State | None = None,
) -> Outputs:
    """One chunk after the other, with the derived gradients, for every loop that can run.

    Readings have a dimension of their own, after the heads: a chunk has as many gradients and
    states as it is read with, one for all its tokens, or for a causal reading one for each.
    Tokens shorter than float32 are computed with in float32.
    """
    dtype = v.dtype
    q, k, v, *others = (x.to(wide(dtype)) for x in (q, k, v, *weights.values()))
    first = dict(zip(weights, others, strict=True))
    code, x = torch_loop(loop), chunks(loop, q, k, v, first, rate, momentum, initial_state)
    last, schedule = loop.net.last.name, loop.schedule
    causal = schedule.read == "causal"
    now = x.weights | x.now
    held = {name: x.held.get(name, torch.zeros_like(w)) for name, w in x.now.items()}
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
            moved = {
                name: code.update(g, now[name], held[name], eta, alpha, x.weights[name])
                for name, g in gradients.items()
            }
            now = now | {name: w for name, (w, _) in moved.items()}
            held = {name: m for name, (_, m) in moved.items()}
        state = before if schedule.read == "before_update" else now
        q_n = q_n.transpose(2, 3) if causal else q_n  # [B, H, readings, tokens of each, K]
        made = code.outputs(q_n, code.features(q_n, **state) @ state[last], **state)
        outputs.append(made.transpose(2, 3) if causal else made)
        if causal:  # the last reading has seen all of the chunk
            now, held = ({name: y[:, :, -1:] for name, y in all_.items()} for all_ in (now, held))
    found, state = x.whole(torch.cat(outputs, dim=2), now, {name: held[name] for name in x.held})
    return found.to(dtype), state


@form
def chunked(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    rate: Rates,
    momentum: Number | None,
    initial_state: State | None = None,
    *,
    tile: int = TILE,
    along: Along = fold,
    features: Features | None = None,
) -> Outputs:
    """Masked attention in tiles of about `tile` tokens, and states carried from tile to tile.

    For the classes additive, gated and affine: memory and time linear in T, and all but the
    passage from tile to tile in large products. `along` combines the tiles' maps: `maps.fold` one
    after the other, `maps.scanned` by a parallel scan. `features` makes the features in place of
    the derived code (`tiles.features`). On a CPU, long sequences go in segments that fit into its
    cache. One tile for all is the matrix form
    `O = Φ(Q) W_0 + ((Φ(Q) Φ(K)ᵀ) ⊙ C) V̂` of Section 6.2.
    """
    size = segment(loop, k, v, tile)
    if along is fold and k.shape[1] > size:
        return in_segments(
            size,
            loop,
            Piece(q, k, v, rate, momentum),
            weights,
            initial_state,
            tile=tile,
            features=features,
        )
    gated = loop.net.gate is not None and is_affine(loop)  # another map for each column
    x = chunks(loop, q, k, v, weights, rate, momentum, initial_state, apart=gated)
    name, t = loop.net.last.name, tiles(loop, x, tile, features)
    start = torch.cat([*x.held.values(), x.now[name]], dim=2)  # [B, H, m, D, V]
    a, b = t.maps()
    before, final = along(a, b, start.reshape(*b.shape[:2], *b.shape[3:]))
    final = final.reshape(start.shape)
    before = before.reshape(*b.shape[:3], *final.flatten(2, 3).shape[2:])  # [B, H, N', m·D, V]
    if t.leaves:  # read after the only step of a tile
        before = torch.cat([before, final.flatten(2, 3)[:, :, None]], dim=2)[:, :, 1:]
    made = t.read(before)
    made = made.flatten(2, 3)[:, :, : x.steps * x.k.shape[3]].unflatten(2, x.k.shape[2:4])
    *held, now = final[:, :, None].unbind(3)
    return finished(loop, x, made, now, held)


def in_segments(
    size: int, loop: InnerLoop, piece: Piece, weights: Weights, state: State | None, **options: Any
) -> Outputs:
    """`chunked` on `size` tokens after the other, each from the state that the last one left."""
    parts = [piece.cut(n, n + size, loop.schedule.chunk) for n in range(0, piece.k.shape[1], size)]
    made = []
    for x in parts:
        made.append(chunked(loop, x.q, x.k, x.v, weights, x.rate, x.momentum, state, **options))
        state = made[-1][1]
    return torch.cat([o for o, _ in made], dim=1), made[-1][1]


def segment(loop: InnerLoop, k: Tensor, v: Tensor, tile: int) -> int:
    """How many tokens to work on at once: on a CPU, as many as its cache holds."""
    if k.device.type != "cpu":
        return k.shape[1]
    unit = max(tile // loop.schedule.chunk, 1) * loop.schedule.chunk
    batch, _, heads, width = k.shape
    return unit * max(1, CACHED // max(1, batch * heads * max(width, v.shape[-1]) * unit))


def finished(loop: InnerLoop, x: Chunks, made: Tensor, now: Tensor, held: list[Tensor]) -> Outputs:
    """Outputs and state, of what the last layer makes for each token, its weight and M."""
    name, outputs = loop.net.last.name, x.each(torch_loop(loop).outputs, x.q, made)
    return x.whole(outputs, {name: now}, dict(zip(x.held, held, strict=True)))


@form
def composed(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    rate: Rates,
    momentum: Number | None,
    initial_state: State | None = None,
    *,
    tile: int = TILE,
    along: Along = fold,
    features: Features | None = None,
) -> Outputs:
    """A scan, a map on each chunk, a scan: an operator on accumulators that data alone make.

    The accumulators of all chunks come from their gradients, tile by tile; the operator takes
    them as one batch; what it makes moves the state, whose prefix sums are what each chunk is
    read with. Memory is that of a state for each chunk.
    Source: Appendix E of arXiv 2602.21204, with the operator where the update has it.
    """
    code, x = torch_loop(loop), chunks(loop, q, k, v, weights, rate, momentum, initial_state)
    name, each = loop.net.last.name, loop.schedule.steps
    queries, keys = featured(loop, x, features)
    rows = x.rows[name]
    gradients = keys.mT @ (rows.to(keys.dtype) * constant_values(loop, x, keys))
    steps = max(1, min(tile // x.k.shape[3], x.steps))
    c = coefficients(loop, numbers(x.eta, steps), numbers(x.alpha, steps), rows, steps)
    given = tiled(gradients, steps).flatten(4).to(rows.dtype)  # [B, H, N', P, D·V]
    accumulated = torch.cat(c.accumulators[1:], dim=-2)
    own = accumulated[..., : -c.entering] @ given
    held = []
    for first in x.held.values():  # where there is one
        after, gate = leaving(c, x.steps, steps, each)
        gates = gate[..., :1, :1].expand(*own.shape[:3], 1, 1)
        before, m = along(gates, after[..., :1].mT @ given, first.flatten(2)[:, :, None])
        held.append(m.reshape(first.shape))
        own = own + accumulated[..., -2:-1] * before
    accumulators = own.flatten(2, 3)[:, :, : x.steps * each].unflatten(3, gradients.shape[3:])
    steps_made = code.orthogonal(accumulators)
    moves = torch.zeros_like(accumulators[:, :, ::each])
    for s in range(each):
        moves = code.move(moves, steps_made[:, :, s::each], 1, x.eta, None)
    moved = moves.cumsum(2)
    one, now = torch.ones_like(moved[:, :, -1:, :1, :1]), x.now[name]
    all_ = moved[:, :, -1:].flatten(3)[..., None, :]
    entering, final = along(one, all_, now.flatten(2)[:, :, None])
    entering = (entering if x.steps else final[:, :, None]).reshape(now.shape)
    states = torch.cat([entering, entering + moved], dim=2)
    read = states[:, :, :-1] if loop.schedule.read == "before_update" else states[:, :, 1:]
    return finished(loop, x, queries @ read.to(queries.dtype), states[:, :, -1:], held)


def parallel(loop: InnerLoop) -> Callable[..., Outputs]:
    """The parallel form of a loop that has one: `composed` with an operator, else `chunked`."""
    return composed if loop.update.orthogonal else chunked


@form
def attention(
    loop: InnerLoop, q: Tensor, k: Tensor, weights: Weights, rate: Rates, momentum: Number | None
) -> Tensor:
    """`(Φ(Q) Φ(K)ᵀ) ⊙ C`, `[B, H, T, T]`: what multiplies v̂ of each token.

    v̂ is minus the gradient (plus, for ascent) in what the last layer makes, times the gates of
    its chunk if it is clipped. A convolution has a matrix for each channel: `[B, H·V, T, T]`.
    """
    tokens, like = q.shape[1], q.new_zeros(*q.shape[:3], weights[loop.net.last.name].shape[-1])
    if not tokens:
        return like.new_zeros(*chunks(loop, q, k, like, weights, rate, momentum).q.shape[:2], 0, 0)
    x = chunks(loop, q, k, like, weights, rate, momentum)
    steps, rows = max(1, x.steps), x.rows[loop.net.last.name].flatten(2, 3)
    c = coefficients(loop, numbers(x.eta, steps), numbers(x.alpha, steps), rows, steps)
    within = weighed(seen(loop, c, steps)[..., : -c.entering], x.k.shape[3], loop)[:, :, 0]
    queries, keys = (y.flatten(2, 3) for y in featured(loop, x))
    scores = (queries @ keys.mT) * (sign(loop) * within * rows.mT).to(queries.dtype)
    return scores[..., :tokens, :tokens]
