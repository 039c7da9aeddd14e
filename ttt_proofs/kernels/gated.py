"""The forward kernel of additive, decayed and momentum attention: one pass, the state in registers.

For a decay `a`, or for a momentum `a` with a rate `e`, with rows as tokens:

    additive   S_t = S_{t-1} + k_t^T v_t                                      o_t = scale q_t S_t
    decay      S_t = a_t S_{t-1} + k_t^T v_t                                  o_t = scale q_t S_t
    momentum   M_t = a_t M_{t-1} + k_t^T v_t,  W_t = W_{t-1} + e_t M_t        o_t = scale q_t W_t

Inside a tile, `D[t, i] = a_{i+1} ... a_t` and `C[t, i] = sum_{j=i..t} e_j D[j, i]` (the mask of
arXiv 2602.21204, Section 6.2, at one token a step) give `o = mu q S + ((q k^T) * D) v` and
`o = q W + c (q M) + ((q k^T) * C) v`, with `mu_t = a_1 ... a_t` and `c_t = sum_{j<=t} e_j mu_j`.
Both are products and sums over a tile: nothing is divided and no logarithm taken, so that 0 and
1 are gates like others at any length.

With SHIFT = 1 token t reads the state before it: what the kernel makes at token t is then stored
for token t + 1, and the first token reads the initial state.

The backward pass for q is this kernel too: `dq_t = scale do_t W_t^T` is the same operator on
`do, v, k` with the transposed states.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiling import (
    decay_columns,
    decay_rows,
    dot,
    load_numbers,
    load_rows,
    load_state,
    narrow,
    scaled_rows,
    store_rows,
    store_state,
)


@triton.jit
def gate_tile(
    eta,
    alpha,
    token,
    start,
    end,
    stride,
    MODE: tl.constexpr,
    TOKENS: tl.constexpr,
    AXIS: tl.constexpr,
):
    """What the gates of a tile make of what enters it and of what its tokens write.

    mask: `D` or `C`, its reading tokens along AXIS. Of each token: reach, what a read of it counts
    of the M that enters; after and last, what its write counts in M and in W at the tile's end. Of
    the tile: whole and weight, what the M that enters counts in M and in W at its end.
    """
    mask, reach, after, last, whole, weight = 1.0, 1.0, 1.0, 0.0, 1.0, 0.0
    if MODE != "additive":
        a = load_numbers(alpha + token, start, start, end, stride, 1.0, TOKENS)
        stop = tl.minimum(end, start + TOKENS)
        after = tl.cumprod(
            load_numbers(alpha + token, start + 1, start, stop, stride, 1.0, TOKENS),
            axis=0,
            reverse=True,
        )
        whole = tl.sum(tl.where(tl.arange(0, TOKENS) == 0, a * after, 0.0), axis=0)
        reach = tl.cumprod(a, axis=0)
        mask = decay_rows(a, TOKENS) if AXIS == 0 else decay_columns(a, TOKENS)
    if MODE == "momentum":
        e = load_numbers(eta + token, start, start, end, stride, 0.0, TOKENS)
        reach *= e
        weight = tl.sum(reach, axis=0)
        reach = tl.cumsum(reach, axis=0)
        mask *= e[:, None] if AXIS == 0 else e[None, :]
        last = tl.sum(mask, axis=AXIS)
        mask = tl.cumsum(mask, axis=AXIS)
    return mask, reach, after, last, whole, weight


@triton.jit
def masked(scores, mask, MODE: tl.constexpr, TOKENS: tl.constexpr, AXIS: tl.constexpr):
    """Scores of reads, along AXIS, with writes, times what the writes count."""
    if MODE == "additive":
        rows, columns = tl.arange(0, TOKENS)[:, None], tl.arange(0, TOKENS)[None, :]
        scores = tl.where(rows >= columns if AXIS == 0 else rows <= columns, scores, 0.0)
    else:
        scores *= mask
    return scores


@triton.jit
def read_tile(q, k, v, w, m, mask, reach, MODE: tl.constexpr, TOKENS: tl.constexpr):
    """`[TOKENS, COLUMNS]`: what the tokens of a tile read, before the scale."""
    scores = dot(q, tl.trans(k), tl.zeros((TOKENS, TOKENS), m.dtype))
    scores = masked(scores, mask, MODE, TOKENS, 0)
    read = dot(q, narrow(m, q.dtype), tl.zeros((TOKENS, m.shape[1]), m.dtype))
    if MODE != "additive":
        read *= reach[:, None]
    if MODE == "momentum":
        read = dot(q, narrow(w, q.dtype), read)
    return dot(narrow(scores, v.dtype), v, read)


@triton.jit
def write_tile(k, v, w, m, after, last, whole, weight, MODE: tl.constexpr):
    """The states after a tile, from those before it."""
    if MODE == "momentum":
        w = dot(tl.trans(k), scaled_rows(v, last), w + weight * m)
    if MODE == "additive":
        m = dot(tl.trans(k), v, m)
    else:
        m = dot(tl.trans(k), scaled_rows(v, after), whole * m)
    return w, m


@triton.jit
def read_first(
    q, o, state, column, segment, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SCALE: tl.constexpr
):
    """The first token's `scale q_0 S`, where reading comes before the update."""
    rows = tl.arange(0, state.shape[0])
    columns = column + tl.arange(0, state.shape[1])
    height, width = tl.where(segment == 0, HEIGHT, 0), tl.where(segment == 0, WIDTH, 0)
    first = tl.load(q + rows, mask=rows < height, other=0.0).to(state.dtype)
    read = tl.sum(first[:, None] * state, axis=0) * SCALE
    tl.store(o + columns, narrow(read, o.dtype.element_ty), mask=columns < width)


