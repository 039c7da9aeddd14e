"""A recurrence's step read from code: the function is run once on stand-ins for one token.

    def step(S, n, q, k, v, *, alpha):  # states, q and k [K], v [V], coefficients by keyword
        S = alpha * S + outer(k, v)
        n = alpha * n + k
        return S, n, (q @ S) / (q @ n)

It is read by the same means as nets and losses (`tracing`); here values have any number of axes,
each of a width with a name, and two widths are never one because their sizes coincide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from .operations import ENTRYWISE, ROWWISE, Abstract, Entrywise, Rowwise
from .shapes import Dim, Dims, ShapeError
from .steps import (
    RECIPROCAL,
    ROOT,
    SINGLE,
    Axes,
    Contraction,
    Operation,
    Operations,
    StepProgram,
    View,
    reads,
)
from .torch_names import HANDLERS, entrywise
from .tracing import WIDTH, Node, Proxy, Rank, Source, Trace, applied, node_of, number, run

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def outer(x: Any, y: Any) -> Any:
    """The outer product of vectors: `[m]` and `[n]` to `[m, n]`."""
    return x[:, None] * y[None, :]


@dataclass(eq=False)
class StepTrace(Trace):
    """What is read of a step; values have any number of axes."""

    def node(self, *args: Any, **kwargs: Any) -> StepProxy:
        """Record an operation."""
        return StepProxy(self, super().node(*args, **kwargs).node)

    def together(self, sign: str, a: Node, b: Node) -> tuple[Dims, Rank]:
        """The shape of an entrywise operation: axes are counted from the last, as in PyTorch."""
        count = max(len(a.shape), len(b.shape))
        one, other = (
            (self.widths.single,) * (count - len(x.shape)) + tuple(x.shape) for x in (a, b)
        )
        try:
            shape = tuple(self.widths.broadcast(x, y) for x, y in zip(one, other, strict=True))
        except ShapeError as error:
            do = "Transpose one, or give it an axis: `x[:, None]` differs in each row."
            self.refuse(f"have equal widths on both sides of `{sign}`", str(error), do)
        return shape, "matrix"


class StepProxy(Proxy):
    """A stand-in for a number, a vector or a matrix of one token."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in ("mT", "T"):
            return transposed(self.trace, self)
        return super().__getattr__(name)

    def __truediv__(self, other: Any) -> Proxy:
        return divided(self.trace, self, other)

    def __rtruediv__(self, other: Any) -> Proxy:
        return divided(self.trace, other, self)

    def __matmul__(self, other: Any) -> Proxy:
        return product(self.trace, self, other)

    def __rmatmul__(self, other: Any) -> Proxy:
        return product(self.trace, other, self)

    def __getitem__(self, key: Any) -> Proxy:
        return indexed(self.trace, self, key)


def viewed(trace: Trace, node: Node, order: tuple[int | None, ...]) -> Proxy:
    """The axes of a value in another order, None for a new one of one entry."""
    shape = tuple(trace.widths.single if k is None else node.shape[k] for k in order)
    return trace.node(View(order), (node,), shape)


def indexed(trace: Trace, x: Any, key: Any) -> Proxy:
    """`x[:, None]` and its like: whole axes, and new ones of one entry."""
    node = node_of(trace, x)
    keys = list(key) if isinstance(key, tuple) else [key]
    if keys.count(...) == 0:
        keys.append(...)
    whole = len(node.shape) - sum(k is not None and k is not ... for k in keys)
    if keys.count(...) > 1 or whole < 0:
        trace.refuse("have an index for each axis", f"`[{key}]`", "Leave some out.")
    at = keys.index(...)
    keys[at : at + 1] = [slice(None)] * whole
    order: list[int | None] = []
    axis = 0
    for k in keys:
        if k is None:
            order.append(None)
            continue
        single = node.shape[axis].root is trace.widths.single
        if isinstance(k, slice) and k == slice(None):
            order.append(axis)
        elif not (single and k in (0, -1) and not isinstance(k, bool)):
            trace.refuse(WIDTH[0], f"`[{k}]`", "Give each part a state of its own.")
        axis += 1
    return viewed(trace, node, tuple(order))


