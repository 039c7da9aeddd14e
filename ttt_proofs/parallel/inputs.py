"""What a loop may be run on: shapes, dtypes, finite numbers. Errors are one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from numbers import Real
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..loops import InnerLoop, Recurrence, Weight
from ..program.coefficients import Coefficient
from ..program.expressions import KEY, VALUE
from .state import State

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

Number = Tensor | float
Coefficients = Mapping[str, Number]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Asked:
    """What a loop asks of its inputs: all its weights, those that move, buffers, coefficients.

    sides: the names of the widths that coefficients of rows and of columns have. together: whether
    the net takes tokens of the width of its outputs. widths: those that are numbers in the loop's
    code, by name. tokens: how many an image has, None where there is none.
    """

    weights: tuple[Weight, ...]
    fast: tuple[str, ...]
    buffers: tuple[str, ...]
    coefficients: Mapping[str, Coefficient]
    sides: tuple[str, str]
    together: bool = False
    widths: Mapping[str, int] = field(default_factory=dict)
    tokens: int | None = None


WIDTHS = {"K": KEY.name, "V": VALUE.name}  # of a recurrence's axes


@cache
def asked(loop: InnerLoop | Recurrence) -> Asked:
    """What a loop asks of its inputs, found once."""
    coefficients = MappingProxyType(dict(loop.coefficients))
    if isinstance(loop, Recurrence):
        rows, cols = (WIDTHS.get(side, "") for side in loop.sides)
        return Asked((), (), (), coefficients, (rows, cols))
    fast = tuple(weight.name for weight in loop.fast_weights)
    buffers = tuple(map(str, loop.rule.buffers))
    last = loop.fast_weights[-1]
    return Asked(
        loop.net.weights,
        fast,
        buffers,
        coefficients,
        (last.rows.name, last.cols.name),
        loop.net.keys == VALUE,
        MappingProxyType(loop.fixed),
        loop.net.tokens,
    )


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states and of what weighs them: float32 for shorter ones."""
    return torch.promote_types(dtype, torch.float32)


def check_inputs(
    loop: InnerLoop | Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients | None,
    initial_state: Mapping[str, Tensor] | None = None,
) -> None:
    """Raise `ValueError` or `TypeError` unless the loop can run on these inputs.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, each weight `[H, rows, cols]`. The coefficients are those
    that the loop declares, by name: one for the loop is a number, one per step `[B, N, H]` with
    N = ceil(T / chunk), one per token `[B, T, H]`, with the rows, the columns or both after these
    where it tells them apart, then `[H, *]` for the loop. For a convolution K = V, and T is a
    multiple of the chunk. An initial state has `[B, H, rows, cols]` for each weight, and in each
    buffer for each fast weight. A recurrence has no weights; its initial state has `[B, H, *]` for
    each of its states.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"`weights` must map names to tensors; got {type(weights).__name__}. Pass a dict."
        )
    tensors = {"q": q, "k": k, "v": v, **{f"weights[{n!r}]": w for n, w in weights.items()}}
    for name, x in tensors.items():
        check_tensor(name, x, q)
    check_layout(q, k, v)
    sizes = check_widths(loop, k, v)
    check_weights(loop, sizes, k.shape[2], weights)
    check_coefficients(loop, coefficients, k, sizes)
    if initial_state is not None:
        check_start(loop, initial_state, q, v, weights)


def check_layout(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Tokens of one batch, time and heads, with widths."""
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


