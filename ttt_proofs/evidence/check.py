"""`check`: does somebody's own code compute what a loop computes?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..loops import InnerLoop, Recurrence
from ..loops.current import must_be_current
from ..reference.oracle import run_loop
from . import recurrence_inputs
from .conditioning import ROOM, Drawn, draw_steady
from .sampling import Inputs
from .signature import call
from .tolerances import LOST, PLAIN, SURE, UNIT, Allowance, allowance, is_normalised
from .trials import Trial, drawn_of, plan, trial_of
from .types import Draw, Verdict
from .values import Values


@dataclass(frozen=True)
class Subject:
    """What code is compared with: the trials of a seed, a draw of one, and what passes.

    sizes: the names of the inputs' sizes. divides: whether the loop divides by norms, so that
    rounding may be far more than was measured.
    """

    plan: Callable[[int], tuple[Trial, ...]]
    draw: Callable[[int, Trial], Drawn]
    sizes: Callable[[Inputs], tuple[tuple[str, int], ...]]
    allowed: Allowance
    divides: bool


def subject(loop: InnerLoop | Recurrence) -> Subject:
    """A loop or a recurrence as what code is compared with."""
    if isinstance(loop, Recurrence):
        drawn = recurrence_inputs
        planned, draws = partial(drawn.plan, loop), partial(drawn.draw, loop)
        return Subject(planned, draws, drawn.sizes, PLAIN, divides=False)
    allowed, divides = allowance(loop, 1), is_normalised(loop)
    own = partial(plan, loop), partial(draw, loop), partial(sizes, loop)
    return Subject(*own, allowed, divides)


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
    trials: int | None = None,
) -> Verdict:
    """Whether a callable or `nn.Module` computes a loop's outputs: a `Verdict`, with the reason.

    The candidate gets, of these inputs, those that its parameters name (`signature.call`): q, k
    `[B, T, H, K]`, v `[B, T, H, V]`, `weights` (a dict of initial weights `[H, rows, cols]`,
    without batch) and `coefficients` (a dict of numbers, `[B, N, H]` if of each step, `[B, T, H]`
    if of each token, by the names in `loop.coefficients`), copies each time. A callable that has no
    parameters but `*args` gets all five in this order. It returns outputs `[B, T, H, V]`, alone or
    first in a tuple. Inputs are float64 and drawn at random, at the sizes and values of
    `trials.plan`; `trials` asks for fewer or more of them, those behind the last at random sizes.

    At every seed there are, in this order (a convolution has whole images for parts of chunks):
    1. at least LONG tokens and a last chunk of one token (half as many for operators on matrices,
       such as Muon), B = 3 and mostly H = 1. Coefficients are near numbers at which every state,
       weight or buffer, lasts over 64 steps, as is measured on the update's function
       (`lasting.lasting`); steps are smaller in proportion to what buffers add up. States that last
       only at different numbers have them in different heads, or, where these are constants, in
       further trials at the end. Where no draw is steady, a single sequence of one head is tried.
    2. at least TILED tokens (half as many for operators on matrices), in chunks whose number is a
       power of two, so in whole tiles of any power of two up to that; K > V, B = 1, H = 3.
    3. three chunks and a token (two, of chunks of SHORT tokens or more; SHORT tokens, of single
       ones), square weights, B = 2, H = 3.
    4. the same sizes, with exact zeros (`sampling.with_zeros`): a chunk of zero keys, zero queries
       and values, a first weight of zeros, and zero columns; where the loop itself is not finite
       there, or enlarges rounding, others are drawn. At such points it is what PyTorch computes.
    5. a single token. 6. one chunk (or three tokens). 7. two chunks (one, of SHORT tokens or more)
       and all but one token of the next, K = 1, tokens and weights LARGE and steps smaller.
    8. and on: two and a half chunks, a half rounded up, with half of the coefficients' numbers at
       the ends of their declared ranges, 0 and 1 unless told otherwise (so code that takes
       logarithms of a decay needs a range without 0), at 0 and of either sign where the range has
       both; what scales steps keeps its size. Constants have any two of their ends together in
       one of these trials, and the last has zeros for the constants that scale steps.
    Over several chunks there are H = 1, V = 1, inner widths of 1 and more, K below, equal to and
    above V with both above 1, and inner widths below both and above both.

    So these go unseen: faults that need more tokens, longer tiles, larger numbers or other sizes,
    such as B or H above 3, both above 1 in a long trial, a remainder other than 1, a half and all
    but one, or, for operators on matrices, 1 < K < V in a long trial; states forgotten between
    tiles that last at no number in the declared ranges; means over a chunk of tokens' coefficients
    at an end; rates near the end of a range that is far above the steps drawn; and zeros elsewhere
    than named.

    The reference runs the real inner loop by autograd (`reference.run_loop`): that of the library's
    parts as it is written apart, any other by its own functions. Gradients are recorded in both,
    whatever mode `check` is called in. Only outputs are compared.

    At each draw the reference runs again on inputs that are moved in the last place, in several
    directions (`conditioning.UNITS`). Loops such as
    LaCT with chunks of one token (Muon of gradients of rank one) so become others altogether after
    some tokens (`Reduction.amplification`); there the verdict is "undecided", unless an error is
    far beyond rounding. So it is where a loop divides by norms and an error is above the tolerance,
    but not SURE times what was measured.

    A `Recurrence` is compared likewise, from states of zeros: it has no weights, its coefficients
    are of the loop or of each token, and the reference is its own function, called token by token
    (`reference.run_recurrence`), at the trials of `recurrence_inputs.plan`.
    Raises `TypeError` or `ValueError` if the candidate is not callable, requires an argument of
    another name, takes a `rate` or `momentum`, or returns no dense tensor on the inputs' device, if
    `seed` or `trials` is no integer, or if the loop has abstract parts, has lost its functions, or
    has functions that have changed since they were read.
    """
    if not callable(candidate):
        raise TypeError(
            f"`candidate` must be callable; got {type(candidate).__name__}. "
            "Pass a function or an nn.Module."
        )
    if not isinstance(loop, InnerLoop | Recurrence):
        got = type(loop).__name__
        raise TypeError(f"`loop` must be an InnerLoop or a Recurrence; got {got}. Build one.")
    must_be_current(loop)
    given = {"seed": seed} | ({} if trials is None else {"trials": trials})
    for name, value in given.items():
        small = name == "trials" and isinstance(value, int) and value < 1
        if not isinstance(value, int) or isinstance(value, bool) or small:
            kind = "an" if name == "seed" else "a positive"
            raise ValueError(f"`{name}` must be {kind} integer; got {value!r}. Leave it out.")
    seen: list[Found] = []
    real = subject(loop)
    with torch.inference_mode(False), torch.enable_grad():
        count = trials or len(real.plan(seed))
    for number in range(count):
        with torch.inference_mode(False), torch.enable_grad():
            here = trial_of(real.plan, seed + number, number)
            drawn = real.draw(seed + number, here)
            got = outputs_of(candidate, drawn)
            seen.append(compare(real, drawn, got, seed + number, coarse=here.rough))
        if seen[-1].departure:
            break
    return verdict(seen, real.allowed.error)


def draw(loop: InnerLoop, seed: int, trial: Trial) -> Drawn:
    """The inputs of a trial, and the loop's outputs for them."""

    def reference(inputs: Inputs) -> dict[str, Tensor]:
        return {"outputs": run_loop(loop, **vars(inputs))[0].detach()}

    def steady(sizes: Mapping[str, int], values: Values, draws: int) -> Drawn:
        given = {"sizes": sizes, "values": values, "draws": draws, "by_head": True}
        return draw_steady(loop, seed, reference, **given)

    return drawn_of(trial, steady)


