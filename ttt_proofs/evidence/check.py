"""`check`: does somebody's own code compute what a loop computes?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..reference.oracle import run_loop
from .conditioning import draw_steady
from .sampling import Inputs, ragged
from .tolerances import PLAIN, Allowance, allowance
from .types import Observation

LONG = 64  # tokens; a fault that shows only late must still show


@dataclass(frozen=True)
class Departure:
    """Where a candidate first leaves the loop: the earliest token whose output differs.

    batch, token, head: its place; candidate, expected: the outputs there, `[V]` as lists;
    error: the relative error; seed: of the draw that differs. The same `check` finds it again.
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
        return (
            f"departs at token {self.token} (batch {self.batch}, head {self.head}): got "
            f"{self.candidate}, the loop has {self.expected}; seed {self.seed}"
        )


def check(
    candidate: Callable[..., Tensor | tuple], loop: InnerLoop, *, seed: int = 0, trials: int = 5
) -> Observation | Departure:
    """Whether a callable or `nn.Module` computes the loop's outputs, or where it departs.

    The candidate gets q, k `[B, T, H, K]`, v `[B, T, H, V]` and, by keyword, those of `weights`
    (a dict of initial weights `[H, rows, cols]`, without batch), `rate` and `momentum` (numbers,
    `[B, N, H]` if per step, `[B, T, H]` if per token, such a rate for each trained weight; or None)
    that its signature names; it returns outputs `[B, T, H, V]`, alone or first in a tuple. Inputs
    are float64 and drawn at random: first two sequences of at least LONG tokens and a ragged last
    chunk (whole images for a convolution), then short ones. The reference runs the real inner loop
    by autograd. Only outputs are compared, no gradients; an `Observation` is no proof, and a
    `Departure` names the earliest token of the first draw that differs.
    Raises `TypeError` or `ValueError` if the candidate is not callable or returns no tensor, or
    if the loop has abstract parts.
    """
    if not callable(candidate):
        raise TypeError(
            f"`candidate` must be callable; got {type(candidate).__name__}. "
            "Pass a function or an nn.Module."
        )
    if not isinstance(loop, InnerLoop):
        raise TypeError(f"`loop` must be an InnerLoop; got {type(loop).__name__}. Build one.")
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise ValueError(f"`trials` must be a positive integer; got {trials!r}. Use 5.")
    worst, allowed = 0.0, allowance(loop, 1)
    for trial in range(trials):
        inputs, expected = drawn(loop, seed + trial, first=trial == 0)
        got = call(candidate, deepcopy(inputs))  # the candidate may write into what it is given
        if got.shape != expected.shape:
            raise TypeError(
                f"`candidate` must return {tuple(expected.shape)} outputs; got "
                f"{tuple(got.shape)}. Return [batch, time, heads, width]."
            )
        departure, error = compare(got.detach().double(), expected, seed + trial, allowed)
        if departure:
            return departure
        worst = max(worst, error)
    return Observation(
        True, worst, allowed.error, trials, "cpu", "float64", ("outputs",), "outputs"
    )


def drawn(loop: InnerLoop, seed: int, *, first: bool) -> tuple[Inputs, Tensor]:
    """Inputs, long ones for the first trial, and the loop's outputs for them."""

    def reference(inputs: Inputs) -> dict[str, Tensor]:
        return {"outputs": run_loop(loop, **vars(inputs))[0].detach()}

    long = {"B": 2, "H": 2, "T": ragged(loop, max(LONG // loop.schedule.chunk, 2))}
    found = draw_steady(loop, seed, reference, sizes=long if first else None)
    return found.inputs, found.expected["outputs"]


def call(candidate: Callable[..., Tensor | tuple], inputs: Inputs) -> Tensor:
    """The candidate's outputs, with the keywords that it takes."""
    target = candidate.forward if isinstance(candidate, torch.nn.Module) else candidate
    known = {"weights": inputs.weights, "rate": inputs.rate, "momentum": inputs.momentum}
    parameters = inspect.signature(target).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    wanted = {name: value for name, value in known.items() if every or name in parameters}
    result = candidate(inputs.q, inputs.k, inputs.v, **wanted)
    result = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(result, Tensor) or result.is_complex():
        got = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(f"`candidate` must return a real tensor; got {got}. Return the outputs.")
    return result


def compare(
    got: Tensor, expected: Tensor, seed: int, allowed: Allowance = PLAIN
) -> tuple[Departure | None, float]:
    """The first token whose output is off by more than the tolerance, and the largest error."""
    scale = expected.abs().max().clamp_min(allowed.scale) if expected.numel() else 1.0
    errors = ((got - expected).abs() / scale).nan_to_num(nan=float("inf")).amax(dim=-1)
    worst = errors.max().item() if errors.numel() else 0.0
    bad = (errors > allowed.error).transpose(0, 1).nonzero()  # earliest token first
    if not len(bad):
        return None, worst
    token, batch, head = bad[0].tolist()
    place = (batch, token, head)
    values = (tuple(x[place].tolist()) for x in (got, expected))
    return Departure(batch, token, head, *values, error=errors[place].item(), seed=seed), worst
