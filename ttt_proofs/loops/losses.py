"""Binding losses between the outputs F = f(K) and the values V, both `[L, D_v]`.

Each is one function of a token's two rows; its expression for a chunk is read off it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import sympy as sp

from ..program.differentials import loss_gradient
from ..program.expressions import (
    CHUNK,
    VALUE,
    InverseWidth,
    RowFunction,
    RowFunctionPullback,
    RowLossGradient,
    entrywise,
    shown,
)
from ..program.lowering import read_loss
from ..program.operations import Abstract

ONE = sp.Integer(1)
F, V = (sp.MatrixSymbol(name, CHUNK, VALUE) for name in "FV")


@dataclass(frozen=True, repr=False)
class Loss:
    """What all losses share: a scalar expression in F and V, a sum over the rows (tokens)."""

    __repr__ = shown

    function: ClassVar[Callable[..., Any]]
    """`function(f, v)`: the loss of each token, `[..., L]`, of outputs and values `[..., L, V]`;
    it raises `ValueError` where the loss is abstract."""

    def __call__(self, f: Any, v: Any) -> Any:
        """`function`, so that losses can be parts of others, as `loss(f, -v)`."""
        return self.function(f, v)

    @property
    def expression(self) -> sp.Expr:
        """The loss of a chunk."""
        if not hasattr(self, "function"):
            raise NotImplementedError
        return of_library(self)

    @property
    def fixed(self) -> Mapping[str, int]:
        """The widths that the code has as numbers, by name."""
        return {}

    @property
    def gradient(self) -> sp.MatrixExpr:
        """`∂L/∂F`, `[L, D_v]`, by the chain rule."""
        return slope(self.expression)

    @property
    def proportion(self) -> sp.Expr | None:
        """The number a where `∂L/∂F` is a F plus what does not read F; None for all other losses.

        Only then is a step of a linear layer a map `S ← A S + B`, which acts on all columns alike;
        the gradient of `(f·v - 1)²` is affine in F, but mixes its columns, and one in which each
        column has a weight treats them differently.
        """
        found = sp.Integer(0)
        for factor, matrix in summands(self.gradient):
            if matrix == F:
                found += factor
            elif F in matrix.atoms(sp.MatrixSymbol):
                return None
        return found

    @property
    def is_entrywise(self) -> bool:
        """Whether the gradient at an entry reads that entry of F and V, and no other column."""
        mixing = (RowFunction, RowFunctionPullback, RowLossGradient, InverseWidth)
        products = [m.as_coeff_matrices()[1] for m in self.gradient.atoms(sp.MatMul)]
        return not self.gradient.has(*mixing) and all(len(each) < 2 for each in products)


def summands(
    matrix: sp.MatrixExpr, factor: sp.Expr = ONE
) -> Iterator[tuple[sp.Expr, sp.MatrixExpr]]:
    """The terms of a sum with their numbers, also of a number times a sum."""
    if isinstance(matrix, sp.MatAdd):
        for part in matrix.args:
            yield from summands(part, factor)
    elif isinstance(matrix, sp.MatMul) and len(matrix.as_coeff_matrices()[1]) == 1:
        number, (inner,) = matrix.as_coeff_matrices()
        yield from summands(inner, factor * number)
    else:
        yield factor, matrix


@cache
def of_library(loss: Loss) -> sp.Expr:
    """The expression of one of the library's losses."""
    return read_loss(loss.function).expression


@cache
def slope(expression: sp.Expr) -> sp.MatrixExpr:
    """The derivative of a loss in the outputs, found once."""
    return loss_gradient(expression, F)


@dataclass(frozen=True, repr=False)
class Frobenius(Loss):
    """`L = -⟨F, V⟩`, so `∂L/∂F = -V`: values that do not depend on the state. Source: Section 5."""

    def function(self, f: Any, v: Any) -> Any:
        """Minus the inner product."""
        return -(f * v).sum(-1)


@dataclass(frozen=True, repr=False)
class SquaredError(Loss):
    """`L = ½ ‖F - V‖²`, so `∂L/∂F = F - V`: the delta rule. Source: Section 5."""

    def function(self, f: Any, v: Any) -> Any:
        """Half the squared norm."""
        return ((f - v) ** 2).sum(-1) / 2


@dataclass(frozen=True, repr=False)
class AbstractLoss(Loss):
    """`L = Σ_l ℓ(f_l, v_l)` for any differentiable ℓ of one row. Source: Theorems 5.1 to 5.3.

    Such a loop is proved, not run. Raises `ValueError` unless `name` is a name.
    """

    name: str = "ell"

    def __post_init__(self) -> None:
        _ = Abstract(self.name)

    def function(self, f: Any, v: Any) -> Any:
        """An unknown function of each pair of rows."""
        return Abstract(self.name, scalar=True)(f, v)


@dataclass(frozen=True, repr=False)
class NegatedValues(Loss):
    """`L(F, -V)`, the loss of another, given -V for V. Source: Sections 4 and 5.2, ascent.

    Raises `TypeError` unless `loss` is a loss.
    """

    loss: Loss

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise TypeError(
                f"`loss` must be a Loss; got {self.loss!r}. In a function of your own, write -v."
            )

    @property
    def expression(self) -> sp.Expr:
        """That loss of -V, its signs as they are written: `F - (-V)`, not `F + V`."""
        return self.loss.expression.xreplace({V: entrywise(lambda x: -x, V)})

    def function(self, f: Any, v: Any) -> Any:
        """That loss of negated values."""
        return self.loss.function(f, -v)
