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
from ttt_proofs.symbolic import Derivation, Part, attention_part, running_product


def derive() -> Derivation:
    """The rate is taken when the accumulator is read, so it is indexed by j."""
    i, j, t = sp.symbols("i j t", integer=True)
    weight = sp.Sum(sp.IndexedBase("eta")[j] * running_product("alpha", i + 1, j), (j, i, t))

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (attention_part(loop, coefficient=weight),)

    update = GradientStep(rate="per_step", place="outside", momentum="per_step")
    return Derivation(
        name="momentum_rate_outside",
        title="Momentum with the rate outside the accumulator",
        source="Section 6.2, Appendix H",
        parts=restate(InnerLoop(Features(), AbstractLoss(), update)),
        restate=restate,
        loops=(
            InnerLoop(Linear(), SquaredError(), update),
            InnerLoop(MLP(2, "relu"), Frobenius(), update),
        ),
    )
