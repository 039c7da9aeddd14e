"""Whether the kernels are right on this device: rounding, torch.compile, CUDA graphs, caches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..evidence.kernels import poisoned, used
from ..evidence.tolerances import budget
from .benchmark import Benchmark, Case, NotRunError, Settings, relative_error, worst_error
from .differentiate import both, leaves, like
from .operator_cases import OPERATORS, Operator, Sizes, require_device
from .timing import Row

LENGTHS = (4096, 1000, 1001, 4097, 2048, 16, 1)  # the first two: in several segments, and in one
QUICK_LENGTHS = (20, 21, 1)


def results(function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output and every gradient, for a fixed random gradient of the output."""
    args = leaves(tensors)
    with torch.no_grad():
        do = like(function(*args))
    return both(function, args, do)


def accuracy(operator: Operator, settings: Settings) -> Iterator[Row]:
    """The errors of kernel and plain form against float64, for the output and each gradient.

    All that the kernel allocates is NaN before, so that nothing it leaves out goes unseen.
    """
    require_device(settings)
    sizes = Sizes(1, 1, 20, 16) if settings.quick else Sizes(2, 4, 1000, 128)
    # Triton's interpreter cuts float32 off to bfloat16 where devices round; float16 it rounds.
    dtype = torch.bfloat16 if settings.device == "cuda" else torch.float16
    tensors = operator.make(sizes, dtype, settings.device, 1)
    with poisoned():
        found = results(operator.ours(), tensors)
    plain = results(operator.plain, tensors)
    args = [x.double().requires_grad_() for x in tensors]
    exact = operator.exact(*args)
    wanted = (exact, *torch.autograd.grad(exact, args, like(found[0]).double()))
    names = ("o", *(f"d{name}" for name in operator.names))
    for name, ours, other, best in zip(names, found, plain, wanted, strict=True):
        yield {
            "T": sizes.T,
            "d": sizes.d,
            "dtype": str(dtype).removeprefix("torch."),
            "tensor": name,
            **compared(relative_error(ours, best), relative_error(other, best)),
        }


def compared(error: float, plain: float) -> Row:
    """Both errors and their quotient; more than the `budget` is a problem, and so is NaN."""
    ratio = error / plain if plain else None
    row: Row = {"error": error, "plain_error": plain, "ratio": ratio}
    allowed = budget(torch.bfloat16, plain)
    if not used(error, allowed) <= 1:
        row["problem"] = f"error {error:.1e} is over {allowed:.1e}, of the plain form's {plain:.1e}"
    return row


def compiled(operator: Operator, settings: Settings) -> Iterator[Row]:
    """torch.compile over the operator: output and gradients as without it, to the last rounding."""
    require_device(settings)
    if settings.device != "cuda":
        raise NotRunError("torch.compile cannot trace Triton's interpreter")
    yield from compiled_as(operator.ours(), operator, Sizes(2, 4, 1000, 64), settings.device)


def compiled_as(
    function: Callable[..., Tensor],
    operator: Operator,
    sizes: Sizes,
    device: str,
    backend: str = "inductor",
) -> Iterator[Row]:
    """One row: the function compiled against the operator's inputs, not compiled."""
    tensors = operator.make(sizes, torch.bfloat16, device, 2)
    wanted = results(function, tensors)
    torch.compiler.reset()
    found = results(torch.compile(function, backend=backend), tensors)
    yield {"check": "torch.compile", **same(found, wanted)}


