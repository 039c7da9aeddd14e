"""The first simplification: only the last layer is updated, so φ is one function.

The state is still normalised, and with that sequential.
"""

from ttt_proofs.symbolic import Derivation

from ._ladder import parts, restate, rung


def derive() -> Derivation:
    """Step 1 of the ladder."""
    return Derivation(
        name="ladder_v1",
        title="Only the last layer is trained: the kernel is static",
        source="Section 6.1, Table 2, variant 1",
        parts=parts(rung(1)),
        restate=restate,
        loops=rung(1),
        parallel="sequential",
    )
