"""The loop as a recurrence, as masked attention, and as a scan of affine maps.

Layout as in flash-linear-attention: q, k `[B, T, H, K]`, v `[B, T, H, V]`, weights
`[H, rows, cols]`, rates and momenta a number or `[B, N, H]` with one entry per step, of which
there are N = ceil(T / chunk). Inside, heads come before time: `[B, H, T, K]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..symbolic.linear_attention import sign
from ..symbolic.torch_code import torch_loop
from .inputs import Number, Outputs, Weights


def heads_first(x: Tensor) -> Tensor:
    """`[B, T, H, D]` as `[B, H, T, D]`, and back."""
    return x.transpose(1, 2)


def per_step(number: Number | None, steps: int) -> list[Number]:
    """The number at each step, shaped to multiply `[B, H, rows, cols]`; 0 where there is none."""
    if number is None:
        return [0.0] * steps
    if not isinstance(number, Tensor) or number.ndim == 0:
        return [number] * steps
    return list(number.permute(1, 0, 2)[..., None, None])


def started(weights: Weights, batch: int) -> dict[str, Tensor]:
    """Each weight once for each sequence: `[B, H, rows, cols]`."""
    return {name: w.expand(batch, *w.shape) for name, w in weights.items()}


def recurrent(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Number,
              momentum: Number | None) -> Outputs:  # fmt: skip
    """One chunk after the other, with the derived gradients; outputs and final weights."""
    code, chunk = torch_loop(loop), loop.schedule.chunk
    q, k, v = map(heads_first, (q, k, v))
    now = started(weights, q.shape[0])
    held = {w.name: torch.zeros_like(now[w.name]) for w in loop.trained}
    last, read_first = loop.net.last.name, loop.schedule.read == "before_update"
    pieces = [x.split(chunk, dim=2) if x.shape[2] else () for x in (q, k, v)]
    steps = len(pieces[0])
    outputs = []
    for q_n, k_n, v_n, eta, alpha in zip(
        *pieces, per_step(rate, steps), per_step(momentum, steps), strict=True
    ):
        before = now
        outputs_of_keys = code.features(k_n, **now) @ now[last]
        gradients = code.gradients(k_n, code.cotangent(outputs_of_keys, v_n), **now)
        moved = {name: code.update(g, now[name], held[name], eta, alpha)
                 for name, g in gradients.items()}  # fmt: skip
        now = now | {name: w for name, (w, _) in moved.items()}
        held = {name: m for name, (_, m) in moved.items()}
        seen = before if read_first else now
        outputs.append(code.features(q_n, **seen) @ seen[last])
    empty = q.new_zeros(*q.shape[:3], weights[last].shape[-1])
    return heads_first(torch.cat(outputs, dim=2) if outputs else empty), now


def mask(
    loop: InnerLoop, steps: int, like: Tensor, rate: Number, momentum: Number | None
) -> Tensor:
    """`C[.., n, i]`: what the gradient of step i weighs in W after step n, `[B, H, N, N]`.

    The update rule itself, run on unit gradients: nothing is divided, so zeros are harmless.
    """
    code = torch_loop(loop)
    batch, heads = like.shape[:2]
    w = m = like.new_zeros(batch, heads, 1, steps)
    rows = []
    for n, (eta, alpha) in enumerate(
        zip(per_step(rate, steps), per_step(momentum, steps), strict=True)
    ):
        unit = like.new_zeros(1, 1, 1, steps)
        unit[..., n] = 1
        w, m = code.update(unit, w, m, eta, alpha)
        rows.append(w)
    return torch.cat(rows, dim=2) if rows else like.new_zeros(batch, heads, 0, 0)


def read(loop: InnerLoop, first: Tensor, after: Tensor) -> Tensor:
    """What each step's chunk is read with, of what holds `after` it; `first` holds before all."""
    if loop.schedule.read == "after_update":
        return after
    return torch.cat([first, after[:, :, :-1]], dim=2)


