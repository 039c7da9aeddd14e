"""False: that a step is affine in the state where the kernel is trained as well.

`F(S + A + B) - F(S + A) - F(S + B) + F(S)` would be 0. Here the net is `relu(x W1) W2`, the loss is
Frobenius's, and F is what a step makes of W2, given all weights.
"""

from ttt_proofs.loops import MLP, Frobenius, GradientStep, InnerLoop
from ttt_proofs.symbolic import Derivation, affine_part


def derive() -> Derivation:
    """One step from states that differ by A, by B, and by both."""
    loop = InnerLoop(MLP(2, "relu"), Frobenius(), GradientStep())
    return Derivation(
        name="dynamic_kernel_not_affine",
        title="A step of a loop with a dynamic kernel is affine in its weights",
        source="Section 6.2, Appendix I.1",
        parts=(affine_part(loop),),
        expects="fails",
        instead="Features of the state are stored in the state, so its map is no more affine "
        "than φ is. With a static kernel it is: W ← W + what does not depend on W "
        "(Frobenius), or squared_error_is_affine.",
    )
