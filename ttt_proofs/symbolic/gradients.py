"""Gradients of a net by matrix calculus, one assignment of the net at a time (reverse mode)."""

from __future__ import annotations

from functools import cache

import sympy as sp

from ..loops.losses import F
from ..loops.nets import Assignment, Net
from ..program.differentials import pullback

Z = sp.MatrixSymbol("Z", *F.shape)  # what the last layer makes, where a gate follows


def adjoint(symbol: sp.MatrixSymbol) -> sp.MatrixSymbol:
    """The symbol of the loss' gradient in `symbol`."""
    return sp.MatrixSymbol(f"d{symbol.name}", *symbol.shape)


def made(net: Net) -> sp.MatrixSymbol:
    """What the last layer makes: F, or Z where a gate follows."""
    return F if net.gate is None else Z


def forward(net: Net) -> tuple[Assignment, ...]:
    """The whole net, its output F included."""
    if net.gate is None:
        return (*net.assignments, (F, net.outputs))
    return (*net.assignments, (Z, net.outputs), (F, sp.HadamardProduct(net.gate, Z)))


@cache
def backward(net: Net) -> dict[str, sp.MatrixExpr]:
    """The gradient of each weight and intermediate, `{"dW1": ..., ...}`, given `dF`.

    Each is a sum of `∂⟨dY, expression⟩/∂x` over the assignments `Y = expression` that use x. They
    are in an order of computation: each after all that it reads.
    """
    weights = {weight.symbol for weight in net.weights}
    leads = set(weights)  # symbols that depend on a weight; no others need a gradient
    for symbol, value in forward(net):
        if value.atoms(sp.MatrixSymbol) & leads:
            leads.add(symbol)
    found: dict[str, sp.MatrixExpr] = {}
    for symbol, value in reversed(forward(net)):
        for used in sorted(value.atoms(sp.MatrixSymbol) & leads, key=lambda s: s.name):
            name = adjoint(used).name
            part = pullback(value, adjoint(symbol), used)
            found[name] = found.pop(name) + part if name in found else part  # its place is the last
    return found
