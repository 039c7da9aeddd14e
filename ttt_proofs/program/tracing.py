"""What a function computes, read by running it once on stand-ins for its arguments.

A stand-in takes part in Python's operators and in PyTorch's functions, and each use is recorded as
a node: operation, arguments, shape, and the line of the user's code. What a record cannot hold, a
decision that depends on data, a change in place, a mixing of tokens, is refused in one sentence
with its line. PyTorch calls `__torch_function__`; it is not imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from .constants import fraction
from .dataflow import reached
from .operations import Depthwise, Entrywise, Rowwise
from .shapes import Dim, Dims, ShapeError, Widths

Fold = Literal["sum", "mean"]
Rank = Literal["matrix", "row", "token"]  # [L, D], [D], and one number a token, [L]


@dataclass(frozen=True)
class Source:
    """A line of code; none for what is not the user's."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f" in line {self.line} of {self.file}" if self.file else ""


@dataclass(eq=False)
class Node:
    """One operation: `does` is one of the table's, or a kind; `label` is an argument's name."""

    does: Any
    args: tuple[Node, ...]
    shape: Dims
    rank: Rank
    source: Source
    order: int
    factor: Fraction = Fraction(1)  # of "scale", what "shift" adds, the exponent of "power"
    label: str = ""

    @property
    def name(self) -> str:
        """The operation as its user knows it."""
        return self.does if isinstance(self.does, str) else self.does.name

    @property
    def inside(self) -> list[Node]:
        """This node and all that it is made of, in the order of their recording."""
        found: set[Node] = {self}
        return sorted(found | reached(self, parts), key=lambda node: node.order)


def parts(node: Node) -> tuple[Node, ...]:
    """What a node is an operation on."""
    return node.args


@dataclass(eq=False)
class Trace:
    """What is being read: `subject` is "net", "loss" or "step", as errors call it.

    handlers: what PyTorch's functions and methods are in it, by name.
    """

    subject: str
    handlers: Mapping[str, Callable[..., Any]]
    argument: str = "a weight of the net"  # what a tensor of its own should be
    widths: Widths = field(default_factory=Widths)
    fixed: list[tuple[Dim, int]] = field(
        default_factory=list
    )  # widths that the code has as numbers
    recorded: int = 0
    grad: bool | None = None

    def refuse(self, required: str, got: str, do: str, source: Source | None = None) -> NoReturn:
        """Raise `ValueError`: one sentence with the user's line."""
        where = here() if source is None else source
        raise ValueError(f"`{self.subject}` must {required}; got {got}{where}. {do}")

    def node(
        self,
        does: Any,
        args: tuple[Node, ...],
        shape: Dims,
        rank: Rank = "matrix",
        factor: Fraction = Fraction(1),
    ) -> Proxy:
        """Record an operation."""
        if self.grad is not None and grad_mode() != self.grad:
            self.refuse(
                "have all its gradients", "a change of PyTorch's gradient mode", "Leave it out."
            )
        self.recorded += 1
        return Proxy(self, Node(does, args, shape, rank, here(), self.recorded, factor))

    def unify(self, a: Dim, b: Dim, why: str) -> None:
        """Require that two widths are equal, `why` in the words of the user's line."""
        try:
            self.widths.unify(a, b)
        except ShapeError as error:
            self.refuse(f"have equal widths where {why}", str(error), "Transpose or change one.")

    def together(self, sign: str, a: Node, b: Node) -> tuple[Dims, Rank]:
        """The shape of an entrywise operation on two tensors."""
        ranks = {a.rank, b.rank}
        if "token" in ranks and len(ranks) > 1:
            self.refuse(
                "keep the last axis of a sum that it combines with whole rows",
                f"`{sign}` of one number a token and a matrix",
                "Write keepdim=True.",
            )
        shape: list[Dim] = []
        for one, other, what in zip(a.shape, b.shape, ("rows", "columns"), strict=True):
            try:
                shape.append(self.widths.broadcast(one, other))
            except ShapeError as error:
                self.refuse(
                    f"have as many {what} on both sides of `{sign}`", str(error), "Check it."
                )
        rank: Rank = a.rank if len(ranks) == 1 else "matrix"
        return tuple(shape), rank


