"""Theorem 5.2: unrolled from its start, the loop is linear attention over all past tokens.

`o_t = φ_{t+1}(q_t) (W_0 + Σ_{i=0..t} φ_i(k_i)ᵀ g_i(k_i))`. Read before the update, it is
`o_t = φ_t(q_t) (W_0 + Σ_{i=0..t-1} φ_i(k_i)ᵀ g_i(k_i))`.
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
from ttt_proofs.symbolic import Derivation, Part, attention_part


def derive() -> Derivation:
    """By induction on t; the rate is written into the values."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        label = loop.schedule.reading
        scale = sp.Symbol("eta")
        return (attention_part(loop, label, coefficient=sp.Integer(1), scale=scale),)

    before = Schedule(chunk=2, read="before_update")
    abstract = (InnerLoop(Features(), AbstractLoss(), schedule=s) for s in (Schedule(), before))
    return Derivation(
        name="unrolled",
        title="The unrolled loop is linear attention",
        source="Theorem 5.2, Appendix C",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(Linear(), SquaredError(), GradientStep()),
            InnerLoop(MLP(3, "gelu_tanh"), Frobenius(), GradientStep()),
            InnerLoop(SwiGLU(), SquaredError(), GradientStep(), before),
        ),
    )
