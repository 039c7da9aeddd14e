"""The first simplification: only the last layer is updated, so φ is one function.

The state is still normalised, and with that sequential.
"""

from derivations._ladder import rung
from ttt_proofs.symbolic import Derivation


def derive() -> Derivation:
    """Step 1 of the ladder."""
    return rung(1, "Only the last layer is trained: the kernel is static", "sequential")
