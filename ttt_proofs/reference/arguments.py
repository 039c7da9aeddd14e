"""What `run_loop` is given: refused in one sentence, or brought to float64 and heads first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttt_proofs.loops import InnerLoop

Weights = dict[str, Tensor]
Coefficients = Mapping[str, float | Tensor]

EXTRA = {"scalar": (), "row": (0,), "column": (1,), "entry": (0, 1)}  # axes that are told apart


@dataclass(frozen=True)
class Given:
    """A loop with what it is given in float64, shapes and names checked.

    q, k, v: `[B, H, T, K or V]`. weights: `[B, H, rows, cols]` by name. coefficients: by name, as
    `Coefficient` has them. outer: whether gradients are to be taken through the inner ones.
    """

    loop: InnerLoop
    q: Tensor
    k: Tensor
    v: Tensor
    weights: Weights
    coefficients: dict[str, Tensor]
    outer: bool


def given(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Mapping[str, Tensor],
    coefficients: Coefficients | None,
) -> Given:
    """Copies in float64 of the arguments of `run_loop`, which are left as they are."""
    coefficients = coefficients or {}
    check_tokens(loop, q, k, v)
    check_weights(loop, weights, q.shape[2], {"D_k": q.shape[3], "D_v": v.shape[3]})
    check_coefficients(loop, coefficients, q, weights)
    tensors = [q, k, v, *weights.values(), *coefficients.values()]
    needed = any(isinstance(x, Tensor) and x.requires_grad for x in tensors)
    outer = needed and torch.is_grad_enabled()

    def double(x: Any) -> Tensor:
        x = torch.as_tensor(x, dtype=torch.float64, device=q.device)
        return x if outer else x.detach()  # so that the inner gradients keep no history

    q64, k64, v64 = (double(x).transpose(1, 2) for x in (q, k, v))
    state = {name: double(w).expand(q.shape[0], *w.shape).clone() for name, w in weights.items()}
    return Given(loop, q64, k64, v64, state, {n: double(c) for n, c in coefficients.items()}, outer)


def check_tokens(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless q, k and v match each other, and hold whole images for a convolution.

    A convolution is a net that has a number of tokens.
    """
    ranks = [x.ndim if isinstance(x, Tensor) else None for x in (q, k, v)]
    if ranks != [4, 4, 4] or k.shape != q.shape or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "`q`, `k`, `v` must be [B, T, H, K], [B, T, H, K], [B, T, H, V]; got "
            f"{', '.join(map(shown, (q, k, v)))}. Reshape them."
        )
    if loop.net.keys.name == "D_v" and v.shape != q.shape:
        raise ValueError(
            "`q`, `k`, `v` must have the same width for a net that takes tokens and outputs "
            f"together; got {', '.join(map(shown, (q, k, v)))}. Reshape them."
        )
    if loop.net.tokens and q.shape[1] % loop.net.tokens:
        raise ValueError(
            f"`q`, `k`, `v` must hold whole images, T a multiple of {loop.net.tokens}; "
            f"got T = {q.shape[1]}. Pad or cut them."
        )
    for name, width in (("D_k", q.shape[3]), ("D_v", v.shape[3])):
        if width != (size := loop.fixed.get(name, width)):
            raise ValueError(
                f"`{'q' if name == 'D_k' else 'v'}` must have a width of {size}, the number in the "
                f"loop's code; got {width}. Reshape it."
            )


def check_weights(
    loop: InnerLoop, weights: Mapping[str, Tensor], heads: int, sizes: dict[str, int]
) -> None:
    """Raise ValueError unless the weights are named and shaped as those of the net.

    sizes: the widths that the tokens have; others are those of the first weight that has them.
    """
    every = {w.name: (w.rows.name, w.cols.name) for w in loop.net.weights}
    if set(weights) != set(every):
        raise ValueError(
            f"`weights` must be named {', '.join(every)}; got "
            f"{', '.join(weights) or 'none'}. Rename them."
        )
    sizes = sizes | loop.fixed
    for name, widths in every.items():
        arrived = tuple(weights[name].shape)
        for width, size in zip(widths, arrived[-2:], strict=False):
            sizes.setdefault(width, size)
        wanted = [heads, *(sizes.get(width, 0) for width in widths)]
        if list(arrived) != wanted:
            raise ValueError(
                f"`weights[{name!r}]` must be [H, rows, cols] = {wanted} to match q, k, v and "
                f"the other weights; got {shown(weights[name])}. Reshape it."
            )


def check_coefficients(
    loop: InnerLoop, given: Coefficients, q: Tensor, weights: Mapping[str, Tensor]
) -> None:
    """Raise ValueError unless there is a number, or a tensor, for each coefficient of the loop."""
    if not isinstance(given, Mapping) or set(given) != set(loop.coefficients):
        raise ValueError(
            f"`coefficients` must be a dict of {', '.join(loop.coefficients) or 'nothing'}, which "
            f"the loop has; got {shown(given)}. Give each by its name."
        )
    batch, length, heads, _ = q.shape
    clocks = {"loop": "", "step": "B, N, ", "token": "B, T, "}
    leading = {"loop": (), "step": (batch, steps(loop, length)), "token": (batch, length)}
    for name, kind in loop.coefficients.items():
        value, axes = given[name], EXTRA[kind.shape]
        if axes and len(loop.fast_weights) != 1:
            raise ValueError(
                f"`coefficients[{name!r}]` must be a scalar where several weights move; the loop "
                f"has one for each {kind.shape}. Let a single weight move."
            )
        told = [weights[loop.fast_weights[0].name].shape[1 + axis] for axis in axes]
        plain = kind.every == "loop" and not axes
        wanted = () if plain else (*leading[kind.every], heads, *told)
        number = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
        if not number or (value.shape if isinstance(value, Tensor) else ()) != wanted:
            sides = "".join(f", {('rows', 'cols')[axis]}" for axis in axes)
            shape = f"a tensor [{clocks[kind.every]}H{sides}] = {list(wanted)}"
            raise ValueError(
                f"`coefficients[{name!r}]` must be {'one number' if plain else shape}, one for "
                f"each {kind.every}; got {shown(value)}. Reshape it, or change the loop."
            )


def steps(loop: InnerLoop, length: int) -> int:
    """How many chunks so many tokens are."""
    return -(-length // loop.schedule.chunk)


def shown(value: object) -> str:
    """A tensor by its shape, a dict by its names, anything else as it is written."""
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    return str(list(value.shape)) if isinstance(value, Tensor) else repr(value)
