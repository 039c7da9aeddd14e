"""A loop on the kernels: what its derived code leaves to be done, by the operator that runs it.

The features, the values and what the update rule makes of them are the derived code; the
operators do the rest. So a kernel is checked against the loop, not against another copy of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .dispatch import kernel_plan, obstacle, operator_for
from .loops import InnerLoop, Recurrence
from .parallel import forms
from .parallel.calls import form
from .parallel.chunks import Outputs
from .parallel.inputs import Coefficients, Number, Weights, wide
from .parallel.state import State
from .symbolic.plan import TILE
from .symbolic.step_loop import Runnable, StepLoop, runnable
from .symbolic.torch_loop import CompiledLine, TorchLoop


def fused(code: TorchLoop, x: Tensor, weights: Weights) -> Tensor:
    """φ of x `[B, T, H, K]`, `[B, T, H, D]`: in one pass for SwiGLU, else the derived code."""
    if names := kernel_plan(code.loop).swiglu:
        from .kernels import swiglu_features

        return swiglu_features(x, *(weights[name] for name in names))
    return code.features(x.transpose(1, 2), **weights).transpose(1, 2)


@form
def kernel_form(
    loop: InnerLoop | Recurrence | Runnable,
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
    code = runnable(loop)
    reason = obstacle(code.loop)
    if reason or isinstance(code, StepLoop):
        raise ValueError(
            f"a kernel is required; this loop has none: {reason}. "
            "Use the parallel form, or the recurrence."
        )
    found = operator_for(kernel_plan(code.loop))
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
        from .kernels import momentum_attention

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
        from .kernels import delta_rule

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
    from .kernels import linear_attention, swiglu_attention
    from .kernels.swiglu import MAX_FUSED

    if names := kernel_plan(code.loop).swiglu:
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

    def unit(step: CompiledLine, name: str) -> Number:
        zeros = dict.fromkeys(step.made.reads, 0.0)
        return step.made(zeros | dict(coefficients) | {name: 1.0})

    *buffers, weight = code.lines
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