def axis_of(trace: Trace, node: Node, dim: Any, new: int = 0) -> int:
    """An axis' number, counted from the first."""
    count = len(node.shape) + new
    if not isinstance(dim, int) or isinstance(dim, bool) or not -count <= dim < count:
        trace.refuse(f"name an axis of {count}", f"{dim!r}", "Choose another one.")
    return dim % count


def unsqueezed(trace: Trace, x: Any, dim: Any) -> Proxy:
    """A new axis of one entry."""
    node = node_of(trace, x)
    order: list[int | None] = [*range(len(node.shape))]
    order.insert(axis_of(trace, node, dim, 1), None)
    return viewed(trace, node, tuple(order))


def squeezed(trace: Trace, x: Any, dim: Any = None) -> Proxy:
    """Without an axis of one entry."""
    node = node_of(trace, x)
    if dim is None:
        trace.refuse("say which axis is left out", "`squeeze()`", "Write .squeeze(-1).")
    axis = axis_of(trace, node, dim)
    if node.shape[axis].root is not trace.widths.single:
        trace.refuse(WIDTH[0], f"`squeeze` of an axis of {node.shape[axis]}", "Leave it out.")
    return viewed(trace, node, tuple(k for k in range(len(node.shape)) if k != axis))


def transposed(trace: Trace, x: Any, *axes: Any) -> Proxy:
    """Two axes exchanged, by default the last two."""
    node = node_of(trace, x)
    if len(node.shape) < 2 or len(axes) not in (0, 2):
        trace.refuse("transpose matrices", f"`.T` of {shown(node)}", "Leave it out.")
    one, other = (axis_of(trace, node, dim) for dim in axes or (-1, -2))
    order = [*range(len(node.shape))]
    order[one], order[other] = order[other], order[one]
    return viewed(trace, node, tuple(order))


def contracted(trace: Trace, operands: tuple[str, ...], out: str, nodes: list[Node]) -> Proxy:
    """A product summed over the axes that `out` lacks; a letter is one width wherever it is."""
    dims: dict[str, Dim] = {}
    for letters, node in zip(operands, nodes, strict=True):
        for letter, dim in zip(letters, node.shape, strict=True):
            trace.unify(dims.setdefault(letter, dim), dim, "a product sums over them")
    spec = Contraction(operands, out)
    return trace.node(spec, tuple(nodes), tuple(dims[letter] for letter in out))


def product(trace: Trace, a: Any, b: Any) -> Proxy:
    """`a @ b` of vectors and matrices."""
    left, right = node_of(trace, a), node_of(trace, b)
    if {len(left.shape), len(right.shape)} - {1, 2}:
        got = f"{shown(left)} and {shown(right)}"
        trace.refuse("multiply vectors and matrices by `@`", got, "Write `*`.")
    one = "am"[-len(left.shape) :]
    other = "mb"[: len(right.shape)]
    return contracted(trace, (one, other), (one + other).replace("m", ""), [left, right])


def einsum(trace: Trace, equation: str, *operands: Any) -> Proxy:
    """Any product of vectors and matrices, each of whose axes has a letter of its own."""
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = tuple(operands[0])
    sides, arrow, out = equation.replace(" ", "").partition("->")
    letters, nodes = tuple(sides.split(",")), [node_of(trace, x) for x in operands]
    fits = len(letters) == len(nodes) and all(
        len(part) == len(node.shape) for part, node in zip(letters, nodes, strict=False)
    )
    plain = all(part.isalpha() or not part for part in (*letters, out))
    once = all(len(set(part)) == len(part) for part in (*letters, out))
    if not (arrow and fits and plain and once and set(out) <= set(sides)):
        do = "Give each axis a letter, and name those of the result."
        trace.refuse("contract values by `einsum`", repr(equation), do)
    named = dict(zip(dict.fromkeys(sides.replace(",", "")), LETTERS, strict=False))
    renamed = tuple("".join(named[x] for x in part) for part in letters)
    return contracted(trace, renamed, "".join(named[x] for x in out), nodes)


