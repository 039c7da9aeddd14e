"""The second simplification: no weight normalisation. From here on the loop is parallel over time.

A scan of the accumulator, Muon on each step, a sum of the results.
"""

from derivations._ladder import rung
from ttt_proofs.symbolic import Derivation


def derive() -> Derivation:
    """Step 2 of the ladder."""
    return rung(2, "No weight normalisation: parallel over time", "composed")