def outputs_of(candidate: Callable[..., Tensor | tuple], drawn: Drawn) -> Tensor:
    """The candidate's outputs in float64; `TypeError` for what is none."""
    result = call(candidate, vars(drawn.inputs))
    result = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(result, Tensor) or result.is_complex():
        got = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(f"`candidate` must return a real tensor; got {got}. Return the outputs.")
    wanted = drawn.expected["outputs"]
    if result.is_nested or result.layout != torch.strided or result.device != wanted.device:
        kind = "a nested tensor" if result.is_nested else result.layout
        raise TypeError(
            f"`candidate` must return a dense tensor on {wanted.device}, as its inputs are; got "
            f"{kind} on {result.device}. Convert it."
        )
    if result.shape != wanted.shape:
        raise TypeError(
            f"`candidate` must return {tuple(wanted.shape)} outputs; got {tuple(result.shape)}. "
            "Return [batch, time, heads, width]."
        )
    return result.detach().as_subclass(Tensor).double()


def compare(real: Subject, drawn: Drawn, got: Tensor, seed: int, *, coarse: bool) -> Found:
    """The error of the outputs, and the first token at which it is more than rounding explains.

    Where the draw is not steady, or the loop divides, an error is one if it is SURE times what
    rounding makes. That it is smaller says nothing, unless it passes and the draw is steady, or the
    draw is `coarse` and less than LOST is lost.
    """
    expected, allowed = drawn.expected["outputs"], real.allowed
    amplified = drawn.amplification
    if amplified is None or not expected.isfinite().all():
        return Found(Draw(seed, real.sizes(drawn.inputs), None, None, math.inf), None)
    scale = expected.abs().max().clamp_min(allowed.scale)
    errors = ((got - expected).abs() / scale).nan_to_num(nan=math.inf, posinf=math.inf).amax(dim=-1)
    worst, sure = errors.max().item(), max(allowed.error, SURE * (drawn.rounding or 0))
    limit = allowed.error if drawn.steady and not real.divides else sure
    if drawn.steady and (worst <= allowed.error or not real.divides):
        held = allowed.error
    else:
        held = sure if coarse and amplified < LOST else None
    here = Draw(seed, real.sizes(drawn.inputs), worst, held, amplified)
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
        got, expected = told_apart(departure["candidate"], departure["expected"])
        reason = (
            f"It departs at token {departure['token']} (batch {departure['batch']}, head "
            f"{departure['head']}): got {got}, the loop has {expected}; seed {departure['seed']}."
        )
        return Verdict("wrong", reason, drawn[-1].error, tolerance, drawn, **departure)
    steady = [x.error for x in drawn if x.error is not None and x.tolerance == tolerance]
    error = max(steady, default=None)
    if lost := [x for x in drawn if x.tolerance is None]:
        return Verdict("undecided", told_of(lost, drawn, tolerance), error, tolerance, drawn)
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


