"""How far a small change of a loop's inputs carries: what the loop makes of rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .state import State

STEP = 1e-7  # relative: far above the rounding of float64, far below what matters


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """The function of each tensor or number, in dictionaries and states too; None stays."""
    if isinstance(x, State):
        return x.map(function)
    if isinstance(x, Mapping):
        return {name: mapped(function, y) for name, y in x.items()}
    return None if x is None else function(x)


def moved(x: Any, size: float, seed: int) -> Any:
    """Each number of tensors, of dictionaries and states up or down by `size` of itself.

    Signs are drawn at random; the same seed draws the same ones on every device.
    """
    generator = torch.Generator().manual_seed(seed)

    def move(y: Tensor | float) -> Tensor | float:
        shape = y.shape if isinstance(y, Tensor) else ()
        signs = torch.randint(2, shape, generator=generator, dtype=torch.float64) * 2 - 1
        return (
            y * (1 + size * signs.to(y)) if isinstance(y, Tensor) else y * (1 + size * float(signs))
        )

    return mapped(move, x)


def amplification(run: Callable[..., Tensor], given: Mapping[str, Any], directions: int) -> float:
    """The largest `max|Δo| / max|o|` over STEP, where each number of the inputs moves by STEP.

    run: from the inputs, by name, to outputs o of any shape; given: tensors, numbers, dictionaries
    of them, a state or None, in float64 from here on. directions: how many draws of the signs.
    Infinite where an output is no finite number, and where o is 0 and does not stay so.
    """
    start = mapped(lambda x: x.double() if isinstance(x, Tensor) else x, given)
    with torch.no_grad():
        first = run(**start)
        worst = 0.0
        for seed in range(directions):
            change = run(**moved(start, STEP, seed)) - first
            largest, scale = (float(x.abs().max()) if x.numel() else 0.0 for x in (change, first))
            if not math.isfinite(largest) or (largest and not scale):
                return math.inf
            worst = max(worst, largest / scale / STEP if largest else 0.0)
    return worst
