"""From a trace to SymPy: a program of matrix assignments, split at the last layer; a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

import sympy as sp

from .checks import check_mixing, check_names, check_output, check_tokens, check_use
from .differentials import hadamard, loss_gradient
from .expressions import (
    CHUNK,
    UNIT,
    InverseWidth,
    Ones,
    RowFunction,
    RowLoss,
    Windowed,
    entrywise,
    width,
)
from .names import OF_WEIGHTS, TRANSPOSE
from .operations import Abstract, Depthwise, Rowwise
from .shapes import Dim
from .torch_names import HANDLERS
from .tracing import Node, Proxy, Source, Trace, run


@dataclass(frozen=True)
class NetProgram:
    """A net as SymPy has it; see `Net` for what each part means.

    turned: whether the last layer's weight is the transpose of what the function takes, since the
    function transposes it again; it is called `W_T` then. sizes: widths that the function has as
    numbers.
    """

    input: sp.MatrixSymbol
    weights: tuple[sp.MatrixSymbol, ...]
    assignments: tuple[tuple[sp.MatrixSymbol, sp.MatrixExpr], ...]
    features: sp.MatrixExpr
    last: sp.MatrixSymbol
    gate: sp.MatrixExpr | None
    outputs: sp.MatrixExpr
    is_static: bool
    window: tuple[int, int, int] | None = None
    obstacle: str | None = field(default=None, compare=False)
    turned: bool = False
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class LossProgram:
    """The loss of a chunk in SymPy. sizes: widths that the function has as numbers."""

    expression: sp.Expr
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass
class Lowering:
    """Makes SymPy of nodes, and assigns what a product or another use needs a name for."""

    trace: Trace
    symbols: dict[str, sp.MatrixSymbol]
    names: list[str] = field(default_factory=list)
    assignments: list[tuple[sp.MatrixSymbol, sp.MatrixExpr]] = field(default_factory=list)
    done: dict[int, sp.MatrixExpr] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def size(self, dim: Dim) -> sp.Symbol:
        """A width as a SymPy symbol."""
        name = dim.root.name
        return UNIT if name == "1" else width(name or "?")

    def fresh(self, letter: str) -> str:
        """The next name of a library net, or else the letter and the next number that is free."""
        if self.names:
            return self.names.pop(0)
        given = {symbol.name for symbol in self.symbols.values()} | set(self.symbols)
        taken = OF_WEIGHTS | given | {f"d{name}" for name in given}
        while True:
            self.counts[letter] = self.counts.get(letter, 0) + 1
            found = f"{letter}{self.counts[letter]}"
            if not {found, f"d{found}"} & taken:
                return found

    def assign(self, letter: str, value: sp.MatrixExpr) -> sp.MatrixSymbol:
        """A new symbol for a value."""
        symbol = sp.MatrixSymbol(self.fresh(letter), *value.shape)
        self.assignments.append((symbol, value))
        return symbol

    def operand(self, node: Node) -> sp.MatrixExpr:
        """A node as a factor of a product: a symbol, or the transpose of one."""
        value = self.of(node)
        plain = value.arg if isinstance(value, sp.Transpose) else value
        if not isinstance(plain, sp.MatrixSymbol):
            value = self.done[id(node)] = self.assign("H", value)
        return value

    def of(self, node: Node) -> sp.MatrixExpr:
        """A node as a matrix expression of the node's shape."""
        if id(node) not in self.done:
            value = self.done[id(node)] = self.made(node)
            if value.is_ZeroMatrix:
                self.refuse_nothing(node)
        return self.done[id(node)]

    def refuse_nothing(self, node: Node) -> NoReturn:
        """Raise `ValueError` of a node that is 0 whatever the inputs are."""
        required, got = "have no part that is 0 for all inputs", f"0 from `{node.name}`"
        self.trace.refuse(required, got, "Leave the part out.", node.source)

    def wide(self, node: Node, like: Node) -> sp.MatrixExpr:
        """A node, its single row or column repeated as another node's shape requires."""
        value = self.of(node)
        rows, cols = (self.size(dim) for dim in like.shape)
        if value.shape[0] == UNIT != rows:
            value = Ones(rows, UNIT) * value
        return value * Ones(UNIT, cols) if value.shape[1] == UNIT != cols else value

    def made(self, node: Node) -> sp.MatrixExpr:
        """The expression of a node that has none yet."""
        does, args = node.does, node.args
        if does in ("input", "weight"):
            raise KeyError(node)
        if does == "matmul":
            left, right = map(self.operand, args)
            return self.assign("Z", left * right)
        if does in ("add", "multiply"):
            parts = [self.wide(x, node) for x in args]
            return sp.MatAdd(*parts).doit() if does == "add" else hadamard(*parts)
        inner = self.of(args[0])
        if does == "scale":
            return rational(node.factor) * inner
        if does == "shift":
            return entrywise(lambda x: x + rational(node.factor), inner)
        if does == "power":
            return entrywise(lambda x: x ** int(node.factor), inner)
        if does == "transpose":
            return inner.T
        if does in ("sum", "mean"):
            return self.share(does, args[0]) * (inner * Ones(inner.shape[1], UNIT))
        if isinstance(does, Depthwise):
            return Windowed(inner, self.of(args[1]))
        if isinstance(does, Rowwise):
            return RowFunction(does.name, inner, inner.shape[1])
        if isinstance(does, Abstract) and does.kind == "row":
            cols = self.size(node.shape[1])
            return RowFunction(does.name, inner, cols, *map(self.of, args[1:]))
        return entrywise(does.value, inner)

    def share(self, does: Any, node: Node) -> sp.Expr:
        """What a sum over the row of a node is multiplied by: one over the width for a mean."""
        if does == "sum":
            return sp.Integer(1)
        size = self.size(node.shape[1])
        return InverseWidth(size, *self.holder(size))

    def holder(self, size: sp.Symbol) -> tuple[str, int]:
        """The name of an argument that has this width, and on which axis."""
        for symbol in self.symbols.values():
            for axis in (-1, -2):
                if symbol.shape[axis] == size:
                    return symbol.name, axis
        raise KeyError(size)