def summed(trace: Trace, x: Any, dim: Any = None, keepdim: bool = False) -> Proxy:
    """The sum over some axes, or all."""
    node = node_of(trace, x)
    dims = range(len(node.shape)) if dim is None else dim
    listed = dims if isinstance(dims, range | tuple | list) else [dims]
    gone = {axis_of(trace, node, d) for d in listed}
    letters = LETTERS[: len(node.shape)]
    kept = [k for k in range(len(letters)) if k not in gone]
    found = contracted(trace, (letters,), "".join(letters[k] for k in kept), [node])
    if not keepdim:
        return found
    order = tuple(kept.index(k) if k in kept else None for k in range(len(letters)))
    return viewed(trace, node_of(trace, found), order)


def divided(trace: Trace, a: Any, b: Any) -> Any:
    """`a / b`."""
    constant = number(trace, b)
    if constant == 0:
        trace.refuse("divide by other numbers than 0", "`/ 0`", "Correct it.")
    by = 1 / constant if constant else applied(trace, RECIPROCAL, node_of(trace, b))
    if isinstance(by, Proxy):
        return by * a
    return node_proxy(trace, a) * by


def node_proxy(trace: Trace, x: Any) -> Proxy:
    """The value as a stand-in; anything else is refused."""
    node_of(trace, x)
    return x


def rooted(trace: Trace, x: Any) -> Proxy:
    """`1 / √x`."""
    return applied(trace, RECIPROCAL, applied(trace, ROOT, node_of(trace, x)).node)


def crossed(trace: Trace, x: Any, y: Any) -> Proxy:
    """The outer product of two vectors."""
    pair = [node_of(trace, x), node_of(trace, y)]
    if [len(node.shape) for node in pair] != [1, 1]:
        trace.refuse("take outer products of vectors", " and ".join(map(shown, pair)), "Write `*`.")
    return outer(x, y)


def normed(row: Rowwise) -> Callable[..., NoReturn]:
    """A norm of PyTorch's, which has a number for the width: in a step no width has one."""

    def handler(trace: Trace, *args: Any, **kwargs: Any) -> NoReturn:
        do = f"Call `ttt_proofs.loops.{row.name}`, which takes any."
        trace.refuse("leave each width open", f"`{row.name}` of a number of entries", do)

    return handler


def refusal(what: str) -> Callable[..., NoReturn]:
    """A function that a step cannot have."""

    def handler(trace: Trace, *args: Any, **kwargs: Any) -> NoReturn:
        trace.refuse("be made of known operations", f"`{what}`", "Write it with + - * / @.")

    return handler


STEP_HANDLERS: dict[str, Callable[..., Any]] = (
    {name: handler for name, handler in HANDLERS.items() if name not in ("detach", "mean")}
    | {name: partial(entrywise, row) for row in (RECIPROCAL, ROOT) for name in row.meant}
    | dict.fromkeys(("div", "divide", "true_divide"), divided)
    | dict.fromkeys(("matmul", "mm", "mv", "dot"), product)
    | dict.fromkeys(("outer", "ger"), crossed)
    | dict.fromkeys(("t", "transpose", "swapaxes"), transposed)
    | {"einsum": einsum, "sum": summed, "rsqrt": rooted, "linear": refusal("linear")}
    | {name: normed(row) for name, row in ROWWISE.items() if name in ("layer_norm", "rms_norm")}
    | {"unsqueeze": unsqueezed, "squeeze": squeezed}
)


def shown(node: Node) -> str:
    """The axes of a value."""
    return f"[{', '.join(map(str, node.shape))}]"


def axes_of(node: Node) -> Axes:
    """The names of a value's axes."""
    return tuple(dim.root.name or "?" for dim in node.shape)