def check_widths(loop: InnerLoop | Recurrence, k: Tensor, v: Tensor) -> dict[str, int]:
    """The widths that are known, by name; `ValueError` for tokens that the net cannot take."""
    sizes = {KEY.name: k.shape[-1], VALUE.name: v.shape[-1]}
    if (size := asked(loop).tokens) and k.shape[1] % size:
        raise ValueError(
            f"`k` must have whole images of {size} tokens; got {k.shape[1]} "
            "tokens. Complete or drop the last image."
        )
    if asked(loop).together and k.shape[3] != v.shape[3]:
        raise ValueError(
            f"`k` must have v's width {v.shape[3]} for a net that takes tokens and outputs "
            f"together; got {k.shape[3]}. Project them to the same width."
        )
    for name, size in asked(loop).widths.items():
        if sizes.setdefault(name, size) != size:
            raise ValueError(
                f"`{'k' if name == KEY.name else 'v'}` must have a width of {size}, the number in "
                f"the loop's code; got {sizes[name]}. Project it to that width."
            )
    return sizes


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
    if not all(math.isfinite(float(each)) for each in extremes):
        raise ValueError(f"`{name}` must be finite; got NaN or infinity. Mask such tokens before.")


def check_weights(
    loop: InnerLoop | Recurrence, sizes: dict[str, int], heads: int, weights: Weights
) -> None:
    """Every weight of the net, each width used with one size throughout; adds those to `sizes`."""
    names = [weight.name for weight in asked(loop).weights]
    if set(weights) != set(names):
        raise ValueError(
            f"`weights` must have {', '.join(names)}; got "
            f"{', '.join(map(str, weights)) or 'none'}. Pass one tensor for each."
        )
    for weight in asked(loop).weights:
        shape = tuple(weights[weight.name].shape)
        if len(shape) != 3:
            raise ValueError(
                f"`weights[{weight.name!r}]` must be [heads, rows, cols]; got shape "
                f"{shape}. Add the missing dimensions."
            )
        rows = sizes.setdefault(weight.rows.name, shape[1])
        cols = sizes.setdefault(weight.cols.name, shape[2])
        if shape != (heads, rows, cols):
            raise ValueError(
                f"`weights[{weight.name!r}]` must be {(heads, rows, cols)}, "
                f"that is [heads, {weight.rows}, {weight.cols}]; got {shape}. "
                "Make the widths match."
            )


