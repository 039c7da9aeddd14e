"""The second simplification: no weight normalisation. From here on the loop is parallel over time.

A scan of the accumulator, Muon on each step, a sum of the results.
"""

from ttt_proofs.symbolic import Derivation

from ._ladder import parts, restate, rung


def derive() -> Derivation:
    """Step 2 of the ladder."""
    return Derivation(
        name="ladder_v2",
        title="No weight normalisation: parallel over time",
        source="Section 6.1, Table 2, variant 2",
        parts=parts(rung(2)),
        restate=restate,
        loops=rung(2),
        parallel="composed",
    )