@triton.jit
def place(T, H, S, length, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """What this program works on: column, slot, segment, head, first token of the head, range."""
    program = tl.program_id(0).to(tl.int64)
    blocks = (WIDTH + BLOCK - 1) // BLOCK
    column = (program % blocks).to(tl.int32) * BLOCK
    slot = program // blocks
    segment = (slot % S).to(tl.int32)
    head = slot // S
    token = (head // H) * T * H + head % H
    begin = tl.minimum(T, segment * length)
    return column, slot, segment, head, token, begin, tl.minimum(T, begin + length)


@triton.jit
def finish(
    w,
    m,
    w1,
    m1,
    slot,
    head,
    last,
    column,
    READ: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
):
    """Store the last segment's states, or, of a pass that does not read, each segment's."""
    kept = column < V
    if READ:
        slot = head
        kept = last
    if kept:
        if m1 is not None:
            store_state(m1 + slot * K * V, m, column, BK, BV, K, V)
        if w1 is not None:
            store_state(w1 + slot * K * V, w, column, BK, BV, K, V)


@triton.jit(do_not_specialize=["T", "H", "S", "length"])
def forward_kernel(
    q,
    k,
    v,
    eta,
    alpha,
    w0,
    m0,
    o,
    w1,
    m1,
    starts,
    gates,
    T,
    H,
    S,
    length,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
    MODE: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ACC: tl.constexpr,
):
    """One block of columns of one head, over one segment of `length` tokens, a multiple of BT.

    q, k `[B, T, H, K]`, v, o `[B, T, H, V]`, eta, alpha `[B, T, H]` or None; initial states w0,
    m0 `[B H S, K, V]` (or `[.., V, K]` if TRANSPOSED), None for zero. With o: final states w1, m1
    `[B H, K, V]` and, in `starts`, M at each tile's start `[B H, tiles, K, V]`, if not None.
    Without o, q is not read: w1, m1 `[B H S, K, V]` and `gates` `[2, B H S]` are those of each
    segment: the product of a, and the weight that M at its start has in W at its end.
    """
    column, slot, segment, head, token, begin, end = place(T, H, S, length, V, BV)
    w = tl.zeros((BK, BV), ACC)
    m = tl.zeros((BK, BV), ACC)
    if m0 is not None:
        m = load_state(m0 + slot * K * V, column, BK, BV, K, V, TRANSPOSED)
    if w0 is not None:
        w = load_state(w0 + slot * K * V, column, BK, BV, K, V, TRANSPOSED)
    if o is not None and SHIFT:
        read_first(
            q + token * K,
            o + token * V,
            w if MODE == "momentum" else m,
            column,
            segment,
            K,
            V,
            SCALE,
        )
    product = tl.full((), 1.0, ACC)
    weight = tl.full((), 0.0, ACC)
    for start in tl.range(begin, end, BT, disable_licm=True):
        k_tile = load_rows(k + token * K, start, end, H * K, 0, BT, BK, K)
        v_tile = load_rows(v + token * V, start, end, H * V, column, BT, BV, V)
        mask, reach, after, last, whole, moved = gate_tile(
            eta, alpha, token, start, end, H, MODE, BT, 0
        )
        if starts is not None:
            tile = head * ((T + BT - 1) // BT) + start // BT
            store_state(starts + tile * K * V, m, column, BK, BV, K, V)
        if o is not None:
            stop = tl.minimum(T, end + SHIFT)
            q_tile = load_rows(q + token * K, start + SHIFT, stop, H * K, 0, BT, BK, K)
            read = read_tile(q_tile, k_tile, v_tile, w, m, mask, reach, MODE, BT) * SCALE
            store_rows(o + token * V, read, start + SHIFT, stop, H * V, column, BT, BV, V)
        w, m = write_tile(k_tile, v_tile, w, m, after, last, whole, moved, MODE)
        weight += product * moved
        product *= whole
    finish(w, m, w1, m1, slot, head, segment == S - 1, column, o is not None, K, V, BK, BV)
    if gates is not None and column == 0:
        slots = (tl.num_programs(0) // ((V + BV - 1) // BV)).to(tl.int64)
        tl.store(gates + slot, product)
        tl.store(gates + slots + slot, weight)
