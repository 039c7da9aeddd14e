"""PyTorch code from the SymPy expressions that were proved, as text.

Matrices are `[..., rows, cols]`; leading dimensions (batch, heads) broadcast. The channels of a
depthwise convolution are heads: its X is one channel's windows `[..., L, D_w]`, which `windows`
cuts, and its W `[..., D_w, 1]`, so that to correlate is to multiply.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from ..loops import InnerLoop
from ..loops.losses import F, V
from ..loops.nets import Assignment
from ..program.expressions import (
    UNIT,
    InverseWidth,
    Ones,
    RowFunction,
    RowFunctionPullback,
    Windowed,
    WindowedAdjoint,
)
from ..program.operations import ROWWISE, WHOLE
from ..program.operators import RUNNABLE
from ..program.rules import W_0, G, Line, Rule, W, gate_of, inverse, operated
from .gradients import adjoint, backward, forward, made
from .torch_functions import FUNCTIONS

CALLS = {
    "column_norm": "column_norm({})",
    "root": "torch.sqrt({})",
}


@dataclass(frozen=True)
class Sizes:
    """Where a function of the code reads widths: for each, `tensor.shape[axis]`; of a tensor's
    dtype and device, `like`.
    """

    like: str = "X"
    known: Mapping[sp.Expr, str] = field(default_factory=dict)

    @classmethod
    def of(cls, *symbols: sp.MatrixSymbol) -> Sizes:
        """The widths of these matrices, of which the first is like all others."""
        found: dict[sp.Expr, str] = {UNIT: "1"}
        for symbol in symbols:
            for axis in (-2, -1):
                found.setdefault(symbol.shape[axis], f"{symbol.name}.shape[{axis}]")
        return cls(symbols[0].name, found)


def matrix_code(matrix: sp.MatrixExpr, sizes: Sizes = Sizes()) -> str:
    """A matrix expression as PyTorch writes it."""

    def code(part: sp.MatrixExpr) -> str:
        return matrix_code(part, sizes)

    if isinstance(matrix, sp.MatrixSymbol):
        return matrix.name
    if isinstance(matrix, sp.Transpose):
        return f"{code(matrix.arg)}.mT"
    if isinstance(matrix, sp.MatAdd):
        return "(" + " + ".join(map(code, matrix.args)) + ")"
    if isinstance(matrix, sp.HadamardProduct):
        return "(" + " * ".join(map(code, matrix.args)) + ")"
    if isinstance(matrix, sp.MatMul):
        coefficient, factors = matrix.as_coeff_matrices()
        product = " @ ".join(map(code, factors))
        return f"({product})" if coefficient == 1 else f"({scalar_code(coefficient)} * {product})"
    if isinstance(matrix, ElementwiseApplyFunction):
        (argument,) = matrix.function.variables
        inner = sp.Symbol(code(matrix.expr))
        return f"({scalar_code(matrix.function.expr.subs(argument, inner).doit())})"
    if isinstance(matrix, Ones | sp.ZeroMatrix):
        made = "new_ones" if isinstance(matrix, Ones) else "new_zeros"
        rows, cols = (sizes.known[side] for side in matrix.shape)
        return f"{sizes.like}.{made}({rows}, {cols})"
    if isinstance(matrix, Windowed):
        return " @ ".join(map(code, matrix.args))
    if isinstance(matrix, WindowedAdjoint):
        function, cotangent = matrix.args
        return f"({code(function.args[0])}.mT @ {code(cotangent)})"
    if isinstance(matrix, RowFunction) and matrix.is_known:
        return ROWWISE[matrix.name].code.format(code(matrix.rows_of))
    if isinstance(matrix, RowFunctionPullback) and matrix.args[0].is_known:
        function, cotangent = matrix.args
        body = ROWWISE[function.name].code.format("x")
        pulled = f"torch.func.vjp(lambda x: {body}, {code(function.rows_of)})[1]"
        return f"{pulled}({code(cotangent)})[0]"
    raise ValueError(
        "only a loop with a concrete net and loss can run; this one has an abstract "
        f"{type(matrix).__name__}. Choose a named one."
    )


def scalar_code(e: sp.Expr) -> str:
    """A scalar expression as PyTorch writes it; symbols are Python names."""
    if isinstance(e, sp.Indexed):
        return python_name(e.base.label.name)
    if isinstance(e, InverseWidth):
        return e.code
    if e.is_Symbol:
        return python_name(e.name)
    if e.is_Rational:
        return str(float(e)) if e.q != 1 else str(e.p)
    if isinstance(e, sp.Add):
        return "(" + " + ".join(map(scalar_code, e.as_ordered_terms())) + ")"
    if isinstance(e, sp.Mul):
        return product_code(e.as_ordered_factors())
    if isinstance(e, inverse):
        return product_code([e])
    if not e.free_symbols and (e.is_Float or isinstance(e, sp.Pow)):
        return repr(float(e))
    if isinstance(e, sp.Pow) and e.exp.is_Integer and e.exp > 0:
        return f"{scalar_code(e.base)} ** {e.exp}"
    if isinstance(e, gate_of | operated):
        return operator_code(e)
    return function_of_entry(e)


def function_of_entry(e: sp.Expr) -> str:
    """An entrywise function, or the derivative of one that is kept whole, by the table."""
    if isinstance(e, sp.Derivative | sp.Subs):
        derived = e if isinstance(e, sp.Derivative) else e.args[0]
        name = type(derived.args[0]).__name__
        (inner,) = derived.args[0].args if e is derived else e.args[2]
        first = isinstance(derived, sp.Derivative) and derived.derivative_count == 1
        if first and name in WHOLE and WHOLE[name].slope:
            return WHOLE[name].slope.format(scalar_code(inner))
    name = type(e).__name__
    if name in CALLS or (name in WHOLE and len(e.args) == 1):
        code = CALLS[name] if name in CALLS else WHOLE[name].code
        return code.format(scalar_code(e.args[0]))
    raise ValueError(f"only a concrete activation can run; got `{e}`. Choose one in ACTIVATIONS.")


def product_code(factors: Sequence[sp.Expr]) -> str:
    """A product of scalars, over those whose inverses are among them."""
    above = [scalar_code(x) for x in factors if not isinstance(x, inverse)]
    below = [scalar_code(x.args[0]) for x in factors if isinstance(x, inverse)]
    return "(" + " / ".join([" * ".join(above) or "1", *below]) + ")"


def operator_code(e: sp.Expr) -> str:
    """The call of a named operator on matrices; gates and operators that are unknown cannot run."""
    if isinstance(e, gate_of):
        raise ValueError(
            f"only a concrete gate of columns can run; got the unknown {e.args[0]}. "
            "Choose a gate that is written out."
        )
    if str(e.args[0]) not in RUNNABLE:
        raise ValueError(
            f"only a concrete operator can run; got {e.args[0]}. "
            f"Choose one of {', '.join(RUNNABLE)}."
        )
    return f"{e.args[0]}({scalar_code(e.args[1])})"


def python_name(name: str) -> str:
    """The name itself, unless Python keeps it for itself."""
    return f"{name}_" if iskeyword(name) else name


def function_code(
    name: str, inputs: list[str], lines: list[Assignment], result: str, sizes: Sizes
) -> str:
    """A Python function: assignments, then the result."""
    body = [f"    {symbol.name} = {matrix_code(value, sizes)}" for symbol, value in lines]
    return "\n".join([f"def {name}({', '.join(inputs)}):", *body, f"    return {result}"])


def live(lines: list[Assignment], wanted: set[sp.MatrixSymbol]) -> list[Assignment]:
    """The assignments that the wanted symbols need, in order."""
    kept: list[Assignment] = []
    for symbol, value in reversed(lines):
        if symbol in wanted:
            wanted = wanted | value.atoms(sp.MatrixSymbol)
            kept.insert(0, (symbol, value))
    return kept


def weighed(lines: list[Assignment], loop: InnerLoop) -> list[Assignment]:
    """The same assignments, with row l of the cotangents times what token l counts for a weight.

    Only a weight's own gradient, linear in cotangents, sums over tokens; what leads there is the
    same for all weights.
    """
    owners = {adjoint(w.symbol): w.name for w in loop.fast_weights}
    cotangents = {adjoint(symbol) for symbol, _ in forward(loop.net)}

    def counted(symbol: sp.MatrixSymbol, owner: str) -> sp.MatrixSymbol:
        return sp.MatrixSymbol(f"(rows['{owner}'] * {symbol.name})", *symbol.shape)

    found = []
    for symbol, value in lines:
        if symbol in owners:
            slopes = value.atoms(sp.MatrixSymbol) & cotangents
            value = value.xreplace({s: counted(s, owners[symbol]) for s in slopes})
        found.append((symbol, value))
    return found


def net_code(loop: InnerLoop) -> list[str]:
    """The functions of net and loss: features, outputs, cotangent, values, gradients."""
    net, weights = loop.net, [weight.name for weight in loop.net.weights]
    if net.window and (net.assignments or net.gate is not None):
        raise ValueError(
            f"only a convolution that is all of a net can run; got {net}. Leave out the rest."
        )
    layer = made(net)
    program, through = list(net.assignments), list(forward(net))
    symbols = [symbol for symbol, _ in through] + [weight.symbol for weight in net.weights]
    known = {adjoint(symbol).name: adjoint(symbol) for symbol in symbols}
    back = [(known[name], value) for name, value in backward(net).items()]
    gated = live([line for line in through if line[0] != layer], {F})
    into = live(program + back, {adjoint(layer)})
    check_names([symbol.name for symbol in symbols], set(known))
    lines = weighed(live(through + back, {adjoint(w.symbol) for w in loop.fast_weights}), loop)
    found = ", ".join(f"'{w.name}': {adjoint(w.symbol).name}" for w in loop.fast_weights)
    loss = loop.loss.gradient
    slope, pair = adjoint(F).name, Sizes.of(F, V)
    sizes = Sizes.of(net.traced.input, *(w.symbol for w in net.weights))

    def function(name: str, given: list[str], lines: list[Assignment], result: str) -> str:
        return function_code(name, ["X", *given, *weights], lines, result, sizes)

    cotangent = matrix_code(loss, pair)
    if not loss.atoms(sp.MatrixSymbol):  # a constant, of all sequences
        cotangent += f".expand_as({F.name})"
    return [
        function("net", [], live(through, {F}), F.name),
        function("features", [], live(program, {net.features}), net.features.name),
        function("outputs", [layer.name], gated, F.name),
        function_code("cotangent", [F.name, V.name], [], cotangent, pair),
        function("values", [slope], into, adjoint(layer).name),
        function("gradients", [slope, "rows"], lines, f"{{{found}}}"),
    ]


def check_names(names: list[str], gradients: set[str]) -> None:
    """Raise `ValueError` where a matrix of the net has the name of something else in the code."""
    for name in names:
        if name in {*gradients, "rows", "torch", V.name} or iskeyword(name):
            raise ValueError(
                f"a matrix of the net must not have the name of a gradient, or `rows`, `torch`, "
                f"`V` or a word of Python's; got {name!r}. Rename it."
            )


def matrices(line: Line, rule: Rule) -> list[str]:
    """The matrices that a line reads: those that have the loop's dtype."""
    others = [x.seen for x in rule.lines if x.kind != "gate"]
    known = dict.fromkeys([W, G, *rule.states, *(x.target for x in rule.lines), *others, W_0])
    return [x.name for x in known if isinstance(x, sp.Symbol) and line.expression.has(x)]


