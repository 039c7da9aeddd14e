"""The kernels beside flash-linear-attention, and beside what the device can do at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import torch

from .benchmark import Benchmark, Case, NotRunError, Plot, Settings, error_row, worst_error
from .differentiate import both, forward, leaves, like
from .operator_cases import OPERATORS, Operator, Pass, Sizes, fla_version, require_device
from .timing import Clock, Row, Times, Way, clock_of, interleaved

Run = Callable[[], tuple[torch.Tensor, ...]]

REPEATS = 21
LONG = {"B": 8, "H": 16, "T": 8192}


@dataclass(frozen=True)
class Target:
    """What is aimed for on an H100, in bfloat16.

    faster: least ratios to rivals. slower: the most times as long as our additive operator of the
    same sizes. roofline: least share of the copy bandwidth, compulsory bytes counted; matmul:
    least share of the matrix units' rate instead.
    """

    operator: str
    which: Pass
    sizes: Sizes
    ms: float | None = None
    faster: dict[str, float] = field(default_factory=dict)
    slower: float | None = None
    roofline: float | None = None
    matmul: float | None = None


def additive(
    which: Pass, ms: float, ratio: float, roofline: float, fused: float | None = None, **sizes: int
) -> Target:
    """A target of the additive operator."""
    faster = {"fla": ratio} | ({} if fused is None else {"fla fused_chunk": fused})
    return Target("linear_attention", which, Sizes(**sizes), ms, faster, None, roofline)


WIDE = Sizes(**LONG, d=128)
TARGETS = (
    additive("forward", 0.48, 2.0, 0.75, 1.05, **LONG, d=128),
    additive("forward", 0.25, 1.5, 0.72, 1.05, **LONG, d=64),
    additive("both", 1.8, 2.5, 0.55, **LONG, d=128),
    additive("both", 0.85, 1.7, 0.58, **LONG, d=64),
    additive("forward", 0.33, 1.85, 0.54, B=2, H=16, T=16384, d=128),
    Target("momentum_attention", "forward", WIDE, 0.60, {}, 1.25, 0.60),
    Target("momentum_attention", "both", WIDE, 2.4, {}, 1.35, 0.41),
    Target("delta_rule", "forward", WIDE, 1.1, {"fla": 1.6}, None, 0.33),
    Target("delta_rule", "both", WIDE, 3.6, {"fla": 1.6}, None, 0.27),
    Target("swiglu_attention", "forward", WIDE, 0.65, {"features + fla": 1.9}, None, 0.55),
    Target("swiglu_features", "forward", Sizes(B=1, H=4, T=32768, d=384), matmul=0.55),
)


@dataclass
class Ceilings:
    """What this device can do, measured in this run: bytes and operations per second."""

    copy: float | None = None
    matmul: float | None = None

    def measure(self, clock: Clock, device: str, quick: bool) -> Iterator[Row]:
        """A large copy, bytes read and written counted, and a large matrix product, on random data.

        The product is in bfloat16; both are what the rows after these are compared with.
        """
        count, side = (2**16, 64) if quick else (2**30, 8192)
        source = torch.randn(count, device=device).to(torch.bfloat16)
        target = torch.empty_like(source)
        a, b = torch.randn(2, side, side, device=device).to(torch.bfloat16).unbind()
        ways: dict[str, Way] = {"copy": lambda: target.copy_(source), "matmul": lambda: a @ b}
        times = interleaved(ways, 3 if quick else REPEATS, clock, warmup=3)
        copy, matmul = times.row("copy"), times.row("matmul")
        bandwidth = 4 * count / (copy["median_ms"] / 1000)
        rate = 2 * side**3 / (matmul["median_ms"] / 1000)
        self.copy, self.matmul = bandwidth, rate
        yield {"operator": "copy", **copy, "gb_per_s": bandwidth / 1e9}
        yield {"operator": "bfloat16 matmul", **matmul, "tflops": rate / 1e12}


def small(sizes: Sizes) -> Sizes:
    """Sizes that the interpreter runs in moments."""
    return Sizes(B=1, H=1, T=20, d=min(sizes.d, 128) // 8)


def ways_of(
    target: Target, operator: Operator, sizes: Sizes, device: str
) -> tuple[dict[str, Run], dict[str, str]]:
    """What is timed for a target, ours first, and why a rival is missing."""
    tensors = operator.make(sizes, torch.bfloat16, device, 0)
    functions: dict[str, Callable[..., torch.Tensor]] = {"ours": operator.ours()}
    ways: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name, find in operator.rivals.items():
        try:
            functions[name] = find()
        except NotRunError as error:
            missing[name] = str(error)
        except Exception as error:  # one that is broken here must not hide our own numbers
            missing[name] = f"failed: {type(error).__name__}"
    args = leaves(tensors)
    do = like(functions["ours"](*tensors))
    for name, function in functions.items():
        ways[name] = (
            partial(forward, function, tensors)
            if target.which == "forward"
            else partial(both, function, args, do)
        )
    if target.slower is not None:
        ours = OPERATORS["linear_attention"].ours()
        ways["additive"] = (
            partial(forward, ours, tensors[:3])
            if target.which == "forward"
            else partial(both, ours, args[:3], do)
        )
    return ways, missing


def measure(target: Target, settings: Settings, clock: Clock, ceilings: Ceilings) -> Iterator[Row]:
    """One row for ours and one for each rival, timed in turns."""
    require_device(settings)
    operator, sizes = OPERATORS[target.operator], target.sizes
    ways, missing = ways_of(target, operator, sizes, settings.device)
    times = interleaved(ways, settings.pick(REPEATS, 1), clock, warmup=settings.pick(3, 0))
    moved = operator.compulsory_bytes(sizes, target.which, 2)
    common = {
        "operator": target.operator,
        "pass": target.which,
        **asdict(sizes),
        "dtype": "bfloat16",
    }
    found = {
        name: way()
        for name, way in ways.items()
        if name not in times.failures and name != "additive"
    }
    for name in ways:
        row = {**common, "by": name, **times.row(name)}
        if "problem" not in row:
            if name != "additive":
                row |= speeds(row["median_ms"], target, sizes, moved, ceilings)
            if name == "ours":
                row |= judged(row, target, times)
                if not all(bool(x.isfinite().all()) for x in found["ours"]):
                    row["problem"] = "the output or a gradient is not finite"
            elif name != "additive" and "ours" in found:
                row |= error_row(worst_error(found["ours"], found[name]), torch.bfloat16)
            row |= {"ratio": times.ratio(name, "ours")}
        yield row
    for name, why in missing.items():
        yield {**common, "by": name, "not_run": why}


def speeds(ms: float, target: Target, sizes: Sizes, moved: int, ceilings: Ceilings) -> Row:
    """Bandwidth by compulsory bytes, or rate by operations, and the share of what was measured."""
    seconds = ms / 1000
    row: Row = {"gb_per_s": moved / seconds / 1e9}
    if ceilings.copy is not None:
        row["of_roofline"] = moved / seconds / ceilings.copy
    if target.matmul is not None:
        rate = 4 * sizes.rows * sizes.d**2 / seconds  # two products
        row["tflops"] = rate / 1e12
        if ceilings.matmul is not None:
            row["of_matmul"] = rate / ceilings.matmul
    return row


def judged(row: Row, target: Target, times: Times) -> Row:
    """The targets, and which were missed; a target that could not be compared is not met."""
    missed = []
    if target.ms is not None and row["median_ms"] > target.ms:
        missed.append(f"{target.ms} ms")
    for name, least in target.faster.items():
        ratio = times.ratio(name, "ours") if name in times.rounds else None
        if ratio is None:
            missed.append(f"{least}× {name} (not compared)")
        elif ratio < least:
            missed.append(f"{least}× {name}")
    if target.slower is not None:
        ratio = times.ratio("ours", "additive")
        if ratio is None or ratio > target.slower:
            missed.append(f"≤ {target.slower}× additive")
        row = {**row, "of_additive": ratio}
    for key, least in (("of_roofline", target.roofline), ("of_matmul", target.matmul)):
        if least is not None and not row.get(key, 0.0) >= least:
            missed.append(f"{100 * least:.0f}% {key.replace('_', ' ')}")
    return {
        "of_additive": row.get("of_additive"),
        "target_ms": target.ms,
        "met": not missed,
        "missed": ", ".join(missed) or None,
    }


def cases(settings: Settings) -> Iterator[Case]:
    """The ceilings first, then one case for each target."""
    ceilings, kept = Ceilings(), []

    def clock() -> Clock:  # made once, when first needed
        kept[:] = kept or [clock_of(settings.device)]
        return kept[0]

    def first() -> Iterator[Row]:
        yield from ceilings.measure(clock(), settings.device, settings.quick)

    rival = fla_version()
    yield Case({"fla": rival}, first)
    for target in TARGETS:
        if settings.quick:
            target = replace(target, sizes=small(target.sizes))
        common = {
            "fla": rival,
            "operator": target.operator,
            "pass": target.which,
            **asdict(target.sizes),
        }
        yield Case(common, lambda t=target: measure(t, settings, clock(), ceilings))


GPU_OPERATORS = Benchmark(
    "gpu_operators",
    "Each operator in bfloat16 beside flash-linear-attention in the same run, against the copy "
    "bandwidth (compulsory bytes, read and written) and matrix rate measured first. "
    "Ratio: this row's time over ours. Error: against ours, in every gradient too.",
    ("cuda",),
    cases,
    (
        ("operator", "operator"),
        ("pass", "pass"),
        ("B", "B"),
        ("H", "H"),
        ("T", "T"),
        ("d", "d"),
        ("by", "by"),
        ("median_ms", "ms"),
        ("spread_ms", "IQR ms"),
        ("gb_per_s", "GB/s"),
        ("tflops", "TFLOP/s"),
        ("of_roofline", "of roofline"),
        ("of_matmul", "of matmul"),
        ("of_additive", "× additive"),
        ("ratio", "time / ours"),
        ("target_ms", "target ms"),
        ("met", "targets met"),
        ("missed", "missed"),
        ("fla", "fla"),
        ("error", "error"),
    ),
    Plot("bars", ("operator", "pass", "d", "T"), "by", (("median_ms", "milliseconds"),)),
)
