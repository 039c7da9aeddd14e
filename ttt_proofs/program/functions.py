"""Entrywise functions as SymPy has them, kept whole: of their derivatives proofs know the names.

So what stands inside a function occurs once, however deep a net is. `expression` says what a
function computes, for whoever has to compute it.
"""

from __future__ import annotations

import sympy as sp


class Whole(sp.Function):
    """A function of which proofs need no more than that it has a derivative."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes, in functions that SymPy knows."""
        raise NotImplementedError


class sigmoid(Whole):
    """The logistic function."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return 1 / (1 + sp.exp(-x))


class tanh(Whole):
    """The hyperbolic tangent."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.tanh(x)


class step(Whole):
    """1 for positive numbers and 0 for the others; the derivative of relu, as PyTorch has it."""

    @staticmethod
    def expression(x: sp.Expr) -> sp.Expr:
        """What it computes."""
        return sp.Heaviside(x, 0)


class Composed(Whole):
    """A product of functions: `expression` is in terms of these."""


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
