"""Numbers for SymPy matrix expressions, and numbers for kernel terms: two readings, nothing shared.

The first is NumPy on whole matrices. The second takes a kernel term entry by entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod

import numpy as np
import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from ttt_proofs.kernel.terms import Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Var


def gelu(x):
    """GELU in its tanh form."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x):
    """Its derivative, by hand."""
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    slope = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return (1 + np.tanh(inner)) / 2 + x / 2 * slope * (1 - np.tanh(inner) ** 2)


# Each entrywise function, and its derivative.
ENTRYWISE: dict[str, tuple[Callable, Callable]] = {
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "step": (lambda x: (x > 0) * 1.0, lambda x: x * 0.0),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "gelu_tanh": (gelu, gelu_slope),
    "act": (lambda x: x**3 - x, lambda x: 3 * x**2 - 1),
}


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
    """What a kernel term's names mean: sizes of widths, symbols, functions of arrays.

    A symbol is an array or a function of its indices. `functions[name]` takes the indices, the
    arguments as arrays, and the entries it is differentiated in.
    """

    sizes: dict[str, int]
    symbols: Mapping[str, object]
    functions: Mapping[str, Callable] = field(default_factory=dict)

    def of(self, term, env: Mapping[Var, int] | None = None):
        """The value of a term where `env` gives its free indices."""
        env = env or {}
        if isinstance(term, Num):
            return term.value
        if isinstance(term, Atom):
            at = tuple(self.index(i, env) for i in term.ix)
            symbol = self.symbols[term.name]
            if callable(symbol):
                return symbol(*at)
            assert not any(i < 0 for i in at), f"{term.name}{at} is not there"
            return symbol[at] if at else symbol
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

    def span(self, term: Sum | Prod, env) -> range:
        """The times of a sum or a product."""
        return range(self.index(term.low, env), self.index(term.high, env) + 1)

    def index(self, index: Ix, env) -> int:
        """The value of an index."""
        return sum(env[v] for v in index.vars) + index.shift

    def array(self, lam: Lam, env) -> np.ndarray:
        """An argument, entry by entry."""
        shape = [self.sizes[v.sort] for v in lam.binders]
        values = np.empty(shape)
        for at in product(*map(range, shape)):
            values[at] = self.of(lam.body, {**env, **dict(zip(lam.binders, at, strict=True))})
        return values

    def applied(self, term: App, env) -> float:
        """The value of a function, or of its derivative."""
        arguments = [self.array(lam, env) for lam in term.args]
        at = [self.index(i, env) for i in term.ix]
        slots = [(k, *(self.index(i, env) for i in e)) for k, e in term.slots]
        if term.fn in self.functions:
            return self.functions[term.fn](at, arguments, slots)
        assert not at and len(slots) <= 1, f"no meaning for {term.fn}"
        return float(ENTRYWISE[term.fn][len(slots)](arguments[0]))
