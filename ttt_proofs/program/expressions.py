"""SymPy pieces that loops are written in: widths, entrywise functions, functions of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import sympy as sp
from sympy.core.symbol import Str


def width(name: str) -> sp.Symbol:
    """The symbolic width `name`; statements hold for each of its values."""
    return sp.Symbol(name, integer=True, positive=True)


CHUNK, KEY, HIDDEN, VALUE, WINDOW = (width(n) for n in ("L", "D_k", "D_h", "D_v", "D_w"))


class sigmoid(sp.Function):
    """`1 / (1 + exp(-x))`, kept as itself: its derivative is `σ (1 - σ)`."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        """The derivative, a polynomial in the function itself."""
        return self * (1 - self)


class step(sp.Function):
    """1 for positive numbers and 0 for the others; its derivative is taken as 0."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        """Zero, also at the jump, as PyTorch has it for relu."""
        return sp.Integer(0)


class gelu_tanh(sp.Function):
    """GELU in its tanh form. Proofs need no more of it than that it has a derivative."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        cubic = x + sp.Rational(44715, 10**6) * x**3
        return x / 2 * (1 + sp.tanh(sp.sqrt(2 / sp.pi) * cubic))


ACTIVATIONS: dict[str, Callable[[sp.Expr], sp.Expr]] = {
    "identity": lambda x: x,
    "relu": lambda x: x * step(x),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "tanh": sp.tanh,
    "gelu_tanh": gelu_tanh,
}


def shown(self: Any) -> str:
    """The call that makes this value, without what is left at its default."""
    written = []
    for f in fields(self):
        value = getattr(self, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value != default:
            written.append(repr(value) if default is MISSING else f"{f.name}={value!r}")
    return f"{type(self).__name__}({', '.join(written)})"


def check_name(field: str, value: object) -> None:
    """Raise `ValueError` unless the value can name a function."""
    if not isinstance(value, str) or not value.isidentifier() or value == "step":
        raise ValueError(
            f"`{field}` must be a name; got {value!r}. Known activations are "
            f"{', '.join(ACTIVATIONS)}; any other name is abstract."
        )


def activate(name: str, matrix: sp.MatrixExpr) -> sp.MatrixExpr:
    """Apply the activation to each entry; a name that is not known is an abstract function."""
    if name == "identity":
        return matrix
    x = sp.Dummy("x")
    rule = ACTIVATIONS[name] if name in ACTIVATIONS else sp.Function(name)
    return matrix.applyfunc(sp.Lambda(x, rule(x)))


class RowFunction(sp.MatrixExpr):
    """An abstract function of each row of a matrix, `name(X[l, :], Θ)`, with `cols` outputs.

    Θ, a matrix of parameters, may be left out.
    """

    def __new__(
        cls, name: str, rows: sp.MatrixExpr, cols: sp.Expr, *parameters: sp.MatrixExpr
    ) -> RowFunction:
        return super().__new__(cls, Str(str(name)), rows, sp.sympify(cols), *parameters)

    shape = property(lambda self: (self.args[1].shape[0], self.args[2]))
    name = property(lambda self: self.args[0].name)
    rows_of = property(lambda self: self.args[1])
    parameters = property(lambda self: self.args[3:])

    def _entry(self, i, j, **kwargs):  # SymPy asks for it; entries are made by the bridge
        return sp.MatrixElement(self, i, j)


class RowFunctionAdjoint(sp.MatrixExpr):
    """The gradient in Θ of `⟨C, function⟩`, for a row function with parameters Θ."""

    def __new__(cls, function: RowFunction, cotangent: sp.MatrixExpr) -> RowFunctionAdjoint:
        return super().__new__(cls, function, cotangent)

    shape = property(lambda self: self.args[0].parameters[0].shape)

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
