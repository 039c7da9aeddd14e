"""`check`: does somebody's own code compute what a loop computes?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..loops import InnerLoop, Recurrence
from ..reference.oracle import run_loop
from . import recurrences
from .conditioning import DRAWS, Drawn, draw_steady
from .sampling import Inputs, ragged, square, widths
from .signature import call
from .tolerances import LOST, PLAIN, SURE, Allowance, allowance
from .types import Draw, Verdict

LONG = 64  # tokens; a fault that shows only late must still show
SQUARE = 1  # the trial at which all weights are square


@dataclass(frozen=True)
class Subject:
    """What code is compared with: `draw(seed, trial)`, the names of sizes, and what passes."""

    draw: Callable[[int, int], Drawn]
    sizes: Callable[[Inputs], tuple[tuple[str, int], ...]]
    allowed: Allowance


def subject(loop: InnerLoop | Recurrence) -> Subject:
    """A loop or a recurrence as what code is compared with."""
    if isinstance(loop, Recurrence):
        return Subject(partial(recurrences.draw, loop), recurrences.sizes, PLAIN)
    return Subject(partial(draw, loop), partial(sizes, loop), allowance(loop, 1))


@dataclass(frozen=True)
class Found:
    """What one draw showed: the draw, and where the candidate departs there, if it does."""

    draw: Draw
    departure: dict[str, Any] | None


def check(
    candidate: Callable[..., Tensor | tuple],
    loop: InnerLoop | Recurrence,
    *,
    seed: int = 0,
    trials: int = 5,
) -> Verdict:
    """Whether a callable or `nn.Module` computes a loop's outputs: a `Verdict`, with the reason.

    The candidate gets, of these inputs, those that its parameters name (`signature.call`): q, k
    `[B, T, H, K]`, v `[B, T, H, V]`, `weights` (a dict of initial weights `[H, rows, cols]`,
    without batch) and `coefficients` (a dict of numbers, `[B, N, H]` if of each step, `[B, T, H]`
    if of each token, by the names in `loop.coefficients`), copies each time. A callable that has no
    parameters but `*args` gets all five in this order. It returns outputs `[B, T, H, V]`, alone or
    first in a tuple. Inputs are float64 and drawn at random. The lengths of the trials, in order:
    at least LONG tokens and a last chunk of one token; at least LONG in whole chunks, with square
    weights; a single token; two and a half chunks, a half rounded up; one chunk, or three where
    one is a single token. A convolution has whole images in place of parts of chunks. At any seed,
    some of these five have B = 1, H = 1, K = 1, V = 1 or inner widths of 1, some have more; K is
    below, equal to and above V, and inner widths are below both and above both. From the sixth
    trial on, all sizes are random. The reference runs the real inner loop by autograd
    (`reference.run_loop`): that of the library's parts as it is written apart, any other by its own
    functions. Gradients are recorded in both, whatever mode `check` is called in. Only outputs are
    compared.

    At each draw the reference runs again on inputs that are moved in the last place. Loops such as
    LaCT with chunks of one token (Muon of gradients of rank one) so become others altogether after
    some tokens (`Reduction.amplification`); there the verdict is "undecided", unless an error is
    far beyond rounding.

    A `Recurrence` is compared likewise, from states of zeros: it has no weights, its coefficients
    are of the loop or of each token, and the reference is its own function, called token by token
    (`reference.run_recurrence`), at the sizes that `recurrences.edges` lists.
    Raises `TypeError` or `ValueError` if the candidate is not callable, requires an argument of
    another name, takes a `rate` or `momentum`, or returns no tensor, or if the loop has abstract
    parts or has lost its functions.
    """
    if not callable(candidate):
        raise TypeError(
            f"`candidate` must be callable; got {type(candidate).__name__}. "
            "Pass a function or an nn.Module."
        )
    if not isinstance(loop, InnerLoop | Recurrence):
        got = type(loop).__name__
        raise TypeError(f"`loop` must be an InnerLoop or a Recurrence; got {got}. Build one.")
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise ValueError(f"`trials` must be a positive integer; got {trials!r}. Use 5.")
    seen: list[Found] = []
    real = subject(loop)
    for trial in range(trials):
        with torch.inference_mode(False), torch.enable_grad():
            drawn = real.draw(seed + trial, trial)
            got = outputs_of(candidate, drawn)
            seen.append(compare(real, drawn, got, seed + trial, coarse=trial == SQUARE))
        if seen[-1].departure:
            break
    return verdict(seen, real.allowed.error)


def draw(loop: InnerLoop, seed: int, trial: int) -> Drawn:
    """The inputs of a trial, and the loop's outputs for them.

    Square weights keep their first draw: looking for a steady one would end at widths of 1.
    """

    def reference(inputs: Inputs) -> dict[str, Tensor]:
        return {"outputs": run_loop(loop, **vars(inputs))[0].detach()}

    sizes = edges(loop, seed, trial)
    return draw_steady(loop, seed, reference, sizes=sizes, draws=1 if trial == SQUARE else DRAWS)


def edges(loop: InnerLoop, seed: int, trial: int) -> dict[str, int]:
    """Sizes of a trial at which code is most often wrong; those that are left out are random.

    Rows: batch, heads, tokens, widths. The trials of several chunks (the first, second and fourth)
    have all of 1, more, K < V, K = V and K > V, since a single chunk may be read before its update;
    the others have unequal widths above 1. Keys of width 1 keep Muon steady over many steps.
    """
    chunk, images = loop.schedule.chunk, bool(loop.net.tokens)
    chunks, least = max(-(-LONG // chunk), 2), chunk if images else 1
    half, few = 0 if images else -(-chunk // 2), chunk if chunk > least else 3 * chunk
    low, mid, high = sorted(random.Random(seed).sample(range(2, 6), 3))
    plan = (
        (2, 2, ragged(loop, chunks), widths(loop, 1, (high, high + 1), low)),
        (1, 3, chunks * chunk, square(loop, seed)),
        (1, 1, least, widths(loop, mid, (high + 1, high), low)),
        (2, 1, 2 * chunk + half, widths(loop, mid, (1,), 1)),
        (3, 2, few, widths(loop, mid + 1, (low + 1, low), high + 1)),
    )
    if trial >= len(plan):
        return {}
    batch, heads, tokens, wide = plan[trial]
    return {"B": batch, "H": heads, "T": tokens, **wide}


def outputs_of(candidate: Callable[..., Tensor | tuple], drawn: Drawn) -> Tensor:
    """The candidate's outputs in float64; `TypeError` for what is none."""
    result = call(candidate, vars(drawn.inputs))
    result = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(result, Tensor) or result.is_complex():
        got = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(f"`candidate` must return a real tensor; got {got}. Return the outputs.")
    wanted = drawn.expected["outputs"].shape
    if result.shape != wanted:
        raise TypeError(
            f"`candidate` must return {tuple(wanted)} outputs; got {tuple(result.shape)}. "
            "Return [batch, time, heads, width]."
        )
    return result.detach().as_subclass(Tensor).double()


