"""ViTTT's depthwise convolution: attention by the overlap of neighbourhoods, channel by channel.

One step: `O_{c,p} = Conv(Q; W)_{c,p} + η Σ_r (Σ_δ Q_{c,p+δ} K_{c,r+δ}) V_{c,r}`. Windows and images
may have any size. Inputs are given with their padding, which may hold anything: zeros too.
"""

import sympy as sp

from ttt_proofs.loops import (
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Schedule,
    SquaredError,
)
from ttt_proofs.symbolic import Derivation, Part, attention_part, gradient_part, single_step_part


def derive() -> Derivation:
    """One step, with queries times keys first; all steps; and the gradient."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (
            single_step_part(loop, "one step", scale=sp.Symbol("eta"), scores=True),
            attention_part(loop, "all steps"),
            gradient_part(loop, loop.net.last),
        )

    wide = DepthwiseConv(size=5, height=2, width=3)
    return Derivation(
        name="vittt_depthwise_conv",
        title="ViTTT's depthwise convolution is attention by overlaps",
        source="Section 5.4, Appendix G",
        parts=restate(InnerLoop(DepthwiseConv(), Frobenius(), schedule=Schedule(chunk=4))),
        restate=restate,
        loops=(
            InnerLoop(DepthwiseConv(), Frobenius(), GradientStep(), Schedule(chunk=4)),
            InnerLoop(wide, Frobenius(), GradientStep(), Schedule(chunk=6)),
            InnerLoop(DepthwiseConv(), SquaredError(), GradientStep(), Schedule(chunk=4)),
        ),
    )
