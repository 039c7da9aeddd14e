"""The loop as a recurrence, tile by tile, by a scan, or composed; and its attention matrix.

Inputs as in flash-linear-attention: q, k `[B, T, H, K]`, v `[B, T, H, V]`, weights
`[H, rows, cols]`. Coefficients are those that the loop declares, by name: a number where there is
one for the loop, `[B, N, H, *]` per step, of which there are N = ceil(T / chunk), and
`[B, T, H, *]` per token, where * is nothing, or the rows or columns or both that it tells apart. Of
a depthwise convolution q, k and v have their channels last. All forms start from `initial_state`
if there is one, return outputs `[B, T, H, V]` in the dtype of v and the `State`, and differentiate
in every tensor. For the loop they take as well what `torch_loop` has made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..loops import InnerLoop, Recurrence
from ..symbolic.linear_attention import sign
from ..symbolic.plan import TILE, NotParallelError, Plan, plan_of
from ..symbolic.step_loop import StepLoop
from ..symbolic.torch_loop import TorchLoop, Way, torch_loop, way_of
from .calls import form
from .chunks import Chunks, Outputs, by_chunk, chunks
from .inputs import Coefficients, Number, Weights, wide
from .maps import Along, fold
from .pieces import Piece
from .recurrences import by_scans, by_token, must_scan
from .state import State
from .states import states
from .tiles import Features, by_column, columns_apart, columns_joined, numbers, seen, tiles, weighed
from .tiles import features as featured
from .weighing import weighing

Loop = InnerLoop | TorchLoop


CACHED = 2**19  # numbers of a tensor in a segment: 2 MiB in float32, which allocators keep


@form
def recurrent(
    loop: Loop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients | None = None,
    initial_state: State | None = None,
) -> Outputs:
    """One chunk after the other, with the derived gradients, for every loop that can run.

    Readings have a dimension of their own, after the heads: a chunk has as many gradients and
    states as it is read with, one for all its tokens, or for a causal reading, and for updates by
    token, one for each.
    Tokens shorter than float32 are computed with in float32.
    """
    dtype = v.dtype
    q, k, v, *others = (x.to(wide(dtype)) for x in (q, k, v, *weights.values()))
    first = dict(zip(weights, others, strict=True))
    code = torch_loop(loop)
    x = chunks(code, q, k, v, first, coefficients or {}, initial_state)
    schedule = code.schedule
    causal, apart = schedule.read == "causal", schedule.read == "causal" or schedule.by_token
    now, held = x.weights | x.now, x.held
    length = x.k.shape[3] if apart else 1
    each = x.k.new_ones(length, length).tril()[..., None]  # [readings, L, 1]
    each = torch.eye(length).to(each)[..., None] if schedule.by_token else each
    outputs = [x.v[:, :, :0]]
    # Parts that are cut off at once have one gradient; slices would each fill a whole tensor.
    parts = zip(*(y.split(1, dim=2) for y in (x.q, x.k, x.v, *x.rows.values())), strict=True)
    each_given = by_chunk(x.coefficients, x.steps)
    for n, (given, (q_n, k_n, v_n, *rows_n)) in enumerate(zip(each_given, parts, strict=False)):
        rows = dict(zip(x.rows, (row * each for row in rows_n), strict=True))
        before, passed = now, []
        for _ in range(schedule.steps):
            slope = code.cotangent(code.net(k_n, **now), v_n)
            gradients = code.gradients(k_n, slope, rows, **now)
            if schedule.by_token:
                tokens = min(length, x.shape[1] - n * length)
                passed = each_token(code, x, gradients, now, held, given, tokens)
                now, held = passed[-1]
            else:
                now, held = stepped(code, x, gradients, now, held, given.values())
        state = before if schedule.read == "before_update" else now
        if passed:
            shown = passed[:-1] if schedule.read == "before_update" else passed[1:]
            state = joined([w for w, _ in shown], length)
        q_n = q_n.transpose(2, 3) if apart else q_n  # [B, H, readings, tokens of each, K]
        made = code.net(q_n, **state)
        outputs.append(made.transpose(2, 3) if apart else made)
        if causal:  # the last reading has seen all of the chunk
            now, *others = (
                {name: y[:, :, -1:] for name, y in all_.items()} for all_ in (now, *held.values())
            )
            held = dict(zip(held, others, strict=True))
    found, state = x.whole(torch.cat(outputs, dim=2), now, held)
    return found.to(dtype), state


Weighed = dict[str, Tensor]
Held = Mapping[str, Weighed]


def stepped(
    code: TorchLoop, x: Chunks, slopes: Weighed, now: Weighed, held: Held, given: Iterable[Number]
) -> tuple[Weighed, Held]:
    """The weights and buffers after one update of each fast weight, by its gradient."""
    moved = {
        name: code.update(g, now[name], *(m[name] for m in held.values()), *given, x.weights[name])
        for name, g in slopes.items()
    }
    buffers = {m: {n: s[i] for n, s in moved.items()} for i, m in enumerate(held, start=1)}
    return now | {name: w for name, (w, *_) in moved.items()}, buffers


def each_token(
    code: TorchLoop,
    x: Chunks,
    slopes: Weighed,
    now: Weighed,
    held: Held,
    given: Mapping[str, Number],
    tokens: int,
) -> list[tuple[Weighed, Held]]:
    """The weights and buffers before the first token of a chunk, and after each token's update.

    slopes: by weight, a gradient for each token, `[B, H, L, rows, cols]`.
    """
    states = [(now, held)]
    for t in range(tokens):
        own = [y[:, :, :, t] if isinstance(y, Tensor) and y.ndim > 5 else y for y in given.values()]
        here = {name: g[:, :, t : t + 1] for name, g in slopes.items()}
        states.append(stepped(code, x, here, *states[-1], own))
    return states


def joined(states: list[Weighed], length: int) -> Weighed:
    """The states that tokens are read with, side by side; the last again for what is no token."""
    states = states + states[-1:] * (length - len(states))
    same = {name for name, w in states[0].items() if all(s[name] is w for s in states)}
    return {
        name: w if name in same else torch.cat([s[name] for s in states], dim=2)
        for name, w in states[0].items()
    }


@form
def chunked(
    loop: Loop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients | None = None,
    initial_state: State | None = None,
    *,
    tile: int = TILE,
    along: Along = fold,
    features: Features | None = None,
) -> Outputs:
    """Masked attention in tiles of about `tile` tokens, and states carried from tile to tile.

    For the classes additive, gated and affine, where coefficients are of whole weights and gates
    scale the gradient alone; raises `NotParallelError` for other loops. Memory and time are linear
    in T, and all but the passage from tile to tile is in large products. `along` combines the
    tiles' maps: `maps.fold` one after the other, `maps.scanned` by a parallel scan. `features`
    makes the features in place of the derived code (`tiles.features`). On a CPU, long sequences go
    in segments that fit into its cache. One tile for all is the matrix form
    `O = Φ(Q) W_0 + ((Φ(Q) Φ(K)ᵀ) ⊙ C) V̂` of Section 6.2.
    """
    code = torch_loop(loop)
    must_have(code, "masked attention in tiles", code.way == "tiles")
    size = segment(code, k, v, tile)
    if along is fold and k.shape[1] > size:
        whole = Piece(q, k, v, coefficients or {})
        return in_segments(size, code, whole, weights, initial_state, tile=tile, features=features)
    x = chunks(code, q, k, v, weights, coefficients or {}, initial_state)
    name, t = code.last, tiles(code, x, tile, features)
    held = [each[name] for each in x.held.values()]
    start = torch.cat([*held, x.now[name]], dim=2)  # [B, H, m, D, V]
    start = columns_apart(start) if by_column(code) else start
    a, b = t.maps()
    before, final = along(a, b, start.reshape(*b.shape[:2], *b.shape[3:]))
    final = final.reshape(start.shape)
    before = before.reshape(*b.shape[:3], *final.flatten(2, 3).shape[2:])  # [B, H, N', m·D, V]
    if t.leaves:  # read after the only step of a tile
        before = torch.cat([before, final.flatten(2, 3)[:, :, None]], dim=2)[:, :, 1:]
    made = t.read(before)
    made = made.flatten(2, 3)[:, :, : x.steps * x.k.shape[3]].unflatten(2, x.k.shape[2:4])
    if by_column(code):
        made, final = (columns_joined(y, x.v.shape[-1]) for y in (made, final))
    *held, now = final[:, :, None].unbind(3)
    return finished(code, x, made, now, held)


def in_segments(
    size: int, code: TorchLoop, piece: Piece, weights: Weights, state: State | None, **options: Any
) -> Outputs:
    """`chunked` on `size` tokens after the other, each from the state that the last one left."""
    parts = [piece.cut(n, n + size, code) for n in range(0, piece.k.shape[1], size)]
    made = []
    for x in parts:
        made.append(chunked(code, x.q, x.k, x.v, weights, x.coefficients, state, **options))
        state = made[-1][1]
    return torch.cat([o for o, _ in made], dim=1), made[-1][1]


def segment(code: TorchLoop, k: Tensor, v: Tensor, tile: int) -> int:
    """How many tokens to work on at once: on a CPU, as many as its cache holds."""
    if k.device.type != "cpu":
        return k.shape[1]
    chunk = code.schedule.chunk
    unit = max(tile // chunk, 1) * chunk
    batch, _, heads, width = k.shape
    return unit * max(1, CACHED // max(1, batch * heads * max(width, v.shape[-1]) * unit))


def finished(code: TorchLoop, x: Chunks, made: Tensor, now: Tensor, held: list[Tensor]) -> Outputs:
    """Outputs and state, of what the last layer makes for each token, its weight and buffers."""
    outputs = x.each(code.outputs, x.q, made)
    buffers = {name: {code.last: m} for name, m in zip(x.held, held, strict=True)}
    return x.whole(outputs, {code.last: now}, buffers)


@form
def composed(
    loop: Loop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients | None = None,
    initial_state: State | None = None,
    *,
    tile: int = TILE,
    along: Along = fold,
    features: Features | None = None,
) -> Outputs:
    """Scans, and between them maps on each chunk: gates and operators that data alone reach.

    The buffers of all chunks come from their gradients by a scan; an operator takes them as one
    batch; what it makes moves the state, by another scan. Scans may have another factor for each
    row, column or entry. Memory is that of a state for each chunk, and for each token if chunks
    of several are read causally.
    Source: Appendix E of arXiv 2602.21204, with the operator where the update has it.
    """
    code = torch_loop(loop)
    must_have(code, "a scan of states", bool(code.stages))
    x = chunks(code, q, k, v, weights, coefficients or {}, initial_state)
    queries, keys = featured(code, x, features)
    made, last = states(code, x, queries, keys, tile, along)
    return finished(code, x, made, last["W"], [last[name] for name in x.held])


def planned(loop: Loop) -> tuple[Plan, Way | None, str | None]:
    """The plan, how the loop runs in parallel, and why it does not; of abstract loops as well."""
    if isinstance(loop, TorchLoop):
        return loop.plan, loop.way, loop.refusal
    return plan_of(loop), *way_of(loop)


def must_have(loop: Loop, what: str, there: bool) -> None:
    """Raise `NotParallelError`, with the obstruction, unless the loop has what is asked for."""
    if not there:
        plan, _, refusal = planned(loop)
        why = refusal or f"this loop is {plan.word}: {plan.reason}"
        raise NotParallelError(f"{what} is required; {why}. Use .recurrent.")


def stepwise(loop: Loop | Recurrence | StepLoop) -> Callable[..., Outputs]:
    """What runs a loop one step after the other: `recurrent`, or `by_token` of a recurrence."""
    return by_token if isinstance(loop, Recurrence | StepLoop) else recurrent


def parallel(loop: Loop | Recurrence | StepLoop) -> Callable[..., Outputs]:
    """The parallel form of a loop: `chunked`, or `composed` where a step needs a state of its own.

    That is with operators, with coefficients for rows, columns or entries, and with gates on
    more than the gradient. Of a recurrence it is `by_scans`. Raises `NotParallelError`, with the
    obstruction, where there is none.
    """
    if isinstance(loop, Recurrence | StepLoop):
        must_scan(loop)
        return by_scans
    _, way, _ = planned(loop)
    must_have(loop, "a parallel form", way is not None)
    return composed if way == "states" else chunked


def must_be_attention(loop: Loop) -> None:
    """Raise `NotParallelError` unless a matrix of scores is all that a loop's outputs need."""
    plan, way, _ = planned(loop)
    if plan.word not in ("additive", "gated"):
        raise NotParallelError(
            "an attention matrix needs the additive or the gated class; "
            f"got {plan.word}: {plan.reason}. Use .recurrent."
        )
    if way != "tiles":
        got = f"a coefficient for each {plan.shape}" if plan.shape != "scalar" else "other gates"
        raise NotParallelError(
            "an attention matrix needs coefficients for whole matrices, and gates on the gradient "
            f"alone; got {got}. Use .recurrent."
        )


