"""Entrywise functions as SymPy has them: those whose derivative is known, and those kept whole.

The checker knows the derivatives of sigmoid, tanh and step. A function kept whole has a derivative
that proofs only name, so that what stands inside it occurs once; `expression` says what it
computes, for whoever has to compute it.
"""

from __future__ import annotations

import sympy as sp


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


class Whole(sp.Function):
    """A function of which proofs need no more than that it has a derivative."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes, in functions that SymPy knows."""
        raise NotImplementedError


class Composed(Whole):
    """One that functions with a known derivative make."""


class relu(Composed):
    """x for positive numbers, 0 for the others."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return x * step(x)


class silu(Composed):
    """x times the logistic function of x."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return x * sigmoid(x)


class logistic(Composed):
    """The logistic function, which PyTorch calls sigmoid."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sigmoid(x)


class hyperbolic_tangent(Composed):
    """The hyperbolic tangent, which PyTorch calls tanh."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.tanh(x)


class gelu_tanh(Whole):
    """GELU in its tanh form."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        cubic = x + sp.Rational(44715, 10**6) * x**3
        return x / 2 * (1 + sp.tanh(sp.sqrt(2 / sp.pi) * cubic))


class gelu(Whole):
    """GELU with the error function: x times the normal distribution at x."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return x / 2 * (1 + sp.erf(x / sp.sqrt(2)))


class exp(Whole):
    """The exponential."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.exp(x)


class softplus(Whole):
    """`log(1 + exp(x))`, whose derivative is sigmoid."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.log(1 + sp.exp(x))


class elu(Whole):
    """x for positive numbers, `exp(x) - 1` for the others."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.Piecewise((x, x > 0), (sp.exp(x) - 1, True))


class sin(Whole):
    """The sine."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.sin(x)


class cos(Whole):
    """The cosine."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.cos(x)