def compare(real: Subject, drawn: Drawn, got: Tensor, seed: int, *, coarse: bool) -> Found:
    """The error of the outputs, and the first token at which it is more than rounding explains.

    Where the draw is not steady, an error is one if it is SURE times what rounding makes; that it
    is smaller says nothing, unless `coarse` and less than LOST is lost.
    """
    expected, allowed = drawn.expected["outputs"], real.allowed
    amplified = drawn.amplification
    if amplified is None or not expected.isfinite().all():
        return Found(Draw(seed, real.sizes(drawn.inputs), None, None, math.inf), None)
    scale = expected.abs().max().clamp_min(allowed.scale)
    errors = ((got - expected).abs() / scale).nan_to_num(nan=math.inf, posinf=math.inf).amax(dim=-1)
    limit = allowed.error if drawn.steady else max(allowed.error, SURE * (drawn.rounding or 0))
    told = drawn.steady or (coarse and amplified < LOST)
    here = Draw(
        seed, real.sizes(drawn.inputs), errors.max().item(), limit if told else None, amplified
    )
    bad = (errors > limit).transpose(0, 1).nonzero()  # earliest token first
    if not len(bad):
        return Found(here, None)
    token, batch, head = bad[0].tolist()
    place = (batch, token, head)
    values = {
        name: tuple(x[place].tolist()) for name, x in (("candidate", got), ("expected", expected))
    }
    where = {"batch": batch, "token": token, "head": head, "seed": seed}
    return Found(here, where | values)


def sizes(loop: InnerLoop, inputs: Inputs) -> tuple[tuple[str, int], ...]:
    """The lengths and widths of inputs, by name."""
    batch, tokens, heads, _ = inputs.q.shape
    widths: dict[str, int] = {}
    for w in loop.net.weights:
        rows, cols = inputs.weights[w.name].shape[1:]
        widths |= {w.rows.name: rows, w.cols.name: cols}
    return (("B", batch), ("T", tokens), ("H", heads), *widths.items())


def verdict(seen: list[Found], tolerance: float) -> Verdict:
    """What the draws say together."""
    drawn = tuple(found.draw for found in seen)
    if departure := seen[-1].departure:
        got, expected = (
            f"({', '.join(f'{x:.6g}' for x in departure[name])})"
            for name in ("candidate", "expected")
        )
        reason = (
            f"It departs at token {departure['token']} (batch {departure['batch']}, head "
            f"{departure['head']}): got {got}, the loop has {expected}; seed {departure['seed']}."
        )
        return Verdict("wrong", reason, drawn[-1].error, tolerance, drawn, **departure)
    steady = [x.error for x in drawn if x.error is not None and x.tolerance == tolerance]
    error = max(steady, default=None)
    if lost := [x for x in drawn if x.tolerance is None]:
        return Verdict("undecided", told_of(lost, drawn), error, tolerance, drawn)
    longest = max(dict(x.sizes)["T"] for x in drawn)
    reason = (
        f"It agrees with the loop at {len(drawn)} draws of up to {longest} tokens, with a "
        f"relative error of at most {error:.1g}"
    )
    for rough in (x for x in drawn if x.tolerance != tolerance):
        reason += (
            f", and at one of them only to {rough.tolerance:.1g}, since the loop enlarges "
            f"rounding {rough.amplification:.0e} times there"
        )
    return Verdict("exact", f"{reason}.", error, tolerance, drawn)


def told_of(lost: list[Draw], drawn: tuple[Draw, ...]) -> str:
    """Why nothing could be told at some draws."""
    worst = max(lost, key=lambda x: x.amplification)
    tokens = dict(worst.sizes)["T"]
    why = (
        f"the loop makes a change of its inputs {worst.amplification:.0e} times as large in "
        f"{tokens} tokens, so that rounding in float64 would hide a fault"
        if worst.error is not None
        else f"the loop itself runs to NaN or infinity in {tokens} tokens"
    )
    others = "" if len(lost) == len(drawn) else "; it agrees at the others"
    return f"At {len(lost)} of {len(drawn)} draws nothing can be told, since {why}{others}."
