"""Muon acts on the accumulated momentum of whole chunks.

`o_t = φ_{t+1}(q_t) (W_0 + Σ_i M(Σ_{j≤i} β_j^i Σ_m φ_j(k_jm)ᵀ v̂_jm))`. Eq. (1), with M on each outer
product, is its special case without momentum and with one token a chunk.
"""

from ttt_proofs.loops import (
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic import Derivation, Part, attention_part, outer_products_part


def derive() -> Derivation:
    """For any operator M on matrices; the kernel φ and the loss are abstract as well."""
    alone = GradientStep(rate="per_step", place="inside", orthogonal="muon")
    held = GradientStep(rate="per_step", place="inside", momentum="per_step", orthogonal="muon")
    outside = GradientStep(rate="per_step", momentum="per_step", orthogonal="muon")

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        if loop.schedule.single:
            label = "Eq. (1) as printed: no momentum, one token a chunk"
            return (outer_products_part(loop, label),)
        label = f"momentum, rate {loop.update.place}" if loop.update.momentum else "no momentum"
        return (attention_part(loop, label),)

    abstract = [InnerLoop(Features(), AbstractLoss(), rule) for rule in (held, outside, alone)]
    abstract.append(InnerLoop(Features(), AbstractLoss(), alone, Schedule(single=True)))
    return Derivation(
        name="lact_muon_on_momentum",
        title="Muon acts on the accumulated momentum",
        source="Section 5.3, Appendix E, corrected",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(Linear(), SquaredError(), held, Schedule(chunk=2)),
            InnerLoop(SwiGLU(), Frobenius(), outside, Schedule(chunk=2)),
            InnerLoop(Linear(), Frobenius(), alone, Schedule(single=True)),
        ),
    )
