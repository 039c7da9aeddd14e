"""SwiGLU features, to memory, and additive linear attention that makes them in its kernel.

Widths of a few hundred, as LaCT's, are bound by products, which `swiglu_features` leaves to
cuBLAS, gate and up in one. Up to 128, `swiglu_attention` reads q, k, v and writes o, no features.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..parallel.once import once
from .additive import linear_attention
from .requirements import (
    DTYPES,
    INTERPRETED,
    accumulator,
    check_device,
    check_scale,
    check_segments,
    check_tensor,
    check_tokens,
    state,
)
from .swiglu_kernels import attend_kernel, gated_gradient_kernel, gated_kernel
from .tiling import Tiling, multiprocessors, on, padded

MAX_FUSED = 128  # the widest inputs and features whose weights stay beside the state
UNIT = 64  # a segment is a multiple of this many tokens, and so of every tile
LEAST = 1024  # tokens that are worth a segment of their own


def elementwise_tiling(width: int) -> Tiling:
    """How the two elementwise kernels are cut and run: 4096 numbers of each tensor a program."""
    columns = min(128, padded(width))
    return Tiling(4096 // columns, columns, num_warps=4, num_stages=1)


def attention_tiling(key: int, features: int, value: int, dtype: torch.dtype) -> Tiling:
    """How `attend_kernel` is cut and run, at widths K, D and V. Tuning goes here, and only here.

    Both weights, and two stages of q, k, v, share the 227 KiB of shared memory of a Hopper
    multiprocessor; the state and a tile's two projections share the registers.
    """
    if dtype.itemsize > 2:  # interpreted only, see `fuses`
        return Tiling(32, min(64, padded(value)), num_warps=8, num_stages=1)
    if max(padded(key), padded(features)) <= 64:
        return Tiling(64, min(64, padded(value)), num_warps=4, num_stages=2)
    return Tiling(64, min(128, padded(value)), num_warps=8, num_stages=2)


def fuses(q: Tensor) -> bool:
    """Whether the features are made in the kernel.

    Without tensor cores, that is in float32 and float64, products cost more than moving the
    features: there cuBLAS makes them. The interpreter runs the kernel in all dtypes.
    """
    return q.element_size() == 2 or INTERPRETED


def check_weights(name: str, x: Tensor, gate: Tensor, up: Tensor) -> None:
    """Raise unless gate and up are `[H, K, D]`, of the dtype and device of x, called `name`.

    x is `[B, T, H, K]`. Raises TypeError or ValueError.
    """
    heads, width = x.shape[2:]
    for label, weight in (("gate", gate), ("up", up)):
        check_tensor(label, weight)
        if weight.dtype != x.dtype or weight.device != x.device:
            raise TypeError(
                f"`{label}` must be {x.dtype} on {x.device}, as `{name}` is; got "
                f"{weight.dtype} on {weight.device}. Convert it."
            )
        if weight.ndim != 3 or weight.shape[:2] != (heads, width) or weight.shape[2] == 0:
            raise ValueError(
                f"`{label}` must be [heads, K, D] = [{heads}, {width}, D] with D at "
                f"least 1; got shape {tuple(weight.shape)}. Give each head a matrix "
                f"for the width of `{name}`."
            )
    if gate.shape != up.shape:
        raise ValueError(
            f"`gate` and `up` must have one shape; got {tuple(gate.shape)} and "
            f"{tuple(up.shape)}. Make their last dimensions equal."
        )


def by_head(x: Tensor) -> Tensor:
    """Contiguous `[B, T, H, width]` as a batch of matrices `[H, B T, width]`, without a copy."""
    return x.flatten(0, 1).transpose(0, 1)


def _elementwise(kernel: Any, *tensors: Tensor, rows: int, width: int) -> None:
    """Run an elementwise kernel on its tensors, of `rows` rows; not at all on none."""
    if rows == 0:
        return
    tiles = elementwise_tiling(width)
    grid = (triton.cdiv(rows, tiles.tokens) * triton.cdiv(width, tiles.columns),)
    wide = accumulator(tensors[0].dtype) == torch.float64
    with on(tensors[0].device):
        kernel[grid](
            *tensors,
            rows,
            D=width,
            ROWS=tiles.tokens,
            COLUMNS=tiles.columns,
            ACC=tl.float64 if wide else tl.float32,
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )


@once("`swiglu_features`")
class _Features(torch.autograd.Function):
    """Features of x `[B, T, H, K]`, contiguous, and weights `[H, K, 2 D]`, gate before up.

    The projections stay in one tensor, `[B, T, H, 2 D]`, as do their gradients: each matrix
    product is one call, which reads and writes tokens where they lie, and the sum over gate and
    up in the gradient of x is its accumulator's. With `out=`, autocast leaves it alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        """Two passes: the matrix product, and silu and the product of its halves."""
        batch, tokens, heads, _ = x.shape
        width = weights.shape[2] // 2
        projected = x.new_empty(batch, tokens, heads, 2 * width)
        torch.bmm(by_head(x), weights, out=by_head(projected))
        features = x.new_empty(batch, tokens, heads, width)
        _elementwise(gated_kernel, projected, features, rows=batch * tokens * heads, width=width)
        ctx.save_for_backward(x, weights, projected)
        return features

    @staticmethod
    def backward(ctx: Any, dfeatures: Tensor) -> Any:  # type: ignore[override]
        """Gradients of the projections in one pass, then a matrix product each."""
        x, weights, projected = ctx.saved_tensors
        rows, width = projected.numel() // projected.shape[3], dfeatures.shape[3]
        dprojected, dx, dweights = torch.empty_like(projected), None, None
        _elementwise(
            gated_gradient_kernel,
            projected,
            dfeatures.contiguous(),
            dprojected,
            rows=rows,
            width=width,
        )
        if ctx.needs_input_grad[0]:
            dx = torch.empty_like(x)
            torch.bmm(by_head(dprojected), weights.transpose(1, 2), out=by_head(dx))
        if ctx.needs_input_grad[1]:
            dweights = torch.empty_like(weights)
            torch.bmm(by_head(x).transpose(1, 2), by_head(dprojected), out=dweights)
        return dx, dweights


