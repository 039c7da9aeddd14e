"""Additive and decayed linear attention."""

from __future__ import annotations

from torch import Tensor

from .launches import Gates, States
from .requirements import check_scale, check_segments, check_tokens, numbers, state
from .scan import attention


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    decay: Tensor | None = None,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    exclusive: bool = False,
    segments: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Causal linear attention, one token a step; differentiable once in every tensor.

        S_t = decay_t S_{t-1} + k_t^T v_t        o_t = scale q_t S_t

    q, k: `[B, T, H, K]`, v: `[B, T, H, V]`, of one dtype: float32, bfloat16, float16 (states
    float32) or float64 (states float64); K <= 256, any V and T.
    decay: `[B, T, H]`, 1 where None. Anything in [0, 1], 0 and 1 included, at any length: nothing
    is divided by a running product.
    initial_state: S before the first token, `[B, H, K, V]`; zero where None.
    exclusive: read S_{t-1} in place of S_t.
    scale: a compile-time number of the kernel; each value is compiled once.
    segments: into how many parts time is cut to fill the device; None chooses.
    NaN and infinity are not hidden, and may reach earlier tokens of their tile of up to 64; in
    float16 states, and scores and their gradients, are infinite above 65504.
    Returns o `[B, T, H, V]` in the dtype of q, and the last S if `output_final_state`, else None.
    Raises TypeError or ValueError for inputs that do not fit, RuntimeError where Triton has no
    device, and for a second derivative.
    Source: arXiv 2602.21204, Theorem 5.2, and variant V6 of Section 6.1; at two tokens, with
    q = k = 1 and v = (1, 2), o = (1, 3), and exclusive (0, 1).
    """
    check_tokens(q, k, v)
    alpha = None if decay is None else numbers("decay", decay, q)
    o, (_, last) = attention(
        "additive" if alpha is None else "decay",
        q,
        k,
        v,
        Gates(None, alpha),
        States(None, state("initial_state", initial_state, q, v)),
        scale=check_scale(scale),
        final=output_final_state,
        exclusive=exclusive,
        segments=check_segments(segments),
    )
    return o, last if output_final_state else None
