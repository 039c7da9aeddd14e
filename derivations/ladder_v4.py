"""The fourth simplification: no rate for each token; all rates are 1."""

from ttt_proofs.symbolic import Derivation

from ._ladder import parts, restate, rung


def derive() -> Derivation:
    """Step 4 of the ladder."""
    return Derivation(
        name="ladder_v4",
        title="No rate for each token",
        source="Section 6.1, Table 2, variant 4",
        parts=parts(rung(4)),
        restate=restate,
        loops=rung(4),
        parallel="composed",
    )
