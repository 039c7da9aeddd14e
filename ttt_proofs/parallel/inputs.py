"""What a loop may be run on: shapes, dtypes, finite numbers. Errors are one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..loops import DepthwiseConv, InnerLoop
from ..loops.update import Rate
from .state import State

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

Number = Tensor | float
Rates = Number | Mapping[str, Tensor] | None
Weights = Mapping[str, Tensor]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states and of what weighs them: float32 for shorter ones."""
    return torch.promote_types(dtype, torch.float32)


def check_inputs(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    rate: Rates,
    momentum: Number | None,
    initial_state: State | None = None,
) -> None:
    """Raise `ValueError` or `TypeError` unless the loop can run on these inputs.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, each weight `[H, rows, cols]`. A rate or momentum that
    the loop does not have is None, a constant one a number; one per step is `[B, N, H]` with
    N = ceil(T / chunk), one per token `[B, T, H]`: for the rate, one of them for each trained
    weight, by name. For a convolution K = V, and T is a multiple of the chunk. An initial
    state has `[B, H, rows, cols]` for each weight, and for those trained with momentum another.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"`weights` must map names to tensors; got {type(weights).__name__}. Pass a dict."
        )
    tensors = {"q": q, "k": k, "v": v, **{f"weights[{n!r}]": w for n, w in weights.items()}}
    for name, x in tensors.items():
        check_tensor(name, x, q)
    for name, x in (("q", q), ("k", k), ("v", v)):
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
    if not (k.shape[3] and v.shape[3]):
        raise ValueError(
            f"`k` and `v` must have widths of at least 1; got {k.shape[3]} and "
            f"{v.shape[3]}. Give them a column."
        )
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"`v` must have k's batch, time and heads {tuple(k.shape[:3])}; got "
            f"{tuple(v.shape[:3])}. Match the leading dimensions."
        )
    if isinstance(loop.net, DepthwiseConv):
        check_images(loop.net, k, v)
    check_weights(loop, k, v, weights)
    check_rate(loop, rate, k)
    check_number("momentum", momentum, loop.update.momentum, loop.schedule.chunk, k)
    if initial_state is not None:
        check_state(loop, initial_state, q, weights)


def check_images(net: DepthwiseConv, k: Tensor, v: Tensor) -> None:
    """Whole images, with the channels of the values."""
    if k.shape[1] % net.tokens:
        raise ValueError(
            f"`k` must have whole images of {net.tokens} tokens; got {k.shape[1]} "
            "tokens. Complete or drop the last image."
        )
    if k.shape[3] != v.shape[3]:
        raise ValueError(
            f"`k` must have v's {v.shape[3]} channels; got {k.shape[3]}. "
            "Project them to the same width."
        )


def check_tensor(name: str, x: Tensor, like: Tensor) -> None:
    """A finite floating-point tensor, of the dtype and on the device of the others."""
    if not isinstance(x, Tensor) or x.dtype not in DTYPES or x.layout != torch.strided:
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"`{name}` must be a floating-point tensor; got {kind}. Convert it.")
    if x.dtype != like.dtype or x.device != like.device:
        raise TypeError(
            f"`{name}` must be {like.dtype} on {like.device}, as q is; got {x.dtype} "
            f"on {x.device}. Convert it."
        )
    extremes = x.detach().aminmax() if x.numel() else ()  # NaN is both, if it is there
    if not all(map(torch.isfinite, extremes)):
        raise ValueError(f"`{name}` must be finite; got NaN or infinity. Mask such tokens before.")


def check_weights(loop: InnerLoop, k: Tensor, v: Tensor, weights: Weights) -> None:
    """Every weight of the net, each width used with one size throughout."""
    names = [weight.name for weight in loop.net.weights]
    if set(weights) != set(names):
        raise ValueError(
            f"`weights` must have {', '.join(names)}; got "
            f"{', '.join(map(str, weights)) or 'none'}. Pass one tensor for each."
        )
    sizes = {"D_k": k.shape[-1], "D_v": v.shape[-1]}
    if isinstance(loop.net, DepthwiseConv):
        sizes["D_w"] = loop.net.size**2
    for weight in loop.net.weights:
        shape = tuple(weights[weight.name].shape)
        if len(shape) != 3:
            raise ValueError(
                f"`weights[{weight.name!r}]` must be [heads, rows, cols]; got shape "
                f"{shape}. Add the missing dimensions."
            )
        rows = sizes.setdefault(weight.rows.name, shape[1])
        cols = sizes.setdefault(weight.cols.name, shape[2])
        if shape != (k.shape[2], rows, cols):
            raise ValueError(
                f"`weights[{weight.name!r}]` must be {(k.shape[2], rows, cols)}, "
                f"that is [heads, {weight.rows}, {weight.cols}]; got {shape}. "
                "Make the widths match."
            )


def check_state(loop: InnerLoop, state: State, like: Tensor, weights: Weights) -> None:
    """A state such as a form returns for a batch of the same size; `like` is `[B, T, H, K]`."""
    if not isinstance(state, State):
        raise TypeError(
            f"`initial_state` must be a State; got {type(state).__name__}. Pass what "
            "a form has returned, and weights as `weights`."
        )
    trained = {w.name for w in loop.fast_weights} if loop.update.momentum else set()
    both = (("weights", state, set(weights)), ("accumulators", state.accumulators, trained))
    dtype, device = wide(like.dtype), like.device
    for what, all_, names in both:
        if set(all_) != names:
            raise ValueError(
                f"`initial_state` must have {what} for {joined(names)}; got "
                f"{joined(all_)}. Pass a state of this loop."
            )
        for name, x in all_.items():
            shape = (len(like), *weights[name].shape)
            if (tuple(x.shape), x.dtype, x.device) != (shape, dtype, device):
                raise ValueError(
                    f"`initial_state[{name!r}]` must be {shape}, {dtype} on {device}; "
                    f"got {tuple(x.shape)}, {x.dtype} on {x.device}. Pass a state of "
                    "the same batch."
                )


def check_rate(loop: InnerLoop, rate: Rates, like: Tensor) -> None:
    """The rate as the loop declares it; one per token is another for each trained weight."""
    kind, chunk = loop.update.rate, loop.schedule.chunk
    if kind != "per_token":
        check_number("rate", rate, kind, chunk, like)
        return
    names = [weight.name for weight in loop.fast_weights]
    if not isinstance(rate, Mapping) or set(rate) != set(names):
        raise ValueError(
            f"`rate` must map each trained weight, {', '.join(names)}, to a tensor; "
            f"got {shown(rate)}. Pass a dict."
        )
    for name in names:
        check_number(f"rate[{name!r}]", rate[name], kind, chunk, like)


def check_number(name: str, number: object, kind: Rate | None, chunk: int, like: Tensor) -> None:
    """A rate or momentum as the loop declares it; `like` is `[B, T, H, K]`."""
    if kind is None:
        if number is not None:
            raise ValueError(
                f"`{name}` must be left out, since the loop has none; got one. "
                "Declare it in GradientStep."
            )
        return
    if kind != "constant":
        batch, tokens, heads, _ = like.shape
        each = kind.removeprefix("per_")
        shape = (batch, tokens if each == "token" else -(-tokens // chunk), heads)
        if not isinstance(number, Tensor) or tuple(number.shape) != shape:
            raise ValueError(
                f"`{name}` must be a tensor {shape}, one number per batch, {each} "
                f"and head; got {shown(number)}. Give each {each} its own."
            )
        check_tensor(name, number, like)
        return
    if isinstance(number, Tensor) and number.ndim == 0 and number.dtype.is_floating_point:
        check_tensor(name, number.to(like), like)
        return
    got = (
        f"a tensor {shown(number)} of {number.dtype}"
        if isinstance(number, Tensor)
        else (shown(number))
    )
    most = torch.finfo(like.dtype).max
    known: Any = number if isinstance(number, Real) and not isinstance(number, bool) else math.nan
    fits = abs(known) <= most
    if not fits:  # NaN is not at most anything
        cure = (
            f"Declare {name}='per_step' for one per step"
            if isinstance(number, Tensor)
            else "Pass a float"
        )
        raise ValueError(f"`{name}` must be one finite number; got {got}. {cure}.")


def joined(names: Iterable[str]) -> str:
    """Names in order, or "none"."""
    return ", ".join(sorted(names)) or "none"


def shown(x: object) -> str:
    """A tensor by its shape, a mapping by its names, anything else as it is written."""
    if isinstance(x, Tensor):
        return str(tuple(x.shape))
    return f"names {', '.join(map(str, x))}" if isinstance(x, Mapping) else repr(x)
