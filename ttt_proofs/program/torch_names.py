"""PyTorch's functions and methods by name, each as the operations that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

from .operations import ENTRYWISE, ROWWISE, AtLeast, Entrywise
from .tracing import (
    WIDTH,
    Proxy,
    Trace,
    added,
    applied,
    divided,
    folded,
    multiplied,
    node_of,
    number,
    product,
    raised,
    scaled,
    transposed,
)


def entrywise(row: Entrywise, trace: Trace, x: Any, *rest: Any, **options: Any) -> Proxy:
    """A function of each entry, called without options that make it another one."""
    names = [name for name, _ in row.options]
    given = dict(zip(names, rest, strict=False)) | options
    allowed = dict(row.options)
    for name, value in given.items():
        if len(rest) > len(names) or name not in allowed or not meant(allowed[name], value):
            if (row.name, name, value) == ("gelu", "approximate", "tanh"):
                return applied(trace, ENTRYWISE["gelu_tanh"], node_of(trace, x))
            trace.refuse(
                f"call `{row.name}` as it is in the table of operations",
                f"{name}={value!r}",
                "Leave it out.",
            )
    return applied(trace, row, node_of(trace, x))


def meant(allowed: object, value: Any) -> bool:
    """Whether an option's value is the one that is meant, or far enough."""
    return value >= allowed.least if isinstance(allowed, AtLeast) else value == allowed


def last_axis(trace: Trace, name: str, dim: Any) -> None:
    """Refuse a function of another axis than the last."""
    if dim != -1:
        trace.refuse("not mix tokens", f"`{name}` over axis {dim}", "Write dim=-1.")


def normed(name: str, default: float | None) -> Callable[..., Proxy]:
    """A norm of each row with the affine map that may follow it."""

    def handler(
        trace: Trace, x: Any, normalized_shape: Any, weight: Any = None, *more: Any, **kwargs: Any
    ) -> Any:
        names = ("bias", "eps") if name == "layer_norm" else ("eps",)
        options = dict(zip(names, more, strict=False)) | kwargs
        sizes = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        if len(tuple(sizes)) != 1:
            trace.refuse("normalise rows", f"`{name}` of {normalized_shape}", "Give one width.")
        trace.fixed.append((node_of(trace, x).shape[1], int(*sizes)))
        if options.get("eps", default) != default:
            trace.refuse(f"call `{name}` with eps={default}", f"{options['eps']}", "Leave it out.")
        found = applied(trace, ROWWISE[name], node_of(trace, x))
        if weight is not None:
            found = multiplied(trace, found, weight)
        return found if options.get("bias") is None else added(trace, found, options["bias"])

    return handler


def softmax(
    trace: Trace, x: Any, dim: Any = None, *rest: Any, dtype: Any = None, _stacklevel: int = 3
) -> Proxy:
    """Softmax of each row."""
    last_axis(trace, "softmax", dim)
    if any(not isinstance(given, int | None) for given in (dtype, *rest)):  # an integer: the level
        trace.refuse("keep its dtype", "`softmax` with a dtype", "Leave it out.")
    return applied(trace, ROWWISE["softmax"], node_of(trace, x))


def normalize(
    trace: Trace, x: Any, p: Any = 2.0, dim: Any = 1, eps: Any = 1e-12, out=None
) -> Proxy:
    """Each row over its Euclidean norm."""
    last_axis(trace, "normalize", dim)
    if p != 2 or eps != 1e-12:
        trace.refuse("normalise by the Euclidean norm", f"p={p}, eps={eps}", "Leave them out.")
    return applied(trace, ROWWISE["normalize"], node_of(trace, x))


def linear(trace: Trace, x: Any, weight: Any, bias: Any = None) -> Proxy:
    """`x Wᵀ + b`: the weight is outputs by inputs."""
    node_of(trace, weight)
    found = product(trace, x, transposed(weight))
    return found if bias is None else added(trace, found, bias)


def plus(trace: Trace, a: Any, b: Any, *, alpha: float = 1) -> Proxy:
    """`a + alpha b`."""
    times = number(trace, alpha)
    if times is None:
        trace.refuse("add multiples by a number", f"alpha={alpha}", "Write it with *.")
    return added(trace, a, b if times == 1 else scaled(trace, b, times))


