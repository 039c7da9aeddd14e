"""Theorem 5.3: with momentum, each past value is weighted by a sum of running products.

`o_t = φ_{t+1}(q_t) (W_0 + Σ_{i=0..t} φ_i(k_i)ᵀ m_i)`, `m_i = g_i(k_i) Σ_{j=i..t} β_i^j`,
`β_i^j = Π_{s=i+1..j} α_s`. The effective value depends on the time of reading.
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
    """By induction on t, over the state and the accumulator together."""
    i, j, s, t = sp.symbols("i j s t", integer=True)
    beta = sp.Product(sp.IndexedBase("alpha")[s], (s, i + 1, j))
    update = GradientStep(momentum="per_step")
    loop = InnerLoop(Features(), AbstractLoss(), update)
    part = attention_part(loop, coefficient=sp.Sum(beta, (j, i, t)), scale=sp.Symbol("eta"))
    return Derivation(
        name="momentum",
        title="Momentum weights the values by sums of running products",
        source="Theorem 5.3, Appendix D",
        parts=(part,),
        loops=(
            InnerLoop(Linear(), Frobenius(), update),
            InnerLoop(MLP(2, "tanh"), SquaredError(), update, Schedule(chunk=2)),
            InnerLoop(SwiGLU(), Frobenius(), update, Schedule(chunk=3)),
        ),
    )
