"""Numbers for SymPy matrix expressions, and for checker terms: two readings, nothing shared.

The first is NumPy on whole matrices. The second takes a checker term entry by entry; `Iterated`
follows definitions as well, step after step, and takes gradients by a complex step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product, takewhile
from math import prod
from typing import Any

import numpy as np
import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from ttt_proofs.checker.definitions import DefineGradient
from ttt_proofs.checker.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Var
from ttt_proofs.program.expressions import InverseWidth, Ones


def gelu(x):
    """GELU in its tanh form."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x):
    """Its derivative, by hand."""
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    slope = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return (1 + np.tanh(inner)) / 2 + x / 2 * slope * (1 - np.tanh(inner) ** 2)


def silu_slope(x):
    """The derivative of x / (1 + exp(-x)), as a quotient."""
    return (1 + np.exp(-x) + x * np.exp(-x)) / (1 + np.exp(-x)) ** 2


# Each entrywise function, and its derivative.
ENTRYWISE: dict[str, tuple[Callable, Callable]] = {
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "step": (lambda x: (np.real(x) > 0) * 1.0, lambda x: x * 0.0),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "logistic": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "hyperbolic_tangent": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "silu": (lambda x: x / (1 + np.exp(-x)), silu_slope),
    "relu": (lambda x: x * (np.real(x) > 0), lambda x: (np.real(x) > 0) * 1.0),
    "gelu_tanh": (gelu, gelu_slope),
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "softplus": (lambda x: np.log1p(np.exp(x)), lambda x: 1 / (1 + np.exp(-x))),
    "act": (lambda x: x**3 - x, lambda x: 3 * x**2 - 1),
    "root": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "inverse": (lambda x: 1 / x, lambda x: -1 / x**2),
}

# The coefficients of Muon's five steps, as the paper has them.
FIVE = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def muon(x: np.ndarray) -> np.ndarray:
    """Newton-Schulz on a matrix of any shape; zero for zero."""
    if len(x) > len(x[0]):
        return muon(x.T).T
    x = x / (np.sqrt((x**2).sum()) + 1e-7)
    for a, b, c in FIVE:
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def muon_entry(at, arguments, slots):
    """The same, as the checker's terms call it."""
    assert not slots
    return muon(arguments[0])[*at]


def scalar(e: sp.Expr, env: Mapping[sp.Expr, np.ndarray]):
    """A scalar expression, with arrays for its symbols."""
    if e in env:
        return env[e]
    if e.is_Number:
        return float(e)
    if e.is_Add:
        return sum(scalar(part, env) for part in e.args)
    if e.is_Mul:
        return prod((scalar(part, env) for part in e.args), start=1.0)
    if e.is_Pow:
        return scalar(e.base, env) ** float(e.exp)
    if isinstance(e, sp.Subs):
        points = {v: scalar(at, env) for v, at in zip(e.variables, e.point, strict=True)}
        return scalar(e.expr, {**env, **points})
    if isinstance(e, sp.Derivative):
        return ENTRYWISE[type(e.expr).__name__][1](scalar(e.expr.args[0], env))
    return ENTRYWISE[type(e).__name__][0](scalar(e.args[0], env))


def matrix(e: sp.Expr, env: Mapping[str, np.ndarray]) -> np.ndarray:
    """A matrix expression, or a trace, with an array for each matrix symbol."""
    if isinstance(e, sp.MatrixSymbol):
        return env[e.name]
    if isinstance(e, sp.Transpose):
        return matrix(e.arg, env).T
    if isinstance(e, sp.Trace):
        return np.trace(matrix(e.arg, env))
    if isinstance(e, ElementwiseApplyFunction):
        (x,) = e.function.variables
        return scalar(e.function.expr, {x: matrix(e.expr, env)})
    if e.is_Number:
        return np.float64(float(e))
    if isinstance(e, Ones):
        return np.ones([env[size.name] for size in e.shape])
    if isinstance(e, InverseWidth):
        return np.float64(1 / env[e.args[0].name])
    parts = [matrix(part, env) for part in e.args]
    if isinstance(e, sp.MatAdd | sp.Add):
        return np.sum(parts, axis=0)
    if isinstance(e, sp.HadamardProduct):
        return np.prod(parts, axis=0)
    result = parts[0]
    for part in parts[1:]:
        result = result @ part if np.ndim(result) and np.ndim(part) else result * part
    return result


