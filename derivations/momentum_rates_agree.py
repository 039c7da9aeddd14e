"""False: that with a rate for each step it does not matter whether it is inside or outside.

The paper writes both coefficients. Here the loop with the rate outside is said to have the one
that belongs inside, `η_i Σ_{j=i..t} β_i^j`. Theorem 5.3 itself has a constant rate, and holds.
"""

import sympy as sp

from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
from ttt_proofs.symbolic import Derivation, Part, attention_part, running_product


def derive() -> Derivation:
    """A linear net with the Frobenius loss is enough to tell the two apart."""
    i, j, t = sp.symbols("i j t", integer=True)
    inside = sp.IndexedBase("eta")[i] * sp.Sum(running_product("alpha", i + 1, j), (j, i, t))

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (attention_part(loop, coefficient=inside),)

    update = GradientStep(rate="per_step", place="outside", momentum="per_step")
    loop = InnerLoop(Linear(), Frobenius(), update)
    return Derivation(
        name="momentum_rates_agree",
        title="Rates inside and outside the accumulator agree",
        source="Section 5.3 and Appendix E (inside) against Appendix H (outside)",
        parts=restate(loop),
        loops=(loop,),
        restate=restate,
        expects="fails",
        instead="The coefficient is Σ_{j=i..t} η_j β_i^j (momentum_rate_outside). With a constant "
        "rate both are η Σ_{j=i..t} β_i^j (momentum, and the second part of momentum_rate_inside).",
    )
