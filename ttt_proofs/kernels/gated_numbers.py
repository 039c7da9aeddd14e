"""The gradients of the numbers of decayed and momentum attention, one tile at a time.

With `D`, `C` of `gated`, What, Mhat of `gated_backward` at a tile's end, M0 the state M at its
start, `P[s, i] = (q_s . k_i)(scale do_s . v_i)`, `b_t = D[end, t]` and `c'_t = C[end, t]`,

    d e_t = <What_t, M_t>          = sum_i D[t, i] (sum_{s>=t} P[s, i] + k_i What v_i)
                                     + mu_t (sum_{s>=t} q_s M0 do_s + <What, M0>)
    d a_t = <dL/dM_t, M_{t-1}>     = sum_{i<t} D[t-1, i] (sum_s C[s, t] P[s, i]
                                                          + b_t k_i Mhat v_i + c'_t k_i What v_i)
                                     + mu_{t-1} (sum_s C[s, t] q_s M0 do_s
                                                 + b_t <Mhat, M0> + c'_t <What, M0>)

with C := D and c' := 0 for a decay. The reverse kernel left what states have in it; the rest is of
a tile alone, so that all tiles run at once. Nothing is divided by a gate, so a gate may be 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gated import gate_tile
from .tiling import dot, load_numbers, load_rows, store_numbers


@triton.jit
def pairs_of(
    q,
    k,
    v,
    do,
    token,
    start,
    end,
    stop,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    ACC: tl.constexpr,
):
    """`P [s, i]` of a tile."""
    x = load_rows(q + token * K, start + SHIFT, stop, H * K, 0, BT, BK, K)
    y = load_rows(k + token * K, start, end, H * K, 0, BT, BK, K)
    scores = dot(x, tl.trans(y), tl.zeros((BT, BT), ACC)) * SCALE
    x = load_rows(do + token * V, start + SHIFT, stop, H * V, 0, BT, BV, V)
    y = load_rows(v + token * V, start, end, H * V, 0, BT, BV, V)
    return scores * dot(x, tl.trans(y), tl.zeros((BT, BT), ACC))


@triton.jit(do_not_specialize=["T", "H"])
def numbers_kernel(
    q,
    k,
    v,
    do,
    eta,
    alpha,
    parts,
    dots,
    d_eta,
    d_alpha,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
    MODE: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of one head.

    q, k `[B, T, H, K]`, v, do `[B, T, H, V]`; eta, alpha, d_eta, d_alpha `[B, T, H]`, those of eta
    None for a decay; parts `[2 or 3, B, T, H]`, dots `[1 or 2, B H, tiles]`, summed over blocks.
    """
    slot = tl.program_id(0).to(tl.int64)
    tiles = (T + BT - 1) // BT
    start = (slot % tiles).to(tl.int32) * BT
    head = slot // tiles
    slots = tl.num_programs(0).to(tl.int64)
    tokens = slots // tiles * T
    token = (head // H) * T * H + head % H
    end = tl.minimum(T, start + BT)
    pairs = pairs_of(
        q,
        k,
        v,
        do,
        token,
        start,
        end,
        tl.minimum(T, end + SHIFT),
        H,
        K,
        V,
        BK,
        BV,
        BT,
        SCALE,
        SHIFT,
        ACC,
    )
    reads = load_numbers(parts + token, start, start, end, H, 0.0, BT)
    by_m = load_numbers(parts + tokens + token, start, start, end, H, 0.0, BT)
    mask, _, after, last, _, _ = gate_tile(eta, alpha, token, start, end, H, MODE, BT, 1)
    inner = tl.dot(mask, pairs, input_precision=PRECISION, out_dtype=ACC)
    inner += tl.expand_dims(after, 1) * by_m[None, :]
    outer = tl.sum(mask * reads[None, :], axis=1) + after * tl.load(dots + slot)
    t = tl.arange(0, BT)[:, None]
    i = tl.arange(0, BT)[None, :]
    before = load_numbers(alpha + token, start - 1, start, end, H, 1.0, BT)
    previous = tl.where(t > i, tl.cumprod(tl.where(t > i + 1, before[:, None], 1.0), axis=0), 0.0)
    product = tl.cumprod(before, axis=0)
    if MODE == "momentum":
        by_w = load_numbers(parts + 2 * tokens + token, start, start, end, H, 0.0, BT)
        w_start = tl.load(dots + slots + slot)
        inner += tl.expand_dims(last, 1) * by_w[None, :]
        outer += last * w_start
        if d_eta is not None:
            a = load_numbers(alpha + token, start, start, end, H, 1.0, BT)
            reached = tl.cumsum(pairs, axis=0, reverse=True) + by_w[None, :]
            d_e = a * product * (tl.cumsum(reads, axis=0, reverse=True) + w_start)
            d_e += tl.sum(tl.where(t == i, 1.0, a[:, None] * previous) * reached, axis=1)
            store_numbers(d_eta + token, d_e, start, end, H, BT)
    d_a = tl.sum(previous * inner, axis=1) + product * outer
    store_numbers(d_alpha + token, d_a, start, end, H, BT)
