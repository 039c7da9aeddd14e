"""The most memory that a form needs, read in a process that does nothing else.

The peak is the `VmHWM` of Linux, which starts anew with the program; `ru_maxrss` does not: it
begins with what the parent held when it started the child.
"""

from __future__ import annotations

import re
from pathlib import Path

from .benchmark import NotRunError
from .child import printed

STATUS = Path("/proc/self/status")
CHILD = f"{__package__}.one_run"  # which imports this module


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
    return int(printed(CHILD, which, heads, width, tokens))
