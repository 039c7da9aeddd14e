"""Gradients by SymPy's matrix calculus, one assignment of the net at a time (reverse mode)."""

from __future__ import annotations

from functools import cache

import sympy as sp

from ..loops.losses import F
from ..loops.nets import Assignment, Net


def adjoint(symbol: sp.MatrixSymbol) -> sp.MatrixSymbol:
    """The symbol of the loss' gradient in `symbol`."""
    return sp.MatrixSymbol(f"d{symbol.name}", *symbol.shape)


def forward(net: Net) -> tuple[Assignment, ...]:
    """The whole net, its output F included."""
    return (*net.program, (F, net.features * net.last.symbol))


@cache
def backward(net: Net) -> dict[str, sp.MatrixExpr]:
    """The gradient of each weight and intermediate, `{"dW1": ..., ...}`, given `dF`.

    Each is a sum of `∂⟨dY, expression⟩/∂x` over the assignments `Y = expression` that use x.
    """
    weights = {weight.symbol for weight in net.weights}
    leads = set(weights)  # symbols that depend on a weight; no others need a gradient
    for symbol, value in net.program:
        if value.atoms(sp.MatrixSymbol) & leads:
            leads.add(symbol)
    found: dict[str, sp.MatrixExpr] = {}
    for symbol, value in reversed(forward(net)):
        pairing = sp.Trace(adjoint(symbol).T * value)
        for used in sorted(value.atoms(sp.MatrixSymbol) & leads, key=lambda s: s.name):
            name = adjoint(used).name
            part = pairing.diff(used)
            found[name] = found[name] + part if name in found else part
    return found
