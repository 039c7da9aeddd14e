"""A loop on the kernels: which operator it is, found from its derived code, and running it.

The features, the values and what the update rule makes of them are the derived code; the
operators do the rest. So a kernel is checked against the loop, not against another copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import permutations
from typing import Any, Literal

import sympy as sp
import torch
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction
from torch import Tensor

from ..loops import InnerLoop, Net
from ..parallel import forms
from ..parallel.calls import form
from ..parallel.chunks import Outputs
from ..parallel.inputs import Coefficients, Number, Weights, wide
from ..parallel.state import State
from ..program.expressions import ACTIVATIONS
from ..program.rules import G, W
from ..symbolic.plan import TILE
from ..symbolic.torch_loop import Step, TorchLoop, torch_loop
from .limits import DEVICES, DTYPES, MAX_WIDTH

Operator = Literal["additive", "momentum", "delta", "features"]
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Refusal:
    """Why no kernel runs a loop, in words."""

    reason: str


@cache
def operator(loop: InnerLoop) -> Operator | Refusal:
    """The operator that runs the loop, whatever the sizes, or why there is none.

    One token a step is additive, momentum or the delta rule. Chunks, and operators on matrices, are
    large matrix products, which PyTorch does well: there a kernel makes the features of a SwiGLU
    net.
    """
    code = torch_loop(loop)
    if code.way is None:
        return Refusal("its state is no scan of maps that data alone give")
    if loop.net.window:
        return Refusal("a convolution has small matrices for each channel")
    found = operator_by_token(code)
    if isinstance(found, Refusal) and gate_and_up(loop.net):
        return "features"
    return found


def operator_by_token(code: TorchLoop) -> Operator | Refusal:
    """The operator for single tokens that does just what the lines of the update say."""
    loop, schedule, plain = (
        code.loop,
        code.schedule,
        "kernels take one plain step for each token",
    )
    numbers = [code.coefficients[name] for name in code.numbers]
    alone = schedule.read == "causal" and not code.buffers and not code.affine
    # A causal reading sees sums of tokens, whatever the chunk, if each counts alike in all chunks.
    tokens = schedule.chunk == 1 or (alone and all(c.every == "loop" for c in numbers))
    if not tokens or schedule.steps > 1 or any(x.kind != "state" for x in code.steps):
        return Refusal(plain)
    if any(c.shape != "scalar" for c in numbers):
        return Refusal("kernels take numbers for whole matrices")
    if code.affine and (code.buffers or code.gated):
        return Refusal("the delta rule's kernel has neither momentum nor an output gate")
    if moves_by(loop, G):
        return "delta" if code.affine else "additive"
    if len(code.steps) == 2 and code.buffers == (code.steps[0].target,) and not code.affine:
        first = sp.expand(loop.rule.lines[0].expression)
        buffer, after = loop.rule.buffers[0], loop.rule.lines[0].seen
        own, kept = first.coeff(G), first.coeff(buffer)
        if moves_by(loop, after) and sp.expand(first - own * G - kept * buffer) == 0:
            return "momentum"
    return Refusal("kernels add to the weight, which neither decays nor counts a gradient twice")


def moves_by(loop: InnerLoop, source: sp.Expr) -> bool:
    """Whether the weight's line is the weight plus a number times the source, and no more."""
    line = sp.expand(loop.rule[W])
    return sp.expand(line - W - line.coeff(source) * source) == 0


def gate_and_up(net: Net) -> tuple[str, str] | None:
    """The weights a and b of a net whose features are silu(X a) ⊙ (X b); None for any other."""
    known: dict[Any, Any] = {}
    for symbol, value in net.program:
        known[symbol] = value.xreplace(known)
    features = net.features.xreplace(known)
    if not isinstance(features, sp.HadamardProduct) or len(features.args) != 2:
        return None
    names = {net.traced.input * w.symbol: w.name for w in net.weights}
    x = sp.Symbol("x")
    for gate, up in permutations(features.args):
        entrywise = isinstance(gate, ElementwiseApplyFunction) and {gate.expr, up} <= set(names)
        if entrywise and gate.function(x) == ACTIVATIONS["silu"](x):
            return names[gate.expr], names[up]
    return None


def operator_for(
    loop: InnerLoop,
    sizes: Sizes | None = None,
    dtype: torch.dtype | None = None,
    device: str | None = None,
) -> Operator | Refusal:
    """The operator that runs the loop at these sizes, or why there is none: a pure function.

    sizes: of the net's widths, by name; dtype: of the tokens; device: a device type, "cuda", or
    "cpu" for Triton's interpreter; where None, of any.
    """
    found = operator(loop)
    if isinstance(found, Refusal):
        return found
    if dtype is not None and dtype not in DTYPES:
        return Refusal(f"kernels do not take {dtype}")
    if device is not None and device not in DEVICES:
        return Refusal(f"kernels do not run on {device}")
    features = 0 if sizes is None else sizes[loop.net.last.rows.name]
    if found != "features" and features > MAX_WIDTH:
        return Refusal(f"the features of a token are one block of a kernel, of at most {MAX_WIDTH}")
    return found