def grad_mode() -> bool | None:
    """Whether PyTorch records gradients now; None where it is not imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.is_grad_enabled()


def here() -> Source:
    """The line of the function being read from which an operation is called."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not run.__code__:
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] not in ("torch", "functools", __name__.split(".")[0]):
            return Source(Path(frame.f_code.co_filename).name, frame.f_lineno)
        frame = frame.f_back
    return Source()


def home(function: Any) -> Source:
    """The line in which a function begins."""
    code = getattr(function, "__code__", None)
    return Source(Path(code.co_filename).name, code.co_firstlineno) if code else Source()


def head(function: Any) -> str:
    """A function's name, with that line."""
    return f"`{getattr(function, '__name__', function)}`{home(function)}"


def run(trace: Trace, function: Callable[..., Any], arguments: Sequence[Proxy]) -> Node:
    """The node that a function makes of stand-ins. Raises `ValueError` for another result."""
    trace.grad = grad_mode()
    result = function(*arguments)
    if not isinstance(result, Proxy):
        kind = type(result).__name__
        trace.refuse("return what it makes of its arguments", f"a {kind}", "Return a tensor.")
    return result.node


def number(trace: Trace, value: Any) -> Fraction | None:
    """A constant as the fraction that stands for it; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        return None
    if (found := fraction(value)) is not None:
        return found
    required = "have constants that are fractions of integers below 2**53"
    return trace.refuse(required, f"{value}", f"Round it, or make it {trace.argument}.")


class Proxy:
    """A stand-in for a tensor."""

    __slots__ = ("node", "trace")

    def __init__(self, trace: Trace, node: Node) -> None:
        self.trace, self.node = trace, node

    __hash__ = object.__hash__

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        proxy = next(x for x in flat((args, kwargs or {})) if isinstance(x, Proxy))
        return called(proxy.trace, name, args, kwargs or {})

    @classmethod
    def __record__(cls, operation: Any, arguments: tuple) -> Proxy:
        trace = next(x for x in arguments if isinstance(x, Proxy)).trace
        return applied(trace, operation, *(node_of(trace, x) for x in arguments))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("mT", "T"):
            return transposed(self)
        if name in ("shape", "size", "ndim", "numel", "dim"):
            self.trace.refuse(
                "not depend on sizes, which are unknown when it is read",
                f"`{name}`",
                "Write the number itself.",
            )
        if name not in self.trace.handlers:
            return called(self.trace, name, (self,), {})
        return partial(method, self.trace, name, self)

    def __add__(self, other: Any) -> Proxy:
        return added(self.trace, self, other)

    def __sub__(self, other: Any) -> Proxy:
        return added(self.trace, self, scaled(self.trace, other, Fraction(-1)))

    def __rsub__(self, other: Any) -> Proxy:
        return added(self.trace, scaled(self.trace, self, Fraction(-1)), other)

    def __mul__(self, other: Any) -> Proxy:
        return multiplied(self.trace, self, other)

    def __neg__(self) -> Proxy:
        return scaled(self.trace, self, Fraction(-1))

    def __truediv__(self, other: Any) -> Proxy:
        return divided(self.trace, self, other)

    def __pow__(self, power: Any) -> Proxy:
        return raised(self.trace, self, power)

    def __matmul__(self, other: Any) -> Proxy:
        return product(self.trace, self, other)

    def __rmatmul__(self, other: Any) -> Proxy:
        return product(self.trace, other, self)

    __radd__, __rmul__ = __add__, __mul__


def forbidden(sign: str, required: str, do: str) -> Callable[..., Any]:
    """A method that refuses what its operator asks for."""

    def method(self: Proxy, *arguments: Any) -> NoReturn:
        self.trace.refuse(required, f"`{sign}`", do)

    return method


SIGNS = {
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "bool": "if",
    "getitem": "[...]",
    "setitem": "[...] =",
    "iadd": "+=",
    "isub": "-=",
    "imul": "*=",
    "itruediv": "/=",
    "rtruediv": "/",
}
DECISION = ("decide nothing by its data", "Write the function of each entry, such as relu.")
WIDTH = ("keep each width whole", "Give each part a weight of its own.")
PLACE = ("change nothing in place", "Assign the result to a name.")
UNKNOWN = ("be made of known operations", "Write it with + - * @ and ttt_proofs' operations.")
for _signs, (_required, _do) in (
    ("bool float int lt le gt ge eq ne contains", DECISION),
    ("getitem iter len", WIDTH),
    ("setitem iadd isub imul itruediv imatmul ipow", PLACE),
    ("rtruediv rpow mod floordiv abs", UNKNOWN),
):
    for _sign in _signs.split():
        setattr(Proxy, f"__{_sign}__", forbidden(SIGNS.get(_sign, _sign), _required, _do))


def flat(value: Any) -> list[Any]:
    """The items of nested tuples, lists and dicts."""
    if isinstance(value, dict):
        return flat(list(value.values()))
    return [x for item in value for x in flat(item)] if isinstance(value, tuple | list) else [value]


def captured(trace: Trace) -> NoReturn:
    """Refuse a tensor that is not an argument."""
    trace.refuse(
        "get every tensor as an argument", "a tensor of its own", f"Make it {trace.argument}."
    )


def node_of(trace: Trace, value: Any) -> Node:
    """The node of a stand-in; anything else is refused."""
    if isinstance(value, Proxy):
        return value.node
    if hasattr(type(value), "__torch_function__") or hasattr(value, "__array__"):
        captured(trace)
    return trace.refuse("be made of tensors and numbers", f"a {type(value).__name__}", "Give one.")


def scaled(trace: Trace, x: Any, factor: Fraction) -> Any:
    """A tensor, or a number, times a number."""
    if (constant := number(trace, x)) is not None:
        return constant * factor
    node = node_of(trace, x)
    return trace.node("scale", (node,), node.shape, node.rank, Fraction(0) if nil(node) else factor)


def nil(node: Node) -> bool:
    """Whether this is something times 0."""
    return node.does == "scale" and node.factor == 0


def added(trace: Trace, a: Any, b: Any) -> Proxy:
    """`a + b`, of tensors or a tensor and a number; a part times 0, switched off, is left out."""
    for one, other in ((a, b), (b, a)):
        if (constant := number(trace, other)) is not None:
            node = node_of(trace, one)
            made = trace.node("shift", (node,), node.shape, node.rank, constant)
            return made if constant else one
    pair = node_of(trace, a), node_of(trace, b)
    shape, rank = trace.together("+", *pair)
    for kept, x, other in ((a, *pair), (b, *reversed(pair))):
        if nil(other) and (x.rank, roots(x.shape)) == (rank, roots(shape)):
            return kept
    return trace.node("add", pair, shape, rank)


def roots(shape: Dims) -> list[Dim]:
    """The widths, each as that which stands for all that equal it."""
    return [dim.root for dim in shape]


def multiplied(trace: Trace, a: Any, b: Any) -> Proxy:
    """`a * b`, entry by entry."""
    for x, other in ((a, b), (b, a)):
        if (constant := number(trace, other)) is not None:
            return scaled(trace, x, constant)
    pair = node_of(trace, a), node_of(trace, b)
    return trace.node("multiply", pair, *trace.together("*", *pair))


def divided(trace: Trace, a: Any, b: Any) -> Proxy:
    """`a / b` for a number b."""
    constant = number(trace, b)
    if not constant:
        trace.refuse("divide by numbers only", "`/`", "Multiply by a known function.")
    return scaled(trace, a, 1 / constant)


def raised(trace: Trace, a: Any, power: Any) -> Proxy:
    """`a ** n` for a positive integer n."""
    n = number(trace, power)
    if n is None or n.denominator != 1 or not 1 <= n <= 9:
        trace.refuse("have powers 1 to 9", f"`** {power}`", "Multiply, or use a known function.")
    node = node_of(trace, a)
    return trace.node("power", (node,), node.shape, node.rank, n)


def product(trace: Trace, a: Any, b: Any) -> Proxy:
    """`a @ b`."""
    left, right = node_of(trace, a), node_of(trace, b)
    if {left.rank, right.rank} != {"matrix"}:
        trace.refuse("multiply matrices by `@`", "a vector", "Write (a * b).sum(-1).")
    trace.unify(left.shape[1], right.shape[0], "`@` multiplies columns by rows")
    tokens = trace.widths.rows
    if right.shape[1].root is tokens and left.shape[0].root is not tokens:  # rows are tokens
        return transposed(product(trace, transposed(b), transposed(a)))
    return trace.node("matmul", (left, right), (left.shape[0], right.shape[1]))


def transposed(a: Proxy) -> Proxy:
    """`a.mT`."""
    node = a.node
    if node.rank != "matrix":
        a.trace.refuse("transpose matrices only", "a vector", "Leave it out.")
    if node.does == "transpose":
        return Proxy(a.trace, node.args[0])
    return a.trace.node("transpose", (node,), (node.shape[1], node.shape[0]))


def applied(trace: Trace, operation: Any, *args: Node) -> Proxy:
    """An operation of the table, or an abstract function."""
    x = args[0]
    if isinstance(operation, Entrywise | Rowwise) or operation.name == "depthwise":
        pass
    elif operation.kind == "row":
        wide = trace.widths.named(operation.width)
        if len(args) > 1:
            for dim, name in zip(args[1].shape, ("D_p", "D_r"), strict=True):
                trace.unify(dim, trace.widths.named(name), f"`{operation.name}` has parameters")
        return trace.node(operation, args, (x.shape[0], wide))
    elif operation.kind == "loss":
        trace.unify(x.shape[1], args[1].shape[1], f"`{operation.name}` compares rows")
        return trace.node(operation, args, (x.shape[0], trace.widths.single), "token")
    if isinstance(operation, Depthwise):
        trace.unify(args[1].shape[0], trace.widths.named("D_w"), "a window has offsets")
        trace.unify(args[1].shape[1], x.shape[1], "each channel has a window")
    if isinstance(operation, Rowwise) and x.rank == "token":
        trace.refuse("apply functions of rows to rows", f"`{operation.name}`", "Check its axis.")
    return trace.node(operation, args, x.shape, x.rank)


def folded(trace: Trace, does: Fold, x: Any, dim: Any, keepdim: bool) -> Proxy:
    """A sum or a mean over the last axis."""
    node = node_of(trace, x)
    axis = dim[0] if isinstance(dim, tuple | list) and len(dim) == 1 else dim
    if axis != -1 or node.rank != "matrix":
        over = "all axes" if dim is None else f"axis {dim}"
        trace.refuse(
            "not mix tokens, so each sum is over the last axis",
            f"`{does}` over {over}",
            "Write .sum(-1); what is left is summed over tokens.",
        )
    rank: Rank = "matrix" if keepdim else "token"
    return trace.node(does, (node,), (node.shape[0], trace.widths.single), rank)


def method(trace: Trace, name: str, *args: Any, **kwargs: Any) -> Any:
    """A method of a stand-in."""
    return called(trace, name, args, kwargs)


def called(trace: Trace, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A function or a method of PyTorch, by its name."""
    if name.endswith("_") and not name.startswith("__"):
        trace.refuse(PLACE[0], f"`{name}`", PLACE[1])
    if name not in trace.handlers:
        trace.refuse(UNKNOWN[0], f"`{name}`", UNKNOWN[1])
    try:
        return trace.handlers[name](trace, *args, **kwargs)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        trace.refuse("call PyTorch's functions in a known way", f"`{name}`: {error}", "Simplify.")