def read(e: sp.Basic) -> set[str]:
    """The names that an expression reads; when a coefficient or gate is taken is not among them."""
    if isinstance(e, sp.Indexed):
        return {python_name(e.base.label.name)}
    if isinstance(e, sp.Symbol):
        return {python_name(e.name)}
    return {name for part in e.args for name in read(part)}


def seen_name(line: Line) -> str:
    """What the code calls a line's value."""
    return line.seen.base.label.name if isinstance(line.seen, sp.Indexed) else line.seen.name


def entries(line: Line, rule: Rule) -> sp.Expr:
    """What a line assigns, with the numbers of its constants."""
    return line.expression.xreplace({x: sp.Float(y) for x, y in rule.constants})


def call(line: Line, rule: Rule) -> str:
    """The call of a line's function, of what it reads: `next_M(G, M, alpha)`."""
    return f"next_{line.target.name}({', '.join(sorted(read(entries(line, rule))))})"


def line_code(line: Line, rule: Rule) -> str:
    """A line of the rule as a function of what it reads."""
    code = scalar_code(entries(line, rule))
    if line.kind == "gate" and (like := matrices(line, rule)):  # norms are wide
        code = f"{code}.to({like[0]}.dtype)"
    return f"def {call(line, rule)}:\n    return {code}"


