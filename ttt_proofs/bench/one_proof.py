"""Seconds of one proof, or of one check on explicit matrices, in a process that does just that."""

from __future__ import annotations

import sys
import time

import sympy as sp

from ..loops import MLP, GradientStep, InnerLoop, SquaredError
from ..reduction import reduce
from .explicit import differences


def main(way: str, activation: str, depth: int) -> None:
    """Print the processor's seconds. Raises `ValueError` where SymPy finds a difference."""
    began = time.process_time()
    if way == "proof":
        reduce(InnerLoop(MLP(depth, activation), SquaredError(), GradientStep("per_step")))
    elif any(sp.expand(difference) != 0 for difference in differences(depth, activation)):
        raise ValueError("a difference is not 0 after `expand`; correct `explicit`")
    print(time.process_time() - began)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
