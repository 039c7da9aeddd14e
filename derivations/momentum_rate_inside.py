"""A rate for each step, inside the accumulator: `M ← η_t ∇L + α_t M`.

The coefficient of step i at time t is `η_i Σ_{j=i..t} β_i^j`.
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
    SquaredError,
)
from ttt_proofs.symbolic import Derivation, attention_part


def derive() -> Derivation:
    """The rate is taken with the gradient, so it is indexed by i."""
    i, j, s, t = sp.symbols("i j s t", integer=True)
    alpha, eta = sp.IndexedBase("alpha"), sp.IndexedBase("eta")
    beta = sp.Product(alpha[s], (s, i + 1, j))
    update = GradientStep(rate="per_step", place="inside", momentum="per_step")
    loop = InnerLoop(Features(), AbstractLoss(), update)
    return Derivation(
        name="momentum_rate_inside",
        title="Momentum with the rate inside the accumulator",
        source="Section 5.3, Appendix E",
        parts=(attention_part(loop, coefficient=eta[i] * sp.Sum(beta, (j, i, t))),),
        loops=(
            InnerLoop(Linear(), Frobenius(), update),
            InnerLoop(MLP(2, "sigmoid"), SquaredError(), update),
        ),
    )
