"""A net's gradients by SymPy on matrices whose entries are all written out: one width at a time."""

from __future__ import annotations

import sympy as sp

WIDTH = 2
ACTIVATIONS = {"silu": lambda z: z / (1 + sp.exp(-z)), "tanh": sp.tanh}


def differences(depth: int, activation: str, width: int = WIDTH) -> list[sp.Expr]:
    """Of each entry of each weight, the derivative less backpropagation's; expanded, it is 0.

    The net is `f(x) = act(... act(x W1) ...) W_depth` on one token, its weights `[width, width]`,
    the loss `½ ‖f - y‖²`. activation: silu, tanh, or any name for an abstract function.
    """
    act = ACTIVATIONS.get(activation) or sp.Function(activation)
    z = sp.Dummy("z")
    slope = sp.diff(act(z), z)
    x, y, *weights = (
        sp.Matrix(rows, width, lambda i, j, name=name: sp.Symbol(f"{name}_{i}{j}"))
        for name, rows in (("x", 1), ("y", 1), *((f"W{k}", width) for k in range(depth)))
    )
    before, hidden = [], [x]
    for weight in weights[:-1]:
        before.append(hidden[-1] * weight)
        hidden.append(before[-1].applyfunc(act))
    output = hidden[-1] * weights[-1]
    loss = sum((entry**2 for entry in output - y), sp.Integer(0)) / 2
    back, found = output - y, []
    for k in reversed(range(depth)):
        by_hand = hidden[k].T * back
        found += [sp.diff(loss, w).doit() - g for w, g in zip(weights[k], by_hand, strict=True)]
        if k:
            slopes = before[k - 1].applyfunc(lambda pre: slope.subs(z, pre).doit())
            back = (back * weights[k].T).multiply_elementwise(slopes)
    return found
