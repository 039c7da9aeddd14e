"""The forms of a reduction on the CPU: how fast they are, and how they grow with the sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ..evidence.sampling import Inputs, random_inputs
from ..loops import Frobenius, GradientStep, InnerLoop, Linear
from ..parallel.maps import scanned
from ..reduction import Reduction, reduce
from .benchmark import Benchmark, Case, Plot, Settings, error_row, worst_error
from .differentiate import both, forward, leaves, like
from .peak import peak_bytes
from .timing import Clock, Row, Times, Way, host_clock, interleaved

HEADS, WIDTH, TILE = 4, 64, 64
NUMBERS = ("eta", "alpha")  # the rate and the momentum

Form = Callable[..., tuple[Tensor, object]]


def gated_loop() -> InnerLoop:
    """A linear net with a rate and a momentum per step, one token a step, read after the update."""
    return InnerLoop(Linear(), Frobenius(), GradientStep("per_step", momentum="per_step"))


def gated_inputs(tokens: int, heads: int = HEADS, width: int = WIDTH, seed: int = 0) -> Inputs:
    """Random inputs of that loop, float32, batch 1."""
    sizes = {"B": 1, "T": tokens, "H": heads, "D_k": width, "D_v": width}
    return random_inputs(gated_loop(), seed, dtype=torch.float32, sizes=sizes)


def tensors_of(x: Inputs) -> list[Tensor]:
    """q, k, v, W, the rate and the momentum."""
    numbers = [torch.as_tensor(x.coefficients[name]) for name in NUMBERS]
    return [x.q, x.k, x.v, x.weights["W"], *numbers]


def outputs(form: Form, q: Tensor, k: Tensor, v: Tensor, w: Tensor, *numbers: Tensor) -> Tensor:
    """What a form makes of these tensors, without its final state."""
    given = dict(zip(NUMBERS, numbers, strict=True))
    return form(q, k, v, weights={"W": w}, coefficients=given)[0]


def forms_of(reduction: Reduction) -> dict[str, Callable[..., Tensor]]:
    """The recurrence, tiles one after the other, and tiles by a scan."""
    chunked = partial(reduction.parallel_form, tile=TILE)
    forms = {
        "recurrent": reduction.recurrent,
        "chunked": chunked,
        "scan": partial(chunked, along=scanned),
    }
    return {name: partial(outputs, form) for name, form in forms.items()}


def passes(
    functions: Mapping[str, Callable[..., Tensor]], tensors: Sequence[Tensor], which: str
) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """Each function as something to run: its forward pass, or both, on the same tensors."""
    if which == "forward":
        return {name: partial(forward, f, tensors) for name, f in functions.items()}
    do = like(next(iter(functions.values()))(*tensors))
    return {name: partial(both, f, leaves(tensors), do) for name, f in functions.items()}


def compared(
    ways: Mapping[str, Callable[[], tuple[Tensor, ...]]],
    times: Times,
    base: str,
    dtype: torch.dtype,
) -> Iterator[tuple[str, Row]]:
    """For each way its times, how many times faster than `base` it is, and its largest error."""
    wanted = ways[base]() if base not in times.failures else None
    for name, way in ways.items():
        row = times.row(name)
        if wanted is not None and "problem" not in row:
            error = worst_error(way(), wanted)
            row |= {"ratio": times.ratio(base, name), **error_row(error, dtype)}
        yield name, row


def forms_cases(
    settings: Settings, functions: Mapping[str, Callable[..., Tensor]] | None = None
) -> Iterator[Case]:
    """The forward pass, then forward and backward with gradients in all inputs."""
    tokens = settings.pick(4096, 96)
    width, repeats = settings.pick(WIDTH, 8), settings.pick(9, 2)
    common = {"B": 1, "T": tokens, "H": HEADS, "d": width, "dtype": "float32", "tile": TILE}

    def measure(which: str) -> Iterator[Row]:
        tensors = tensors_of(gated_inputs(tokens, width=width))
        ways = passes(functions or forms_of(reduce(gated_loop())), tensors, which)
        times = interleaved(ways, repeats, host_clock)
        for name, row in compared(ways, times, "recurrent", torch.float32):
            yield {"form": name, **row}

    for which in ("forward", "both"):
        yield Case({**common, "pass": which}, partial(measure, which))


def growth_cases(
    settings: Settings, clock: Clock = host_clock, peak: Callable[..., int] = peak_bytes
) -> Iterator[Case]:
    """Forward up to 65536 tokens, forward and backward up to 16384; each length twice the last."""
    first, repeats = settings.pick(4096, 128), settings.pick(5, 2)
    width = settings.pick(WIDTH, 8)

    def measure(which: str, lengths: list[int]) -> Iterator[Row]:
        form = forms_of(reduce(gated_loop()))["chunked"]
        ways: dict[str, Way] = {}
        for tokens in lengths:
            tensors = tensors_of(gated_inputs(tokens, width=width))
            ways |= {str(tokens): passes({"": form}, tensors, which)[""]}
        times = interleaved(ways, repeats, clock)
        ways.clear()
        yield from grown(times, lengths, partial(peak, which, HEADS, width))

    for which, doublings in (("forward", 4), ("both", 2)):
        lengths = [first * 2**n for n in range(settings.pick(doublings, 1) + 1)]
        common = {"B": 1, "H": HEADS, "d": width, "dtype": "float32", "tile": TILE, "pass": which}
        yield Case(common, partial(measure, which, lengths))


def grown(times: Times, lengths: Iterable[int], peak: Callable[[int], int]) -> Iterator[Row]:
    """For each length, time and memory, and how both compare with half the length.

    Memory is what the process at that length needs at most, beyond one that runs a single tile.
    """
    base, half = peak(TILE), None
    for tokens in lengths:
        row: Row = {"T": tokens, **times.row(str(tokens))}
        row["peak_mib"] = (peak(tokens) - base) / 2**20
        if half is not None:
            row["ratio"] = times.ratio(str(tokens), str(half["T"]))
            row["memory_ratio"] = row["peak_mib"] / half["peak_mib"] if half["peak_mib"] else None
        yield row
        half = row


FORMS = Benchmark(
    "cpu_forms",
    "Linear net with a rate and a momentum per step, one token a step, read after the update: "
    "the recurrence, tiles in turn and a scan over tiles. Ratio: how many times faster than the "
    "recurrence. Error: against the recurrence, outputs and, in both passes, every gradient.",
    ("cpu",),
    forms_cases,
    (
        ("pass", "pass"),
        ("form", "form"),
        ("T", "T"),
        ("H", "heads"),
        ("d", "d"),
        ("median_ms", "ms"),
        ("spread_ms", "IQR ms"),
        ("repeats", "repeats"),
        ("ratio", "× recurrence"),
        ("error", "error"),
    ),
    Plot("bars", ("pass",), "form", (("median_ms", "milliseconds"),)),
)

GROWTH = Benchmark(
    "cpu_growth",
    "Tiles in turn, as the sequence grows: time and memory against half the length, of which "
    "2 is linear. Memory: peak resident bytes of a fresh process, inputs included, less those of "
    "one that runs a single tile.",
    ("cpu",),
    growth_cases,
    (
        ("pass", "pass"),
        ("T", "T"),
        ("H", "heads"),
        ("d", "d"),
        ("median_ms", "ms"),
        ("spread_ms", "IQR ms"),
        ("repeats", "repeats"),
        ("ratio", "time(T) / time(T/2)"),
        ("peak_mib", "peak MiB"),
        ("memory_ratio", "memory(T) / memory(T/2)"),
    ),
    Plot("lines", ("T",), "pass", (("median_ms", "milliseconds"), ("peak_mib", "peak MiB"))),
)
