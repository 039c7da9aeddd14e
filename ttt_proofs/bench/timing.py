"""Times of several ways to do the same thing, taken in turns, and what follows from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import torch

Way = Callable[[], object]
Clock = Callable[[Way], float]
Row = dict[str, Any]

SHORT = 150.0  # milliseconds
FLUSH = 2**30  # bytes: 20 times the cache of an H100, and longer to fill than launches take


@dataclass(frozen=True)
class Times:
    """Milliseconds of each way in each round; a way that raised has its error in place of them."""

    rounds: Mapping[str, list[float]]
    failures: Mapping[str, str] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        """Median, interquartile range and number of rounds; the failure if there is one."""
        if name in self.failures:
            return {"problem": self.failures[name]}
        taken = self.rounds[name]
        return {"median_ms": median(taken), "spread_ms": spread(taken), "repeats": len(taken)}

    def ratio(self, slow: str, fast: str) -> float | None:
        """How many times faster `fast` is: the median of each round's quotient; None if unknown.

        Both times of a quotient are of one round, so that what slows the machine down for long
        slows both.
        """
        if any(x in self.failures or not self.rounds.get(x) for x in (slow, fast)):
            return None
        pairs = zip(self.rounds[slow], self.rounds[fast], strict=True)
        return median(a / b for a, b in pairs)


def spread(values: list[float]) -> float:
    """The interquartile range; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return high - low


def interleaved(ways: Mapping[str, Way], repeats: int, clock: Clock, warmup: int = 1) -> Times:
    """Each way once a round, `repeats` rounds, another way first in each.

    A way that raises is left out from then on, and its error is kept.
    """
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    failures: dict[str, str] = {}

    def attempt(name: str, once: Callable[[Way], float | None]) -> None:
        if name in failures:
            return
        try:
            taken = once(ways[name])
        except Exception as error:  # one way's failure must not hide the others' times
            failures[name] = told(error)
        else:
            if taken is not None:
                rounds[name].append(taken)

    for name in ways:
        for _ in range(warmup):
            attempt(name, clock)
        rounds[name].clear()
    order = list(ways)
    for _ in range(repeats):
        for name in order:
            attempt(name, clock)
        order = order[1:] + order[:1]
    return Times(rounds, failures)


def told(error: Exception) -> str:
    """An error in one line of reasonable length."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def host_clock(way: Way) -> float:
    """Milliseconds on the host, of work that is done when it returns.

    What takes less than SHORT is run again for about as long, and the mean of these runs counts:
    the first one finds the caches and threads as the way before it left them.
    """

    def timed(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            way()
        return 1000 * (time.perf_counter() - began) / times

    first = timed(1)
    return first if first >= SHORT else timed(min(100, 1 + int(SHORT / max(first, 1e-3))))


def device_clock() -> Clock:
    """A clock by CUDA events, each time after a write that leaves nothing of the inputs in cache.

    The write also keeps the device busy while the host launches, so that gaps between launches
    are not counted unless they are longer than it.
    """
    scratch = torch.empty(FLUSH // 4, dtype=torch.int32, device="cuda")

    def clock(way: Way) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        scratch.zero_()
        start.record()
        way()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)

    return clock


def clock_of(device: str) -> Clock:
    """The clock that fits the device, cpu or cuda."""
    return device_clock() if device == "cuda" else host_clock