def obstacle(
    loop: InnerLoop, sizes: Sizes | None = None, dtype: torch.dtype | None = None
) -> str | None:
    """Why no kernel runs the loop here, in words; None where one does. As `operator_for`."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    found = operator_for(loop, sizes, dtype)
    return found.reason if isinstance(found, Refusal) else None


def fused(code: TorchLoop, x: Tensor, weights: Weights) -> Tensor:
    """φ of x `[B, T, H, K]`, `[B, T, H, D]`: in one pass for SwiGLU, else the derived code."""
    if names := gate_and_up(code.loop.net):
        from . import swiglu_features

        return swiglu_features(x, *(weights[name] for name in names))
    return code.features(x.transpose(1, 2), **weights).transpose(1, 2)


@form
def kernel_form(
    loop: InnerLoop | TorchLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients | None = None,
    initial_state: State | None = None,
    *,
    tile: int = TILE,
) -> Outputs:
    """Outputs `[B, T, H, V]` and the final state, as the forms of `parallel` have them.

    On CUDA, or in Triton's interpreter where TRITON_INTERPRET=1 was set before triton's first
    import. Differentiable once: a second derivative raises `RuntimeError`, as does a call where
    Triton cannot run. Raises `ValueError` for a loop that no kernel runs, saying why. Inputs are
    as for `Reduction.recurrent`, and not checked again.
    """
    code = torch_loop(loop)
    found = operator(code.loop)
    if reason := obstacle(code.loop):
        raise ValueError(
            f"a kernel is required; this loop has none: {reason}. "
            "Use the parallel form, or the recurrence."
        )
    if found == "features":

        def features(x: Tensor, **of: Tensor) -> Tensor:  # of joined chunks, `[B, H, 1, T, K]`
            return fused(code, x.squeeze(2).transpose(1, 2), weights).transpose(1, 2)[:, :, None]

        return forms.parallel(code)(
            code, q, k, v, weights, coefficients, initial_state, tile=tile, features=features
        )
    return by_token(code, str(found), q, k, v, weights, coefficients or {}, initial_state)


def by_token(
    code: TorchLoop,
    operator: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients,
    initial_state: State | None,
) -> Outputs:
    """The loop by one of the operators for single tokens."""
    last, schedule = code.last, code.schedule
    if schedule.read_with == "key":
        q = k
    x, y = k.transpose(1, 2), v.transpose(1, 2)  # matrices for each head
    values = code.values(x, code.cotangent(torch.zeros_like(y), y), **weights).transpose(1, 2)
    own, kept, moved = rule(code, coefficients)
    own = own * coefficients[code.loss_weights[last]] if code.loss_weights else own
    first = weights[last].expand(v.shape[0], *weights[last].shape).to(wide(v.dtype))
    state = first if initial_state is None else initial_state[last]
    options: dict[str, Any] = {
        "output_final_state": True,
        "exclusive": schedule.read == "before_update",
    }
    held: dict[str, dict[str, Tensor]] = {}
    found: Any  # outputs and the final state, which is a pair where there is momentum
    if operator == "momentum":
        from . import momentum_attention

        (buffer,) = code.buffers
        m = (
            torch.zeros_like(state)
            if initial_state is None
            else initial_state.buffers[buffer][last]
        )
        found = momentum_attention(
            fused(code, q, weights),
            fused(code, k, weights),
            weighed(values, own),
            numbers(moved, q),
            numbers(kept, q),
            initial_state=(state, m),
            **options,
        )
        o, (final, m) = found
        held[buffer] = {last: m}
    elif operator == "delta":
        from . import delta_rule

        one = torch.ones_like(y)  # as wide as it is, for a loss may divide by the width
        slope = code.cotangent(one, one * 0) - code.cotangent(one * 0, one * 0)
        slope = slope.transpose(1, 2)[..., :1]  # a constant of the loss, 1 for the squared error
        found = delta_rule(
            fused(code, q, weights),
            fused(code, k, weights),
            -values / slope,
            -numbers(own * moved, q) * slope[..., 0],
            initial_state=state,
            **options,
        )
        o, final = found
    else:
        o, final = additive(code, q, k, weighed(values, own * moved), weights, state, options)
    if code.gated:
        o = code.outputs(q.transpose(1, 2), o.transpose(1, 2), **weights).transpose(1, 2)
    every = {name: w.expand(v.shape[0], *w.shape).to(final.dtype) for name, w in weights.items()}
    return o, State(every | {last: final}, held)


def additive(
    code: TorchLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    state: Tensor,
    options: dict[str, Any],
) -> Any:
    """Linear attention, with the features made in the kernel where they fit there."""
    from . import linear_attention, swiglu_attention
    from .swiglu import MAX_FUSED

    if names := gate_and_up(code.loop.net):
        gate, up = (weights[name] for name in names)
        if max(gate.shape[1:]) <= MAX_FUSED:
            return swiglu_attention(q, k, v, gate, up, initial_state=state, **options)
    return linear_attention(
        fused(code, q, weights), fused(code, k, weights), v, initial_state=state, **options
    )


def rule(code: TorchLoop, coefficients: Coefficients) -> tuple[Number, Number, Number]:
    """What the rule makes of units: of a gradient in M, of M in M, of M in W; without an M, 1, 0,
    and of a gradient in W.
    """

    def unit(step: Step, name: str) -> Number:
        zeros = dict.fromkeys(step.made.reads, 0.0)
        return step.made(zeros | dict(coefficients) | {name: 1.0})

    *buffers, weight = code.steps
    if not buffers:
        return 1.0, 0.0, unit(weight, "G")
    (buffer,) = buffers
    return unit(buffer, "G"), unit(buffer, buffer.target), unit(weight, buffer.seen)


def numbers(x: Number, like: Tensor) -> Tensor:
    """A number, or numbers `[B, T, H]`, as a tensor `[B, T, H]`; like is `[B, T, H, K]`."""
    x = torch.as_tensor(x, dtype=wide(like.dtype), device=like.device)
    return x.expand(like.shape[:3])


def weighed(values: Tensor, by: Number) -> Tensor:
    """Values `[B, T, H, V]` times a number each, in their own dtype."""
    by = by[..., None] if isinstance(by, Tensor) and by.ndim else by
    return (values * by).to(values.dtype)
