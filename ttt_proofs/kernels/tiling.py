"""What the kernels share: tiles of tokens in and out, dots, gates inside a tile, launching.

A tile is `ROWS` tokens of one head. Tensors are contiguous `[B, T, H, width]`, so a pointer to
`[b, 0, h, 0]` and the stride `H * width` reach every token of a head. All offsets are int64.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .requirements import INTERPRETED

MIN_BLOCK = 16  # the least dimension of a `tl.dot`

# The interpreter multiplies bfloat16 as the integers that hold its bits, and cuts what it converts
# to bfloat16. There, operands are widened first, which is exact, and rounding is made by hand.
WIDEN = tl.constexpr(INTERPRETED)


class Tiling(NamedTuple):
    """How a kernel is cut and run: tokens of a tile, columns of a block, warps, stages."""

    tokens: int
    columns: int
    num_warps: int
    num_stages: int


def padded(width: int) -> int:
    """The block that holds a width: a power of two, at least 16."""
    return max(MIN_BLOCK, triton.next_power_of_2(width))


@lru_cache
def multiprocessors(device: torch.device) -> int:
    """How many programs the device runs at the same time, at least; 1 in the interpreter."""
    if INTERPRETED or device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def on(device: torch.device) -> AbstractContextManager[object]:
    """Make the tensors' device current, for Triton launches on the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def launch(
    kernel: Any, programs: int, device: torch.device, *arguments: Any, **options: Any
) -> None:
    """Run a kernel on a line of programs, on that device."""
    with on(device):
        kernel[(programs,)](*arguments, **options)


@triton.jit
def dot(a, b, acc):
    """`acc + a @ b`, exact products of the operands' dtype, summed in the accumulator's."""
    if WIDEN:
        a = a.to(acc.dtype)
        b = b.to(acc.dtype)
    return tl.dot(a, b, acc=acc, input_precision="ieee", out_dtype=acc.dtype)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """x in the dtype, rounded to nearest, ties to even."""
    if WIDEN and dtype == tl.bfloat16:
        x = x.to(tl.float32)
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # the rest makes 0 a subnormal
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def scaled_rows(x, numbers):
    """Rows of x times a number each, rounded once, to x's dtype."""
    return narrow(x.to(numbers.dtype) * numbers[:, None], x.dtype)


@triton.jit
def load_rows(
    pointer,
    first,
    end,
    stride,
    column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Tokens first .. first + ROWS - 1, columns from `column`; 0 past `end` and past WIDTH."""
    rows = first + tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    kept = (rows < end)[:, None]
    if WIDTH % COLUMNS:
        kept &= (columns < WIDTH)[None, :]
    at = pointer + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(at, mask=kept, other=0.0)


@triton.jit
def store_rows(
    pointer,
    tile,
    first,
    end,
    stride,
    column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write what `load_rows` reads, in the pointer's dtype."""
    rows = first + tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    kept = (rows < end)[:, None]
    if WIDTH % COLUMNS:
        kept &= (columns < WIDTH)[None, :]
    at = pointer + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(at, narrow(tile, pointer.dtype.element_ty), mask=kept)


@triton.jit
def load_numbers(pointer, first, begin, end, stride, other, ROWS: tl.constexpr):
    """Numbers of tokens first .. first + ROWS - 1; `other` outside begin .. end - 1."""
    rows = first + tl.arange(0, ROWS)
    kept = (rows >= begin) & (rows < end)
    return tl.load(pointer + rows.to(tl.int64) * stride, mask=kept, other=other)


@triton.jit
def store_numbers(pointer, numbers, first, end, stride, ROWS: tl.constexpr):
    """Write numbers of tokens first .. first + ROWS - 1, up to `end`."""
    rows = first + tl.arange(0, ROWS)
    tl.store(pointer + rows.to(tl.int64) * stride, numbers, mask=rows < end)


@triton.jit
def load_state(
    pointer,
    column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):
    """All rows and a block of columns of a state `[HEIGHT, WIDTH]`, or of the transpose of one."""
    rows = tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    kept = (rows < HEIGHT)[:, None] & (columns < WIDTH)[None, :]
    if TRANSPOSED:
        at = pointer + columns[None, :] * HEIGHT + rows[:, None]
    else:
        at = pointer + rows[:, None] * WIDTH + columns[None, :]
    return tl.load(at, mask=kept, other=0.0)


@triton.jit
def store_state(
    pointer,
    block,
    column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write a block of columns of a state `[HEIGHT, WIDTH]`, in the pointer's dtype."""
    rows = tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    kept = (rows < HEIGHT)[:, None] & (columns < WIDTH)[None, :]
    at = pointer + rows[:, None] * WIDTH + columns[None, :]
    tl.store(at, narrow(block, pointer.dtype.element_ty), mask=kept)


@triton.jit
def decay_rows(a, TOKENS: tl.constexpr):
    """`D[t, i] = a_{i+1} ... a_t` for i <= t, else 0; nothing is divided, so zeros do no harm."""
    t = tl.arange(0, TOKENS)[:, None]
    i = tl.arange(0, TOKENS)[None, :]
    return tl.where(t >= i, tl.cumprod(tl.where(t > i, a[:, None], 1.0), axis=0), 0.0)


@triton.jit
def decay_columns(a, TOKENS: tl.constexpr):
    """The transpose of `decay_rows`, made along axis 1: `D[i, t] = a_{i+1} ... a_t` for i <= t."""
    t = tl.arange(0, TOKENS)[None, :]
    i = tl.arange(0, TOKENS)[:, None]
    return tl.where(t >= i, tl.cumprod(tl.where(t > i, a[None, :], 1.0), axis=1), 0.0)