def rational(number: Fraction) -> sp.Rational:
    """A fraction as SymPy has it."""
    return sp.Rational(number.numerator, number.denominator)


def stand_in(trace: Trace, does: str, name: str, rows: Dim, cols: Dim, rank: Any) -> Proxy:
    """An argument of the function being read."""
    proxy = trace.node(does, (), (rows, cols), rank)
    proxy.node.source, proxy.node.label = Source(), name
    return proxy


def read_net(
    function: Callable[..., Any],
    weights: Sequence[str],
    *,
    vectors: Iterable[str] = (),
    state: str | None = None,
    names: Sequence[str] = (),
    widths: Sequence[str] = (),
) -> NetProgram:
    """The program of `function(x, *weights)`, x `[L, D_k]`, which returns `[L, D_v]`.

    vectors: weights that are `[cols]`; the others are matrices, or vectors where the function adds
    or multiplies them to rows. state: the weight of the last layer, by default the one that is
    applied last. names and widths: what intermediates and hidden widths are called, where they are
    not to be H1, Z1, ... and D_1, .... Raises `ValueError` in one sentence, with the line of the
    function, for what is no such program.
    """
    check_names(weights)
    trace = Trace("net", HANDLERS)
    size = trace.widths
    x = stand_in(trace, "input", "X", size.rows, size.keys, "matrix")
    given = []
    for name in weights:
        row = size.single if name in vectors else Dim()
        rank = "row" if name in vectors else "matrix"
        given.append(stand_in(trace, "weight", name, row, Dim(), rank))
    out = run(trace, function, [x, *given])
    nodes = out.inside
    check_mixing(trace, nodes)
    check_output(trace, out)
    check_mixing(trace, nodes)  # again: the output has said which widths are tokens
    check_tokens(trace, nodes)
    check_use(trace, nodes, [x.node, *(w.node for w in given)])
    name_widths(trace, [w.node for w in given], list(widths))
    lowering = Lowering(trace, {}, list(names))
    for proxy, name in zip([x, *given], ["X", *weights], strict=True):
        rows, cols = map(lowering.size, proxy.node.shape)
        vector = proxy is not x and rows == CHUNK
        symbol = sp.MatrixSymbol(name, UNIT if vector else rows, cols)
        lowering.symbols[name] = symbol
        lowering.done[id(proxy.node)] = Ones(CHUNK, UNIT) * symbol if vector else symbol
    return split(lowering, out, nodes, [w.node for w in given], state)


def name_widths(trace: Trace, weights: Sequence[Node], widths: list[str]) -> None:
    """Name the widths that have no name yet in order of appearance: D_1, D_2, ..."""
    count = 0
    for dim in (dim for node in weights for dim in node.shape):
        if dim.root.name is None:
            count += 1
            dim.root.name = widths.pop(0) if widths else f"D_{count}"


def depends(node: Node, on: Node) -> bool:
    """Whether a node is made of another one."""
    return any(part is on for part in node.inside)


@dataclass
class Peeled:
    """The product of the last layer, and what is done to it; `turned`: by its transposed weight."""

    product: Node
    turned: bool
    gates: list[Node]
    factor: Fraction


