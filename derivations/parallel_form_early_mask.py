"""False: the mask of the parallel form without its sum, `C_ti = η_i Π_{s=i+1..t} α_s`.

An earlier version of the text has it so. It is what the accumulator holds, not the state.
"""

import sympy as sp

from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
from ttt_proofs.symbolic import Derivation, Part, attention_part, running_product


def derive() -> Derivation:
    """A linear net is enough."""
    i, t = sp.symbols("i t", integer=True)
    early = sp.IndexedBase("eta")[i] * running_product("alpha", i + 1, t)

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (attention_part(loop, coefficient=early, scores=True),)

    update = GradientStep(rate="per_step", momentum="per_step")
    loop = InnerLoop(Linear(), Frobenius(), update)
    return Derivation(
        name="parallel_form_early_mask",
        title="The parallel form, with the mask of an earlier version",
        source="Section 6.2, Appendix H, an earlier version",
        parts=restate(loop),
        loops=(loop,),
        restate=restate,
        expects="fails",
        instead="C_ti = Σ_{j=i..t} η_j Π_{s=i+1..j} α_s (parallel_form).",
        parallel="gated",
    )