def swiglu_features(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """`silu(x gate) * (x up)` of each token, `[B, T, H, D]`; differentiable once in all three.

    x: `[B, T, H, K]`; gate, up: `[H, K, D]`, LaCT's W0 and W2; one dtype of float32, bfloat16,
    float16 and float64, any widths. Matrix products are PyTorch's, under its precision settings,
    and round to this dtype, in which a gate of minus infinity is closed; silu and the product
    after them are float32 (float64 for float64).
    Raises TypeError or ValueError for inputs that do not fit, RuntimeError where Triton has no
    device, and for a second derivative.
    Source: arXiv 2602.21204, Section 5.3 and Appendix E; at widths 1 and weights 1,
    x = 2 has the feature 4 / (1 + exp(-2)).
    """
    check_tensor("x", x)
    if x.dtype not in DTYPES:
        raise TypeError(
            f"`x` must be float32, bfloat16, float16 or float64; got {x.dtype}. Convert it."
        )
    if x.ndim != 4 or x.shape[3] == 0:
        raise ValueError(
            "`x` must be [batch, time, heads, width] with a width of at least 1; got "
            f"shape {tuple(x.shape)}. Add the missing dimensions."
        )
    check_weights("x", x, gate, up)
    check_device("x", x)
    return _Features.apply(x.contiguous(), torch.cat((gate, up), dim=-1))  # type: ignore


def segments_for(q: Tensor, v: Tensor, features: int) -> int:
    """Into how many segments to cut time: 1 in the interpreter, and where heads are enough."""
    batch, tokens, heads, key = q.shape
    tiles = attention_tiling(key, features, v.shape[3], q.dtype)
    programs = batch * heads * triton.cdiv(v.shape[3], tiles.columns)
    places = multiprocessors(q.device)
    if 4 * programs >= 3 * places:
        return 1
    return max(1, min(triton.cdiv(places, programs), tokens // LEAST))


def _attend(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    up: Tensor,
    starts: Tensor | None,
    final: Tensor | None,
    scale: float,
    exclusive: bool,
    segments: int,
) -> Tensor | None:
    """Launch `attend_kernel`; without q it writes each segment's state only."""
    (batch, tokens, heads, key), value, features = k.shape, v.shape[3], gate.shape[2]
    tiles = attention_tiling(key, features, value, k.dtype)
    o = None if q is None else torch.empty_like(v)
    length = triton.cdiv(triton.cdiv(tokens, segments), UNIT) * UNIT
    wide = accumulator(k.dtype) == torch.float64
    grid = (batch * heads * segments * triton.cdiv(value, tiles.columns),)
    kernel: Any = attend_kernel
    with on(k.device):
        kernel[grid](
            q,
            k,
            v,
            gate,
            up,
            starts,
            o,
            final,
            tokens,
            heads,
            segments,
            length,
            scale,
            K=key,
            D=features,
            V=value,
            BK=padded(key),
            BD=padded(features),
            BV=tiles.columns,
            BT=tiles.tokens,
            EXCLUSIVE=exclusive,
            ACC=tl.float64 if wide else tl.float32,
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
    return o


def starting_states(local: Tensor, initial: Tensor | None) -> Tensor:
    """What segments start with, from what each adds, `[B H, S, D, V]`; always in one order."""
    starts = torch.empty_like(local)
    starts[:, 0] = 0.0 if initial is None else initial.flatten(0, 1)
    for s in range(1, local.shape[1]):
        torch.add(starts[:, s - 1], local[:, s - 1], out=starts[:, s])
    return starts


@once("`swiglu_attention`")
class _Attention(torch.autograd.Function):
    """`(o, final_state)`. Tensors are contiguous, with at least one token and head.

    The backward pass makes the features again, to memory, and is that of the two operators.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        gate: Tensor,
        up: Tensor,
        initial: Tensor | None,
        scale: float,
        exclusive: bool,
        asked: int | None,
        output_final: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """One launch, or, in segments, one more before it for the states that they start with."""
        segments = asked or segments_for(q, v, gate.shape[2])
        shape = (k.shape[0], k.shape[2], gate.shape[2], v.shape[3])
        empty = {"dtype": accumulator(k.dtype), "device": k.device}
        starts = initial
        if segments > 1:
            local = torch.empty(shape[0] * shape[1], segments, *shape[2:], **empty)
            _attend(None, k, v, gate, up, None, local, scale, exclusive, segments)
            starts = starting_states(local, initial)
        final = torch.empty(shape, **empty) if output_final else None
        o = _attend(q, k, v, gate, up, starts, final, scale, exclusive, segments)
        ctx.save_for_backward(q, k, v, gate, up, initial)
        ctx.set_materialize_grads(False)
        ctx.options = {"scale": scale, "exclusive": exclusive, "segments": asked}
        return o, final

    @staticmethod
    def backward(ctx: Any, do: Any, dfinal: Any) -> Any:  # type: ignore[override]
        """Gradients of `linear_attention` of `swiglu_features`."""
        needs = ctx.needs_input_grad[:6]
        leaves: list[Any] = [
            x if x is None else x.detach().requires_grad_(need)
            for x, need in zip(ctx.saved_tensors, needs, strict=True)
        ]
        with torch.enable_grad():
            found = two_operators(*leaves, output_final_state=dfinal is not None, **ctx.options)
        # The final state does not depend on q, nor any output on what nothing asks for.
        pairs = [
            (y, dy)
            for y, dy in zip(found, (do, dfinal), strict=True)
            if y is not None and dy is not None and y.requires_grad
        ]
        wanted = [x for x, need in zip(leaves, needs, strict=True) if need]
        grads: Any = iter([None] * len(wanted))
        if pairs:
            outputs, outer = zip(*pairs, strict=True)
            grads = iter(torch.autograd.grad(outputs, wanted, outer, allow_unused=True))
        return (*(next(grads) if need else None for need in needs), None, None, None, None)


def two_operators(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    up: Tensor,
    initial: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """`linear_attention` of `swiglu_features`: the same, with the features in memory."""
    return linear_attention(
        swiglu_features(q, gate, up),
        swiglu_features(k, gate, up),
        v,
        initial_state=initial,
        **options,
    )


def swiglu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    up: Tensor,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    exclusive: bool = False,
    segments: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Causal linear attention of SwiGLU features; differentiable once in every tensor.

        S_t = S_{t-1} + phi(k_t)^T v_t      o_t = scale phi(q_t) S_t      phi = swiglu_features

    q, k: `[B, T, H, K]`, v: `[B, T, H, V]`, gate, up: `[H, K, D]`, LaCT's W0 and W2, of one
    dtype: float32, bfloat16, float16 (states float32) or float64 (states float64); K and D at
    most 128, any V and T. Features are rounded to this dtype; in bfloat16 and float16 the forward
    pass keeps them in its kernel and, unlike `swiglu_features`, does not round the two products
    that they are made of.
    In float16 features, states, and scores and their gradients, are infinite above 65504.
    initial_state: S before the first token, `[B, H, D, V]`, LaCT's W1; zero where None.
    exclusive: read S_{t-1} in place of S_t.
    segments: into how many parts time is cut to fill the device; None chooses.
    Returns o `[B, T, H, V]` in the dtype of q, and the last S if `output_final_state`, else None.
    Raises TypeError or ValueError for inputs that do not fit, RuntimeError where Triton has no
    device, and for a second derivative.
    Source: arXiv 2602.21204, Section 6.1, variant V2 with Theta fixed, without momentum and
    orthogonalisation; features from Section 5.3. One token of widths 1, all of it 1: o is the
    square of 1 / (1 + exp(-1)).
    """
    check_tokens(q, k, v)
    check_weights("q", q, gate, up)
    scale, segments = check_scale(scale), check_segments(segments)
    for name, axis in (("K", 1), ("D", 2)):
        if gate.shape[axis] > MAX_FUSED:
            raise ValueError(
                f"`gate` must have {name} of at most {MAX_FUSED}; got "
                f"{gate.shape[axis]}. Use linear_attention of swiglu_features."
            )
    # A view of one number with the features' shape: the state has to fit these.
    features = q.new_empty(()).expand(*q.shape[:3], gate.shape[2])
    initial = state("initial_state", initial_state, features, v)
    if q.numel() == 0 or not fuses(q):
        return two_operators(
            q,
            k,
            v,
            gate,
            up,
            initial,
            output_final_state=output_final_state,
            scale=scale,
            exclusive=exclusive,
            segments=segments,
        )
    q, k, v, gate, up = (x.contiguous() for x in (q, k, v, gate, up))
    return _Attention.apply(
        q, k, v, gate, up, initial, scale, exclusive, segments, output_final_state
    )  # type: ignore