def peel(node: Node, weight: Node, gates: list[Node], factor: Fraction) -> Peeled | Node:
    """Follow entrywise factors down to the product with a weight; else what is in the way."""
    if node.does == "matmul" and under(node)[1] is weight and not depends(node.args[0], weight):
        return Peeled(node, node.args[1] is not weight, gates, factor)
    if isinstance(node.does, Depthwise) and node.args[1] is weight:
        return Peeled(node, False, gates, factor) if node.args[0].does == "input" else node
    if node.does == "scale":
        return peel(node.args[0], weight, gates, factor * node.factor)
    if node.does == "multiply":
        one, other = node.args
        for part, gate in ((one, other), (other, one)):
            if depends(part, weight) and not depends(gate, weight):
                return peel(part, weight, [*gates, gate], factor)
    return node


def split(
    lowering: Lowering, out: Node, nodes: Sequence[Node], weights: Sequence[Node], state: str | None
) -> NetProgram:
    """The program with the last layer split off: the features, what it makes of them, the gate."""
    by_name = {node.label: node for node in weights}
    if state is not None and state not in by_name:
        raise ValueError(
            f"`state` must be a weight of the net, {', '.join(by_name)}; got {state!r}. Name one."
        )
    order = {id(w): max(n.order for n in nodes if any(a is w for a in under(n))) for w in weights}
    matrices = [w for w in weights if not is_vector(w)] or list(weights)
    candidates = sorted(matrices, key=lambda w: -order[id(w)])
    if state is not None:
        candidates = [by_name[state]]
    tries = [(w, peel(out, w, [], Fraction(1))) for w in candidates]
    weight, found = next((x for x in tries if isinstance(x[1], Peeled)), tries[0])
    gate, obstacle = None, None
    symbol = lowering.symbols[weight.label]
    if isinstance(found, Peeled):
        if found.factor == 0:
            lowering.refuse_nothing(found.product)
        if found.turned:
            symbol = sp.MatrixSymbol(f"{weight.label}{TRANSPOSE}", *reversed(symbol.shape))
            lowering.symbols[weight.label] = symbol
        source = found.product.args[0]
        if found.factor != 1 and not isinstance(found.product.does, Depthwise):
            # a number in front of the last layer is one in front of its features
            value = rational(found.factor) * lowering.of(source)
            features = lowering.assign("H", value)
        else:
            features = lowering.operand(source)
        if found.gates:
            whole = hadamard(*(lowering.wide(g, found.product) for g in reversed(found.gates)))
            gate = whole if isinstance(whole, sp.MatrixSymbol) else lowering.assign("C", whole)
        windowed = isinstance(found.product.does, Depthwise)
        outputs = Windowed(features, symbol) if windowed else features * symbol
        if windowed and found.factor != 1:
            obstacle = "the last layer must be the convolution itself, without a factor"
    else:
        outputs = lowering.wide(out, out)
        features = lowering.symbols["X"]
        obstacle = hindrance(found, weight)
    return NetProgram(
        lowering.symbols["X"],
        tuple(lowering.symbols[w.label] for w in weights),
        tuple(lowering.assignments),
        features,
        symbol,
        gate,
        outputs,
        is_static(nodes, weight) and obstacle is None,
        window_of(nodes),
        obstacle,
        isinstance(found, Peeled) and found.turned,
        fixed_sizes(lowering),
    )


def fixed_sizes(lowering: Lowering) -> tuple[tuple[str, int], ...]:
    """The widths that the code has as numbers, by name; another number for one is refused."""
    found: dict[str, int] = {}
    for dim, number in lowering.trace.fixed:
        name = lowering.size(dim).name
        if found.setdefault(name, number) != number:
            lowering.trace.refuse(
                "have one number for a width",
                f"{found[name]} and {number} for {name}",
                "Give each layer its size.",
                Source(),
            )
    return tuple(found.items())


def under(node: Node) -> list[Node]:
    """What an operation is applied to, weights seen through their transposes."""
    return [a.args[0] if a.does == "transpose" else a for a in node.args]


def hindrance(node: Node, weight: Node) -> str:
    """Why there is no linear last layer, in words that end with the user's line."""
    name, does = weight.label, node.name
    if node.does == "matmul" and weight in under(node):
        return f"the last layer must be `features @ {name}`; `@`{node.source} is another product"
    vector = next((a.label for a in node.args if is_vector(a)), None)
    user = bool(node.source.file)
    if node.does == "add" and vector:
        told = f"; `{vector}` is added{node.source}"
        return "the last layer must have no bias" + (told if user else "")
    signs = {"add": "+", "multiply": "*", "shift": "+", "matmul": "@", "scale": "*", "power": "**"}
    told = f"; `{signs.get(does, does)}`{node.source} comes after `{name}`"
    return "the last layer must be linear" + (told if user else "")


