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
from ttt_proofs.symbolic import Derivation, Part, attention_part, last_step, running_product


def derive() -> Derivation:
    """By induction on t, over the state and the accumulator together."""
    i, j = sp.symbols("i j", integer=True)

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        label = loop.schedule.reading
        weight = sp.Sum(running_product("alpha", i + 1, j), (j, i, last_step(loop)))
        return (attention_part(loop, label, coefficient=weight, scale=sp.Symbol("eta")),)

    update, before = GradientStep(momentum="per_step"), Schedule(chunk=2, read="before_update")
    abstract = (InnerLoop(Features(), AbstractLoss(), update, s) for s in (Schedule(), before))
    return Derivation(
        name="momentum",
        title="Momentum weights the values by sums of running products",
        source="Theorem 5.3, Appendix D",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(Linear(), Frobenius(), update),
            InnerLoop(MLP(2, "tanh"), SquaredError(), update, before),
            InnerLoop(SwiGLU(), Frobenius(), update, Schedule(chunk=3)),
        ),
    )
