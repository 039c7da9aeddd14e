"""The kernel witness: Triton kernels against the real inner loop, in the precisions they run in."""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..dispatch import obstacle
from ..kernel_form import kernel_form
from ..loops import InnerLoop
from ..parallel import forms
from ..parallel.calls import in_own_precision
from ..parallel.rounding import amplification
from ..reference.oracle import run_loop
from .autograd import Run, measured
from .conditioning import relative_errors
from .sampling import Inputs, random_inputs
from .tolerances import NOISE, SMALLEST_SCALE, budget, is_normalised
from .types import Observation

DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16, torch.float16)}
TOKENS = {"cpu": 67, "cuda": 1003}  # more than a tile of any kernel, and no multiple of one
FEW = 9
WIDTHS = {"cpu": 16, "cuda": 64}  # the least; kernels treat narrow ones with more care than wide


def without_kernel(loop: InnerLoop, device: str) -> str | None:
    """Why the witness has nothing to say of a loop, in words; None where it has.

    On the CPU it switches Triton's interpreter on, if triton was not imported before.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device == "cpu" and "triton" not in sys.modules:
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from ..kernels.requirements import INTERPRETED, interpreter_fault

    if device == "cpu" and not INTERPRETED:
        return "Triton was imported before its interpreter was switched on"
    if INTERPRETED and (fault := interpreter_fault()):
        return fault
    if is_normalised(loop):
        return "norms and Muon enlarge rounding, so that short floats say nothing of it"
    return obstacle(loop)


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is allocated without a value holds NaN, so what nobody writes shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=warned)


def kernel_witness(loop: InnerLoop, *, seed: int, device: str = "cpu") -> Observation:
    """Whether the loop's kernel is as exact as plain PyTorch is in the same precision.

    Three programs run on the same inputs: the loop itself in float64 (`reference.run_loop`), the
    parallel form in the precision, and the kernel, interpreted on the CPU and compiled on CUDA,
    on memory that is poisoned; first at widths that differ, then at equal ones, where a transpose
    has the right shape. Compared are outputs, final weights, and the gradients of the
    functional of `autograd_witness`. The error of each of the kernel's tensors may be twice that
    of the plain form's, or a few units in the last place if that is more (`tolerances.budget`).
    Of the Observation, `max_relative_error` and `tolerance` are those of the tensor that uses
    most of its budget; `trials` counts precisions.

    loop: one for which `without_kernel` is None. seed: an integer. device: "cpu" or "cuda".
    Source: the error budget is the field's usual one, for kernels that sum in another order.
    """
    found: dict[str, tuple[float, float]] = {}
    for dtype in DTYPES[device]:
        label = str(dtype).removeprefix("torch.")
        for square in (False, True):
            for name, each in errors(loop, dtype, seed, device, square=square).items():
                name = f"{label}: {name}"
                found[name] = max(each, found.get(name, each), key=lambda pair: used(*pair))
    worst = max(found, key=lambda name: used(*found[name]))
    error, allowed = found[worst]
    inputs, _ = drawn(loop, DTYPES[device][0], seed, device)
    enlarged = amplification(
        lambda **x: run_loop(loop, **x)[0], vars(widened(inputs)), directions=1
    )
    return Observation(
        agrees=used(error, allowed) <= 1,
        max_relative_error=error,
        tolerance=allowed,
        trials=len(DTYPES[device]),
        device=device,
        dtype="+".join(str(d).removeprefix("torch.") for d in DTYPES[device]),
        what=tuple(found),
        worst=worst,
        amplification=enlarged,
        undecided=sum(enlarged * torch.finfo(d).eps > NOISE for d in DTYPES[device]),
    )


def used(error: float, allowed: float) -> float:
    """How much of its budget an error takes; infinite where either is no finite number."""
    return error / allowed if math.isfinite(error) and math.isfinite(allowed) else math.inf


def errors(
    loop: InnerLoop, dtype: torch.dtype, seed: int, device: str, *, square: bool = False
) -> dict[str, tuple[float, float]]:
    """The kernel's error of each tensor, relative to the reference, and what it may be."""
    inputs, draw = drawn(loop, dtype, seed, device, square=square)
    expected = measured(partial(run_loop, loop), draw, widened(inputs))
    plain = measured(called(in_own_precision(forms.parallel(loop)), loop), draw, inputs)
    with poisoned():
        found = measured(called(kernel_form, loop), draw, inputs)
    allowed = relative_errors(plain, expected, SMALLEST_SCALE)
    made = relative_errors(found, expected, SMALLEST_SCALE)
    return {name: (error, budget(dtype, allowed.get(name, 0.0))) for name, error in made.items()}


def drawn(
    loop: InnerLoop, dtype: torch.dtype, seed: int, device: str, *, square: bool = False
) -> tuple[Inputs, int]:
    """Inputs, many at widths that differ or few at equal ones, and what draws all else."""
    rng = random.Random(seed)
    start, draw = rng.getrandbits(63), rng.getrandbits(63)
    least = FEW if square else TOKENS[device]
    sizes = {"B": 1, "H": 2, "T": max(least, 2 * loop.schedule.chunk + 1)}
    names = sorted({side.name for w in loop.net.weights for side in (w.rows, w.cols)})
    sizes |= {name: WIDTHS[device] + 8 * n * (not square) for n, name in enumerate(names)}
    return random_inputs(loop, start, dtype=dtype, device=device, sizes=sizes), draw


def called(form: Any, loop: InnerLoop) -> Run:
    """A form of the loop, called as those of a reduction are."""

    def run(
        q: Tensor, k: Tensor, v: Tensor, *, weights: Mapping[str, Tensor], coefficients: Any
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        return form(loop, q, k, v, weights, coefficients)

    return run


def widened(inputs: Inputs) -> Inputs:
    """The same numbers in float64, on the CPU."""

    def wide(x: Any) -> Any:
        if isinstance(x, Mapping):
            return {name: wide(y) for name, y in x.items()}
        return x.detach().to("cpu", torch.float64) if isinstance(x, Tensor) else x

    return replace(inputs, **{name: wide(x) for name, x in vars(inputs).items()})
