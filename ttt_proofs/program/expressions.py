"""SymPy pieces that loops are written in: widths, entrywise functions, functions of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import sympy as sp
from sympy.core.symbol import Str
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from .functions import gelu_tanh, sigmoid, step
from .operations import ACTIVATIONS, ROWWISE, check_name, named

__all__ = [
    "ACTIVATIONS",
    "CHUNK",
    "HIDDEN",
    "KEY",
    "UNIT",
    "VALUE",
    "WINDOW",
    "InverseWidth",
    "Ones",
    "RowFunction",
    "RowFunctionAdjoint",
    "RowFunctionPullback",
    "RowLoss",
    "RowLossGradient",
    "Windowed",
    "WindowedAdjoint",
    "activate",
    "check_name",
    "entrywise",
    "gelu_tanh",
    "shown",
    "sigmoid",
    "step",
    "width",
]


def width(name: str) -> sp.Symbol:
    """The symbolic width `name`; statements hold for each of its values."""
    return sp.Symbol(name, integer=True, positive=True)


CHUNK, KEY, HIDDEN, VALUE, WINDOW = (width(n) for n in ("L", "D_k", "D_h", "D_v", "D_w"))
UNIT = width("one")  # of a single row or column: the width 1, which has no index


def shown(self: Any) -> str:
    """The call that makes this value, without what is left at its default."""
    written = []
    for f in fields(self):
        value = getattr(self, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value != default:
            written.append(repr(value) if default is MISSING else f"{f.name}={value!r}")
    return f"{type(self).__name__}({', '.join(written)})"


def activate(name: str, matrix: sp.MatrixExpr) -> sp.MatrixExpr:
    """Apply the activation to each entry; a name that is not known is an abstract function."""
    if name == "identity":
        return matrix
    return entrywise(named(name).value, matrix)


def entrywise(function: Callable[[sp.Symbol], sp.Expr], matrix: sp.MatrixExpr) -> sp.MatrixExpr:
    """Apply a function to each entry; the same function gives the same expression."""
    x = sp.Symbol("x")
    inner: sp.Expr = x
    if isinstance(matrix, ElementwiseApplyFunction):
        inner, matrix = matrix.function(x), matrix.expr
    value = sp.sympify(function(inner))
    return matrix if value == x else matrix.applyfunc(sp.Lambda(x, value))


class Ones(sp.MatrixExpr):
    """The matrix of ones `[rows, cols]`: it sums over a width, or repeats a row or a column."""

    def __new__(cls, rows: sp.Expr, cols: sp.Expr) -> Ones:
        return super().__new__(cls, sp.sympify(rows), sp.sympify(cols))

    shape = property(lambda self: self.args)

    def _eval_transpose(self) -> Ones:
        return Ones(*reversed(self.args))

    def _entry(self, i, j, **kwargs):
        return sp.Integer(1)


class InverseWidth(sp.Expr):
    """One over a width, by which a mean over it is a sum.

    `tensor` and `axis` say where a run reads the width: `tensor.shape[axis]`.
    """

    is_commutative = True

    def __new__(cls, size: sp.Symbol, tensor: str, axis: int) -> InverseWidth:
        return super().__new__(cls, size, Str(str(tensor)), sp.Integer(axis))

    name = property(lambda self: f"inverse_{self.args[0].name}")
    code = property(lambda self: f"(1 / {self.args[1].name}.shape[{self.args[2]}])")


class RowFunction(sp.MatrixExpr):
    """A function of each row of a matrix, `name(X[l, :], Θ)`, with `cols` outputs.

    Θ, a matrix of parameters, may be left out. It is abstract unless the table of operations knows
    its name; proofs know no more of either than that it has a derivative.
    """

    def __new__(
        cls, name: str, rows: sp.MatrixExpr, cols: sp.Expr, *parameters: sp.MatrixExpr
    ) -> RowFunction:
        return super().__new__(cls, Str(str(name)), rows, sp.sympify(cols), *parameters)

    shape = property(lambda self: (self.args[1].shape[0], self.args[2]))
    name = property(lambda self: self.args[0].name)
    rows_of = property(lambda self: self.args[1])
    parameters = property(lambda self: self.args[3:])
    is_known = property(lambda self: self.name in ROWWISE)

    def _entry(self, i, j, **kwargs):  # SymPy asks for it; entries are made by the bridge
        return sp.MatrixElement(self, i, j)


class RowFunctionAdjoint(sp.MatrixExpr):
    """The gradient in Θ of `⟨C, function⟩`, for a row function with parameters Θ."""

    def __new__(cls, function: RowFunction, cotangent: sp.MatrixExpr) -> RowFunctionAdjoint:
        return super().__new__(cls, function, cotangent)

    shape = property(lambda self: self.args[0].parameters[0].shape)

    def _entry(self, i, j, **kwargs):
        return sp.MatrixElement(self, i, j)


class RowFunctionPullback(sp.MatrixExpr):
    """The gradient in the rows X of `⟨C, function⟩`, row by row."""

    def __new__(cls, function: RowFunction, cotangent: sp.MatrixExpr) -> RowFunctionPullback:
        return super().__new__(cls, function, cotangent)

    shape = property(lambda self: self.args[0].rows_of.shape)

    def _entry(self, i, j, **kwargs):
        return sp.MatrixElement(self, i, j)


class Windowed(sp.MatrixExpr):
    """Each column correlated with a window of its own: `Y[p, c] = Σ_d X[p + d, c] W[d, c]`."""

    def __new__(cls, inputs: sp.MatrixExpr, window: sp.MatrixExpr) -> Windowed:
        return super().__new__(cls, inputs, window)

    shape = property(lambda self: self.args[0].shape)

    def _entry(self, i, j, **kwargs):
        return sp.MatrixElement(self, i, j)


class WindowedAdjoint(sp.MatrixExpr):
    """The gradient in W of `⟨C, Windowed(X, W)⟩`: `Σ_p X[p + d, c] C[p, c]` at `[d, c]`."""

    def __new__(cls, function: Windowed, cotangent: sp.MatrixExpr) -> WindowedAdjoint:
        return super().__new__(cls, function, cotangent)

    shape = property(lambda self: self.args[0].args[1].shape)

    def _entry(self, i, j, **kwargs):
        return sp.MatrixElement(self, i, j)


class RowLoss(sp.Expr):
    """An abstract loss, summed over rows: `Σ_l name(F[l, :], V[l, :])`."""

    def __new__(cls, name: str, outputs: sp.MatrixExpr, values: sp.MatrixExpr) -> RowLoss:
        return super().__new__(cls, Str(str(name)), outputs, values)

    name = property(lambda self: self.args[0].name)


class RowLossGradient(sp.MatrixExpr):
    """The gradient of `RowLoss` in the outputs F, row by row."""

    def __new__(cls, name: str, outputs: sp.MatrixExpr, values: sp.MatrixExpr) -> RowLossGradient:
        return super().__new__(cls, Str(str(name)), outputs, values)

    shape = property(lambda self: self.args[1].shape)
    name = property(lambda self: self.args[0].name)

    def _entry(self, i, j, **kwargs):
        return sp.MatrixElement(self, i, j)
