"""ViTTT's gated linear unit: an ungated state, with gates on the values and on the output.

One step: `o = φ_{t+1}(q) ⊙ (q (W_1 + η kᵀ (v ⊙ φ_t(k))))`, `φ(x) = act(x W_0)`.
"""

import sympy as sp

from ttt_proofs.loops import GLU, Frobenius, GradientStep, InnerLoop, Schedule, SquaredError
from ttt_proofs.symbolic import Derivation, Part, attention_part, gradient_part, single_step_part


def derive() -> Derivation:
    """One step, all steps, and both gradients; the gate's activation is abstract."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (
            single_step_part(loop, "one step", scale=sp.Symbol("eta")),
            attention_part(loop, "all steps"),
            *(gradient_part(loop, weight) for weight in loop.net.weights),
        )

    return Derivation(
        name="vittt_glu",
        title="ViTTT's gated linear unit is gated linear attention",
        source="Section 5.4, Appendix F",
        parts=restate(InnerLoop(GLU("act"), Frobenius())),
        restate=restate,
        loops=(
            InnerLoop(GLU(), Frobenius(), GradientStep(), Schedule(chunk=3)),
            InnerLoop(GLU("tanh"), SquaredError(), GradientStep(), Schedule(chunk=2)),
        ),
        parallel="sequential",
    )
