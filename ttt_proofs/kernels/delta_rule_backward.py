"""Backward kernels of the delta rule: one pass over tiles from the last, then all tiles at once.

Names as in `delta_rule_forward`: B = diag(beta), e = R + C B R, u = B e. With dO, the gradient
dS' in the state that a tile leaves, P = scale tril(q k^T), and g_t = k_t (dL/dS_t), which is the
gradient in u_t together with all that later errors of the tile owe to it,

    du = P^T dO + k dS',   g = du + C^T B du,   dv = B g,   dS = dS' + scale q^T dO - k^T dv;

so much is carried from tile to tile. Of g, dS' and what the forward pass wrote, each tile makes

    dq = scale (dO S^T + tril(dO e^T) B k),      dbeta = rowsum(g e),
    dk = B (e dS'^T - g S^T + scale tril(dO e^T)^T q - (tril(g e^T, -1) + triu(e g^T, 1)) B k).

The masks of P and of dO e^T are strict for the exclusive reading. Transposes of masked scores are
made from the swapped product, not from an accumulator: `tl.dot(tl.trans(acc), ...)` gives wrong
results on Hopper in Triton 3.4 to 3.7.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiling import (
    dot,
    load_numbers,
    load_rows,
    load_state,
    narrow,
    store_numbers,
    store_rows,
    store_state,
)


@triton.jit(do_not_specialize=["T", "H"])
def delta_rule_reverse(
    q,
    k,
    do,
    beta,
    coupling,
    dfinal,
    dinitial,
    dstates,
    g,
    dv,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    TOKENS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SCALE: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """Where they are not None: dv, g, dinitial, and in dstates -dS' of each tile.

    dstates is minus the gradient, so that `delta_rule_inputs` sums products and never negates one.
    One program for BV columns of one head, sequential over its tiles from the last.
    """
    blocks = tl.cdiv(V, BV)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    column = tl.program_id(0) % blocks * BV
    tiles = tl.cdiv(T, TOKENS)
    start = head // H * T * H + head % H
    q, k, do, beta = q + start * K, k + start * K, do + start * V, beta + start
    i, t = tl.arange(0, TOKENS)[:, None], tl.arange(0, TOKENS)[None, :]
    dS = tl.zeros([BK, BV], dtype=beta.dtype.element_ty)
    if dfinal is not None:
        dS += load_state(dfinal + head * K * V, column, BK, BV, K, V, False)
    for step in range(tiles):
        tile = tiles - 1 - step
        at = tile * TOKENS
        keys = load_rows(k, at, T, H * K, 0, TOKENS, BK, K)
        low = narrow(dS, keys.dtype)
        if dstates is not None:
            store_state(dstates + (head * tiles + tile) * K * V, -dS, column, BK, BV, K, V)
        queries = load_rows(q, at, T, H * K, 0, TOKENS, BK, K)
        outer = load_rows(do, at, T, H * V, column, TOKENS, BV, V)
        scores = dot(keys, tl.trans(queries), tl.zeros([TOKENS, TOKENS], dtype=dS.dtype))
        scores = tl.where(t > i if EXCLUSIVE else t >= i, SCALE * scores, 0.0)
        none = tl.zeros([TOKENS, BV], dtype=dS.dtype)
        gradient = dot(keys, low, dot(narrow(scores, keys.dtype), outer, none))
        within = coupling + (head * tiles + tile) * TOKENS * TOKENS
        within = load_rows(within, 0, TOKENS, TOKENS, 0, TOKENS, TOKENS, TOKENS)
        numbers = load_numbers(beta, at, 0, T, H, 0.0, TOKENS)[:, None]
        gradient = dot(tl.trans(within), narrow(numbers * gradient, keys.dtype), gradient)
        if g is not None:
            store_rows(g + start * V, gradient, at, T, H * V, column, TOKENS, BV, V)
        gradient = numbers * gradient
        if dv is not None:
            store_rows(dv + start * V, gradient, at, T, H * V, column, TOKENS, BV, V)
        dS += SCALE * dot(tl.trans(queries), outer, tl.zeros([BK, BV], dtype=dS.dtype))
        dS = dot(tl.trans(keys), narrow(-gradient, keys.dtype), dS)
    if dinitial is not None:
        store_state(dinitial + head * K * V, dS, column, BK, BV, K, V)


@triton.jit(do_not_specialize=["T", "H"])
def delta_rule_inputs(
    q,
    k,
    do,
    beta,
    states,
    errors,
    dstates,
    g,
    dq,
    dk,
    dbeta,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    TOKENS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SCALE: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """dq, and dk with dbeta, where they are not None. One program for a tile of one head."""
    tiles = tl.cdiv(T, TOKENS)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    start = head // H * T * H + head % H
    at = tile * TOKENS
    state = (head * tiles + tile) * K * V
    row, other = tl.arange(0, TOKENS)[:, None], tl.arange(0, TOKENS)[None, :]
    numbers = load_numbers(beta + start, at, 0, T, H, 0.0, TOKENS)
    dqueries = tl.zeros([TOKENS, BK], dtype=numbers.dtype)
    scores = tl.zeros([TOKENS, TOKENS], dtype=numbers.dtype)
    dkeys, reads, earlier, later = dqueries, scores, scores, scores
    for column in range(0, V, BV):
        error = load_rows(errors + start * V, at, T, H * V, column, TOKENS, BV, V)
        outer = load_rows(do + start * V, at, T, H * V, column, TOKENS, BV, V)
        S = load_state(states + state, column, BK, BV, K, V, False)
        if dq is not None:
            dqueries = dot(outer, tl.trans(S), dqueries)
            scores = dot(outer, tl.trans(error), scores)
        if dk is not None:
            gradient = load_rows(g + start * V, at, T, H * V, column, TOKENS, BV, V)
            dS = load_state(dstates + state, column, BK, BV, K, V, False)
            dkeys = dot(gradient, tl.trans(S), dkeys)
            dkeys = dot(error, tl.trans(dS), dkeys)
            reads = dot(error, tl.trans(outer), reads)
            earlier = dot(gradient, tl.trans(error), earlier)
            later = dot(error, tl.trans(gradient), later)
    keys = load_rows(k + start * K, at, T, H * K, 0, TOKENS, BK, K)
    if dq is not None:
        scores = tl.where(row > other if EXCLUSIVE else row >= other, scores, 0.0)
        scores = narrow(scores * numbers[None, :], keys.dtype)
        dqueries = SCALE * dot(scores, keys, dqueries)
        store_rows(dq + start * K, dqueries, at, T, H * K, 0, TOKENS, BK, K)
    if dk is not None:
        queries = load_rows(q + start * K, at, T, H * K, 0, TOKENS, BK, K)
        reads = tl.where(other > row if EXCLUSIVE else other >= row, -SCALE * reads, 0.0)
        dkeys = dot(narrow(reads, keys.dtype), queries, dkeys)
        shared = tl.where(other > row, later, tl.where(other < row, earlier, 0.0))
        dkeys = dot(narrow(shared * numbers[None, :], keys.dtype), keys, dkeys)
        dkeys *= -numbers[:, None]
        store_rows(dk + start * K, dkeys, at, T, H * K, 0, TOKENS, BK, K)
        # A sum of g e in the loop would load both into registers: their buffers then get one slot,
        # and the next copy into it may overtake the products that read it.
        own = tl.sum(tl.where(row == other, earlier, 0.0), axis=1)
        store_numbers(dbeta + start, own, at, T, H, TOKENS)
