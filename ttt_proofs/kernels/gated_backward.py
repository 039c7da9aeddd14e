"""The reverse kernel of additive, decayed and momentum attention: later tiles before earlier ones.

Let What and Mhat be the derivatives in W and M after token t by all that reads later (for additive
and decayed attention, M is the state and there is no W). With reads `scale q_s W_s` answered by
`do_s`, and `D`, `C` of `gated`, inside a tile and with What, Mhat at its end,

    dL/dM_i = scale sum_{s>=i} C[s, i] q_s^T do_s + b_i Mhat + c'_i What
    dv_i = k_i dL/dM_i,    dk_i = dL/dM_i v_i
    b_i = D[end, i],    c'_i = C[end, i]

so that dv is a scan of `x, y, z = k, q, do`, and dk the same scan of `v, do, q`, whose state is
transposed: one kernel makes both, `r_i = x_i dL/dM_i`, and no state is ever transposed.

The gradients of the numbers need, besides what `gated_numbers` makes of each tile alone, the parts
that states have in them: with M0 the state M at a tile's start and u_i the row that r_i is the
derivative of, `y_s M0 z_s`, `x_i Mhat u_i` and `x_i What u_i` of each token, and `<Mhat, M0>` and
`<What, M0>` of each tile. Blocks of columns store theirs side by side, to be added up after.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gated import finish, gate_tile, masked, place
from .tiling import (
    dot,
    load_rows,
    load_state,
    narrow,
    scaled_rows,
    store_numbers,
    store_rows,
)


@triton.jit
def accumulate(y, z, w, m, reach, whole, weight, MODE: tl.constexpr):
    """What and Mhat before a tile, from those after it."""
    if MODE == "additive":
        m = dot(tl.trans(y), z, m)
    elif MODE == "decay":
        m = dot(tl.trans(y), scaled_rows(z, reach), whole * m)
    else:
        m = dot(tl.trans(y), scaled_rows(z, reach), whole * m + weight * w)
        w = dot(tl.trans(y), z, w)
    return w, m


@triton.jit
def answer_tile(x, y, z, u, w, m, mask, after, last, MODE: tl.constexpr, TOKENS: tl.constexpr):
    """`r [TOKENS, COLUMNS]` of a tile, and this block's part of x What u and x Mhat u."""
    from_m = dot(x, narrow(m, x.dtype), tl.zeros((TOKENS, m.shape[1]), m.dtype))
    x_m_u = tl.sum(from_m * u.to(m.dtype), axis=1)
    x_w_u = x_m_u
    r = from_m if MODE == "additive" else after[:, None] * from_m
    if MODE == "momentum":
        from_w = dot(x, narrow(w, x.dtype), tl.zeros_like(from_m))
        x_w_u = tl.sum(from_w * u.to(m.dtype), axis=1)
        r += last[:, None] * from_w
    scores = dot(x, tl.trans(y), tl.zeros((TOKENS, TOKENS), m.dtype))
    scores = masked(scores, mask, MODE, TOKENS, 1)
    return dot(narrow(scores, z.dtype), z, r), x_w_u, x_m_u


