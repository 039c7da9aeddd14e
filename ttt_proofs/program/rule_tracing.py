"""Update rules from code: a function is run once on proxies, and its lines are read off.

    def rule(W, g, M, *, alpha, eta):  # weight, its gradient, buffers; coefficients by name
        M = eta * M - g
        return (1 - alpha) * W + M, M

The same function runs on tensors `[..., rows, cols]`, with coefficients that broadcast. A rule is
entrywise, but for `column_norm(x)`, `unknown_gate(name)(x)` and `operator(name)(x)`; a keyword
`W_0` is given the weight before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

import sympy as sp
from sympy.core.symbol import Str

from .coefficients import Shape, united
from .constants import fraction
from .operators import RUNNABLE
from .rules import W_0
from .tracing import Source, here

Function = Callable[..., Any]

INITIAL = W_0.name
ENTRYWISE = "an update rule must be made of +, -, *, /, column norms and operators of matrices"
NORM = "Take norms of columns, with dim=-2 and keepdim=True."
OVERWRITES = "Write `x = x + y`: in place it would change the matrix that the caller holds."


class Constant(float):
    """A number with a name, under which it stands in statements."""

    name: str

    def __new__(cls, name: str, value: float) -> Constant:
        made = super().__new__(cls, value)
        made.name = name
        return made


@dataclass(frozen=True, eq=False)
class RuleNode:
    """A value of the trace: an operation on others, or a leaf with a value; one node for each."""

    operation: str
    arguments: tuple[RuleNode, ...]
    value: sp.Basic | None
    shape: Shape


@dataclass(frozen=True, eq=False)
class RuleTrace:
    """The nodes of one run, each made once, and the named constants that it met."""

    nodes: dict[tuple[Any, ...], RuleNode] = field(default_factory=dict)
    constants: dict[sp.Symbol, float] = field(default_factory=dict)

    def node(
        self,
        operation: str,
        *arguments: RuleNode,
        value: sp.Basic | None = None,
        shape: Shape | None = None,
    ) -> RuleNode:
        """The one node of this operation on these arguments."""
        key = (operation, arguments, value)
        told = shape or united(argument.shape for argument in arguments)
        return self.nodes.setdefault(key, RuleNode(operation, arguments, value, told))

    def leaf(self, value: sp.Expr, shape: Shape = "scalar") -> RuleNode:
        """An input or a number."""
        return self.node("leaf", value=value, shape=shape)

    def operand(self, value: Any) -> RuleNode:
        """What a proxy is taken together with: a proxy, or a number as it is written."""
        if isinstance(value, RuleProxy):
            return value.node
        if isinstance(value, Constant):
            symbol = sp.Symbol(value.name)
            self.constants[symbol] = float(value)
            return self.leaf(symbol)
        if not isinstance(value, int | float | Fraction) or isinstance(value, bool):
            refuse(f"a {type(value).__name__}", "Make it a coefficient.")
        if not math.isfinite(value):
            refuse(f"the number {value}", "Give a finite one.")
        found = fraction(value)
        if found is None:  # too long for proofs, but it runs
            found = Fraction(repr(float(value)) if isinstance(value, float) else value)
        return self.leaf(sp.Rational(found.numerator, found.denominator))


def refuse(got: str, advice: str, where: Source | None = None) -> NoReturn:
    """Raise `ValueError` with the user's line."""
    raise ValueError(f"{ENTRYWISE}; got {got}{here() if where is None else where}. {advice}")


class RuleProxy:
    """Stands for a matrix, a number of each row or column, or a number, while a rule is traced."""

    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(self, trace: RuleTrace, node: RuleNode) -> None:
        self.trace, self.node = trace, node

    def made(self, operation: str, *others: Any, **fixed: Any) -> RuleProxy:
        """The operation on this value and others."""
        arguments = (self.trace.operand(other) for other in others)
        return RuleProxy(self.trace, self.trace.node(operation, self.node, *arguments, **fixed))

    def __add__(self, other: Any) -> RuleProxy:
        return self.made("add", other)

    def __mul__(self, other: Any) -> RuleProxy:
        return self.made("mul", other)

    def __neg__(self) -> RuleProxy:
        return self.made("mul", -1)

    def __pos__(self) -> RuleProxy:
        return self

    def __sub__(self, other: Any) -> RuleProxy:
        return self + -lifted(self.trace, other)

    def __rsub__(self, other: Any) -> RuleProxy:
        return -self + other

    def __truediv__(self, other: Any) -> RuleProxy:
        return self * lifted(self.trace, other).inverted()

    def __rtruediv__(self, other: Any) -> RuleProxy:
        return self.inverted() * other

    def __pow__(self, power: Any) -> RuleProxy:
        if not isinstance(power, int) or isinstance(power, bool):
            refuse(f"the power {power!r}", "Take a whole power, or `.sqrt()`.")
        base = self if power >= 0 else self.inverted()
        return base.made("power", value=sp.Integer(abs(power)))

    __radd__, __rmul__ = __add__, __mul__

    def inverted(self) -> RuleProxy:
        """`1 / x`."""
        if self.node.value == 0:
            refuse("a division by 0", "Divide by something else.")
        return self.made("inverse")

    def refused(self, *others: Any, **named: Any) -> NoReturn:
        """Raise: the value of a proxy, and what mixes its entries, is not there."""
        refuse("a comparison, a product of matrices or a part of one", "Write each entry's rule.")

    def overwritten(self, other: Any) -> NoReturn:
        """Raise: an operation in place."""
        refuse("an operation in place", OVERWRITES)

    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = refused
    __matmul__ = __rmatmul__ = __getitem__ = __setitem__ = __iter__ = __len__ = refused
    __float__ = __int__ = __abs__ = __mod__ = __floordiv__ = __rpow__ = refused
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = overwritten

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.endswith("_"):
            refuse(f"`.{name}`, which works in place", OVERWRITES)
        if name not in CALLS:
            refuse(f"`.{name}`", "Write each entry's rule, or use operator(name).")
        return lambda *args, **named: called(name, self, *args, **named)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func)).removeprefix("linalg_")
        proxy = next((a for a in args if isinstance(a, RuleProxy)), None)
        if name not in CALLS or proxy is None:
            refuse(f"`torch.{name}`", "Write each entry's rule, or use operator(name).")
        return called(name, lifted(proxy.trace, args[0]), *args[1:], **(kwargs or {}))


