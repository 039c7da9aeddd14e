"""With squared error and a static kernel each step is affine in the state, `S ← A S + B`.

So the delta rule is parallel by a scan of affine maps, and with the Frobenius loss, where A is the
identity, by a sum.
"""

from ttt_proofs.loops import Features, Frobenius, GradientStep, InnerLoop, SquaredError
from ttt_proofs.symbolic import Derivation, additive_part, affine_part


def derive() -> Derivation:
    """For any static kernel; the rate may be another for each token."""
    update = GradientStep(rate="per_token", place="inside")
    delta, frobenius = (
        InnerLoop(Features(), loss, update, trained="last")
        for loss in (SquaredError(), Frobenius())
    )
    return Derivation(
        name="squared_error_is_affine",
        title="With squared error and a static kernel, a step is affine",
        source="Section 6.2, completed",
        parts=(affine_part(delta, "squared error"), additive_part(frobenius, "Frobenius")),
    )
