"""The trials of `check`: sizes and values at which code is most often wrong, at every seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ..loops import InnerLoop
from .sampling import Values, ragged, square, widths

LONG = 130  # tokens, so that a fault in the third tile of 64 shows
TRIALS = 8
SQUARE = 1  # the trial at which all weights are square
AGAIN = 7  # the trial at the sizes of the one before, with other values


@dataclass(frozen=True)
class Trial:
    """What is fixed of a trial: sizes, of which others are random, and how values are chosen."""

    sizes: dict[str, int] = field(default_factory=dict)
    values: Values = field(default_factory=Values)


def trial_of(loop: InnerLoop, seed: int, number: int) -> Trial:
    """A trial of a loop; after the first TRIALS all sizes are random.

    Rows: batch, heads, tokens, widths, values. A single chunk may be read before its update, so
    those of several chunks (all but the third and fifth) have all of 1, more, 1 < K < V, K = V and
    K > V > 1, inner widths of 1, those above both and those below both.
    Muon is steady over many steps where keys have width 1, so for operators on matrices the long
    trial and a short one change their widths; and the long one is half as long.
    """
    if number == AGAIN:
        sizes = trial_of(loop, seed - 1, number - 1).sizes
        return Trial(sizes, Values(ends=1))
    chunk, images = loop.schedule.chunk, bool(loop.net.tokens)
    least = chunk if images else 1
    half, few = 0 if images else -(-chunk // 2), chunk if chunk > least else 3 * chunk
    low, mid, high = sorted(random.Random(seed).sample(range(2, 6), 3))
    rising, narrow = widths(loop, low, (high, high + 1), mid), widths(loop, 1, (high,), low)
    acting = bool(loop.rule.of_kind("operator"))
    first, other = (narrow, rising) if acting else (rising, narrow)
    longest = LONG // 2 if acting else LONG - 1
    falling = widths(loop, high + 1, (low + 1, low), mid + 1)
    plan = (
        (2, 2, ragged(loop, chunks(chunk, longest)), first, Values(lasting=True)),
        (1, 3, chunks(chunk, LONG // 2 - 1) * chunk, square(loop, seed), Values()),
        (1, 1, least, widths(loop, mid, (high + 1, high), low), Values()),
        (2, 1, 2 * chunk + half, widths(loop, mid, (1,), 1), Values()),
        (3, 2, few, widths(loop, mid + 1, (low + 1, low), high + 1), Values()),
        (1, 2, ragged(loop, 2), other, Values(large=LARGE)),
        (2, 1, 2 * chunk + half, falling, Values(ends=0)),
    )
    if number >= len(plan):
        return Trial()
    batch, heads, tokens, wide, values = plan[number]
    return Trial({"B": batch, "H": heads, "T": tokens, **wide}, values)


LARGE = 5.0  # what tokens are multiplied by where they are large


def chunks(chunk: int, tokens: int) -> int:
    """How many chunks of so many tokens have these at least, and at least two."""
    return max(-(-tokens // chunk), 2)
