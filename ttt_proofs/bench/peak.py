"""The most memory that a form needs, read in a process that does nothing else.

The peak is the `VmHWM` of Linux, which starts anew with the program; `ru_maxrss` does not: it
begins with what the parent held when it started the child.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .benchmark import NotRunError

STATUS = Path("/proc/self/status")
CHILD = f"{__package__}.once"  # which imports this module


def resident_peak() -> int:
    """The peak resident bytes of this process. Raises NotRunError where Linux's /proc is not."""
    if not STATUS.exists():
        raise NotRunError("peak memory is read from /proc, which this system does not have")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise NotRunError("peak memory is read from VmHWM in /proc, which is not there")
    return 1024 * int(found[1])


def peak_bytes(which: str, heads: int, width: int, tokens: int) -> int:
    """The peak of a fresh process that runs the chunked form once; which: forward or both."""
    words = [sys.executable, "-m", CHILD, which, *map(str, (heads, width, tokens))]
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths}
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"measuring memory ended with code {done.returncode}: {last}")
    return int(done.stdout)