@triton.jit
def store_parts(
    parts,
    dots,
    y,
    z,
    w,
    m,
    start,
    x_w_u,
    x_m_u,
    token,
    tile,
    first,
    end,
    H,
    tokens,
    tiles,
    blocks,
    MODE: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Store this block's `y M0 z`, `x Mhat u`, `x What u`; and `<Mhat, M0>`, `<What, M0>`.

    They are planes of `parts` `[2 or 3, B, T, H, blocks]` and of `dots`
    `[1 or 2, B H, tiles, blocks]`; the first two pointers are to this block's first entries.
    """
    reads = dot(y, narrow(start, y.dtype), tl.zeros((TOKENS, m.shape[1]), m.dtype))
    reads = tl.sum(reads * z.to(m.dtype), axis=1)
    parts += token * blocks
    store_numbers(parts, reads, first, end, H * blocks, TOKENS)
    store_numbers(parts + tokens * blocks, x_m_u, first, end, H * blocks, TOKENS)
    start = start.to(m.dtype)
    tl.store(dots + tile * blocks, tl.sum(tl.sum(m * start, axis=1), axis=0))
    if MODE == "momentum":
        store_numbers(parts + 2 * tokens * blocks, x_w_u, first, end, H * blocks, TOKENS)
        tl.store(dots + (tiles + tile) * blocks, tl.sum(tl.sum(w * start, axis=1), axis=0))


@triton.jit
def add_first(y, z, state, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SCALE: tl.constexpr):
    """What the first token's read of the initial state adds to that state's derivative."""
    rows = tl.arange(0, state.shape[0])
    columns = column + tl.arange(0, state.shape[1])
    first = tl.load(y + rows, mask=rows < HEIGHT, other=0.0).to(state.dtype)
    answer = tl.load(z + columns, mask=columns < WIDTH, other=0.0).to(state.dtype)
    return state + first[:, None] * (answer * SCALE)[None, :]


@triton.jit(do_not_specialize=["T", "H", "S", "length"])
def reverse_kernel(
    x,
    y,
    z,
    u,
    eta,
    alpha,
    w0,
    m0,
    starts,
    r,
    w1,
    m1,
    parts,
    dots,
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

    x, y `[B, T, H, K]`, z, r, u `[B, T, H, V]`, eta, alpha `[B, T, H]` or None; What and Mhat
    after the segment, w0, m0 `[B H S, K, V]` (or `[.., V, K]` if TRANSPOSED), None for zero.
    With r: those before all, w1, m1 `[B H, K, V]`, where not None; and with M at each tile's
    start, `[B H, tiles, K, V]`, what `store_parts` says. Without r, x is not read, and w1, m1
    `[B H S, K, V]` are what each segment's reads give.
    """
    column, slot, segment, head, token, begin, end = place(T, H, S, length, V, BV)
    w, m = tl.zeros((BK, BV), ACC), tl.zeros((BK, BV), ACC)
    if m0 is not None:
        m = load_state(m0 + slot * K * V, column, BK, BV, K, V, TRANSPOSED)
    if w0 is not None:
        w = load_state(w0 + slot * K * V, column, BK, BV, K, V, TRANSPOSED)
    blocks = (V + BV - 1) // BV
    tiles, stop = (end - begin + BT - 1) // BT, tl.minimum(T, end + SHIFT)
    heads = tl.num_programs(0).to(tl.int64) // (S * blocks)
    for tile in tl.range(tiles, disable_licm=True):
        start = begin + (tiles - 1 - tile) * BT
        y_tile = load_rows(y + token * K, start + SHIFT, stop, H * K, 0, BT, BK, K)
        z_tile = load_rows(z + token * V, start + SHIFT, stop, H * V, column, BT, BV, V)
        if SCALE != 1.0:
            z_tile = narrow(z_tile.to(ACC) * SCALE, z_tile.dtype)
        mask, reach, after, last, whole, weight = gate_tile(
            eta, alpha, token, start, end, H, MODE, BT, 1
        )
        if r is not None:
            x_tile = load_rows(x + token * K, start, end, H * K, 0, BT, BK, K)
            u_tile = z_tile
            if starts is not None:
                u_tile = load_rows(u + token * V, start, end, H * V, column, BT, BV, V)
            answer, x_w_u, x_m_u = answer_tile(
                x_tile, y_tile, z_tile, u_tile, w, m, mask, after, last, MODE, BT
            )
            store_rows(r + token * V, answer, start, end, H * V, column, BT, BV, V)
            if starts is not None:
                per_head = (T + BT - 1) // BT
                at = head * per_head + start // BT
                m0_tile = load_state(starts + at * K * V, column, BK, BV, K, V, False)
                store_parts(
                    parts + column // BV,
                    dots + column // BV,
                    y_tile,
                    z_tile,
                    w,
                    m,
                    m0_tile,
                    x_w_u,
                    x_m_u,
                    token,
                    at,
                    start,
                    end,
                    H,
                    heads * T,
                    heads * per_head,
                    blocks,
                    MODE,
                    BT,
                )
        w, m = accumulate(y_tile, z_tile, w, m, reach, whole, weight, MODE)
    if r is not None and SHIFT:
        if MODE == "momentum":
            w = add_first(y + token * K, z + token * V, w, column, K, V, SCALE)
        else:
            m = add_first(y + token * K, z + token * V, m, column, K, V, SCALE)
    finish(w, m, w1, m1, slot, head, segment == 0, column, r is not None, K, V, BK, BV)
