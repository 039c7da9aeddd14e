"""The fifth simplification: no momentum. Muon acts on each chunk's sum of kᵀv."""

from ttt_proofs.loops import InnerLoop, Schedule, ladder
from ttt_proofs.symbolic import Derivation, Part, attention_part


def derive() -> Derivation:
    """The loop of the step before, with one change; read after and before its update."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return (attention_part(loop, f"read {loop.schedule.read.replace('_', ' the ')}"),)

    after, before = Schedule(), Schedule(chunk=2, read="before_update")
    loops = tuple(ladder(when)["v5"] for when in (after, before))
    return Derivation(
        name="ladder_v5",
        title="No momentum",
        source="Section 6.1, Table 2, variant 5",
        parts=tuple(part for loop in loops for part in restate(loop)),
        restate=restate,
        loops=loops,
        parallel="composed",
    )