def told_apart(*vectors: tuple[float, ...]) -> list[str]:
    """Two vectors in so many digits, six at least, that they differ."""

    def texts(digits: int) -> list[str]:
        return [f"({', '.join(f'{x:.{digits}g}' for x in vector)})" for vector in vectors]

    return next((told for told in map(texts, range(6, 17)) if told[0] != told[1]), texts(17))


def told_of(lost: list[Draw], drawn: tuple[Draw, ...], tolerance: float) -> str:
    """Why nothing could be told at some draws."""
    worst = max(lost, key=lambda x: x.amplification)
    tokens = dict(worst.sizes)["T"]
    if worst.error is None:
        why = f"the loop itself runs to NaN or infinity in {tokens} tokens"
    elif worst.amplification > ROOM * tolerance / UNIT["float64"]:
        why = (
            f"the loop makes a change of its inputs {worst.amplification:.0e} times as large in "
            f"{tokens} tokens, so that rounding in float64 would hide a fault"
        )
    else:
        why = (
            f"the error is {worst.error:.1g} and what a unit in the last place makes there is "
            f"{worst.amplification * UNIT['float64']:.1g}: too much to pass, and too little to be "
            "surely more than rounding in a loop that divides by norms"
        )
    others = "" if len(lost) == len(drawn) else "; it agrees at the others"
    return f"At {len(lost)} of {len(drawn)} draws nothing can be told, since {why}{others}."
