"""Forward kernels of the delta rule: how the tokens of each tile couple, then one pass over tiles.

Within a tile that starts at the state S, the errors e_t = v_t - k_t S_{t-1} solve

    (I + L B) e = R,   L = tril(k k^T, -1),   B = diag(beta),   R = v - k S.

With the coupling C = -(I + L B)^-1 L, which is strictly lower triangular and does not depend on
states, e = R + C B R; the outputs are scale (q S + tril(q k^T) B e), and the tile leaves
S + k^T B e. `couple_tiles` makes C of all tiles at once, `delta_rule_forward` goes from tile to
tile with a block of the state's columns in registers. Keeping errors and not B e, and C and not
the inverse, no gradient divides by beta, and nothing rounds the inverse's unit diagonal.
Source of tiles for the delta rule: Yang et al., arXiv 2406.06484, Section 3.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiling import dot, load_numbers, load_rows, load_state, narrow, store_rows, store_state

BLOCK = tl.constexpr(16)  # tokens that are solved row by row; larger tiles are made of these


@triton.jit
def overlap(k, row, column, end, stride, like, K: tl.constexpr, BK: tl.constexpr):
    """`k_row k_column^T` of two blocks of tokens, loaded where needed to spare registers."""
    rows = load_rows(k, row, end, stride, 0, BLOCK, BK, K)
    columns = load_rows(k, column, end, stride, 0, BLOCK, BK, K)
    return dot(rows, tl.trans(columns), tl.zeros([BLOCK, BLOCK], dtype=like.dtype))


@triton.jit
def coupled(overlaps, numbers):
    """C of one block, `-(I + L B)^-1 L`, by forward substitution.

    Row j is final once the rows before it are; it is then taken, with its weight, from all rows
    below. Taking columns of L and rows of the result, nothing changes its layout.
    """
    rows, columns = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    lower = tl.where(rows > columns, overlaps, 0.0)
    found = -lower
    for j in range(BLOCK - 1):
        weights = tl.sum(tl.where(columns == j, lower, 0.0), axis=1)
        row = tl.sum(tl.where(rows == j, numbers[:, None] * found, 0.0), axis=0)
        found -= weights[:, None] * row[None, :]
    return found


@triton.jit
def passed(overlap, numbers, earlier, sides):
    """`sides + overlap B earlier`: what a block owes to an earlier one."""
    return dot(overlap, numbers[:, None] * earlier, sides)


@triton.jit
def solved(own, numbers, sides):
    """`-(I + own B) sides`: a block below the diagonal, from its row's block on the diagonal."""
    return -dot(own, numbers[:, None] * sides, sides)


@triton.jit
def put(pointer, block, ROW: tl.constexpr, COLUMN: tl.constexpr, TOKENS: tl.constexpr):
    """Write one block of a tile's coupling."""
    places = tl.arange(0, BLOCK)
    rows, columns = places + ROW * BLOCK, places + COLUMN * BLOCK
    at = pointer + rows[:, None] * TOKENS + columns[None, :]
    tl.store(at, narrow(block, pointer.dtype.element_ty))


