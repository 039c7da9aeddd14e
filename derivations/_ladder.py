"""What the six steps from LaCT to linear attention have in common."""

from ttt_proofs.loops import InnerLoop, Schedule, ladder
from ttt_proofs.symbolic import Part, attention_part, textbook_part

AFTER, BEFORE = Schedule(), Schedule(chunk=2, read="before_update")


def rung(number: int) -> tuple[InnerLoop, ...]:
    """The loop of the step before with one change, read after and before its update."""
    return tuple(ladder(when)[f"v{number}"] for when in (AFTER, BEFORE))


def parts(loops: tuple[InnerLoop, ...]) -> tuple[Part, ...]:
    """The statements about the loops."""
    return tuple(part for loop in loops for part in restate(loop))


def restate(loop: InnerLoop) -> tuple[Part, ...]:
    """The loop's form; of the last step, that it is textbook linear attention as well."""
    form = attention_part(loop, loop.schedule.reading)
    if loop == ladder(AFTER)["v6"]:
        return (form, textbook_part(loop, "the same as `S ← S + Σ kᵀv`, read by `q S`"))
    return (form,)
