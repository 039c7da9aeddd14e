"""With weight normalisation the state is still read linearly; what is stored decays by gates.

`o_t = φ_{t+1}(q_t) (Π_s n_s ⊙ W_0 + Σ_i (Π_{s≥i} n_s) ⊙ φ_i(k_i)ᵀ m_i)`, where the gate n_s on a
column is a function of that column after step s. The state is no plain sum, since n depends on it.
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
from ttt_proofs.symbolic import Derivation, Part, attention_part


def derive() -> Derivation:
    """For any gate, and for the one that restores the initial norms."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        gate = {"initial_norm": "initial norms"}.get(str(loop.update.weight_norm), "any gate")
        how = "momentum" if loop.update.momentum else "no momentum"
        return (attention_part(loop, f"{gate}, {how}"),)

    rules = [
        GradientStep(momentum=momentum, weight_norm=norm)
        for norm in ("gate", "initial_norm")
        for momentum in (None, "per_step")
    ]
    abstract = (InnerLoop(Features(), AbstractLoss(), rule) for rule in rules)
    return Derivation(
        name="lact_weight_norm",
        title="A normalised state is read linearly",
        source="Appendix E.4",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(Linear(), SquaredError(), rules[2], Schedule(chunk=2)),
            InnerLoop(SwiGLU(), Frobenius(), rules[3]),
        ),
        parallel="sequential",
    )
