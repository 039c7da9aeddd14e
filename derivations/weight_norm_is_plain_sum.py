"""False: that with weight normalisation the state is the plain sum of what was stored."""

from dataclasses import replace

from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
from ttt_proofs.symbolic import Derivation, Part, attention_part


def derive() -> Derivation:
    """The normalised loop is said to have the form of the one without normalisation."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        plain = replace(loop, update=replace(loop.update, weight_norm=None))
        return (attention_part(loop, like=plain),)

    loop = InnerLoop(Linear(), Frobenius(), GradientStep(weight_norm="initial_norm"))
    return Derivation(
        name="weight_norm_is_plain_sum",
        title="A normalised state is a plain sum",
        source="Eq. (1) against Appendix E.4 and Appendix I.2",
        parts=restate(loop),
        loops=(loop,),
        restate=restate,
        expects="fails",
        instead="Each column is gated: W_0 and what was stored are multiplied by all later gates "
        "(lact_weight_norm).",
        parallel="sequential",
    )
