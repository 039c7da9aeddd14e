"""Kernels of SwiGLU features, and of additive linear attention that makes them on the way.

The features are `silu(x W0) * (x W2)`, with W0 the gate and W2 the up weight (arXiv 2602.21204,
Section 5.3, Appendix E). All arithmetic between loads and stores is float32, or float64 for
float64 inputs; features are rounded to the inputs' dtype before they are multiplied.

`attend_kernel` keeps the state transposed, `[V, D]`, and makes phi(q) transposed from the swapped
product. Then no result of a product is transposed for another one:

    scores^T = phi(k) phi(q)^T,  o^T = S^T phi(q)^T + v^T scores^T,  S^T <- S^T + v^T phi(k),

because `tl.dot(tl.trans(acc), ...)` gives wrong results on Hopper in Triton 3.4 to 3.7. It also
leaves the state in registers as the left operand, and only what a tile makes goes to shared
memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiling import dot, load_rows, load_state, narrow, store_rows, store_state


@triton.jit
def bounded(gate):
    """The gate, at least -65504, where its sigmoid has long been 0.

    A gate below float16's least number is stored as minus infinity; so its silu is 0, not NaN.
    """
    return tl.maximum(gate, -65504.0)


@triton.jit
def gated(gate, up):
    """`silu(gate) * up`."""
    return bounded(gate) * tl.sigmoid(gate) * up


@triton.jit(do_not_specialize=["N"])
def gated_kernel(
    projected,
    features,
    N,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Features `[N, D]` of projections `[N, 2 D]`, gate before up. One program for one tile."""
    blocks = tl.cdiv(D, COLUMNS)
    first = (tl.program_id(0) // blocks).to(tl.int64) * ROWS
    column = tl.program_id(0) % blocks * COLUMNS
    gate = load_rows(projected, first, N, 2 * D, column, ROWS, COLUMNS, D).to(ACC)
    up = load_rows(projected + D, first, N, 2 * D, column, ROWS, COLUMNS, D).to(ACC)
    store_rows(features, gated(gate, up), first, N, D, column, ROWS, COLUMNS, D)


@triton.jit(do_not_specialize=["N"])
def gated_gradient_kernel(
    projected,
    dfeatures,
    dprojected,
    N,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradients `[N, 2 D]` in the projections; one program for one tile.

    With s = sigmoid(gate), silu(gate) = gate s has the derivative s (1 + gate (1 - s)).
    """
    blocks = tl.cdiv(D, COLUMNS)
    first = (tl.program_id(0) // blocks).to(tl.int64) * ROWS
    column = tl.program_id(0) % blocks * COLUMNS
    gate = load_rows(projected, first, N, 2 * D, column, ROWS, COLUMNS, D).to(ACC)
    up = load_rows(projected + D, first, N, 2 * D, column, ROWS, COLUMNS, D).to(ACC)
    outer = load_rows(dfeatures, first, N, D, column, ROWS, COLUMNS, D).to(ACC)
    s = tl.sigmoid(gate)
    gate = bounded(gate)
    dgate = outer * up * s * (1.0 + gate * (1.0 - s))
    store_rows(dprojected, dgate, first, N, 2 * D, column, ROWS, COLUMNS, D)
    store_rows(dprojected + D, outer * gate * s, first, N, 2 * D, column, ROWS, COLUMNS, D)


@triton.jit(do_not_specialize=["T", "H", "S", "length"])
def attend_kernel(
    q,
    k,
    v,
    gate,
    up,
    initial,
    o,
    final,
    T,
    H,
    S,
    length,
    scale,
    K: tl.constexpr,
    D: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    ACC: tl.constexpr,
):
    """One block of columns of one head, over one segment of `length` tokens, a multiple of BT.

    q, k `[B, T, H, K]`, v, o `[B, T, H, V]`, gate, up `[H, K, D]`; initial states
    `[B H S, D, V]`, None for zero. With o, final states `[B H, D, V]`, if not None, are those
    after the last segment; without o, q is not read and they are `[B H S, D, V]`, of each one.
    """
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(V, BV)
    column = (program % blocks).to(tl.int32) * BV
    slot = program // blocks
    segment = (slot % S).to(tl.int32)
    head = slot // S
    token = head // H * T * H + head % H
    begin = segment * length
    end = tl.minimum(T, begin + length)
    weights = head % H * K * D
    w_gate = load_rows(gate + weights, 0, K, D, 0, BK, BD, D)
    w_up = load_rows(up + weights, 0, K, D, 0, BK, BD, D)
    state = tl.zeros((BV, BD), ACC)
    if initial is not None:
        state = tl.trans(load_state(initial + slot * D * V, column, BD, BV, D, V, False))
    rows = tl.zeros((BT, BD), ACC)
    columns = tl.zeros((BD, BT), ACC)
    i, t = tl.arange(0, BT)[:, None], tl.arange(0, BT)[None, :]
    for start in range(begin, end, BT):
        keys = load_rows(k + token * K, start, end, H * K, 0, BT, BK, K)
        values = tl.trans(load_rows(v + token * V, start, end, H * V, column, BT, BV, V))
        phi_k = narrow(gated(dot(keys, w_gate, rows), dot(keys, w_up, rows)), keys.dtype)
        if o is not None:
            queries = tl.trans(load_rows(q + token * K, start, end, H * K, 0, BT, BK, K))
            phi_q = narrow(
                gated(
                    dot(tl.trans(w_gate), queries, columns), dot(tl.trans(w_up), queries, columns)
                ),
                keys.dtype,
            )
            scores = dot(phi_k, phi_q, tl.zeros((BT, BT), ACC))
            scores = tl.where(t > i if EXCLUSIVE else t >= i, scores, 0.0)
            read = dot(narrow(state, keys.dtype), phi_q, tl.zeros((BV, BT), ACC))
            read = dot(values, narrow(scores, keys.dtype), read) * scale
            store_rows(o + token * V, tl.trans(read), start, end, H * V, column, BT, BV, V)
        state = dot(values, phi_k, state)
    if final is not None:
        found = tl.trans(state)
        if o is None:
            store_state(final + slot * D * V, found, column, BD, BV, D, V)
        elif segment == S - 1:
            store_state(final + head * D * V, found, column, BD, BV, D, V)
