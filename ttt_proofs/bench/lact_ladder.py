"""Tokens per second of LaCT's simplifications, as a recurrence and in parallel form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ..evidence.sampling import Inputs, random_inputs
from ..loops import InnerLoop, Schedule, ladder
from ..reduction import reduce
from .benchmark import Benchmark, Case, Plot, Settings
from .cpu_forms import compared
from .differentiate import forward
from .timing import Row, clock_of, interleaved

# Millions of tokens per second, recurrent and parallel: arXiv 2602.21204, Section 6.1, Table 2.
PAPER = {
    "v2": (11.02, 30.18),
    "v3": (12.95, 49.69),
    "v4": (13.31, 53.99),
    "v5": (14.40, 57.28),
    "v6": (89.67, 124.6),
}

FORMS = ("recurrent", "parallel")


def sizes_of(settings: Settings) -> tuple[dict[str, int], int]:
    """The sizes of a layer of LaCT-760M, and its chunk; on a CPU, or for a dry run, smaller."""
    if settings.quick:
        return {"B": 1, "T": 64, "H": 2, "D_k": 8, "D_h": 8, "D_v": 8}, 16
    if settings.device == "cpu":
        return {"B": 1, "T": 4096, "H": 4, "D_k": 96, "D_h": 96, "D_v": 96}, 256
    return {"B": 1, "T": 32768, "H": 4, "D_k": 384, "D_h": 384, "D_v": 384}, 2048


def scale_of(settings: Settings) -> str:
    """Whether these are the sizes of LaCT-760M."""
    whole = settings.device == "cuda" and not settings.quick
    return "LaCT-760M layer" if whole else "scaled down"


def forms_of(loop: InnerLoop, x: Inputs) -> dict[str, Callable[..., Tensor]]:
    """Both forms as functions of q, k, v."""
    reduction = reduce(loop)
    given = {"weights": x.weights, "coefficients": x.coefficients}

    def run(form: Callable[..., tuple[Tensor, object]], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return form(q, k, v, **given)[0]

    return {
        "recurrent": partial(run, reduction.recurrent),
        "parallel": partial(run, reduction.parallel_form),
    }


def measure(name: str, settings: Settings) -> Iterator[Row]:
    """Both forms of one variant, forward, in turns."""
    dtype = torch.bfloat16 if settings.device == "cuda" else torch.float32
    fixed, chunk = sizes_of(settings)
    loop = ladder(Schedule(chunk=chunk, read="before_update"))[name]
    known = {side.name for w in loop.net.weights for side in (w.rows, w.cols)} | {"B", "T", "H"}
    sizes = {key: size for key, size in fixed.items() if key in known}
    x = random_inputs(loop, 0, dtype=dtype, device=settings.device, sizes=sizes)
    ways = {form: partial(forward, f, (x.q, x.k, x.v)) for form, f in forms_of(loop, x).items()}
    times = interleaved(
        ways,
        settings.pick(21 if settings.device == "cuda" else 5, 2),
        clock_of(settings.device),
        warmup=settings.pick(3, 1),
    )
    common = {
        "scale": scale_of(settings),
        "B": fixed["B"],
        "T": fixed["T"],
        "H": fixed["H"],
        "d": fixed["D_k"],
        "chunk": chunk,
        "dtype": str(dtype).removeprefix("torch."),
    }
    for form, row in compared(ways, times, "recurrent", dtype):
        yield {**common, "form": form, **row, **rated(name, form, row, fixed)}


def rated(name: str, form: str, row: Row, sizes: dict[str, int]) -> Row:
    """Tokens per second, beside what the paper has on its device."""
    paper = PAPER[name][FORMS.index(form)]
    found: Row = {"paper_mtokens_per_s": paper, "paper_ratio": paper / PAPER[name][0]}
    if row.get("median_ms"):
        tokens = sizes["B"] * sizes["T"]
        found["mtokens_per_s"] = tokens / row["median_ms"] / 1000
    return found


def cases(settings: Settings) -> Iterator[Case]:
    """One case for each variant that has a parallel form."""
    for name in PAPER:
        yield Case({"variant": name.upper()}, partial(measure, name, settings))


LADDER = Benchmark(
    "ladder",
    "Forward passes of the variants V2 to V6 (Section 6.1, Table 2 of the paper), read before each "
    "chunk's update: recurrence and parallel form. Ratio: how many times faster than the "
    "recurrence; the paper's is that of its own numbers, on another device.",
    ("cpu", "cuda"),
    cases,
    (
        ("variant", "variant"),
        ("form", "form"),
        ("scale", "sizes"),
        ("T", "T"),
        ("H", "heads"),
        ("d", "d"),
        ("chunk", "chunk"),
        ("dtype", "dtype"),
        ("median_ms", "ms"),
        ("spread_ms", "IQR ms"),
        ("repeats", "repeats"),
        ("mtokens_per_s", "Mtok/s"),
        ("ratio", "× recurrence"),
        ("paper_mtokens_per_s", "paper Mtok/s"),
        ("paper_ratio", "paper × recurrence"),
        ("error", "error"),
    ),
    Plot(
        "bars",
        ("variant",),
        "form",
        (("mtokens_per_s", "million tokens per second"), ("ratio", "times the recurrence")),
    ),
)
