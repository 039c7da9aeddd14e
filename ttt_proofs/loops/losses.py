"""Binding losses between the outputs F = f(K) and the values V, both `[L, D_v]`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sympy as sp

from ..program.expressions import CHUNK, VALUE, RowLoss, RowLossGradient, check_name, shown

F, V = (sp.MatrixSymbol(name, CHUNK, VALUE) for name in "FV")


@dataclass(frozen=True, repr=False)
class Loss:
    """What all losses share: a scalar expression in F and V, a sum over the rows (tokens)."""

    __repr__ = shown

    @property
    def expression(self) -> sp.Expr:
        """The loss of a chunk."""
        raise NotImplementedError

    @property
    def gradient(self) -> sp.MatrixExpr:
        """`∂L/∂F`, `[L, D_v]`, by SymPy's matrix calculus."""
        return slope(self)


@cache
def slope(loss: Loss) -> sp.MatrixExpr:
    """The derivative of a loss in the outputs, found once."""
    return loss.expression.diff(F)


@dataclass(frozen=True, repr=False)
class Frobenius(Loss):
    """`L = -⟨F, V⟩`, so `∂L/∂F = -V`: values that do not depend on the state. Source: Section 5."""

    @property
    def expression(self) -> sp.Expr:
        """Minus the inner product."""
        return sp.Trace(-F * V.T)


@dataclass(frozen=True, repr=False)
class SquaredError(Loss):
    """`L = ½ ‖F - V‖²`, so `∂L/∂F = F - V`: the delta rule. Source: Section 5."""

    @property
    def expression(self) -> sp.Expr:
        """Half the squared norm."""
        return sp.Trace((F - V) * (F - V).T) / 2


@dataclass(frozen=True, repr=False)
class AbstractLoss(Loss):
    """`L = Σ_l ℓ(f_l, v_l)` for any differentiable ℓ of one row. Source: Theorems 5.1 to 5.3.

    Such a loop is proved, not run. Raises `ValueError` unless `name` is a name.
    """

    name: str = "ell"

    def __post_init__(self) -> None:
        check_name("name", self.name)

    @property
    def expression(self) -> sp.Expr:
        """An unknown function of each pair of rows."""
        return RowLoss(self.name, F, V)

    @property
    def gradient(self) -> sp.MatrixExpr:
        """The partial derivative of ℓ in its first argument, an unknown function as well."""
        return RowLossGradient(self.name, F, V)
