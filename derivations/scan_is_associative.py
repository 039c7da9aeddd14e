"""Affine maps of the state combine in any grouping, which is what a parallel scan needs.

With steps `S ↦ A S + X`, then `S ↦ B S + Y`, the combination of `(B, Y)` after `(A, X)` is
`(B A, B X + Y)`. S may also be state and accumulator, one above the other.
"""

import sympy as sp
from sympy import MatAdd, MatMul, MatrixExpr

from ttt_proofs.symbolic import Derivation, matrix_identity_part


def product(left: MatrixExpr, right: MatrixExpr) -> MatrixExpr:
    """A product that stays grouped as it is written."""
    return MatMul(left, right, evaluate=False)


def applied(gate: MatrixExpr, shift: MatrixExpr, state: MatrixExpr) -> MatrixExpr:
    """What a map makes of a state."""
    return MatAdd(product(gate, state), shift, evaluate=False)


def after(
    later: tuple[MatrixExpr, ...], earlier: tuple[MatrixExpr, ...]
) -> tuple[MatrixExpr, MatrixExpr]:
    """Two maps as one."""
    (gate, shift), (first_gate, first_shift) = later, earlier
    return product(gate, first_gate), applied(gate, shift, first_shift)


def derive() -> Derivation:
    """For all widths: gates A, B, C `[D_h, D_h]`, shifts X, Y, Z and the state S `[D_h, D_v]`."""
    rows, cols = sp.symbols("D_h D_v", integer=True, positive=True)
    first, second, third = (
        (sp.MatrixSymbol(gate, rows, rows), sp.MatrixSymbol(shift, rows, cols))
        for gate, shift in ("AX", "BY", "CZ")
    )
    state = sp.MatrixSymbol("S", rows, cols)
    late, early = after(third, after(second, first)), after(after(third, second), first)
    in_turn = applied(*second, applied(*first, state))
    return Derivation(
        name="scan_is_associative",
        title="Affine maps combine in any grouping",
        source="Section 6.2; the scan is that of Hillis and Steele (CACM 29, 1986) and Blelloch "
        "(CMU-CS-90-190)",
        parts=(
            matrix_identity_part(late[0], early[0], "gates"),
            matrix_identity_part(late[1], early[1], "shifts"),
            matrix_identity_part(in_turn, applied(*after(second, first), state), "one map for two"),
        ),
    )
