"""The sixth simplification: no orthogonalisation. What is left is textbook linear attention.

`o_t = q_t (W_0 + Σ_i k_iᵀ v_i)`: the state starts at W_0 instead of 0.
"""

from ttt_proofs.loops import InnerLoop, Schedule, ladder
from ttt_proofs.symbolic import Derivation, Part, attention_part, textbook_part


def derive() -> Derivation:
    """The loop of the step before, with one change; read after and before its update."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        form = attention_part(loop, f"read {loop.schedule.read.replace('_', ' the ')}")
        if loop.schedule.read == "after_update":
            return (form, textbook_part(loop, "the same as `S ← S + Σ kᵀv`, read by `q S`"))
        return (form,)

    after, before = Schedule(), Schedule(chunk=2, read="before_update")
    loops = tuple(ladder(when)["v6"] for when in (after, before))
    return Derivation(
        name="ladder_v6",
        title="Linear attention",
        source="Section 6.1, Table 2, variant 6",
        parts=tuple(part for loop in loops for part in restate(loop)),
        restate=restate,
        loops=loops,
        parallel="additive",
    )
