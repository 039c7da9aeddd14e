"""All benchmarks, by name and by the device that suits them."""

from __future__ import annotations

from .benchmark import Benchmark
from .cpu_forms import FORMS, GROWTH
from .depth import DEPTH
from .gpu_checks import GPU_ACCURACY, GPU_GRAPHS
from .gpu_operators import GPU_OPERATORS
from .lact_ladder import LADDER
from .training import TRAINING

# In this order on a device: what must be right before what is only as fast as it is.
BENCHMARKS = {
    b.name: b
    for b in (
        GPU_ACCURACY,
        GPU_OPERATORS,
        GPU_GRAPHS,
        FORMS,
        GROWTH,
        LADDER,
        TRAINING,
        DEPTH,
    )
}


def suiting(device: str) -> tuple[Benchmark, ...]:
    """The benchmarks that are meant for a device, cpu or cuda."""
    return tuple(b for b in BENCHMARKS.values() if device in b.devices)
