"""False: that a step is affine in the state where each column's norm is restored.

`F(S + A + B) - F(S + A) - F(S + B) + F(S)` would be 0, F one step from any state; the norms that
are restored are those of W_0.
"""

from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
from ttt_proofs.symbolic import Derivation, affine_part


def derive() -> Derivation:
    """One step from states that differ by A, by B, and by both."""
    loop = InnerLoop(Linear(), Frobenius(), GradientStep(weight_norm="initial_norm"))
    return Derivation(
        name="weight_norm_not_affine",
        title="A step with weight normalisation is affine in the state",
        source="Section 6.2, Appendix I.2",
        parts=(affine_part(loop),),
        expects="fails",
        instead="Norm(A + B) is not Norm(A) + Norm(B): the gate depends on the state "
        "(lact_weight_norm). Without normalisation the step is additive.",
    )
