"""What reading with the keys, in place of the queries, makes of the operator.

With a dynamic kernel the effective query is φ_{t+1}(k_t) and the effective key φ_t(k_t): two maps,
so queries and keys still differ. With a static kernel they are one: the weights are the Gram
matrix Φ(K) Φ(K)ᵀ under the mask, which is symmetric before masking.
"""

from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
)
from ttt_proofs.symbolic import Derivation, Part, attention_part


def derive() -> Derivation:
    """Both kernels; for the static one, queries times keys first."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        label = "static kernel" if loop.is_static else "dynamic kernel"
        return (attention_part(loop, label, scores=loop.is_static),)

    keys, rule = Schedule(read_with="key"), GradientStep(momentum="per_step")
    abstract = (
        InnerLoop(Features(), AbstractLoss(), rule, keys),
        InnerLoop(Features(), AbstractLoss(), rule, keys, trained="last"),
    )
    return Derivation(
        name="query_replaced_by_key",
        title="Reading with keys in place of queries",
        source="Sections 4 and 5.2, the fourth paradox",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(MLP(2, "silu"), Frobenius(), rule, Schedule(chunk=2, read_with="key")),
            InnerLoop(Linear(), SquaredError(), rule, keys),
        ),
    )
