"""A rate for each step, outside the accumulator: `W ← W - η_t M`.

The coefficient of step i at time t is `Σ_{j=i..t} η_j β_i^j`.
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
    """The rate is taken when the accumulator is read, so it is indexed by j."""
    i, j, s, t = sp.symbols("i j s t", integer=True)
    alpha, eta = sp.IndexedBase("alpha"), sp.IndexedBase("eta")
    beta = sp.Product(alpha[s], (s, i + 1, j))
    update = GradientStep(rate="per_step", place="outside", momentum="per_step")
    loop = InnerLoop(Features(), AbstractLoss(), update)
    return Derivation(
        name="momentum_rate_outside",
        title="Momentum with the rate outside the accumulator",
        source="Section 6.2, Appendix H",
        parts=(attention_part(loop, coefficient=sp.Sum(eta[j] * beta, (j, i, t))),),
        loops=(
            InnerLoop(Linear(), SquaredError(), update),
            InnerLoop(MLP(2, "relu"), Frobenius(), update),
        ),
    )