def read_step(
    function: Callable[..., tuple[Mapping[str, Any], Any]],
    states: Mapping[str, Axes],
    data: Mapping[str, Axes],
    coefficients: Mapping[str, Axes],
    output: Axes,
    home: Source,
) -> StepProgram:
    """The step that `function(states, data, coefficients)` makes, all by name, with their axes.

    It returns the new states, by name, and the output. home: where the user's code begins. Raises
    `ValueError` in one sentence, with the line of that code, for what is no such step.
    """
    trace = StepTrace("step", STEP_HANDLERS, "a coefficient")
    groups = {"state": states, "data": data, "coefficient": coefficients}
    given: list[dict[str, Proxy]] = []
    for does, group in groups.items():
        given.append({name: stand_in(trace, does, name, axes) for name, axes in group.items()})
    found: list[tuple[Mapping[str, Any], Any]] = []

    def whole(first: Proxy) -> Proxy:
        found.append(function(*given))
        return first

    run(trace, whole, [next(iter(given[0].values()))])
    after, out = found[0]
    nodes = {
        name: result(trace, f"`{name}`", after[name], axes, home) for name, axes in states.items()
    }
    made = Operations()
    done: dict[int, int] = {}
    result(trace, "the output", out, output, home)
    for node in sorted([*nodes.values(), out.node], key=lambda node: node.order):
        lower(made, done, node)
    return pruned(made, {name: done[id(node)] for name, node in nodes.items()}, done[id(out.node)])


def stand_in(trace: Trace, does: str, name: str, axes: Axes) -> Proxy:
    """An argument of the step."""
    widths = trace.widths
    shape = tuple(widths.single if axis == SINGLE else widths.named(axis) for axis in axes)
    proxy = trace.node(does, (), shape)
    proxy.node.source, proxy.node.label = Source(), name
    return proxy


def result(trace: Trace, what: str, value: Any, axes: Axes, home: Source) -> Node:
    """What a step returned, of the axes that it must have."""
    if not isinstance(value, Proxy):
        got = f"a {type(value).__name__}"
        do = "Return what it makes of its arguments."
        trace.refuse(f"return a tensor for {what}", got, do, home)
    if axes_of(value.node) != axes:
        required = f"return {what} as [{', '.join(axes)}]"
        where = value.node.source if value.node.source.file else home
        trace.refuse(required, shown(value.node), "Correct it.", where)
    return value.node


def lower(made: Operations, done: dict[int, int], root: Node) -> None:
    """Write the operations that a node is made of, in order."""
    for node in root.inside:
        if id(node) not in done:
            done[id(node)] = lowered(made, node, [done[id(a)] for a in node.args])


def lowered(made: Operations, node: Node, args: list[int]) -> int:
    """The number of a node's operation."""
    does, axes = node.does, axes_of(node)
    if does in ("state", "data", "coefficient"):
        return made.add(Operation(does, (), axes, label=node.label))
    if does in ("add", "multiply"):
        return made.together(does, *args, source=node.source)
    if does == "scale":
        return made.scaled(args[0], node.factor, node.source)
    if does == "shift":
        return made.together("add", args[0], made.number(node.factor), node.source)
    if isinstance(does, Entrywise) and does.name == "identity":
        return args[0]
    if does == "power":
        return made.add(Operation("power", tuple(args), axes, node.factor, source=node.source))
    kind: Any = does.name if isinstance(does, Entrywise | Rowwise) else does
    if isinstance(does, Abstract) and does.kind != "entrywise":
        required = "have unknown functions of entries"
        trace_refuse(node, required, f"`{does.name}` of a row")
    if (
        isinstance(kind, str)
        and kind not in (*ENTRYWISE, "inverse", "root")
        and SINGLE in axes[-1:]
    ):
        trace_refuse(node, "apply functions of rows to rows", f"`{kind}` of one entry")
    return made.add(Operation(kind, tuple(args), axes, source=node.source))


def trace_refuse(node: Node, required: str, got: str) -> NoReturn:
    """Raise `ValueError` for a node."""
    raise ValueError(f"`step` must {required}; got {got}{node.source}. Write another function.")


def pruned(made: Operations, states: dict[str, int], output: int) -> StepProgram:
    """The step without what nothing reads, the states in an order of computation."""
    operations = made.list
    roots = [*states.values(), output]
    used = sorted(set().union(*(reads(operations, k) for k in roots)))
    place = {old: new for new, old in enumerate(used)}
    kept = tuple(
        Operation(
            op.does, tuple(place[a] for a in op.args), op.axes, op.factor, op.label, op.source
        )
        for op in map(operations.__getitem__, used)
    )
    ordered = sorted(((name, place[k]) for name, k in states.items()), key=lambda pair: pair[1])
    return StepProgram(kept, tuple(ordered), place[output])
