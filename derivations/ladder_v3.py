"""The third simplification: the multi-layer kernel becomes the identity, `f(x) = x W`."""

from ttt_proofs.symbolic import Derivation

from ._ladder import parts, restate, rung


def derive() -> Derivation:
    """Step 3 of the ladder."""
    return Derivation(
        name="ladder_v3",
        title="One linear layer: the kernel is the identity",
        source="Section 6.1, Table 2, variant 3",
        parts=parts(rung(3)),
        restate=restate,
        loops=rung(3),
        parallel="composed",
    )