def assigned(program, env: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values after a program of matrix assignments."""
    values = dict(env)
    for symbol, expression in program:
        values[symbol.name] = matrix(expression, values)
    return values


@dataclass
class Meaning:
    """What a checker term's names mean: sizes of widths, symbols, functions of arrays.

    A symbol is an array or a function of its indices. `functions[name]` takes the indices, the
    arguments as arrays, and the entries it is differentiated in.
    """

    sizes: dict[str, int]
    symbols: Mapping[str, object]
    functions: Mapping[str, Callable] = field(default_factory=dict)
    exact: bool = False  # fractions stay fractions, also in arrays

    def of(self, term, env: Mapping[Var, int] | None = None) -> Any:
        """The value of a term where `env` gives its free indices."""
        env = env or {}
        if isinstance(term, Num):
            return Fraction(term.top, term.bottom)
        if isinstance(term, Atom):
            return self.symbol(term.name, tuple(self.index(i, env) for i in term.ix))
        if isinstance(term, Add):
            return sum(self.of(part, env) for part in term.terms)
        if isinstance(term, Mul):
            return prod(self.of(part, env) for part in term.factors)
        if isinstance(term, Sum):
            values = range(self.sizes[term.var.sort]) if term.low is None else None
            values = values or self.span(term, env)
            return sum(self.of(term.body, {**env, term.var: n}) for n in values)
        if isinstance(term, Prod):
            (var,) = term.factor.binders
            return prod(self.of(term.factor.body, {**env, var: n}) for n in self.span(term, env))
        assert isinstance(term, App)
        return self.applied(term, env)

    def symbol(self, name: str, at: tuple[int, ...]) -> Any:
        """The value of a symbol."""
        symbol: Any = self.symbols[name]
        if callable(symbol):
            return symbol(*at)
        assert not any(i < 0 for i in at), f"{name}{at} is not there"
        return symbol[at] if at else symbol

    def span(self, term: Sum | Prod, env) -> range:
        """The times of a sum or a product."""
        return range(self.index(term.low, env), self.index(term.high, env) + 1)

    def index(self, index: Ix, env) -> int:
        """The value of an index."""
        return sum(env[v] for v in index.vars) + index.shift

    def array(self, lam: Lam, env) -> np.ndarray:
        """An argument, entry by entry."""
        shape = [self.sizes[v.sort] for v in lam.binders]
        values = np.empty(shape, dtype=object)
        for at in product(*map(range, shape)):
            values[at] = self.of(lam.body, {**env, **dict(zip(lam.binders, at, strict=True))})
        if self.exact:
            return values
        return values.astype(complex if any(map(np.iscomplexobj, values.flat)) else float)

    def applied(self, term: App, env):
        """The value of a function, or of its derivative."""
        arguments = [self.array(lam, env) for lam in term.args]
        at = [self.index(i, env) for i in term.ix]
        slots = [(k, *(self.index(i, env) for i in e)) for k, e in term.slots]
        if term.fn in self.functions:
            return self.functions[term.fn](at, arguments, slots)
        assert not at and len(slots) <= 1, f"no meaning for {term.fn}"
        return ENTRYWISE[term.fn][len(slots)](arguments[0].item())


TINY = 1e-30


@dataclass(frozen=True)
class Dual:
    """A number and its slope."""

    value: Fraction
    slope: Fraction = Fraction(0)

    @staticmethod
    def of(x) -> "Dual":
        """A number as one of these."""
        return x if isinstance(x, Dual) else Dual(Fraction(x))

    def __add__(self, other) -> "Dual":
        other = Dual.of(other)
        return Dual(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other) -> "Dual":
        other = Dual.of(other)
        slope = self.slope * other.value + self.value * other.slope
        return Dual(self.value * other.value, slope)

    def __gt__(self, other) -> bool:
        return self.value > Dual.of(other).value

    __radd__, __rmul__ = __add__, __mul__


@dataclass
class Iterated(Meaning):
    """A meaning in which defined symbols follow their definitions, from their starts.

    A gradient is the imaginary part of the loss with a tiny imaginary number added to one entry,
    or, if `exact`, its slope by dual numbers.
    """

    definitions: tuple = ()
    moved: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.defined = {d.name: d for block in self.definitions for d in block}
        self.known: dict[tuple, object] = {}

    def symbol(self, name: str, at: tuple[int, ...]):
        """By its definition, where it has one."""
        if name in self.moved:
            return self.moved[name][at]
        if name not in self.defined:
            return super().symbol(name, at)
        if (name, at) not in self.known:
            self.known[name, at] = self.followed(self.defined[name], at)
        return self.known[name, at]

    def followed(self, define, at: tuple[int, ...]):
        """The value of a defined symbol."""
        if isinstance(define, DefineGradient):
            return self.gradient(define, at)
        env = dict(zip(define.every, at, strict=True))
        if define.start is None:
            return self.of(define.term, env)
        leading = list(takewhile(lambda v: v.sort == TIME, define.every[:2]))
        if not env[leading[-1]]:
            return self.of(define.start, env)
        assert env[leading[-1]] > 0, f"{define.name}{at} is not there"
        return self.of(define.term, env | {leading[-1]: env[leading[-1]] - 1})

    def gradient(self, define: DefineGradient, at: tuple[int, ...]):
        """One entry of a gradient."""
        env = dict(zip(define.every, at, strict=False))
        cell = at[len(define.every) :]
        point = self.array(define.at, env)

        def loss(change):
            moved = point.astype(object if self.exact else complex)
            moved[cell] += change
            there = replace(self, moved={define.param: moved})
            there.known = self.known  # no defined symbol depends on the parameter
            return there.of(define.loss, env)

        if self.exact:
            return Dual.of(loss(Dual(Fraction(0), Fraction(1)))).slope
        return complex(loss(complex(0, TINY))).imag / TINY


def close(a, b) -> bool:
    """Whether numbers agree, to the last few digits of the larger."""
    return bool(np.allclose(a, b, rtol=1e-9, atol=1e-11))
