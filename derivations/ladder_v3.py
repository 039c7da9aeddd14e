"""The third simplification: the multi-layer kernel becomes the identity, `f(x) = x W`."""

from derivations._ladder import rung
from ttt_proofs.symbolic import Derivation


def derive() -> Derivation:
    """Step 3 of the ladder."""
    return rung(3, "One linear layer: the kernel is the identity", "composed")
