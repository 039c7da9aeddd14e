"""With a static kernel and the Frobenius loss the whole sequence is one masked attention.

`O = Φ(Q) W_0 + ((Φ(Q) Φ(K)ᵀ) ⊙ C) V`, `C_ti = Σ_{j=i..t} η_j Π_{s=i+1..j} α_s`, each entry repeated
over the block of two chunks. Read before the update, the sum ends at t - 1; read causally, the
diagonal block is multiplied by a matrix that says which token sees which (any matrix).
"""

import sympy as sp

from ttt_proofs.loops import Features, Frobenius, GradientStep, InnerLoop, Linear, Schedule, SwiGLU
from ttt_proofs.symbolic import Derivation, Part, attention_part, last_step, running_product


def derive() -> Derivation:
    """Entry by entry, for every number and length of chunks."""
    i, j, t = sp.symbols("i j t", integer=True)

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        last = t if loop.schedule.read == "causal" else last_step(loop)
        each = sp.IndexedBase("eta")[j] * running_product("alpha", i + 1, j)
        weight = sp.Sum(each, (j, i, last))
        return (attention_part(loop, loop.schedule.reading, coefficient=weight, scores=True),)

    update = GradientStep(rate="per_step", momentum="per_step")
    after, before, causal = (
        Schedule(chunk=2, read=read) for read in ("after_update", "before_update", "causal")
    )
    abstract = (
        InnerLoop(Features(), Frobenius(), update, schedule, trained="last")
        for schedule in (after, before, causal)
    )
    return Derivation(
        name="parallel_form",
        title="The parallel form, with the mask C",
        source="Section 6.2, Appendix H",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(SwiGLU(), Frobenius(), update, after, trained="last"),
            InnerLoop(Linear(), Frobenius(), update, before),
            InnerLoop(Linear(), Frobenius(), update, causal),
        ),
        parallel="gated",
    )
