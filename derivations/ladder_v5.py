"""The fifth simplification: no momentum. Muon acts on each chunk's sum of kᵀv."""

from ttt_proofs.symbolic import Derivation

from ._ladder import parts, restate, rung


def derive() -> Derivation:
    """Step 5 of the ladder."""
    return Derivation(
        name="ladder_v5",
        title="No momentum",
        source="Section 6.1, Table 2, variant 5",
        parts=parts(rung(5)),
        restate=restate,
        loops=rung(5),
        parallel="composed",
    )
