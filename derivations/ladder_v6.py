"""The sixth simplification: no orthogonalisation. What is left is textbook linear attention.

`o_t = q_t (W_0 + Σ_i k_iᵀ v_i)`: the state starts at W_0 instead of 0.
"""

from ttt_proofs.symbolic import Derivation

from ._ladder import parts, restate, rung


def derive() -> Derivation:
    """Step 6 of the ladder."""
    return Derivation(
        name="ladder_v6",
        title="Linear attention",
        source="Section 6.1, Table 2, variant 6",
        parts=parts(rung(6)),
        restate=restate,
        loops=rung(6),
        parallel="additive",
    )
