"""K update steps on each chunk: K effective keys and values for each of its tokens.

`o_t = φ_{t+1}(q_t) (W_0 + η Σ_i Σ_{j<K} φ_ij(k_i)ᵀ v̂_ij)`. For a static kernel and the Frobenius
loss that is one step at the rate K η; for squared error and one token, with S the state before its
chunk, `S + φᵀ (v - φ S) (1 - (1 - η ‖φ‖²)^K) / ‖φ‖²`. With momentum, which goes on from chunk to
chunk, each step's key and value have a weight of their own. The operator changes with K.
"""

from dataclasses import replace

from ttt_proofs.loops import (
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic import (
    Derivation,
    Part,
    attention_part,
    delta_steps_part,
    summed_rate_part,
)


def derive() -> Derivation:
    """For every K, by induction over the steps on a chunk, then over chunks."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        general = attention_part(loop, loop.schedule.reading)
        if loop.is_static and loop.loss == Frobenius():
            return (general, summed_rate_part(loop, "static kernel, Frobenius: the rate is K η"))
        return (general,)

    after, before = (Schedule(steps=2, read=read) for read in ("after_update", "before_update"))
    abstract = [InnerLoop(Features(), AbstractLoss(), schedule=when) for when in (after, before)]
    momentum = GradientStep("per_step", momentum="per_step")
    static = InnerLoop(Features(), Frobenius(), schedule=after, trained="last")
    delta = replace(static, loss=SquaredError(), schedule=Schedule(steps=2, single=True))
    squared = "static kernel, squared error, one token"
    return Derivation(
        name="inner_steps",
        title="More steps on a chunk are another operator",
        source="Sections 4 and 5.2, the first paradox",
        parts=(
            *(part for loop in abstract for part in restate(loop)),
            restate(static)[1],
            attention_part(replace(abstract[0], update=momentum), "momentum"),
            delta_steps_part(delta, f"{squared}: a sum", closed=False),
            delta_steps_part(delta, f"{squared}: closed, times ‖φ‖²", closed=True),
        ),
        restate=restate,
        loops=(
            InnerLoop(Linear(), Frobenius(), GradientStep(), Schedule(chunk=2, steps=3)),
            InnerLoop(SwiGLU(), SquaredError(), GradientStep(), Schedule(steps=2)),
            InnerLoop(SwiGLU(), SquaredError(), momentum, Schedule(steps=2)),
        ),
    )