def subtracted(trace: Trace, a: Any, b: Any, *, alpha: float = 1) -> Proxy:
    """`a - alpha b`."""
    return plus(trace, a, scaled(trace, b, Fraction(-1)), alpha=alpha)


def axes_swapped(trace: Trace, x: Any, *axes: Any) -> Proxy:
    """The transpose, of the last two axes."""
    if axes and tuple(axes) not in ((-1, -2), (-2, -1)):
        trace.refuse("transpose the last two axes", f"axes {axes}", "Write .mT.")
    node_of(trace, x)
    return transposed(x)


ROWS = "."  # in an equation, the axis that `...` stands for


def spelled(part: str) -> str:
    """A matrix' letters in an equation: `...` is one axis beside a letter, none beside two."""
    return part.replace("...", ROWS if len(part) == 4 else "")


def einsum(trace: Trace, equation: str, *operands: Any) -> Proxy:
    """A product of two matrices: one contraction, or entry by entry, or row by row."""
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = tuple(operands[0])
    sides, _, out = equation.replace(" ", "").partition("->")
    letters = [spelled(part) for part in sides.split(",")]
    out = out.replace("...", ROWS if any(ROWS in part for part in letters) else "")
    if len(operands) != 2 or [len(set(part)) for part in letters] != [2, 2] or not out:
        return trace.refuse("contract two matrices by `einsum`", repr(equation), "Write it with @.")
    (first, second), (a, b) = letters, operands
    for operand in operands:
        node_of(trace, operand)
    common = set(first) & set(second)
    if len(common) == 2 and set(out) <= common:
        both = multiplied(trace, a, b if first == second else transposed(b))
        if out == first:
            return both
        if out == first[0]:
            return folded(trace, "sum", both, -1, False)
        if out == first[::-1]:
            return transposed(both)
    if len(common) == 1 and set(out) == (set(first) | set(second)) - common and len(out) == 2:
        (inner,) = common
        left = a if first[1] == inner else transposed(a)
        right = b if second[0] == inner else transposed(b)
        found = product(trace, left, right)
        return found if out[0] in first else transposed(found)
    return trace.refuse("contract two matrices by `einsum`", repr(equation), "Write it with @.")


def split(trace: Trace, x: Any, *rest: Any, **options: Any) -> Any:
    """Refuse to take a width apart."""
    trace.refuse(WIDTH[0], "a split", WIDTH[1])


def cut(trace: Trace, *rest: Any, **options: Any) -> Any:
    """Refuse to cut a gradient."""
    trace.refuse("have all its gradients", "`detach`", "Leave it out.")


def fold(does: Any) -> Callable[..., Proxy]:
    """A sum or a mean over an axis."""

    def handler(trace: Trace, x: Any, dim: Any = None, keepdim: bool = False) -> Proxy:
        return folded(trace, does, x, dim, keepdim)

    return handler


HANDLERS: dict[str, Callable[..., Any]] = {
    name: partial(entrywise, row) for row in ENTRYWISE.values() for name in row.meant
} | {
    "add": plus,
    "sub": subtracted,
    "subtract": subtracted,
    "rsub": lambda trace, a, b: subtracted(trace, b, a),
    "mul": multiplied,
    "multiply": multiplied,
    "div": divided,
    "divide": divided,
    "true_divide": divided,
    "neg": lambda trace, x: scaled(trace, x, Fraction(-1)),
    "negative": lambda trace, x: scaled(trace, x, Fraction(-1)),
    "pow": raised,
    "matmul": product,
    "mm": product,
    "linear": linear,
    "einsum": einsum,
    "t": axes_swapped,
    "transpose": axes_swapped,
    "swapaxes": axes_swapped,
    "sum": fold("sum"),
    "mean": fold("mean"),
    "softmax": softmax,
    "normalize": normalize,
    "layer_norm": normed("layer_norm", 1e-5),
    "rms_norm": normed("rms_norm", None),
    "detach": cut,
    **dict.fromkeys(("split", "chunk", "tensor_split", "unbind", "narrow", "unflatten"), split),
}
