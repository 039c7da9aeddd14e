"""A loop on the kernels: which operator it is, found from its derived code, and running it.

The features, the values and what the update rule makes of them are the derived code; the
operators do the rest. So a kernel is checked against the loop, not against another copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..loops import InnerLoop, SwiGLU
from ..parallel import forms
from ..parallel.calls import form
from ..parallel.chunks import Outputs
from ..parallel.inputs import Number, Rates, Weights, wide
from ..parallel.state import State
from ..parallel.tiles import TILE, is_affine
from ..symbolic.torch_code import TorchLoop, torch_loop

Operator = Literal["additive", "momentum", "delta", "features"]
Sizes = Mapping[str, int]


def obstacle(
    loop: InnerLoop, sizes: Sizes | None = None, dtype: torch.dtype | None = None
) -> str | None:
    """Why no kernel runs the loop, in words; None where one does.

    sizes: of the net's widths, by name, and dtype: of the tokens; where None, of any.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    from .arguments import DTYPES, MAX_WIDTH

    found = plan(loop)
    if found not in get_args(Operator):
        return found
    if dtype is not None and dtype not in DTYPES:
        return f"kernels do not take {dtype}"
    features = 0 if sizes is None else sizes[loop.net.last.rows.name]
    if found != "features" and features > MAX_WIDTH:
        return f"the features of a token are one block of a kernel, of at most {MAX_WIDTH}"
    return None


def plan(loop: InnerLoop) -> str:
    """The `Operator` that runs the loop, or why there is none.

    One token a step is additive, momentum or the delta rule. Chunks, and Muon, are large matrix
    products, which PyTorch does well: there a kernel makes the features of a SwiGLU net.
    """
    rule, schedule = loop.update, loop.schedule
    if not loop.is_static or rule.weight_norm:
        return "its state is no scan of maps that data alone give"
    if loop.net.tokens:
        return "a convolution has small matrices for each channel"
    reads_alone = schedule.read == "causal" and not rule.momentum and rule.rate != "per_step"
    tokens = schedule.chunk == 1 or (reads_alone and not is_affine(loop))
    if not tokens or schedule.steps > 1 or rule.orthogonal or rule.clip:
        if is_swiglu(loop) and not (is_affine(loop) and (rule.orthogonal or rule.clip)):
            return "features"
        return "kernels take one plain step for each token"
    if not is_affine(loop):
        return "momentum" if rule.momentum else "additive"
    if rule.momentum or loop.net.gate is not None:
        return "the delta rule's kernel has neither momentum nor an output gate"
    return "delta"


def is_swiglu(loop: InnerLoop) -> bool:
    """Whether the features are those that `swiglu_features` makes."""
    return isinstance(loop.net, SwiGLU) and loop.net.activation == "silu"


def fused(loop: InnerLoop, x: Tensor, weights: Weights) -> Tensor:
    """φ of x `[B, T, H, K]`, `[B, T, H, D]`: in one pass for SwiGLU, else the derived code."""
    if is_swiglu(loop):
        from . import swiglu_features

        gate, up = (weights[w.name] for w in loop.net.weights[:-1])
        return swiglu_features(x, gate, up)
    return torch_loop(loop).features(x.transpose(1, 2), **weights).transpose(1, 2)