def is_vector(node: Node) -> bool:
    """Whether a node is a weight that is added to each row."""
    return node.does == "weight" and node.shape[0].root.name in ("L", "1")


def is_static(nodes: Sequence[Node], weight: Node) -> bool:
    """Whether nothing but the last layer has parameters; abstract functions of rows may."""
    others = [n for n in nodes if n.does == "weight" and n is not weight]
    abstract = [n for n in nodes if isinstance(n.does, Abstract) and n.does.kind == "row"]
    return not others and not abstract


def window_of(nodes: Sequence[Node]) -> tuple[int, int, int] | None:
    """Size of the window, height and width of the image, where the net has a convolution."""
    found = {
        (n.does.size, n.does.height, n.does.width) for n in nodes if isinstance(n.does, Depthwise)
    }
    return found.pop() if found else None


def read_loss(function: Callable[..., Any]) -> LossProgram:
    """The loss of a chunk: the sum over tokens of `function(f, v)`, one number for each.

    f and v are `[L, D_v]`. Raises `ValueError` in one sentence, with the line of the function, for
    what is no loss of single tokens.
    """
    trace = Trace("loss", HANDLERS)
    size = trace.widths
    pair = [stand_in(trace, "input", name, size.rows, size.values, "matrix") for name in "FV"]
    out = run(trace, function, pair)
    if out.rank != "token":
        got = f"a matrix from `{out.name}`"
        trace.refuse("return one number a token, [L]", got, "Write .sum(-1).", out.source)
    check_mixing(trace, out.inside)
    if pair[0].node not in out.inside:
        trace.refuse("depend on its outputs", "a function of the values alone", "Use f.", Source())
    symbols = {n: sp.MatrixSymbol(n, CHUNK, width("D_v")) for n in "FV"}
    lowering = Lowering(trace, symbols)
    for proxy, name in zip(pair, "FV", strict=True):
        lowering.done[id(proxy.node)] = symbols[name]
    total = summed(lowering, out)
    if loss_gradient(total, symbols["F"]).is_ZeroMatrix:
        got = "one in which the outputs cancel"
        trace.refuse("depend on its outputs", got, "Use f.", out.source)
    return LossProgram(total, fixed_sizes(lowering))


def summed(lowering: Lowering, node: Node) -> sp.Expr:
    """The sum over tokens of a node that is one number a token."""
    if node.does == "add":
        return sp.Add(*(summed(lowering, part) for part in node.args))
    if node.does == "scale":
        (inner,) = node.args
        if node.factor == -1 and inner.does == "sum":
            return folded(lowering, inner.args[0], -1)
        return rational(node.factor) * summed(lowering, inner)
    if node.does in ("sum", "mean"):
        return lowering.share(node.does, node.args[0]) * folded(lowering, node.args[0], 1)
    if isinstance(node.does, Abstract) and node.does.kind == "loss":
        outputs, values = (lowering.of(x) for x in node.args)
        if any(s.name == "F" for s in values.atoms(sp.MatrixSymbol)):
            lowering.trace.refuse(
                f"call `{node.name}` with outputs first and values second",
                "outputs as values",
                "Swap them.",
                node.source,
            )
        return RowLoss(node.name, outputs, values)
    if any(isinstance(n.does, Abstract) and n.does.kind == "loss" for n in node.inside):
        lowering.trace.refuse(
            "add abstract losses up as they are",
            f"`{node.name}` of one",
            "Put it into the function.",
            node.source,
        )
    return sp.Trace(lowering.of(node) * Ones(UNIT, CHUNK))


def folded(lowering: Lowering, inner: Node, sign: int) -> sp.Expr:
    """The sum of all entries of a matrix: a trace, as short as it can be."""
    if inner.does == "scale":
        if inner.factor == -1:
            return folded(lowering, inner.args[0], -sign)
        return rational(inner.factor) * folded(lowering, inner.args[0], sign)
    if inner.does == "multiply":
        left, right = (lowering.wide(x, inner) for x in inner.args)
        return sp.Trace(sign * left * right.T)
    if inner.name == "square" or (inner.does == "power" and inner.factor == 2):
        value = lowering.of(inner.args[0])
        return sp.Trace(sign * value * value.T)
    value = lowering.of(inner)
    return sp.Trace(sign * value * Ones(value.shape[1], CHUNK))
