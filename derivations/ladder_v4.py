"""The fourth simplification: no rate for each token; all rates are 1."""

from derivations._ladder import rung
from ttt_proofs.symbolic import Derivation


def derive() -> Derivation:
    """Step 4 of the ladder."""
    return rung(4, "No rate for each token", "composed")
