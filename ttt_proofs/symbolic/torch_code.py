"""PyTorch code from the SymPy expressions that were proved: text first, then functions.

Matrices are `[..., rows, cols]`; leading dimensions (batch, heads) broadcast. The channels of a
depthwise convolution are heads: its X is one channel's windows `[..., L, D_w]`, which `windows`
cuts, and its W `[..., D_w, 1]`, so that to correlate is to multiply.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from ..loops import InnerLoop
from ..loops.losses import F, V
from ..loops.nets import Assignment, Weight
from ..loops.update import CLIPS, NEXT_M, NORMS, OPERATORS, G, M, N, R, U
from ..program.expressions import Windowed, WindowedAdjoint, gelu_tanh
from ..program.rules import W_0, Line, W, column_norm
from .gradients import adjoint, backward, forward, made
from .torch_functions import FUNCTIONS

CALLS = {
    "sigmoid": "torch.sigmoid({})",
    "tanh": "torch.tanh({})",
    "step": "({0} > 0).to({0}.dtype)",
}


def matrix_code(matrix: sp.MatrixExpr) -> str:
    """A matrix expression as PyTorch writes it."""
    if isinstance(matrix, sp.MatrixSymbol):
        return matrix.name
    if isinstance(matrix, sp.Transpose):
        return f"{matrix_code(matrix.arg)}.mT"
    if isinstance(matrix, sp.MatAdd):
        return "(" + " + ".join(map(matrix_code, matrix.args)) + ")"
    if isinstance(matrix, sp.HadamardProduct):
        return "(" + " * ".join(map(matrix_code, matrix.args)) + ")"
    if isinstance(matrix, sp.MatMul):
        coefficient, factors = matrix.as_coeff_matrices()
        product = " @ ".join(map(matrix_code, factors))
        return f"({product})" if coefficient == 1 else f"({scalar_code(coefficient)} * {product})"
    if isinstance(matrix, ElementwiseApplyFunction):
        (argument,) = matrix.function.variables
        inner = sp.Symbol(matrix_code(matrix.expr))
        return f"({scalar_code(matrix.function.expr.subs(argument, inner).doit())})"
    if isinstance(matrix, Windowed):
        return " @ ".join(map(matrix_code, matrix.args))
    if isinstance(matrix, WindowedAdjoint):
        function, cotangent = matrix.args
        return f"({matrix_code(function.args[0])}.mT @ {matrix_code(cotangent)})"
    raise ValueError(
        "only a loop with a concrete net and loss can run; this one has an abstract "
        f"{type(matrix).__name__}. Choose a named one."
    )


def scalar_code(e: sp.Expr) -> str:
    """A scalar expression as PyTorch writes it; symbols are Python names."""
    if isinstance(e, sp.Indexed):
        return e.base.label.name
    if e.is_Symbol:
        return e.name
    if e.is_Rational:
        return str(float(e)) if e.q != 1 else str(e.p)
    if isinstance(e, sp.Add):
        return "(" + " + ".join(map(scalar_code, e.as_ordered_terms())) + ")"
    if isinstance(e, sp.Mul):
        return "(" + " * ".join(map(scalar_code, e.as_ordered_factors())) + ")"
    if isinstance(e, sp.Pow) and not e.free_symbols:
        return repr(float(e))
    if isinstance(e, sp.Pow) and e.exp.is_Integer and e.exp > 0:
        return f"{scalar_code(e.base)} ** {e.exp}"
    if isinstance(e, gelu_tanh):
        return scalar_code(gelu_tanh.expression(e.args[0]))
    if isinstance(e, sp.Derivative | sp.Subs) and e.has(gelu_tanh):
        x = sp.Symbol("x")
        (inner,) = e.args[0].args if isinstance(e, sp.Derivative) else e.point
        derivative = gelu_tanh.expression(x).diff(x)
        return scalar_code(derivative.subs(x, inner))
    name = type(e).__name__
    if name in CALLS:
        return CALLS[name].format(scalar_code(e.args[0]))
    raise ValueError(f"only a concrete activation can run; got `{e}`. Choose one in ACTIVATIONS.")


def function_code(name: str, inputs: list[str], lines: list[Assignment], result: str) -> str:
    """A Python function: assignments, then the result."""
    body = [f"    {symbol.name} = {matrix_code(value)}" for symbol, value in lines]
    return "\n".join([f"def {name}({', '.join(inputs)}):", *body, f"    return {result}"])


def live(lines: list[Assignment], wanted: set[sp.MatrixSymbol]) -> list[Assignment]:
    """The assignments that the wanted symbols need, in order."""
    kept: list[Assignment] = []
    for symbol, value in reversed(lines):
        if symbol in wanted:
            wanted = wanted | value.atoms(sp.MatrixSymbol)
            kept.insert(0, (symbol, value))
    return kept


def weighed(lines: list[Assignment], trained: tuple[Weight, ...]) -> list[Assignment]:
    """The same assignments, with row l of the cotangents times what token l counts for a weight.

    Only a weight's own gradient, linear in cotangents, sums over tokens; what leads there is the
    same for all weights.
    """
    found = []
    for symbol, value in lines:
        owner = next((w.name for w in trained if adjoint(w.symbol) == symbol), None)
        slopes = [s for s in value.atoms(sp.MatrixSymbol) if owner and s.name.startswith("d")]
        found.append(
            (
                symbol,
                value.xreplace(
                    {s: sp.MatrixSymbol(f"(rows['{owner}'] * {s.name})", *s.shape) for s in slopes}
                ),
            )
        )
    return found


def net_code(loop: InnerLoop) -> list[str]:
    """The functions of net and loss: features, outputs, cotangent, values, gradients."""
    net, weights = loop.net, [weight.name for weight in loop.net.weights]
    layer = made(net)
    program, through = list(net.program), list(forward(net))
    symbols = [symbol for symbol, _ in through] + [weight.symbol for weight in net.weights]
    known = {adjoint(symbol).name: adjoint(symbol) for symbol in symbols}
    back = [(known[name], value) for name, value in backward(net).items()]
    gated = live([line for line in through if line[0] != layer], {F})
    into = live(program + back, {adjoint(layer)})
    lines = weighed(
        live(through + back, {adjoint(w.symbol) for w in loop.fast_weights}), loop.fast_weights
    )
    found = ", ".join(f"'{w.name}': {adjoint(w.symbol).name}" for w in loop.fast_weights)
    loss = loop.loss.gradient
    loss = loss.subs(V, -V).doit() if loop.schedule.negate_values else loss
    slope = adjoint(F).name
    return [
        function_code(
            "features", ["X", *weights], live(program, {net.features}), net.features.name
        ),
        function_code("outputs", ["X", layer.name, *weights], gated, F.name),
        function_code("cotangent", [F.name, V.name], [], matrix_code(loss)),
        function_code("values", ["X", slope, *weights], into, adjoint(layer).name),
        function_code("gradients", ["X", slope, "rows", *weights], lines, f"{{{found}}}"),
    ]


def named(field: str, name: str | None, known: tuple[str, ...], argument: str) -> str:
    """A call of the function that the loop names; what stands for none is not written here."""
    if name not in known:
        raise ValueError(
            f"only a concrete `{field}` can run; got {name!r}. Choose one of {', '.join(known)}."
        )
    return f"{name}({argument})"


def argument(line: Line) -> sp.Expr:
    """What the function of a gate or operator is taken of; a state's expression."""
    if line.kind == "state":
        return line.expression
    norms = line.expression.atoms(column_norm) - {column_norm(W_0)}
    return norms.pop().args[0] if norms else line.expression.args[1]


