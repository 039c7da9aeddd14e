"""The trials of `check`: sizes and values at which code is most often wrong, at every seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..loops import InnerLoop
from ..program.coefficients import Coefficient
from .conditioning import DRAWS, Drawn
from .lasting import Near, lasting
from .sampling import INNER, RATES, ragged, square, widths
from .scaling import corners, ends, scale
from .tolerances import LOST
from .values import Values

LONG = 130  # tokens, so that a fault in the third tile of 64 shows
TILED = 128  # tokens, at least, in whole tiles of powers of two
SHORT = 9  # tokens, at least, of the two draws at the same sizes
LARGE = 5.0  # what tokens are multiplied by where they are large


@dataclass(frozen=True)
class Trial:
    """What is fixed of a trial: sizes, of which others are random, and how values are chosen.

    again: whether the sizes are those of the trial before. rough: whether the first draw is kept,
    however much the loop enlarges rounding there.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    values: Values = field(default_factory=Values)
    again: bool = False
    rough: bool = False


def plan(loop: InnerLoop, seed: int) -> tuple[Trial, ...]:
    """The trials of a loop, as many at every seed.

    A single chunk may be read before its update, so those of several chunks have all of 1, more,
    1 < K < V, K = V and K > V > 1, inner widths of 1, those above both and those below both.
    Muon is steady over many steps where keys have width 1, so for operators on matrices the long
    trial and a short one change their widths; and the long one is half as long. Square weights, and
    K > V over many steps, keep their first draw: looking for a steady one would take long.
    """
    chunk, images = loop.schedule.chunk, bool(loop.net.tokens)
    least, rest = (chunk, chunk) if images else (1, chunk - 1)
    half, few = 0 if images else -(-chunk // 2), chunk if chunk > least else 3 * chunk
    low, mid, high = sorted(random.Random(seed).sample(range(2, 6), 3))
    rising, narrow = widths(loop, low, (high, high + 1), mid), widths(loop, 1, (high,), low)
    falling, single = widths(loop, high + 1, (low + 1, low), mid + 1), widths(loop, mid, (1,), 1)
    acting = bool(loop.rule.of_kind("operator"))
    first, other = (narrow, rising) if acting else (rising, narrow)
    longest = ragged(loop, chunks(chunk, LONG // 2 if acting else LONG - 1))
    late, short = tiled(chunk, TILED // 2 if acting else TILED), 2 * chunk + half
    almost = (1 if images or chunk >= SHORT else 2) * chunk + rest
    rows, turns = lasting(loop), turns_of(loop)

    def long(turn: int) -> Trial:
        return sized(3, longest, len(rows), first, lasting=turn)

    return (
        long(0),
        sized(1, late, 3, falling, rough=True),
        sized(2, ragged(loop, chunks(chunk, SHORT)), 3, square(loop, seed), rough=True),
        Trial(values=Values(zeros=True), again=True, rough=True),
        sized(1, least, 1, widths(loop, mid, (high + 1, high), low)),
        sized(3, few, 1, widths(loop, mid + 1, (low + 1, low), high + 1)),
        sized(1, almost, 2, other, large=LARGE),
        sized(2, short, 1, single, ends=0),
        *(sized(2, short, 1, falling, ends=turn) for turn in range(1, turns)),
        *(long(turn) for turn in later(rows, constants(loop.coefficients))),
    )


def sized(
    batch: int, tokens: int, heads: int, wide: Mapping[str, int], *, rough: bool = False, **how: Any
) -> Trial:
    """A trial of these sizes."""
    return Trial({"B": batch, "T": tokens, "H": heads, **wide}, Values(**how), rough=rough)


def turns_of(loop: InnerLoop) -> int:
    """How many draws at the ends of ranges there are, two at least."""
    known, own = scale(loop, RATES, INNER), constants(loop.coefficients)
    extremes = {n: ends(x, known.ranges[n], gain=n in known.gains) for n, x in own.items()}
    return max(2, len(corners(extremes, known.gains)))


def constants(coefficients: Mapping[str, Coefficient]) -> dict[str, Coefficient]:
    """Those that are one number for the whole loop."""
    return {n: x for n, x in coefficients.items() if (x.every, x.shape) == ("loop", "scalar")}


def later(rows: tuple[Near, ...], own: Mapping[str, Coefficient]) -> range:
    """The combinations that need a long trial of their own, since a constant has one value."""
    told = {tuple(row.get(name) for name in own) for row in rows}
    return range(1, len(rows) if len(told) > 1 else 1)


def trial_of(plan: Callable[[int], tuple[Trial, ...]], seed: int, number: int) -> Trial:
    """A trial of the plan of its seed; behind the last all sizes are random."""
    trials = plan(seed)
    trial = trials[number] if number < len(trials) else Trial()
    return replace(trial, sizes=plan(seed - 1)[number - 1].sizes) if trial.again else trial


def drawn_of(trial: Trial, draw: Callable[[Mapping[str, int], Values, int], Drawn]) -> Drawn:
    """What `draw(sizes, values, draws)` gives for a trial.

    Zeros at which the loop is not finite, or enlarges rounding much, as where it divides by them,
    are given up for a draw without. Where no draw is steady, but some digits are left, a single
    sequence of one head is tried, of which one is found more easily.
    """
    if trial.values.zeros and (found := draw(trial.sizes, trial.values, 1)).steady:
        return found
    values = replace(trial.values, zeros=False)
    found = draw(trial.sizes, values, 1 if trial.rough else DRAWS)
    if found.steady or trial.rough or (found.amplification or 0) > LOST:
        return found
    alone = draw({**trial.sizes, "B": 1, "H": 1}, values, DRAWS)
    return alone if alone.steady else found


def tiled(chunk: int, tokens: int) -> int:
    """So many tokens at least, in chunks whose number is a power of two: whole tiles of such."""
    return chunk * 2 ** max(1, (-(-tokens // chunk) - 1).bit_length())


def chunks(chunk: int, tokens: int) -> int:
    """How many chunks of so many tokens have these at least, and at least two."""
    return max(-(-tokens // chunk), 2)
