"""How long proofs take as nets grow deeper, beside SymPy's `expand` on explicit matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from .benchmark import Benchmark, Case, NotRunError, Plot, Settings
from .child import printed
from .explicit import WIDTH
from .timing import Row, spread

DEPTHS = (1, 2, 3, 4, 6, 8, 12)
ACTIVATIONS = ("silu", "tanh", "act")  # the last one is abstract
WAYS = {"proof": "proof, every width", "expand": f"SymPy, width {WIDTH}"}
LIMIT = 60.0  # seconds of one run

Timed = Callable[[str, str, int], float]


def seconds(way: str, activation: str, depth: int) -> float:
    """The processor's seconds in a fresh process, imports not counted."""
    module = f"{__package__}.one_proof"
    return float(printed(module, way, activation, depth, limit=LIMIT))


def deeper(
    timed: Timed, way: str, activation: str, depths: tuple[int, ...], repeats: int
) -> Iterator[Row]:
    """One row a depth, up to the first that takes too long.

    growth: the exponent of the depth in the time, from the depth before to this one.
    """
    before: tuple[int, float] | None = None
    for depth in depths:
        row: Row = {"depth": depth}
        try:
            taken = [timed(way, activation, depth) for _ in range(repeats)]
        except NotRunError as error:
            yield row | {"not_run": str(error)}
            return
        row |= {"median_s": median(taken), "spread_s": spread(taken), "repeats": repeats}
        if before:
            grown = row["median_s"] / before[1]
            row["growth"] = math.log(grown) / math.log(depth / before[0])
        before = depth, row["median_s"]
        yield row


def cases(settings: Settings, timed: Timed = seconds) -> Iterator[Case]:
    """One case for each way and activation."""
    depths = (1, 2) if settings.quick else DEPTHS
    for way, told in WAYS.items():
        for activation in ACTIVATIONS:
            common = {"line": f"{told}, {activation}"}
            repeats = settings.pick(3, 1)
            yield Case(common, partial(deeper, timed, way, activation, depths, repeats))


DEPTH = Benchmark(
    "proof_depth",
    "The gradients of all weights of an MLP and its linear attention, proved for every width and "
    "length (`reduce`); beside it the gradients alone on explicit matrices of one width, by "
    "SymPy's `expand`. Processor's seconds in a fresh process; growth: the exponent of the depth. "
    "Act is an abstract activation.",
    ("cpu",),
    cases,
    (
        ("line", "way"),
        ("depth", "depth"),
        ("median_s", "s"),
        ("spread_s", "IQR s"),
        ("repeats", "repeats"),
        ("growth", "growth"),
    ),
    Plot("lines", ("depth",), "line", (("median_s", "seconds"),)),
)
