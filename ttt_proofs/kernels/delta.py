"""The delta rule in Triton, forward and backward, by tiles of tokens.

This module holds what is called, the table of how widths are cut into blocks, and the launches;
the kernels are in `delta_rule_forward` and `delta_rule_backward`, with what they compute.

The sequence is not cut into segments: the map of a segment is a K x K matrix, and making it costs
as much as the tiles that it skips. Few heads are spread over blocks of V alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..parallel.once import once
from . import requirements
from .delta_rule_backward import delta_rule_inputs, delta_rule_reverse
from .delta_rule_forward import couple_tiles, delta_rule_forward
from .empty import untouched
from .tiling import MIN_BLOCK, Tiling, launch, padded

# A tile has 16 tokens at least. Where their keys have fewer than 8 dimensions, what is rounded in
# the tile exceeds what the token recurrence rounds: these widths run in the next wider dtype.
LEAST_WIDTH = 8
WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64}


class Plan(NamedTuple):
    """How each kernel is cut and run; tokens of a tile are the same for all."""

    couple: Tiling
    forward: Tiling
    reverse: Tiling
    inputs: Tiling
    apart: bool  # dq in a launch of its own: two [tokens, K] sums do not fit the registers


def plan(key: int, value: int, dtype: torch.dtype) -> Plan:
    """How to run at widths K and V: the one table to tune. Chosen by widths and dtype alone.

    A tile has no more tokens than its keys have dimensions: the more depend on one another, the
    more of the rounding of `beta e` stays in the state. A score matrix and BK x BV of the state
    stay in registers. At K = 128 two programs of either pass over tiles fit a multiprocessor of
    an H100, by the registers and shared memory that the compiler reports; no device timed this.
    """
    width, low = padded(key), dtype.itemsize == 2
    tokens = min(64, width) if low else MIN_BLOCK

    def cut(columns: int, num_warps: int, num_stages: int) -> Tiling:
        return Tiling(tokens, min(columns, padded(value)), num_warps, num_stages)

    if not low:
        rest = [cut(16, 8, 1)] * 3
        return Plan(cut(0, 2, 1), *rest, apart=False)
    if width <= 64:
        return Plan(cut(0, 1, 1), cut(32, 4, 2), cut(32, 4, 2), cut(32, 4, 2), apart=False)
    if width == 128:
        return Plan(cut(0, 1, 1), cut(64, 4, 2), cut(64, 4, 1), cut(32, 8, 2), apart=False)
    return Plan(cut(0, 1, 1), cut(32, 8, 2), cut(32, 8, 1), cut(32, 8, 1), apart=True)


def _run(
    kernel: Any,
    programs: int,
    tiling: Tiling,
    device: torch.device,
    *arguments: Any,
    **constants: Any,
) -> None:
    """Launch a kernel; the blocks of a head stand beside each other, so that they share reads."""
    launch(
        kernel,
        programs,
        device,
        *arguments,
        TOKENS=tiling.tokens,
        num_warps=tiling.num_warps,
        num_stages=tiling.num_stages,
        **constants,
    )


@once("`delta_rule`")
class _DeltaRule(torch.autograd.Function):
    """Where gradients may be asked, keeps each tile's coupling, first state and errors."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        initial: Tensor | None,
        scale: float,
        exclusive: bool,
        output_final: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Couple the tokens of all tiles, then run over the tiles."""
        (B, T, H, K), V = k.shape, v.shape[3]
        p = plan(K, V, k.dtype)
        tokens, tiles = p.couple.tokens, triton.cdiv(T, p.couple.tokens)
        coupling = k.new_empty(B * H, tiles, tokens, tokens)
        states = k.new_empty(B * H, tiles, K, V) if keep else None
        errors = torch.empty_like(v) if keep else None
        o = torch.empty_like(v)
        final = beta.new_empty(B, H, K, V) if output_final else None
        _run(
            couple_tiles,
            B * H * tiles,
            p.couple,
            k.device,
            k,
            beta,
            coupling,
            T,
            H,
            K=K,
            BK=padded(K),
        )
        blocks = triton.cdiv(V, p.forward.columns)
        _run(
            delta_rule_forward,
            B * H * blocks,
            p.forward,
            k.device,
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
            K=K,
            V=V,
            BK=padded(K),
            BV=p.forward.columns,
            SCALE=scale,
            EXCLUSIVE=exclusive,
        )
        if keep:
            ctx.save_for_backward(q, k, beta, coupling, states, errors)
        ctx.options = scale, exclusive
        ctx.set_materialize_grads(False)
        return o, final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        """Run the reverse pass, then all tiles at once, as far as gradients are needed."""
        q, k, beta, coupling, states, errors = ctx.saved_tensors
        (B, T, H, K), V = k.shape, errors.shape[3]
        for_q, for_k, for_v, for_beta, for_initial = ctx.needs_input_grad[:5]
        for_keys = for_k or for_beta
        do, dfinal = (None if x is None else x.contiguous() for x in grads)
        do = torch.zeros_like(errors) if do is None else do
        dq = torch.empty_like(q) if for_q else None
        dk, dbeta = (torch.empty_like(k), torch.empty_like(beta)) if for_keys else (None, None)
        dv = torch.empty_like(errors) if for_v else None
        dinitial = beta.new_empty(B, H, K, V) if for_initial else None
        g, dstates = map(torch.empty_like, (errors, states)) if for_keys else (None, None)
        p, device, count = plan(K, V, k.dtype), k.device, B * H * coupling.shape[1]
        scale, shift = ctx.options
        sizes = {"K": K, "V": V, "BK": padded(K), "SCALE": scale, "EXCLUSIVE": shift}
        if any(ctx.needs_input_grad[1:5]):
            columns = p.reverse.columns
            programs = B * H * triton.cdiv(V, columns)
            tensors = (q, k, do, beta, coupling, dfinal, dinitial, dstates, g, dv)
            _run(
                delta_rule_reverse, programs, p.reverse, device, *tensors, T, H, BV=columns, **sizes
            )
        parts = [(dq, None, None), (None, dk, dbeta)] if p.apart else [(dq, dk, dbeta)]
        for part in parts:
            if any(x is not None for x in part):
                _run(
                    delta_rule_inputs,
                    count,
                    p.inputs,
                    device,
                    q,
                    k,
                    do,
                    beta,
                    states,
                    errors,
                    dstates,
                    g,
                    *part,
                    T,
                    H,
                    BV=p.inputs.columns,
                    **sizes,
                )
        needed = zip((dq, dk, dv, dbeta, dinitial), ctx.needs_input_grad, strict=False)
        return (*(x if need else None for x, need in needed), None, None, None, None)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    exclusive: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The inner loop with a linear net, squared error and one token a step; differentiable once.

        S_t = S_{t-1} + k_t^T beta_t (v_t - k_t S_{t-1})        o_t = scale q_t S_t

    q, k: `[B, T, H, K]`, v: `[B, T, H, V]`, of one dtype: float32, bfloat16, float16 (states
    float32) or float64 (states float64); K <= 256, any V and T. Products are of that dtype, for
    K < 8 of a wider one, and summed in the states' dtype.
    beta: `[B, T, H]`, any real numbers, 0 and 1 included. Keys are not normalised: where
    beta_t |k_t|^2 > 2 the recurrence itself grows.
    initial_state: S before the first token, `[B, H, K, V]`; zero where None.
    exclusive: read S_{t-1} in place of S_t.
    scale: a compile-time number of the kernels; each value is compiled once.
    Returns o `[B, T, H, V]` in the dtype of q, and the last S if `output_final_state`, else None.
    NaN of a token reaches all later ones, and may reach those before it in its tile of <= 64; in
    float16 states, and scores and their gradients, are infinite above 65504.
    Raises TypeError or ValueError for inputs that do not fit, RuntimeError where Triton has no
    device, and for a second derivative.
    Source: arXiv 2602.21204, Theorem 5.1 with the squared error and eta = beta_t; by tiles, Yang
    et al., arXiv 2406.06484, Section 3. With k = q = 1, beta = 1/2 and v = (4, 4, 4), o = (2, 3,
    3.5), and exclusive (0, 2, 3).
    """
    requirements.check_tokens(q, k, v)
    scale = requirements.check_scale(scale)
    numbers = requirements.numbers("beta", beta, q)
    initial = requirements.state("initial_state", initial_state, q, v)
    if q.numel() == 0:
        o, (final,) = untouched(q, k, v, [numbers], [initial])
        return o, final if output_final_state else None
    if k.shape[3] < LEAST_WIDTH and k.dtype in WIDER:
        wide = WIDER[k.dtype]
        o, final = delta_rule(
            q.to(wide),
            k.to(wide),
            v.to(wide),
            beta,
            scale=scale,
            initial_state=initial,
            output_final_state=output_final_state,
            exclusive=exclusive,
        )
        return o.to(q.dtype), None if final is None else final.to(numbers.dtype)
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    inputs = (q, k, v, numbers, initial)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    return _DeltaRule.apply(*inputs, scale, exclusive, output_final_state, keep)  # type: ignore
