"""ViTTT as released: the loss is scaled, and each column of a gradient is divided by its norm + 1.

The scale, `9^(-1/2)` over the number of tokens, is the rate η inside of the clip; the clip is a
gate r on columns: `o = φ_{t+1}(q) ⊙ (q (W_1 + r ⊙ η kᵀ (v ⊙ φ_t(k))))`, and the convolution
likewise.
"""

import sympy as sp

from ttt_proofs.loops import GLU, DepthwiseConv, Frobenius, GradientStep, InnerLoop, Schedule
from ttt_proofs.symbolic import Derivation, Part, single_step_part


def derive() -> Derivation:
    """Both halves, with any gate, and with the one released."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        half = "convolution" if loop.net.tokens else "gated linear unit"
        gate = "norm + 1" if loop.update.clip == "column_norm" else "any gate"
        part = single_step_part(loop, f"{half}, {gate}", scale=sp.Symbol("eta"))
        return (part,)

    rules = [GradientStep(place="inside", clip=clip) for clip in ("gate", "column_norm")]
    nets = ((GLU(), Schedule(chunk=4)), (DepthwiseConv(), Schedule(chunk=4)))
    every = [InnerLoop(net, Frobenius(), rule, when) for net, when in nets for rule in rules]
    return Derivation(
        name="vittt",
        title="ViTTT as released",
        source="Section 5.4, Appendices F and G; the released layer",
        parts=tuple(part for loop in every for part in restate(loop)),
        restate=restate,
        loops=(every[1], every[3]),
    )
