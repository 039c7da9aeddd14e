"""How the mask is computed without a division: two running sums, for any sequence x that it weighs.

With `A_t = Σ_{i≤t} (Π_{s=i+1..t} α_s) x_i` and `S_t = Σ_{i≤t} C_ti x_i`,
`A_{t+1} = α_{t+1} A_t + x_{t+1}` and `S_{t+1} = S_t + η_{t+1} A_{t+1}`. A unit vector for x gives a
column of C.
"""

import sympy as sp

from ttt_proofs.symbolic import Derivation, identity_part, running_product


def derive() -> Derivation:
    """For every x; hence for the entries of C, which are what x is multiplied by."""
    i, j, t = sp.symbols("i j t", integer=True)
    alpha, eta, x = (sp.IndexedBase(name) for name in ("alpha", "eta", "x"))

    def held(last: sp.Expr) -> sp.Expr:
        """The accumulator A after the step `last`."""
        return sp.Sum(running_product("alpha", i + 1, last) * x[i], (i, 0, last))

    def stored(last: sp.Expr) -> sp.Expr:
        """The state S after the step `last`."""
        weight = sp.Sum(eta[j] * running_product("alpha", i + 1, j), (j, i, last))
        return sp.Sum(weight * x[i], (i, 0, last))

    return Derivation(
        name="mask_recurrences",
        title="The mask, step by step",
        source="Section 6.2, Appendix H",
        parts=(
            identity_part(
                held(t + 1), alpha[t + 1] * held(t) + x[t + 1], (t,), "accumulator", peel=t + 1
            ),
            identity_part(
                stored(t + 1), stored(t) + eta[t + 1] * held(t + 1), (t,), "state", peel=t + 1
            ),
        ),
    )
