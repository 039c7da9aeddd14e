"""Linear attention with momentum: a 2x2 gate on state and accumulator."""

from __future__ import annotations

from torch import Tensor

from .launches import Gates, States
from .requirements import check_pair, check_scale, check_segments, check_tokens, numbers, state
from .scan import attention


def momentum_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    eta: Tensor,
    alpha: Tensor,
    *,
    scale: float = 1.0,
    initial_state: tuple[Tensor, Tensor] | None = None,
    output_final_state: bool = False,
    exclusive: bool = False,
    segments: int | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Causal linear attention of a loop with momentum, one token a step; differentiable once.

        M_t = alpha_t M_{t-1} + k_t^T v_t      W_t = W_{t-1} + eta_t M_t      o_t = scale q_t W_t

    so that the write at i counts `C_ti = sum_{j=i..t} eta_j prod_{s=i+1..j} alpha_s` at t.
    q, k: `[B, T, H, K]`, v: `[B, T, H, V]`, of one dtype: float32, bfloat16, float16 (states
    float32) or float64 (states float64); K <= 256, any V and T.
    eta, alpha: `[B, T, H]`; alpha anything in [0, 1], 0 and 1 included, at any length: nothing is
    divided by a running product.
    initial_state: (W, M) before the first token, both `[B, H, K, V]`; zero where None.
    exclusive: read W_{t-1} in place of W_t.
    scale: a compile-time number of the kernel; each value is compiled once.
    segments: into how many parts time is cut to fill the device; None chooses.
    NaN and infinity are not hidden, and may reach earlier tokens of their tile of up to 64; in
    float16 states, and scores and their gradients, are infinite above 65504.
    Returns o `[B, T, H, V]` in the dtype of q, and the last (W, M) if `output_final_state`, else
    None.
    Raises TypeError or ValueError for inputs that do not fit, RuntimeError where Triton has no
    device, and for a second derivative.
    Source: arXiv 2602.21204, Theorem 5.3, and the parallel form of Section 6.2; at two tokens, with
    q = k = v = eta = 1 and alpha = 1/2, o = (1, 2.5), and exclusive (0, 1).
    """
    check_tokens(q, k, v)
    w, m = check_pair("initial_state", initial_state)
    o, (w, m) = attention(
        "momentum",
        q,
        k,
        v,
        Gates(numbers("eta", eta, q), numbers("alpha", alpha, q)),
        States(state("initial_state[0]", w, q, v), state("initial_state[1]", m, q, v)),
        scale=check_scale(scale),
        final=output_final_state,
        exclusive=exclusive,
        segments=check_segments(segments),
    )
    return o, (w, m) if output_final_state and w is not None and m is not None else None
