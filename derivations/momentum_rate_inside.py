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
from ttt_proofs.symbolic import Derivation, Part, attention_part, running_product


def derive() -> Derivation:
    """The rate is taken with the gradient, so it is indexed by i."""
    i, j, t = sp.symbols("i j t", integer=True)
    weight = sp.Sum(running_product("alpha", i + 1, j), (j, i, t))

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        if loop.update.rate == "constant":
            return (attention_part(loop, "a constant rate", coefficient=sp.Symbol("eta") * weight),)
        each = sp.IndexedBase("eta")[i]
        return (attention_part(loop, "a rate for each step", coefficient=each * weight),)

    update = GradientStep(rate="per_step", place="inside", momentum="per_step")
    constant = GradientStep(rate="constant", place="inside", momentum="per_step")
    abstract = (InnerLoop(Features(), AbstractLoss(), rule) for rule in (update, constant))
    return Derivation(
        name="momentum_rate_inside",
        title="Momentum with the rate inside the accumulator",
        source="Section 5.3, Appendix E",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(Linear(), Frobenius(), update),
            InnerLoop(MLP(2, "sigmoid"), SquaredError(), update),
            InnerLoop(Linear(), SquaredError(), constant),
        ),
    )
