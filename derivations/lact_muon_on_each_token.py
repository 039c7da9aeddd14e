"""False: Eq. (1) as printed, with M on each token's outer product, where a chunk has several.

The nets are linear and the loss is Frobenius's: that is enough to tell the two apart. In the
counterexample the operator is the cubic `M(X) = X Xᵀ X`, which is odd, as Muon is.
"""

from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear, Schedule
from ttt_proofs.symbolic import Derivation, Part, outer_products_part


def derive() -> Derivation:
    """For any operator M, the form of Eq. (1)."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (outer_products_part(loop),)

    update = GradientStep(rate=None, orthogonal="muon")
    loop = InnerLoop(Linear(), Frobenius(), update, Schedule(chunk=2))
    return Derivation(
        name="lact_muon_on_each_token",
        title="Muon on each outer product, in chunks of several tokens",
        source="Section 5.3, Eq. (1)",
        parts=restate(loop),
        loops=(loop,),
        restate=restate,
        expects="fails",
        instead="M acts on the chunk's sum, Σ_i M(Σ_m k̂_imᵀ v̂_im) "
        "(lact_muon_on_momentum, without momentum).",
    )
