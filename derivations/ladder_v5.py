"""The fifth simplification: no momentum. Muon acts on each chunk's sum of kᵀv."""

from derivations._ladder import rung
from ttt_proofs.symbolic import Derivation


def derive() -> Derivation:
    """Step 5 of the ladder."""
    return rung(5, "No momentum", "composed")
