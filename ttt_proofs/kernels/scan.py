"""The operator that additive, decayed and momentum attention share, with its gradients.

Where heads and blocks of columns do not fill the device, time is cut into segments. One launch
makes each segment's states from zero, a short scan over segments
`(W, M) <- (W + weight M + W_local, product M + M_local)` gives the states that each starts with,
and the same kernel then runs on all segments at once; likewise in reverse for the gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..parallel.once import once
from .empty import untouched
from .launches import Call, Gates, States, segments_for, tiling
from .requirements import MAX_WIDTH


def combine(local: States, ends: Tensor, first: States, segments: int, *, reverse: bool) -> States:
    """The states that each segment starts with, `[B H S, K, V]`, from the first one's on.

    local: what each makes of zero, `[B H S, K, V]`; ends: its product and weight, `[2, B H S]`;
    first: `[B, H, K, V]`. In reverse, the derivatives after each segment, from the last one's back.
    """
    product, weight = ends.view(2, -1, segments, 1, 1).unbind()
    split = [None if x is None else x.unflatten(0, (-1, segments)) for x in local]
    starts = [None if x is None else torch.empty_like(x) for x in split]
    now = [
        None if x is None else torch.zeros_like(x[:, 0]) if y is None else y.flatten(0, 1)
        for x, y in zip(split, first, strict=True)
    ]
    order = range(segments)
    for s in reversed(order) if reverse else order:
        for kept, x in zip(starts, now, strict=True):
            if kept is not None and x is not None:
                kept[:, s] = x
        w, m = now
        moved = [None if x is None else x[:, s] for x in split]
        if m is not None and moved[1] is not None:
            now[1] = product[:, s] * m + moved[1]
            if w is not None and moved[0] is not None:
                now[0] = w + moved[0]
                n = int(reverse)  # W takes in M; in reverse, M's derivative takes in W's
                now[n] = now[n] + weight[:, s] * (w if reverse else m)  # type: ignore[operator]
    return States(*(None if x is None else x.flatten(0, 1) for x in starts))


@once("`linear_attention` or `momentum_attention`")
class Scan(torch.autograd.Function):
    """`(o, W, M)` of q, k, v, eta, alpha and the initial W, M; final states None if not asked for.

    Tensors are contiguous, with at least one token and head; values fit into one block.
    """

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        final: bool,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        eta: Tensor | None,
        alpha: Tensor | None,
        w: Tensor | None,
        m: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the forward kernel; keep its inputs and the states that segments start with."""
        call, starts, ends = call._replace(gates=Gates(eta, alpha)), States(w, m), None
        if call.segments > 1:
            local, ends = call.local_states(k, v)
            starts = combine(local, ends, starts, call.segments, reverse=False)
        o, last, _ = call.forward(q, k, v, starts, final=final)
        ctx.call = call._replace(gates=Gates())
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, eta, alpha, *starts, ends)
        return o, last.w, last.m

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        """Run the forward kernel for q, and the reverse kernel for k and for v."""
        q, k, v, eta, alpha, w, m, ends = ctx.saved_tensors
        call, starts = ctx.call._replace(gates=Gates(eta, alpha)), States(w, m)
        for_q, for_k, for_v, *rest = ctx.needs_input_grad[2:]
        numbers, states = any(rest[:2]), any(rest[2:])
        do, *last = (None if x is None else x.contiguous() for x in grads)
        do, after = torch.zeros_like(v) if do is None else do, States(*last)
        dq = dk = dv = kept = None
        of_gates, of_states = Gates(), States()
        if for_q or numbers:
            tile = tiling(call.mode, k.dtype, v.shape[3], k.shape[3], reverse=True).tokens
            dq, _, kept = call.forward(
                do, v, k, starts, transposed=True, tile=tile if numbers else 0
            )
        if call.segments > 1 and (for_k or for_v or numbers or states):
            after = combine(call.local_answers(q, do), ends, after, call.segments, reverse=True)
        if for_v or states:
            dv, of_states, _ = call.reverse(k, q, do, after, initial=states)
        if for_k or numbers:
            dk, _, parts = call.reverse(v, do, q, after, u=k, kept=kept, transposed=True)
            of_gates = Gates() if parts is None else call.numbers(q, k, v, do, *parts)
        each = (dq, dk, dv, *of_gates, *of_states)
        needed = zip(each, ctx.needs_input_grad[2:], strict=True)
        return None, None, *(x if need else None for x, need in needed)


def attention(
    mode: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Gates,
    initial: States,
    *,
    scale: float,
    final: bool,
    exclusive: bool,
    segments: int | None,
) -> tuple[Tensor, States]:
    """Outputs and final states of checked inputs; values wider than a block go in parts.

    Columns of v are independent of one another: parts share q, k and the numbers, whose
    gradients autograd adds up.
    """
    if v.shape[3] > MAX_WIDTH:
        parts = []
        for cut in range(0, v.shape[3], MAX_WIDTH):
            columns = (..., slice(cut, cut + MAX_WIDTH))
            first = States(*(None if x is None else x[columns] for x in initial))
            parts.append(
                attention(
                    mode,
                    q,
                    k,
                    v[columns],
                    gates,
                    first,
                    scale=scale,
                    final=final,
                    exclusive=exclusive,
                    segments=segments,
                )
            )
        ends = zip(*(states for _, states in parts), strict=True)
        last = States(*(None if x[0] is None else torch.cat(x, dim=-1) for x in ends))
        return torch.cat([o for o, _ in parts], dim=-1), last
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    first = [None if x is None else x.contiguous() for x in initial]
    if q.numel() == 0:
        o, last = untouched(q, k, v, gates, first)
        return o, States(*last)
    call = Call(mode, scale, int(exclusive), segments or segments_for(k, v, mode), Gates())
    o, w, m = Scan.apply(call, final, q, k, v, *gates, *first)  # type: ignore[misc]
    return o, States(w, m)