def same(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Row:
    """The largest error, a problem above one rounding of the dtype."""
    limit = torch.finfo(wanted[0].dtype).eps
    error = worst_error(found, wanted)
    row: Row = {"error": error, "equal": all(map(torch.equal, found, wanted))}
    if not error <= limit:
        row["problem"] = f"differs by {error:.1e}"
    return row


def captured(operator: Operator, settings: Settings) -> Iterator[Row]:
    """A CUDA graph of both passes, replayed on other inputs, its results poisoned before."""
    if settings.device != "cuda":
        raise NotRunError("CUDA graphs need a GPU")
    require_device(settings)
    ours, sizes = operator.ours(), Sizes(2, 4, 1000, 64)
    args = leaves(operator.make(sizes, torch.bfloat16, "cuda", 3))
    with torch.no_grad():
        do = like(ours(*args))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            both(ours, args, do)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = both(ours, args, do)
    fresh = operator.make(sizes, torch.bfloat16, "cuda", 4)
    with torch.no_grad():
        for kept, new in zip(args, fresh, strict=True):
            kept.copy_(new)
        for result in found:
            result.detach().fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    yield {"check": "CUDA graph", **same(found, both(ours, leaves(fresh), do))}


def cache_entries() -> int:
    """Compiled kernels that the process holds, over all of `ttt_proofs.kernels`.

    Read off Triton's own caches, which have one entry for each specialisation. Raises NotRunError
    if there is none to read, as in the interpreter.
    """
    package = f"{__name__.partition('.')[0]}.kernels"
    found: dict[int, Any] = {}
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(package + "."):
            for value in vars(module).values():
                kernel = getattr(value, "fn", value)  # an autotuner's
                for each in (value, kernel):
                    if hasattr(each, "device_caches"):
                        found[id(each)] = each.device_caches
    if not found:
        raise NotRunError("Triton's caches cannot be read here")
    return sum(len(cache[0]) for caches in found.values() for cache in caches.values())


def recompiled(operator: Operator, settings: Settings) -> Iterator[Row]:
    """How many kernels other lengths compile, after the first two; none is right."""
    require_device(settings)
    lengths = QUICK_LENGTHS if settings.quick else LENGTHS
    counts = []
    for tokens in lengths:
        sizes = Sizes(1, 1, tokens, 16 if settings.quick else 64)
        results(operator.ours(), operator.make(sizes, torch.bfloat16, settings.device, 5))
        counts.append(cache_entries())
    yield {"check": "recompilation", "lengths": ", ".join(map(str, lengths)), **grew(counts)}


def grew(counts: list[int]) -> Row:
    """Entries after the first two lengths, and how many came after; any is a problem."""
    new = counts[-1] - counts[1]
    row: Row = {"entries": counts[1], "new_entries": new}
    if new:
        row["problem"] = f"{new} more kernels were compiled as T varied"
    return row


def accuracy_cases(settings: Settings) -> Iterator[Case]:
    """One case for each operator."""
    for name, operator in OPERATORS.items():
        yield Case({"operator": name}, partial(accuracy, operator, settings))


def graph_cases(settings: Settings) -> Iterator[Case]:
    """Three cases for each operator."""
    for name, operator in OPERATORS.items():
        for check, run in (
            ("recompilation", recompiled),
            ("CUDA graph", captured),
            ("torch.compile", compiled),
        ):
            yield Case({"operator": name, "check": check}, partial(run, operator, settings))


GPU_ACCURACY = Benchmark(
    "gpu_accuracy",
    "The operators in bfloat16, and the plain PyTorch form in bfloat16, against the recurrence in "
    "float64: relative errors and their quotient, at most 2. Memory was NaN before.",
    ("cuda",),
    accuracy_cases,
    (
        ("operator", "operator"),
        ("tensor", "tensor"),
        ("T", "T"),
        ("d", "d"),
        ("error", "error"),
        ("plain_error", "plain form's"),
        ("ratio", "quotient"),
    ),
)

GPU_GRAPHS = Benchmark(
    "gpu_graphs",
    "Each operator, forward and backward: compiled by torch.compile, captured in a CUDA graph and "
    "replayed on other inputs, and at other lengths: after one that is cut into segments and one "
    "that is not, no length may compile another kernel.",
    ("cuda",),
    graph_cases,
    (
        ("operator", "operator"),
        ("check", "check"),
        ("error", "error"),
        ("equal", "bit for bit"),
        ("lengths", "T"),
        ("entries", "kernels"),
        ("new_entries", "more kernels"),
    ),
)
