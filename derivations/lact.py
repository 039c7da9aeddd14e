"""LaCT, in every combination of its options.

`o_t = φ_{t+1}(q_t) (W_0 ⊙ D_t + Σ_i U_i ⊙ C_ti)`, D and C products of gates on columns: per-token
rates are in the values, momentum is inside of Muon's argument
`U_i = M(Σ_{j≤i} β_j^i Σ_m k̂_jmᵀ v̂_jm)`, weight normalisation gates columns.
"""

from dataclasses import replace
from itertools import product

from ttt_proofs.loops import InnerLoop, Schedule, lact
from ttt_proofs.symbolic import Derivation, Part, attention_part


def derive() -> Derivation:
    """Momentum, Muon, weight normalisation, all weights or the last, read after or before."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        which = {"all": "all weights", "last": "last layer only"}[str(loop.trained)]
        label = ", ".join([*loop.update.options, which, loop.schedule.reading])
        return (attention_part(loop, label),)

    whole = lact()
    switches = product((None, "per_token"), (None, "muon"), (None, "initial_norm"))
    rules = [
        replace(whole.update, momentum=momentum, orthogonal=orthogonal, weight_norm=norm)
        for momentum, orthogonal, norm in switches
    ]
    every = [
        replace(whole, update=rule, trained=trained, schedule=Schedule(read=read))
        for rule in rules
        for trained in ("all", "last")
        for read in ("after_update", "before_update")
    ]
    return Derivation(
        name="lact",
        title="LaCT is linear attention, in each combination of its options",
        source="Section 5.3, Appendix E",
        parts=tuple(part for loop in every for part in restate(loop)),
        restate=restate,
        loops=(
            replace(whole, schedule=Schedule(chunk=2, read="before_update")),
            replace(whole, trained="last"),
            replace(every[0], schedule=Schedule(chunk=3)),
        ),
    )
