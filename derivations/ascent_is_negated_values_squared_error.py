"""False: that with squared error, too, gradient ascent on (k, v) is descent on (k, -v)."""

from dataclasses import replace

from ttt_proofs.loops import GradientStep, InnerLoop, Linear, NegatedValues, SquaredError
from ttt_proofs.symbolic import Derivation, Part, same_outputs_part


def derive() -> Derivation:
    """A linear net is enough: the gradient has a part that does not change sign with v."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        negated = replace(
            loop,
            update=replace(loop.update, ascent=False),
            loss=NegatedValues(loop.loss),
        )
        return (same_outputs_part(loop, negated),)

    loop = InnerLoop(Linear(), SquaredError(), GradientStep(ascent=True))
    return Derivation(
        name="ascent_is_negated_values_squared_error",
        title="With squared error, ascent is descent on negated values",
        source="Sections 4 and 5.2, the second paradox, beyond its loss",
        parts=restate(loop),
        loops=(loop,),
        restate=restate,
        expects="fails",
        instead="It holds for the Frobenius loss, whose gradient in the outputs is -v "
        "(ascent_is_negated_values). With squared error it is f(k) - v.",
    )
