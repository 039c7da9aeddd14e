"""What an operator may be called with; anything else is refused in one sentence.

Checks look at types, shapes, dtypes and devices, never at values: that would make the device
wait. So NaN and infinity pass through to the outputs.
"""

from __future__ import annotations

import math
import re

import numpy
import torch
import triton
from torch import Tensor
from triton import knobs

from .limits import DTYPES, MAX_WIDTH

# Triton decides when a kernel is decorated, that is when its module is first imported.
INTERPRETED = bool(knobs.runtime.interpret)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states and numbers: float32, or float64 for float64 inputs."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_tensor(name: str, x: object, like: Tensor | None = None) -> Tensor:
    """The tensor; TypeError unless it is a floating-point one, on the device of `like`."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"`{name}` must be a floating-point tensor; got {got}. Convert it.")
    if like is not None and x.device != like.device:
        raise TypeError(f"`{name}` must be on {like.device}, where q is; got {x.device}. Move it.")
    return x


def interpreter_fault() -> str | None:
    """Why Triton's interpreter fails beside the NumPy that is installed; None where it runs.

    Before 3.7 it converts arrays of one entry to numbers, which NumPy refuses from 2.4 on.
    """
    old, new = (
        tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        for version in (triton.__version__, numpy.__version__)
    )
    if old >= (3, 7) or new < (2, 4):
        return None
    return (
        "Triton's interpreter must be of Triton 3.7 or newer, or beside NumPy before 2.4; got "
        f"Triton {triton.__version__} and NumPy {numpy.__version__}. Install `triton>=3.7` or "
        "`numpy<2.4`."
    )


def check_device(name: str, x: Tensor) -> None:
    """Raise RuntimeError unless Triton can run on this tensor."""
    if not x.is_cuda and not INTERPRETED:
        raise RuntimeError(
            f"`{name}` must be a CUDA tensor; got one on {x.device}. Pass CUDA tensors, "
            "or set TRITON_INTERPRET=1 before the first import of triton."
        )
    if INTERPRETED and (fault := interpreter_fault()):
        raise RuntimeError(fault)


def check_tokens(q: Tensor, k: Tensor, v: Tensor, max_key: int = MAX_WIDTH) -> None:
    """Raise unless q, k `[B, T, H, K]` and v `[B, T, H, V]` fit together and Triton can run.

    One dtype of float32, bfloat16, float16 and float64, one device, 1 <= K <= max_key, 1 <= V.
    Raises TypeError, ValueError or RuntimeError (no device).
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tensor(name, x, None if name == "q" else q)
        if x.dtype not in DTYPES:
            raise TypeError(
                f"`{name}` must be float32, bfloat16, float16 or float64; got "
                f"{x.dtype}. Convert it."
            )
        if x.dtype != q.dtype:
            raise TypeError(f"`{name}` must be {q.dtype}, as q is; got {x.dtype}. Convert it.")
        if x.ndim != 4:
            raise ValueError(
                f"`{name}` must be [batch, time, heads, width]; got shape "
                f"{tuple(x.shape)}. Add the missing dimensions."
            )
    if q.shape != k.shape:
        raise ValueError(
            f"`q` and `k` must have one shape; got {tuple(q.shape)} and "
            f"{tuple(k.shape)}. Project them to the same width."
        )
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"`v` must have k's batch, time and heads {tuple(k.shape[:3])}; got "
            f"{tuple(v.shape[:3])}. Match the leading dimensions."
        )
    check_width("k", k, max_key)
    if v.shape[3] == 0:
        raise ValueError("`v` must have a width of at least 1; got 0. Give it a column.")
    check_device("q", q)


def check_width(name: str, x: Tensor, most: int) -> None:
    """Raise ValueError unless the last dimension has 1 to `most` entries."""
    if not 1 <= x.shape[-1] <= most:
        raise ValueError(
            f"`{name}` must have a width of 1 to {most}, which is one block of the "
            f"kernel; got {x.shape[-1]}. Split it into more heads."
        )


def check_scale(scale: object) -> float:
    """The scale as a float; TypeError or ValueError unless it is one finite number."""
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        raise TypeError(f"`scale` must be a number; got {type(scale).__name__}. Pass a float.")
    if not math.isfinite(scale):
        raise ValueError(f"`scale` must be finite; got {scale}. Pass 1.0 for none.")
    return float(scale)


def check_segments(segments: object) -> int | None:
    """The number of segments, or None; ValueError unless it is a positive integer."""
    if segments is None or (type(segments) is int and segments >= 1):
        return segments
    raise ValueError(
        f"`segments` must be a positive integer; got {segments!r}. "
        "Leave it out to let the device decide."
    )


def check_pair(name: str, states: object) -> tuple[object, object]:
    """The pair (W, M), or two None for None; TypeError unless it is a pair of tensors."""
    if states is None:
        return None, None
    if not isinstance(states, tuple | list) or len(states) != 2 or any(x is None for x in states):
        raise TypeError(
            f"`{name}` must be a pair of tensors (W, M); got {type(states).__name__}. Pass both."
        )
    return states[0], states[1]


def numbers(name: str, x: object, like: Tensor) -> Tensor:
    """A number of each token and head, `[B, T, H]`, contiguous, in the accumulator's dtype.

    `like` is q. Differentiable in x. Raises TypeError or ValueError.
    """
    x = check_tensor(name, x, like)
    shape = like.shape[:3]
    if x.shape != shape:
        raise ValueError(
            f"`{name}` must be [batch, time, heads] = {tuple(shape)}; got shape "
            f"{tuple(x.shape)}. Expand it to q's tokens and heads."
        )
    return x.to(accumulator(like.dtype)).contiguous()


def state(name: str, x: object, q: Tensor, v: Tensor) -> Tensor | None:
    """A state `[B, H, K, V]`, contiguous, in the accumulator's dtype; None stays None.

    Differentiable in x. Raises TypeError or ValueError.
    """
    if x is None:
        return None
    x = check_tensor(name, x, q)
    batch, _, heads, width = q.shape
    shape = (batch, heads, width, v.shape[3])
    if tuple(x.shape) != shape:
        raise ValueError(
            f"`{name}` must be [batch, heads, K, V] = {shape}; got shape "
            f"{tuple(x.shape)}. Reshape it."
        )
    return x.to(accumulator(q.dtype)).contiguous()
