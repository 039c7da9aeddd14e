"""False: that a static kernel and no weight normalisation are enough for a prefix sum.

That needs `F(S + A) = F(S) + A`, which the Frobenius loss has; with squared error the value depends
on the state.
"""

from ttt_proofs.loops import GradientStep, InnerLoop, Linear, SquaredError
from ttt_proofs.symbolic import Derivation, additive_part


def derive() -> Derivation:
    """One step from two states that differ by A."""
    loop = InnerLoop(Linear(), SquaredError(), GradientStep())
    return Derivation(
        name="squared_error_not_additive",
        title="With squared error and a static kernel, states add up",
        source="Section 6.2",
        parts=(additive_part(loop),),
        expects="fails",
        instead="The step is affine, S ← A S + B (squared_error_is_affine): parallel by a scan "
        "of affine maps, not by a sum.",
    )
