"""With the Frobenius loss, gradient ascent on (k, v) is gradient descent on (k, -v), exactly.

Loop a ascends, loop b descends on negated values: the same weights at all times, hence the same
outputs. So where the map that makes v can be negated, for instance a linear projection, negating
it maps one run onto the other, step for step; that training finds it is not shown. With Muon the
accumulator holds the direction of the step; for an odd operator, as M is, that is the same as
taking M of the gradient and the sign afterwards.
"""

from dataclasses import replace

from ttt_proofs.loops import (
    MLP,
    AnyNet,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SwiGLU,
    lact,
)
from ttt_proofs.symbolic import Derivation, Part, same_outputs_part


def derive() -> Derivation:
    """For any net and all weights, with momentum, Muon and weight normalisation."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        rule = loop.update
        net = {AnyNet: "any net", SwiGLU: "LaCT"}.get(type(loop.net), type(loop.net).__name__)
        ascending = replace(loop, update=replace(rule, ascent=True))
        negated = replace(
            loop,
            update=replace(rule, ascent=False),
            loss=NegatedValues(loop.loss),
        )
        return (same_outputs_part(ascending, negated, ", ".join([net, *rule.options])),)

    momentum = GradientStep(momentum="per_step")
    rules = (
        GradientStep(),
        momentum,
        replace(momentum, orthogonal="muon"),
        replace(momentum, orthogonal="muon", weight_norm="initial_norm"),
    )
    every = [*(InnerLoop(AnyNet(), Frobenius(), rule) for rule in rules), lact(Schedule())]
    up = replace(momentum, ascent=True)
    return Derivation(
        name="ascent_is_negated_values",
        title="Gradient ascent is descent on negated values",
        source="Sections 4 and 5.2, the second paradox",
        parts=tuple(part for loop in every for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(Linear(), Frobenius(), up),
            InnerLoop(MLP(2, "silu"), Frobenius(), up, Schedule(chunk=2)),
        ),
    )
