"""The sixth simplification: no orthogonalisation. What is left is textbook linear attention.

`o_t = q_t (W_0 + Σ_i k_iᵀ v_i)`: the state starts at W_0 instead of 0.
"""

from derivations._ladder import rung
from ttt_proofs.symbolic import Derivation


def derive() -> Derivation:
    """Step 6 of the ladder."""
    return rung(6, "Linear attention", "additive")