def state_shapes(loop: Recurrence, like: Tensor, v: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of each state; `like` is `[B, T, H, K]`, v `[B, T, H, V]`."""
    sizes = {"K": like.shape[3], "V": v.shape[3]}
    first = (len(like), like.shape[2])
    return {name: (*first, *(sizes[x] for x in axes)) for name, axes in loop.states.items()}


def check_states(state: object, shapes: Mapping[str, tuple[int, ...]], like: Tensor) -> None:
    """The states of a recurrence for a batch of the same size; `like` is `[B, T, H, K]`."""
    if not isinstance(state, Mapping) or set(state) != set(shapes):
        got = listed(state) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"`initial_state` must have {listed(shapes)}; got {got}. Pass a state of this layer."
        )
    for name, shape in shapes.items():
        check_tensor(f"initial_state[{name!r}]", state[name], like.to(wide(like.dtype)))
        if tuple(state[name].shape) != shape:
            raise ValueError(
                f"`initial_state[{name!r}]` must be {shape}; got {tuple(state[name].shape)}. Pass "
                "a state of the same batch."
            )


def check_start(
    loop: InnerLoop | Recurrence,
    state: Mapping[str, Tensor],
    like: Tensor,
    v: Tensor,
    weights: Weights,
) -> None:
    """A state such as a form returns for a batch of the same size; `like` is `[B, T, H, K]`."""
    if isinstance(loop, Recurrence):
        check_states(state, state_shapes(loop, like, v), like)
    else:
        check_state(loop, state, like, weights)


def check_state(
    loop: InnerLoop, state: Mapping[str, Tensor], like: Tensor, weights: Weights
) -> None:
    """Weights and buffers of a loop."""
    if not isinstance(state, State):
        raise TypeError(
            f"`initial_state` must be a State; got {type(state).__name__}. Pass what "
            "a form has returned, and weights as `weights`."
        )
    fast, buffers = map(set, (asked(loop).fast, asked(loop).buffers))
    if set(state.buffers) != buffers:
        raise ValueError(
            f"`initial_state` must have the buffers {listed(buffers)}; got "
            f"{listed(state.buffers)}. Pass a state of this loop."
        )
    dtype, device = wide(like.dtype), like.device
    for what, all_ in state.parts.items():
        names = set(weights) if all_ is state.weights else fast
        if set(all_) != names:
            raise ValueError(
                f"`initial_state` must have {what} for {listed(names)}; got "
                f"{listed(all_)}. Pass a state of this loop."
            )
        for name, x in all_.items():
            shape = (len(like), *weights[name].shape)
            if (tuple(x.shape), x.dtype, x.device) != (shape, dtype, device):
                raise ValueError(
                    f"`initial_state[{name!r}]` must be {shape}, {dtype} on {device}; "
                    f"got {tuple(x.shape)}, {x.dtype} on {x.device}. Pass a state of "
                    "the same batch."
                )


def check_coefficients(
    loop: InnerLoop | Recurrence,
    coefficients: Coefficients | None,
    like: Tensor,
    sizes: Mapping[str, int],
) -> None:
    """All numbers that the loop asks for, and no others, as it declares them; sizes: of widths."""
    given: Any = {} if coefficients is None else coefficients
    names = asked(loop).coefficients
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise ValueError(
            f"`coefficients` must have {listed(names)}; got "
            f"{listed(given) if isinstance(given, Mapping) else shown(given)}. "
            f"{'Pass one for each' if names else 'Leave them out'}."
        )
    for name, coefficient in names.items():
        what = f"coefficients[{name!r}]"
        shape = shape_of(loop, coefficient, like, sizes)
        if shape:
            check_shape(what, given[name], coefficient.every, shape, like)
        else:
            check_number(what, given[name], like)


def shape_of(
    loop: InnerLoop | Recurrence,
    coefficient: Coefficient,
    like: Tensor,
    sizes: Mapping[str, int],
) -> tuple[int, ...]:
    """The shape of a coefficient, of none for a number; `like` is `[B, T, H, K]`."""
    batch, tokens, heads, _ = like.shape
    chunk = loop.schedule.chunk
    times = {"token": tokens, "step": -(-tokens // chunk)}
    rows, cols = (sizes.get(side, 1) for side in asked(loop).sides)
    sides = {"scalar": (), "row": (rows,), "column": (cols,), "entry": (rows, cols)}
    first = () if coefficient.every == "loop" else (batch, times[coefficient.every])
    own = sides[coefficient.shape]
    return (*first, heads, *own) if first or own else ()


def check_shape(
    name: str, number: object, every: str, shape: tuple[int, ...], like: Tensor
) -> None:
    """A coefficient that is a tensor."""
    if not isinstance(number, Tensor) or tuple(number.shape) != shape:
        per = "head" if every == "loop" else f"batch, {every} and head"
        finer = " and entry of the weight that it tells apart" if len(shape) not in (0, 3) else ""
        raise ValueError(
            f"`{name}` must be a tensor {shape}, one number per {per}{finer}; got "
            f"{shown(number)}. Give each {'head' if every == 'loop' else every} its own."
        )
    check_tensor(name, number, like)


def check_number(name: str, number: object, like: Tensor) -> None:
    """A coefficient that is one number for all."""
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
            "Declare it for each step"
            if isinstance(number, Tensor) and number.ndim
            else "Pass a float"
        )
        raise ValueError(f"`{name}` must be one finite number; got {got}. {cure}.")


def check_tile(tile: object) -> None:
    """Raise `ValueError` unless it is a positive number of tokens."""
    if not isinstance(tile, int) or isinstance(tile, bool) or tile < 1:
        raise ValueError(f"`tile` must be a positive number of tokens; got {tile!r}. Use 64.")


def listed(names: Iterable[object]) -> str:
    """Names in order, or "none"."""
    return ", ".join(sorted(map(str, names))) or "none"


def shown(x: object) -> str:
    """A tensor by its shape, a mapping by its names, anything else as it is written."""
    if isinstance(x, Tensor):
        return str(tuple(x.shape))
    return f"names {', '.join(map(str, x))}" if isinstance(x, Mapping) else repr(x)