def lifted(trace: RuleTrace, value: Any) -> RuleProxy:
    """The value as a proxy."""
    return value if isinstance(value, RuleProxy) else RuleProxy(trace, trace.operand(value))


def matrix(x: RuleProxy, taken: str) -> RuleProxy:
    """The proxy; `ValueError` unless it is one of a whole matrix."""
    if x.node.shape != "entry":
        refuse(f"{taken} of a value that is no matrix", "Take it of a matrix.")
    return x


def norm_call(x: RuleProxy, *given: Any, **named: Any) -> RuleProxy:
    """`x.norm(dim=-2, keepdim=True)` and `torch.linalg.vector_norm` of the same."""
    found = dict(zip(("ord", "dim", "keepdim"), given, strict=False))
    found |= {"ord" if name == "p" else name: value for name, value in named.items()}
    order, dim, kept = (found.pop(name, None) for name in ("ord", "dim", "keepdim"))
    dim = dim[0] if isinstance(dim, tuple | list) and len(dim) == 1 else dim
    if found or order not in (None, 2, "fro") or dim != -2 or kept is not True:
        refuse("a norm that is not that of each column", NORM)
    return column_norm(x)


def sum_call(x: RuleProxy, other: Any, *, alpha: Any = 1) -> RuleProxy:
    """`torch.add`."""
    return x + alpha * lifted(x.trace, other)


def difference_call(x: RuleProxy, other: Any, *, alpha: Any = 1) -> RuleProxy:
    """`torch.sub`."""
    return x - alpha * lifted(x.trace, other)


def zero_call(x: RuleProxy, **named: Any) -> RuleProxy:
    """`torch.zeros_like`."""
    return RuleProxy(x.trace, x.trace.leaf(sp.Integer(0), x.node.shape))


# What methods of tensors, and functions of torch, are on proxies.
CALLS: dict[str, Callable[..., RuleProxy]] = {
    "add": sum_call,
    "sub": difference_call,
    "mul": RuleProxy.__mul__,
    "multiply": RuleProxy.__mul__,
    "div": RuleProxy.__truediv__,
    "true_divide": RuleProxy.__truediv__,
    "neg": RuleProxy.__neg__,
    "pow": RuleProxy.__pow__,
    "square": lambda x: x**2,
    "reciprocal": RuleProxy.inverted,
    "sqrt": lambda x: x.made("root"),
    "lerp": lambda x, end, weight: x + weight * (end - x),
    "norm": norm_call,
    "vector_norm": norm_call,
    "zeros_like": zero_call,
} | {
    name: getattr(RuleProxy, name)
    for name in ("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__")
}


def called(name: str, x: RuleProxy, *args: Any, **named: Any) -> RuleProxy:
    """A method of tensors, or a function of torch, by its name."""
    try:
        return CALLS[name](x, *args, **named)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        refuse(f"`{name}` with other options", "Leave them out, or write each entry's rule.")


def column_norm(x: Any) -> Any:
    """The Euclidean norm of each column: `[..., rows, cols]` to `[..., 1, cols]`."""
    if isinstance(x, RuleProxy):
        return matrix(x, "a norm").made("norm", shape="column")
    return x.norm(dim=-2, keepdim=True)


def zeros_like(x: Any) -> Any:
    """A matrix of zeros, as large as x: what a buffer is at the start."""
    return zero_call(x) if isinstance(x, RuleProxy) else x.new_zeros(x.shape)


def operator(name: str) -> Function:
    """The operator of that name, a function of matrices `[..., rows, cols]`.

    "muon" and "muon_bfloat16" run; any other is abstract, and raises `ValueError` on tensors.
    """
    return lambda x: applied("operator", name, x, shape="entry")


def unknown_gate(name: str, *, varies: bool = False) -> Function:
    """A function of each column, abstract: one number `[..., 1, cols]`. On tensors: `ValueError`.

    varies: whether it may be another function for each column of each weight.
    """
    return lambda x: applied("own gate" if varies else "gate", name, x, shape="column")


def applied(operation: str, name: str, x: Any, shape: Shape) -> Any:
    """A named function of a matrix."""
    if isinstance(x, RuleProxy):
        return matrix(x, f"`{name}`").made(operation, value=Str(name), shape=shape)
    if operation != "operator" or name not in RUNNABLE:
        raise ValueError(
            f"`{name}` must be a concrete function for a loop to be run; got an abstract one. "
            f"Put a function in its place, such as {', '.join(map(repr, RUNNABLE))}."
        )
    return RUNNABLE[name](x)
