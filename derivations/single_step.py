"""Theorem 5.1: one gradient step turns the read-out into one step of linear attention.

`o = φ_{t+1}(q) (W_t + φ_t(k)ᵀ g_t(k))` with `g_t(k) = -η ∂L/∂f_t(k)`.
"""

import sympy as sp

from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic import Derivation, Part, single_step_part


def derive() -> Derivation:
    """The effective query is φ_{t+1}(q), the key φ_t(k), the value g_t(k), the state W_t."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (single_step_part(loop, scale=sp.Symbol("eta")),)

    return Derivation(
        name="single_step",
        title="One step is linear attention",
        source="Theorem 5.1, Appendix B",
        parts=restate(InnerLoop(Features(), AbstractLoss(), GradientStep())),
        restate=restate,
        loops=(
            InnerLoop(Linear(), Frobenius(), GradientStep()),
            InnerLoop(MLP(2, "silu"), SquaredError(), GradientStep(), Schedule(chunk=3)),
            InnerLoop(SwiGLU(), Frobenius(), GradientStep(), Schedule(chunk=2)),
        ),
    )