def rule_code(loop: InnerLoop) -> list[str]:
    """The update rule, cut where a function that is not linear comes in."""
    rule, update = loop.rule, loop.update
    code = {line.target: scalar_code(argument(line)) for line in rule.lines}
    clip = named("clip", update.clip, CLIPS, code[R]) if R in rule else "1"
    accumulated = code.get(M, G.name)
    operated = named("orthogonal", update.orthogonal, OPERATORS, code[U]) if U in rule else "step"
    step = U if U in rule else NEXT_M if M in rule else G
    norm = (
        [f"    N = {named('weight_norm', update.weight_norm, NORMS, f'{code[N]}, W_0')}"]
        if N in rule
        else []
    )
    return [
        f"def clip(G, eta):\n    return {clip}",
        f"def accumulate(G, M, R, eta, alpha):\n    return {accumulated}",
        f"def orthogonal({NEXT_M if U in rule else 'step'}):\n    return {operated}",
        "\n".join([f"def move(W, {step}, R, eta, W_0):", *norm, f"    return {code[W]}"]),
        """def update(G, W, M, eta, alpha, W_0):
    R = clip(G, eta)
    M_next = accumulate(G, M, R, eta, alpha)
    return move(W, orthogonal(M_next), R, eta, W_0), M_next""",
    ]


def loop_code(loop: InnerLoop) -> str:
    """The loop's pieces as the text of a Python module.

    `features(X, ...)` is φ; `outputs(X, F, ...)` gates what the last layer makes of them, if the
    net has a gate; `cotangent(F, V)` is the loss' gradient in the outputs, `values(X, dF, ...)`
    the one before the gate; `gradients(X, dF, rows, ...)` has those of the trained weights, in
    which row l, token l, counts `rows[name][..., l, 0]` times.
    `update(G, W, M, eta, alpha, W_0)` is one step of the rule, to `(W_next, M_next)`, in four
    parts: `clip(G, eta)`, the gate R; `accumulate(G, M, R, eta, alpha)`, which is G where the
    rule has no accumulator; `orthogonal(step)`, `move(W, step, R, eta, W_0)`. All but the first
    and third are affine where the rule has no weight norm, once R is given.
    """
    update = loop.update
    names = (update.clip, update.orthogonal, update.weight_norm)
    used = [*names, "windows" if loop.net.tokens else None]
    functions = [f for name in used for f in FUNCTIONS.get(name or "", ())]
    pasted = [inspect.getsource(function).rstrip() for function in functions]
    return "\n\n\n".join(["import torch", *pasted, *net_code(loop), *rule_code(loop)]) + "\n"


@dataclass(frozen=True)
class TorchLoop:
    """The functions that `loop_code` writes, and its text."""

    source: str
    features: Callable
    outputs: Callable
    cotangent: Callable
    values: Callable
    gradients: Callable
    clip: Callable
    accumulate: Callable
    orthogonal: Callable
    move: Callable
    update: Callable


def compiled(source: str) -> TorchLoop:
    """The functions of a loop's text."""
    names: dict = {}
    exec(compile(source, "<derived from the loop's SymPy expressions>", "exec"), names)
    return TorchLoop(source, **{f.name: names[f.name] for f in fields(TorchLoop)[1:]})


@cache
def torch_loop(loop: InnerLoop) -> TorchLoop:
    """Compile the loop's code; `ValueError` where part of the loop is abstract."""
    return compiled(loop_code(loop))
