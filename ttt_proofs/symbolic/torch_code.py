"""PyTorch code from the SymPy expressions that were proved: text first, then functions.

Matrices are `[..., rows, cols]`; leading dimensions (batch, heads) broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction

from ..loops import InnerLoop
from ..loops.expressions import gelu_tanh
from ..loops.losses import F, V
from ..loops.nets import Assignment
from .gradients import adjoint, backward, forward

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
    raise ValueError("only a loop with a concrete net and loss can run; this one has an abstract "
                     f"{type(matrix).__name__}. Choose a named one.")  # fmt: skip


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


def loop_code(loop: InnerLoop) -> str:
    """The loop's pieces as the text of a Python module.

    `features(X, ...)` is φ; `cotangent(F, V)` the loss' gradient in the outputs;
    `gradients(X, dF, ...)` those of the trained weights; `update(...)` one step of the rule.
    """
    weights = [weight.name for weight in loop.net.weights]
    trained = [weight.symbol for weight in loop.trained]
    program = list(loop.net.program)
    known = {name.name: name for name, _ in forward(loop.net)} | {w.name: w for w in trained}
    back = [(adjoint(known[name[1:]]), value)
            for name, value in backward(loop.net).items() if name[1:] in known]  # fmt: skip
    lines = live(program + back, {adjoint(w) for w in trained})
    found = ", ".join(f"'{w.name}': {adjoint(w).name}" for w in trained)
    rule = loop.update.recurrence
    states = [value.name for value in rule]
    steps = [f"    {name}_next = {scalar_code(value)}"
             for name, value in zip(states, rule.values(), strict=True)]  # fmt: skip
    return "\n\n\n".join([
        "import torch",
        function_code("features", ["X", *weights], program, loop.net.features.name),
        function_code("cotangent", [F.name, V.name], [], matrix_code(loop.loss.gradient)),
        function_code("gradients", ["X", adjoint(F).name, *weights], lines, f"{{{found}}}"),
        "\n".join(["def update(G, W, M, eta, alpha):", *steps,
                   f"    return W_next, {'M_next' if 'M' in states else 'M'}"]),
    ])  # fmt: skip


@dataclass(frozen=True)
class TorchLoop:
    """The functions that `loop_code` writes, and its text."""

    source: str
    features: Callable
    cotangent: Callable
    gradients: Callable
    update: Callable


@cache
def torch_loop(loop: InnerLoop) -> TorchLoop:
    """Compile the loop's code; `ValueError` where part of the loop is abstract."""
    source = loop_code(loop)
    names: dict = {}
    exec(compile(source, "<derived from the loop's SymPy expressions>", "exec"), names)
    functions = (names[name] for name in ("features", "cotangent", "gradients", "update"))
    return TorchLoop(source, *functions)
