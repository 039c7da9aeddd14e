"""Theorem 5.2: unrolled from its start, the loop is linear attention over all past tokens.

`o_t = φ_{t+1}(q_t) (W_0 + Σ_{i=0..t} φ_i(k_i)ᵀ g_i(k_i))`.
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
from ttt_proofs.symbolic import Derivation, attention_part


def derive() -> Derivation:
    """By induction on t; the rate is written into the values."""
    loop = InnerLoop(Features(), AbstractLoss(), GradientStep())
    part = attention_part(loop, coefficient=sp.Integer(1), scale=sp.Symbol("eta"))
    exclusive = Schedule(chunk=2, read="before_update")
    return Derivation(
        name="unrolled",
        title="The unrolled loop is linear attention",
        source="Theorem 5.2, Appendix C",
        parts=(part,),
        loops=(
            InnerLoop(Linear(), SquaredError(), GradientStep()),
            InnerLoop(MLP(3, "gelu_tanh"), Frobenius(), GradientStep()),
            InnerLoop(SwiGLU(), SquaredError(), GradientStep(), exclusive),
        ),
    )
