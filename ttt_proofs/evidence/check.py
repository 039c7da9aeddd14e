"""`check`: does somebody's own code compute what a loop computes?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..reference.oracle import run_loop
from .sampling import Inputs, random_inputs
from .tolerances import tolerance
from .types import Observation


@dataclass(frozen=True)
class Departure:
    """Where a candidate first leaves the loop: the earliest token whose output differs.

    batch, token, head: its place; candidate, expected: the outputs there, `[V]` as lists;
    error: the relative error; seed: what reproduces the inputs.
    """

    batch: int
    token: int
    head: int
    candidate: tuple[float, ...]
    expected: tuple[float, ...]
    error: float
    seed: int

    agrees = False

    def __str__(self) -> str:
        return (f"departs at token {self.token} (batch {self.batch}, head {self.head}): got "
                f"{self.candidate}, the loop has {self.expected}; seed {self.seed}")  # fmt: skip


def check(candidate: Callable[..., Tensor | tuple], loop: InnerLoop, *, seed: int = 0,
          trials: int = 5) -> Observation | Departure:  # fmt: skip
    """Whether a callable or `nn.Module` computes the loop's outputs, or where it departs.

    The candidate gets q, k `[B, T, H, K]`, v `[B, T, H, V]` and, by keyword, those of `weights`,
    `rate`, `momentum` that its signature names; it returns outputs `[B, T, H, V]`, alone or
    first in a tuple. Inputs are float64 and drawn at random; the reference runs the real inner
    loop by autograd. An `Observation` is no proof.
    Raises `TypeError` if the candidate is not callable or returns no tensor.
    """
    if not callable(candidate):
        raise TypeError(f"`candidate` must be callable; got {type(candidate).__name__}. "
                        "Pass a function or an nn.Module.")  # fmt: skip
    worst = 0.0
    for trial in range(trials):
        inputs = random_inputs(loop, seed + trial)
        got = call(candidate, inputs)
        expected, _ = run_loop(loop, inputs.q, inputs.k, inputs.v, weights=inputs.weights,
                               rate=inputs.rate, momentum=inputs.momentum)  # fmt: skip
        if got.shape != expected.shape:
            raise TypeError(f"`candidate` must return {tuple(expected.shape)} outputs; got "
                            f"{tuple(got.shape)}. Return [batch, time, heads, width]."
                            )  # fmt: skip
        departure, error = compare(got.detach().double(), expected.detach(), seed + trial)
        if departure:
            return departure
        worst = max(worst, error)
    return Observation(True, worst, tolerance("float64", 1), trials, "cpu", "float64",
                       ("outputs",), "outputs")  # fmt: skip


def call(candidate: Callable[..., Tensor | tuple], inputs: Inputs) -> Tensor:
    """The candidate's outputs, with the keywords that it takes."""
    target = candidate.forward if isinstance(candidate, torch.nn.Module) else candidate
    known = {"weights": inputs.weights, "rate": inputs.rate, "momentum": inputs.momentum}
    parameters = inspect.signature(target).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    wanted = {name: value for name, value in known.items() if every or name in parameters}
    result = candidate(inputs.q, inputs.k, inputs.v, **wanted)
    result = result[0] if isinstance(result, tuple) else result
    if not isinstance(result, Tensor):
        raise TypeError(f"`candidate` must return a tensor; got {type(result).__name__}. "
                        "Return the outputs.")  # fmt: skip
    return result


def compare(got: Tensor, expected: Tensor, seed: int) -> tuple[Departure | None, float]:
    """The first token whose output is off by more than the tolerance, and the largest error."""
    scale = expected.abs().max().clamp_min(1e-30) if expected.numel() else torch.tensor(1.0)
    errors = ((got - expected).abs() / scale).nan_to_num(nan=float("inf")).amax(dim=-1)
    worst = errors.max().item() if errors.numel() else 0.0
    bad = (errors > tolerance("float64", 1)).transpose(0, 1).nonzero()  # earliest token first
    if not len(bad):
        return None, worst
    token, batch, head = bad[0].tolist()
    place = (batch, token, head)
    values = (tuple(x[place].tolist()) for x in (got, expected))
    return Departure(batch, token, head, *values, error=errors[place].item(), seed=seed), worst
