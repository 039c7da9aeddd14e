"""What the six steps from LaCT to linear attention have in common."""

from ttt_proofs.loops import InnerLoop, Schedule, ladder
from ttt_proofs.symbolic import Derivation, Part, attention_part, textbook_part


def rung(number: int, title: str, parallel: str) -> Derivation:
    """The loop of the step before with one change, read after and before its update.

    The last one is compared with textbook linear attention as well.
    """

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        form = attention_part(loop, loop.schedule.reading)
        if number == 6 and loop.schedule.read == "after_update":
            return (form, textbook_part(loop, "the same as `S ← S + Σ kᵀv`, read by `q S`"))
        return (form,)

    after, before = Schedule(), Schedule(chunk=2, read="before_update")
    loops = tuple(ladder(when)[f"v{number}"] for when in (after, before))
    return Derivation(
        name=f"ladder_v{number}",
        title=title,
        source=f"Section 6.1, Table 2, variant {number}",
        parts=tuple(part for loop in loops for part in restate(loop)),
        restate=restate,
        loops=loops,
        parallel=parallel,
    )