@form
def attention(
    loop: Loop,
    q: Tensor,
    k: Tensor,
    weights: Weights,
    coefficients: Coefficients | None = None,
) -> Tensor:
    """`(Φ(Q) Φ(K)ᵀ) ⊙ C`, `[B, H, T, T]`: what multiplies v̂ of each token.

    v̂ is minus the gradient (plus, for ascent) in what the last layer makes, times the gates of
    its chunk if it is clipped. A convolution has a matrix for each channel: `[B, H·V, T, T]`.
    Raises `NotParallelError` for loops that have none.
    """
    must_be_attention(loop)
    code = torch_loop(loop)
    tokens, like = q.shape[1], q.new_zeros(*q.shape[:3], weights[code.last].shape[-1])
    x = chunks(code, q, k, like, weights, coefficients or {})
    if not tokens:
        return like.new_zeros(*x.q.shape[:2], 0, 0)
    steps, rows = max(1, x.steps), x.rows[code.last].flatten(2, 3)
    c = weighing(code, numbers(x, steps), rows, steps)
    causal = code.schedule.read == "causal"
    within = weighed(seen(code, c, steps)[..., : -c.entering], x.k.shape[3], causal)[:, :, 0]
    queries, keys = (y.flatten(2, 3) for y in featured(code, x))
    scores = (queries @ keys.mT) * (sign(code.loop) * within * rows.mT).to(queries.dtype)
    return scores[..., :tokens, :tokens]