@triton.jit(do_not_specialize=["T", "H"])
def couple_tiles(k, beta, coupling, T, H, K: tl.constexpr, TOKENS: tl.constexpr, BK: tl.constexpr):
    """C of every tile, `[B * H, tiles, TOKENS, TOKENS]`, in its pointer's dtype.

    One program for a tile of 16, 32 or 64 TOKENS. All is done in the accumulators' dtype, by
    blocks of 16 tokens and rows of these in order. Tokens past the end are zeros.
    """
    tiles = tl.cdiv(T, TOKENS)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    start = head // H * T * H + head % H
    k, beta = k + start * K, beta + start
    out = coupling + (head * tiles + tile) * TOKENS * TOKENS
    at = tile * TOKENS
    t1, t2, t3 = at + BLOCK, at + 2 * BLOCK, at + 3 * BLOCK
    none = tl.zeros([BLOCK, BLOCK], dtype=beta.dtype.element_ty)
    b0 = load_numbers(beta, at, 0, T, H, 0.0, BLOCK)
    c00 = coupled(overlap(k, at, at, T, H * K, b0, K, BK), b0)
    put(out, c00, 0, 0, TOKENS)
    if TOKENS >= 32:
        b1 = load_numbers(beta, t1, 0, T, H, 0.0, BLOCK)
        c11 = coupled(overlap(k, t1, t1, T, H * K, b0, K, BK), b1)
        a10 = overlap(k, t1, at, T, H * K, b0, K, BK)
        c10 = solved(c11, b1, passed(a10, b0, c00, a10))
        put(out, none, 0, 1, TOKENS)
        put(out, c10, 1, 0, TOKENS)
        put(out, c11, 1, 1, TOKENS)
        if TOKENS >= 64:
            b2 = load_numbers(beta, t2, 0, T, H, 0.0, BLOCK)
            c22 = coupled(overlap(k, t2, t2, T, H * K, b0, K, BK), b2)
            a20 = overlap(k, t2, at, T, H * K, b0, K, BK)
            a21 = overlap(k, t2, t1, T, H * K, b0, K, BK)
            c20 = solved(c22, b2, passed(a21, b1, c10, passed(a20, b0, c00, a20)))
            c21 = solved(c22, b2, passed(a21, b1, c11, a21))
            put(out, none, 0, 2, TOKENS)
            put(out, none, 1, 2, TOKENS)
            put(out, c20, 2, 0, TOKENS)
            put(out, c21, 2, 1, TOKENS)
            put(out, c22, 2, 2, TOKENS)
            b3 = load_numbers(beta, t3, 0, T, H, 0.0, BLOCK)
            c33 = coupled(overlap(k, t3, t3, T, H * K, b0, K, BK), b3)
            a30 = overlap(k, t3, at, T, H * K, b0, K, BK)
            a31 = overlap(k, t3, t1, T, H * K, b0, K, BK)
            a32 = overlap(k, t3, t2, T, H * K, b0, K, BK)
            c30 = passed(a31, b1, c10, passed(a30, b0, c00, a30))
            c31 = passed(a32, b2, c21, passed(a31, b1, c11, a31))
            put(out, none, 0, 3, TOKENS)
            put(out, none, 1, 3, TOKENS)
            put(out, none, 2, 3, TOKENS)
            put(out, solved(c33, b3, passed(a32, b2, c20, c30)), 3, 0, TOKENS)
            put(out, solved(c33, b3, c31), 3, 1, TOKENS)
            put(out, solved(c33, b3, passed(a32, b2, c22, a32)), 3, 2, TOKENS)
            put(out, c33, 3, 3, TOKENS)


@triton.jit(do_not_specialize=["T", "H"])
def delta_rule_forward(
    q,
    k,
    v,
    beta,
    coupling,
    initial,
    o,
    final,
    states,
    errors,
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
    """Outputs, and where these are not None the final state, each tile's first state, errors.

    One program for BV columns of one head, sequential over its tiles.
    """
    blocks = tl.cdiv(V, BV)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    column = tl.program_id(0) % blocks * BV
    tiles = tl.cdiv(T, TOKENS)
    start = head // H * T * H + head % H
    q, k, v, o, beta = q + start * K, k + start * K, v + start * V, o + start * V, beta + start
    t, i = tl.arange(0, TOKENS)[:, None], tl.arange(0, TOKENS)[None, :]
    S = tl.zeros([BK, BV], dtype=beta.dtype.element_ty)
    if initial is not None:
        S += load_state(initial + head * K * V, column, BK, BV, K, V, False)
    for tile in range(tiles):
        at = tile * TOKENS
        keys = load_rows(k, at, T, H * K, 0, TOKENS, BK, K)
        low = narrow(S, keys.dtype)
        if states is not None:
            store_state(states + (head * tiles + tile) * K * V, low, column, BK, BV, K, V)
        none = tl.zeros([TOKENS, BV], dtype=S.dtype)
        numbers = load_numbers(beta, at, 0, T, H, 0.0, TOKENS)[:, None]
        values = load_rows(v, at, T, H * V, column, TOKENS, BV, V)
        error = values - dot(keys, low, none)
        within = coupling + (head * tiles + tile) * TOKENS * TOKENS
        within = load_rows(within, 0, TOKENS, TOKENS, 0, TOKENS, TOKENS, TOKENS)
        error = dot(within, narrow(numbers * error, keys.dtype), error)
        if errors is not None:
            store_rows(errors + start * V, error, at, T, H * V, column, TOKENS, BV, V)
        update = narrow(numbers * error, keys.dtype)
        queries = load_rows(q, at, T, H * K, 0, TOKENS, BK, K)
        scores = dot(queries, tl.trans(keys), tl.zeros([TOKENS, TOKENS], dtype=S.dtype))
        scores = tl.where(t > i if EXCLUSIVE else t >= i, scores, 0.0)
        read = dot(narrow(scores, keys.dtype), update, dot(queries, low, none))
        store_rows(o, SCALE * read, at, T, H * V, column, TOKENS, BV, V)
        S = dot(tl.trans(keys), update, S)
    if final is not None:
        store_state(final + head * K * V, S, column, BK, BV, K, V)
