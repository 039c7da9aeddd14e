"""False: Eq. (1) as printed, where momentum is on.

It says `o_t = φ_{t+1}(q_t) (W_0 + Σ_i M(φ_i(k_i)ᵀ m_i))`, with M on each outer product.

The nets are linear and the loss is Frobenius's: that is enough to tell the two apart. In the
counterexample the operator is the cubic `M(X) = X Xᵀ X`, which is odd, as Muon is.
"""

from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear, Schedule
from ttt_proofs.symbolic import Derivation, Part, outer_products_part


def derive() -> Derivation:
    """For any operator M, the form of Eq. (1)."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (outer_products_part(loop),)

    update = GradientStep(rate=None, momentum="per_step", orthogonal="muon")
    loop = InnerLoop(Linear(), Frobenius(), update, Schedule(single=True))
    return Derivation(
        name="lact_muon_on_each_outer_product",
        title="Muon on each outer product, with momentum",
        source="Section 5.3, Eq. (1)",
        parts=restate(loop),
        loops=(loop,),
        restate=restate,
        expects="fails",
        instead="M acts on the accumulated momentum, Σ_i M(Σ_{j≤i} β_j^i k̂_jᵀ v̂_j) "
        "(lact_muon_on_momentum). Without momentum and with one token a chunk, Eq. (1) holds as "
        "printed (its last part).",
    )
