"""The exchange of the double sum that Theorem 5.3 uses, alone.

Both sides run over the pairs `0 <= i <= j <= t`.
"""

import sympy as sp

from ttt_proofs.symbolic import Derivation, identity_part


def derive() -> Derivation:
    """`Σ_{j=0..t} Σ_{i=0..j} a_i b_{ij} = Σ_{i=0..t} a_i Σ_{j=i..t} b_{ij}`."""
    i, j, t = sp.symbols("i j t", integer=True)
    a, b = sp.IndexedBase("a"), sp.IndexedBase("b")
    left = sp.Sum(sp.Sum(a[i] * b[i, j], (i, 0, j)), (j, 0, t))
    right = sp.Sum(a[i] * sp.Sum(b[i, j], (j, i, t)), (i, 0, t))
    return Derivation(
        name="sum_order",
        title="Exchanging the order of the double sum",
        source="Appendix D (the step from the accumulator to the state)",
        parts=(identity_part(left, right, (t,)),),
    )