@form
def kernel_form(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    rate: Rates,
    momentum: Number | None,
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
    operator = plan(loop)
    if operator == "features":

        def features(x: Tensor, **of: Tensor) -> Tensor:  # of joined chunks, `[B, H, 1, T, K]`
            return fused(loop, x.squeeze(2).transpose(1, 2), weights).transpose(1, 2)[:, :, None]

        return forms.parallel(loop)(
            loop, q, k, v, weights, rate, momentum, initial_state, tile=tile, features=features
        )
    if obstacle(loop):
        raise ValueError(
            f"a kernel is required; this loop has none: {operator}. "
            "Use the parallel form, or the recurrence."
        )
    return by_token(loop, operator, q, k, v, weights, rate, momentum, initial_state)


def by_token(
    loop: InnerLoop,
    operator: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    rate: Rates,
    momentum: Number | None,
    initial_state: State | None,
) -> Outputs:
    """The loop by one of the operators for single tokens."""
    code, last = torch_loop(loop), loop.net.last.name
    if loop.schedule.query == "key":
        q = k
    x, y = k.transpose(1, 2), v.transpose(1, 2)  # matrices for each head
    values = code.values(x, code.cotangent(torch.zeros_like(y), y), **weights).transpose(1, 2)
    each = rate if isinstance(rate, Mapping) else {}
    own, kept, moved = rule(code, None if isinstance(rate, Mapping) else rate, momentum)
    own = own * each[last] if each else own
    first = weights[last].expand(v.shape[0], *weights[last].shape).to(wide(v.dtype))
    state = first if initial_state is None else initial_state[last]
    options: dict[str, Any] = {
        "output_final_state": True,
        "exclusive": loop.schedule.read == "before_update",
    }
    held: dict[str, Tensor] = {}
    found: Any  # outputs and the final state, which is a pair where there is momentum
    if operator == "momentum":
        from . import momentum_attention

        m = torch.zeros_like(state) if initial_state is None else initial_state.accumulators[last]
        found = momentum_attention(
            fused(loop, q, weights),
            fused(loop, k, weights),
            weighed(values, own),
            numbers(moved, q),
            numbers(kept, q),
            initial_state=(state, m),
            **options,
        )
    elif operator == "delta":
        from . import delta_rule

        one = torch.ones_like(y[..., :1])
        slope = code.cotangent(one, one * 0) - code.cotangent(one * 0, one * 0)
        slope = slope.transpose(1, 2)  # a constant of the loss, 1 for the squared error
        found = delta_rule(
            fused(loop, q, weights),
            fused(loop, k, weights),
            -values / slope,
            -numbers(own * moved, q) * slope[..., 0],
            initial_state=state,
            **options,
        )
    else:
        found = additive(loop, q, k, weighed(values, own * moved), weights, state, options)
    o, final = found
    if operator == "momentum":
        final, held[last] = final
    if loop.net.gate is not None:
        o = code.outputs(q.transpose(1, 2), o.transpose(1, 2), **weights).transpose(1, 2)
    every = {name: w.expand(v.shape[0], *w.shape).to(final.dtype) for name, w in weights.items()}
    return o, State(every | {last: final}, held)


def additive(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    state: Tensor,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Linear attention, with the features made in the kernel where they fit there."""
    from . import linear_attention, swiglu_attention
    from .swiglu import MAX_FUSED

    gate, up, *_ = (weights[w.name] for w in (*loop.net.weights, loop.net.last))
    if is_swiglu(loop) and max(gate.shape[1:]) <= MAX_FUSED:
        return swiglu_attention(q, k, v, gate, up, initial_state=state, **options)
    return linear_attention(
        fused(loop, q, weights), fused(loop, k, weights), v, initial_state=state, **options
    )


def rule(
    code: TorchLoop, eta: Number | None, alpha: Number | None
) -> tuple[Number, Number, Number]:
    """What the rule makes of units: of a gradient in M, of M in M, of M in W."""
    own, kept = code.accumulate(1.0, 0.0, 1, eta, alpha), code.accumulate(0.0, 1.0, 1, eta, alpha)
    return own, kept, code.move(0.0, 1.0, 1, eta, None)


def numbers(x: Number, like: Tensor) -> Tensor:
    """A number, or numbers `[B, T, H]`, as a tensor `[B, T, H]`; like is `[B, T, H, K]`."""
    x = torch.as_tensor(x, dtype=wide(like.dtype), device=like.device)
    return x.expand(like.shape[:3])


def weighed(values: Tensor, by: Number) -> Tensor:
    """Values `[B, T, H, V]` times a number each, in their own dtype."""
    by = by[..., None] if isinstance(by, Tensor) and by.ndim else by
    return (values * by).to(values.dtype)
