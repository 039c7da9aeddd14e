"""A rate for each step, inside the accumulator: `M ← η_t ∇L + α_t M`.

The coefficient of step i at time t is `η_i Σ_{j=i..t} β_i^j`. With a constant rate this is what
`momentum` has, where the rate is outside: then the place does not matter.
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
    constant = GradientStep(rate="constant", place="inside", momentum="per_step")
    loop, same = (InnerLoop(Features(), AbstractLoss(), rule) for rule in (update, constant))
    weight = sp.Sum(beta, (j, i, t))
    return Derivation(
        name="momentum_rate_inside",
        title="Momentum with the rate inside the accumulator",
        source="Section 5.3, Appendix E",
        parts=(
            attention_part(loop, "a rate for each step", coefficient=eta[i] * weight),
            attention_part(same, "a constant rate", coefficient=sp.Symbol("eta") * weight),
        ),
        loops=(
            InnerLoop(Linear(), Frobenius(), update),
            InnerLoop(MLP(2, "sigmoid"), SquaredError(), update),
        ),
    )
