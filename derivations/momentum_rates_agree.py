"""Claimed and false: that it does not matter whether the rate is inside or outside.

The loop with the rate outside is said to have the coefficient of the one with the rate
inside, `η_i Σ_{j=i..t} β_i^j`. They agree where the rate is the same at every step.
"""

import sympy as sp

from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
from ttt_proofs.symbolic import Derivation, attention_part


def derive() -> Derivation:
    """A linear net with the Frobenius loss is enough to tell the two apart."""
    i, j, s, t = sp.symbols("i j s t", integer=True)
    alpha, eta = sp.IndexedBase("alpha"), sp.IndexedBase("eta")
    beta = sp.Product(alpha[s], (s, i + 1, j))
    update = GradientStep(rate="per_step", place="outside", momentum="per_step")
    loop = InnerLoop(Linear(), Frobenius(), update)
    return Derivation(
        name="momentum_rates_agree",
        title="Rates inside and outside the accumulator agree",
        source="Theorem 5.3 read with per-step rates, against Appendix H",
        parts=(attention_part(loop, coefficient=eta[i] * sp.Sum(beta, (j, i, t))),),
        expects="fails",
        instead="The coefficient is Σ_{j=i..t} η_j β_i^j (momentum_rate_outside). With a constant "
        "rate both are η Σ_{j=i..t} β_i^j (momentum, and the second part of momentum_rate_inside).",
    )
