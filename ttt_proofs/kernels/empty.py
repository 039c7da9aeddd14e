"""What an operator returns where it has no tokens, no heads or no batch: nothing is launched."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .requirements import accumulator


def untouched(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    numbers: Iterable[Tensor | None],
    initial: Iterable[Tensor | None],
) -> tuple[Tensor, list[Tensor]]:
    """Outputs like v, which has no entries, and the initial states, zero where None.

    Each is a function of all inputs, so that an input gets a gradient of zeros from it, or, from
    the state that is its own, that state's.
    """
    initial = list(initial)
    inputs = [x for x in (q, k, v, *numbers, *initial) if x is not None]
    zero = torch.stack([x.flatten()[:0].sum(dtype=accumulator(q.dtype)) for x in inputs]).sum()
    states = zero.expand(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    return v + zero.to(v.dtype), [states.clone() if x is None else x + zero for x in initial]