def rule_code(loop: InnerLoop) -> list[str]:
    """The update rule: a function for each line, and `update`, which calls them in order."""
    lines = [line_code(line, loop.rule) for line in loop.rule.lines]
    return [*lines, step_code(loop, "update")]


def step_code(loop: InnerLoop, name: str, *, gates: bool = True) -> str:
    """A step of the rule as one function, which calls those of the lines; or with its gates 1."""
    rule = loop.rule
    given = [G.name, *map(str, (W, *rule.buffers)), *map(python_name, loop.update_coefficients)]
    calls = [call(x, rule) if gates or x.kind != "gate" else "1.0" for x in rule.lines]
    body = [f"    {seen_name(x)} = {code}" for x, code in zip(rule.lines, calls, strict=True)]
    results = [seen_name(rule.line(s)) for s in (W, *rule.buffers)]
    made = ", ".join(results) if rule.buffers else f"({results[0]},)"
    head = f"def {name}({', '.join([*given, W_0.name])}):"
    return "\n".join([head, *body, f"    return {made}"])


def loop_code(loop: InnerLoop) -> str:
    """The loop's pieces as the text of a Python module.

    `net(X, ...)` is the net; `features(X, ...)` is φ; `outputs(X, F, ...)` gates what the last
    layer makes of them, if the net has a gate; `cotangent(F, V)` is the loss' gradient in the
    outputs, `values(X, dF, ...)` the one before the gate; `gradients(X, dF, rows, ...)` has those
    of the fast weights, in which row l, token l, counts `rows[name][..., l, 0]` times.
    `update(G, W, buffers..., coefficients..., W_0)` is one step of the rule, to the tuple of the
    next weight and the next buffers. It calls a function for each line of the rule, `next_M` for
    the line of M, of what that line reads.
    """
    texts = [*net_code(loop), *rule_code(loop)]
    whole = "\n".join([*texts, "windows(" if loop.net.window else ""])
    pasted: list[str] = []
    for name, function in reversed(FUNCTIONS.items()):
        if f"{name}(" in "\n".join([whole, *pasted]):
            pasted.insert(0, inspect.getsource(function).rstrip())
    return "\n\n\n".join(["import torch", *pasted, *texts]) + "\n"
