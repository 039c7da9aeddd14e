"""The chunked form run once, in a process that does nothing else, for its peak memory."""

from __future__ import annotations

import sys

import torch

from ..reduction import reduce
from .cpu_forms import forms_of, gated_loop, passes
from .peak import resident_peak


def main(which: str, heads: int, width: int, tokens: int) -> None:
    """Run the form, forward or both ways, and print the peak."""
    torch.manual_seed(0)  # drawn in float32: drawing in float64 would be the peak
    q, k, v = (torch.randn(1, tokens, heads, width) * width**-0.5 for _ in range(3))
    rate, momentum = (torch.rand(1, tokens, heads) for _ in range(2))
    tensors = [q, k, v, torch.randn(heads, width, width) * width**-0.5, rate, momentum]
    passes({"": forms_of(reduce(gated_loop()))["chunked"]}, tensors, which)[""]()
    print(resident_peak())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
