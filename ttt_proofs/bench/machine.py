"""What a measurement was made on: device, threads, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def all_cores() -> Iterator[None]:
    """As many threads as cores, for PyTorch and for the processes that are started meanwhile."""
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(cores())
    os.environ["OMP_NUM_THREADS"] = str(cores())
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("OMP_NUM_THREADS")
        if variable is not None:
            os.environ["OMP_NUM_THREADS"] = variable


def processor() -> str:
    """The CPU's model, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def commit() -> str | None:
    """The checkout's commit, with `+dirty` if other files than results differ from it."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", ROOT, *words], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:  # installed somewhere in another repository
        return None
    found = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{found}+dirty" if found and changed else found


def machine(device: str) -> dict[str, Any]:
    """Device name, cores or multiprocessors, threads, PyTorch, Triton, CUDA, commit."""
    triton = None
    with suppress(PackageNotFoundError):
        triton = version("triton")
    found: dict[str, Any] = {
        "device_name": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device_name": properties.name,
            "memory_gib": properties.total_memory / 2**30,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return found | {"torch": torch.__version__, "triton": triton, "commit": commit()}
