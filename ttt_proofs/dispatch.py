"""Which operator of `kernels` runs a loop, and why none does: read off the loop's plan.

One token a step is linear attention, momentum or the delta rule. Chunks, and operators on matrices,
are large matrix products, which PyTorch does well: there a kernel makes the features of a SwiGLU
net.
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

from .kernels.limits import DEVICES, DTYPES, MAX_WIDTH
from .loops import InnerLoop, Net, Recurrence
from .program.expressions import ACTIVATIONS
from .program.rules import G, W
from .symbolic.plan import Plan
from .symbolic.torch_loop import TorchLoop, Way, torch_loop

Operator = Literal["additive", "momentum", "delta", "features"]
Written = Literal["gradient", "momentum"]
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Refusal:
    """Why no kernel runs a loop, in words."""

    reason: str


@dataclass(frozen=True)
class KernelPlan:
    """The facts about a loop by which its operator is chosen.

    plan: the plan of its program. way: how it runs in parallel, None where it does not. windowed:
    whether the net is a convolution. single: whether the state is a sum over tokens, each as it
    came, by one plain step without gates or operators. buffers: how many states there are beside
    the weight. gated: whether the net has an output gate. written: what the weight's line adds to
    the weight, a multiple of the gradient or of one buffer that is a multiple of itself plus one of
    the gradient; None for any other. swiglu: the weights a and b of features silu(X a) ⊙ (X b);
    None for any other. width: the name of the width of a token's features.
    """

    plan: Plan
    way: Way | None
    windowed: bool
    single: bool
    buffers: int
    gated: bool
    written: Written | None
    swiglu: tuple[str, str] | None
    width: str


def operator_for(
    plan: KernelPlan,
    sizes: Sizes | None = None,
    dtype: torch.dtype | None = None,
    device: str | None = None,
) -> Operator | Refusal:
    """The operator that runs a plan at these sizes, or why there is none: a pure function.

    sizes: of the net's widths, by name; dtype: of the tokens; device: a device type, "cuda", or
    "cpu" for Triton's interpreter; where None, of any.
    """
    found = whatever_the_sizes(plan)
    if isinstance(found, Refusal):
        return found
    if dtype is not None and dtype not in DTYPES:
        return Refusal(f"kernels do not take {dtype}")
    if device is not None and device not in DEVICES:
        return Refusal(f"kernels do not run on {device}")
    features = 0 if sizes is None else sizes[plan.width]
    if found != "features" and features > MAX_WIDTH:
        return Refusal(f"the features of a token are one block of a kernel, of at most {MAX_WIDTH}")
    return found


def whatever_the_sizes(plan: KernelPlan) -> Operator | Refusal:
    """The operator for single tokens, or else, in chunks, the one that makes features."""
    if plan.way is None:
        return Refusal("its state is no scan of maps that data alone give")
    if plan.windowed:
        return Refusal("a convolution has small matrices for each channel")
    found = for_single_tokens(plan)
    return "features" if isinstance(found, Refusal) and plan.swiglu else found


def for_single_tokens(plan: KernelPlan) -> Operator | Refusal:
    """The operator for single tokens that does just what the lines of the update say."""
    if not plan.single:
        return Refusal("kernels take one plain step for each token")
    if plan.plan.shape != "scalar":
        return Refusal("kernels take numbers for whole matrices")
    affine = plan.plan.word == "affine"
    if affine and (plan.buffers or plan.gated):
        return Refusal("the delta rule's kernel has neither momentum nor an output gate")
    if plan.written == "gradient" and not plan.buffers:
        return "delta" if affine else "additive"
    if plan.written == "momentum" and plan.buffers == 1:
        return "momentum"
    return Refusal(
        "kernels add a gradient, or one momentum buffer, to a weight that does not decay"
    )


def obstacle(
    loop: InnerLoop | Recurrence, sizes: Sizes | None = None, dtype: torch.dtype | None = None
) -> str | None:
    """Why no kernel runs the loop here, in words; None where one does. As `operator_for`."""
    if isinstance(loop, Recurrence):
        return "kernels run a net, a loss and an update, and this one is known by its recurrence"
    if find_spec("triton") is None:
        return "Triton is not installed"
    found = operator_for(kernel_plan(loop), sizes, dtype)
    return found.reason if isinstance(found, Refusal) else None


@cache
def kernel_plan(loop: InnerLoop) -> KernelPlan:
    """The plan of a loop; `ValueError` where part of the loop is abstract."""
    code = torch_loop(loop)
    return KernelPlan(
        plan=code.plan,
        way=code.way,
        windowed=code.window is not None,
        single=single(code),
        buffers=len(code.buffers),
        gated=code.gated,
        written=written(loop),
        swiglu=swiglu(loop.net),
        width=loop.net.last.rows.name,
    )


def single(code: TorchLoop) -> bool:
    """Whether tokens are written one by one, each by one plain step.

    A causal reading sees sums of tokens, whatever the chunk, if each counts alike in all chunks.
    """
    schedule, numbers = code.schedule, (code.coefficients[name] for name in code.numbers)
    summed = schedule.read == "causal" and not code.buffers and not code.affine
    tokens = schedule.chunk == 1 or (summed and all(c.every == "loop" for c in numbers))
    return tokens and schedule.steps == 1 and all(x.kind == "state" for x in code.lines)


def written(loop: InnerLoop) -> Written | None:
    """What the weight's line adds a multiple of to the weight, and nothing else."""
    if adds(loop, G):
        return "gradient"
    lines, buffers = loop.rule.lines, loop.rule.buffers
    if len(lines) == 2 and buffers == (lines[0].target,):
        first = sp.expand(lines[0].expression)
        own, kept = first.coeff(G), first.coeff(buffers[0])
        if adds(loop, lines[0].seen) and sp.expand(first - own * G - kept * buffers[0]) == 0:
            return "momentum"
    return None


def adds(loop: InnerLoop, source: sp.Expr) -> bool:
    """Whether the weight's line is the weight plus a number times the source, and no more."""
    line = sp.expand(loop.rule[W])
    return sp.expand(line - W - line.coeff(source) * source) == 0


def swiglu(net: Net) -> tuple[str, str] | None:
    """The weights a and b of a net whose features are silu(X a) ⊙ (X b); None for any other."""
    known: dict[Any, Any] = {}
    for symbol, value in net.assignments:
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