def weighted(
    loop: InnerLoop, q: Tensor, k: Tensor, weights: Weights, rate: Number, momentum: Number | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """φ(q), φ(k), the attention matrix A, and what v̂ of each token weighs in the final state."""
    code, chunk, tokens = torch_loop(loop), loop.schedule.chunk, q.shape[1]
    now = started(weights, q.shape[0])
    queries, keys = (code.features(heads_first(x), **now) for x in (q, k))
    after = sign(loop) * mask(loop, -(-tokens // chunk), queries, rate, momentum)
    rows = read(loop, torch.zeros_like(after[:, :, :1]), after)
    each = rows.repeat_interleave(chunk, dim=2).repeat_interleave(chunk, dim=3)
    kept = after[:, :, -1:].repeat_interleave(chunk, dim=3)[..., :tokens]
    return queries, keys, (queries @ keys.mT) * each[..., :tokens, :tokens], kept


def attention(loop: InnerLoop, q: Tensor, k: Tensor, weights: Weights, rate: Number,
              momentum: Number | None) -> Tensor:  # fmt: skip
    """`(Φ(Q) Φ(K)ᵀ) ⊙ C`, `[B, H, T, T]`: what multiplies v̂ of each token."""
    return weighted(loop, q, k, weights, rate, momentum)[2]


def masked(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Number,
           momentum: Number | None) -> Outputs:  # fmt: skip
    """`O = Φ(Q) W_0 + ((Φ(Q) Φ(K)ᵀ) ⊙ C) V̂`, for values that do not depend on the state."""
    now, v = started(weights, q.shape[0]), heads_first(v)
    first = now[loop.net.last.name]
    queries, keys, scores, kept = weighted(loop, q, k, weights, rate, momentum)
    stored = sign(loop) * torch_loop(loop).cotangent(torch.zeros_like(v), v)  # v̂
    outputs = queries @ first + scores @ stored
    final = first + (keys * kept.mT).mT @ stored if q.shape[1] else first
    return heads_first(outputs), now | {loop.net.last.name: final}


def scanned(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Number,
            momentum: Number | None) -> Outputs:  # fmt: skip
    """A scan of affine maps on (momentum, state), for values that are affine in the state."""
    code, chunk = torch_loop(loop), loop.schedule.chunk
    q, k, v = map(heads_first, (q, k, v))
    now, tokens = started(weights, q.shape[0]), q.shape[2]
    first = now[loop.net.last.name]
    if not tokens:
        return heads_first(torch.zeros_like(v)), now
    keys, width = code.features(k, **now), first.shape[-2]
    zero = torch.zeros_like(v[..., :1, :1])
    slope = code.cotangent(zero + 1, zero) - code.cotangent(zero, zero)  # dF is slope·F + const
    constant = code.cotangent(torch.zeros_like(v), v)
    eye = torch.eye(width, dtype=q.dtype, device=q.device)
    blank = torch.zeros_like(eye)
    m_part, w_part = torch.cat([eye, blank], dim=1), torch.cat([blank, eye], dim=1)
    steps = -(-tokens // chunk)
    maps, shifts = [], []
    for f, c, eta, alpha in zip(
        keys.split(chunk, dim=2), constant.split(chunk, dim=2),
        per_step(rate, steps), per_step(momentum, steps), strict=True,
    ):  # fmt: skip
        w, m = code.update(slope * (f.mT @ f) @ w_part, w_part, m_part, eta, alpha)
        maps.append(torch.cat(torch.broadcast_tensors(m, w), dim=-2))
        w, m = code.update(f.mT @ c, torch.zeros_like(first), torch.zeros_like(first), eta, alpha)
        shifts.append(torch.cat(torch.broadcast_tensors(m, w), dim=-2))
    a, b = scan(torch.stack(maps, dim=2), torch.stack(shifts, dim=2))
    start = torch.cat([torch.zeros_like(first), first], dim=-2)[:, :, None]
    after = (a @ start + b)[..., width:, :]
    seen = read(loop, first[:, :, None], after)
    each = seen.repeat_interleave(chunk, dim=2)[:, :, :tokens]
    outputs = (code.features(q, **now)[..., None, :] @ each)[..., 0, :]
    return heads_first(outputs), now | {loop.net.last.name: after[:, :, -1]}


def scan(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """All prefixes of the maps `x ↦ a_n x + b_n` along dimension 2, in log2(N) rounds."""
    reach = 1
    while reach < a.shape[2]:
        later, earlier = a[:, :, reach:], a[:, :, :-reach]
        b = torch.cat([b[:, :, :reach], later @ b[:, :, :-reach] + b[:, :, reach:]], dim=2)
        a = torch.cat([a[:, :, :reach], later @ earlier], dim=2)
        reach *= 2
    return a, b
