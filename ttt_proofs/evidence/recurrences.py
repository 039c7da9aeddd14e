"""Random well-scaled inputs for recurrences, at sizes at which code is most often wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ..loops import Recurrence
from ..program.steps import SINGLE
from ..reference import run_recurrence
from .conditioning import DRAWS, Drawn, steadiest
from .sampling import LONGEST, Inputs, Tensors
from .scaling import bounded
from .tolerances import PLAIN

LONG = 64  # tokens; a fault that shows only late must still show


def draw(layer: Recurrence, seed: int, trial: int) -> Drawn:
    """The inputs of a trial, and the recurrence's outputs for them, from states of zeros."""

    def reference(inputs: Inputs) -> dict[str, Tensor]:
        outputs, _ = run_recurrence(
            layer, inputs.q, inputs.k, inputs.v, coefficients=inputs.coefficients
        )
        return {"outputs": outputs.detach()}

    inputs = partial(random_inputs, layer, sizes=edges(seed, trial))
    return steadiest(inputs, seed, reference, PLAIN.scale, DRAWS)


def edges(seed: int, trial: int) -> dict[str, int]:
    """Sizes of a trial; those that are left out are random.

    Long ones with K < V and K = V, a single token with K > V, and short ones with a V and a K of 1.
    """
    low, mid, high = sorted(random.Random(seed).sample(range(2, 6), 3))
    plan = (
        (2, 2, LONG + 1, mid, high),
        (1, 3, LONG, mid, mid),
        (1, 1, 1, high, low),
        (2, 1, 5, mid, 1),
        (3, 2, LONGEST, 1, high),
    )
    if trial >= len(plan):
        return {}
    return dict(zip(("B", "H", "T", "K", "V"), plan[trial], strict=True))


def random_inputs(layer: Recurrence, seed: int, *, sizes: Mapping[str, int]) -> Inputs:
    """Inputs of random values, and of random sizes where `sizes` fixes none, without weights.

    Rows of q, k and v are no longer than 1, and none is near 0; coefficients are uniform in their
    ranges, those without a bound in what is within 1. The same layer, seed and sizes give the same
    inputs.
    """
    rng = random.Random(seed)
    make = Tensors(rng.getrandbits(63), torch.float64, "cpu")
    most = {"B": 2, "H": 3, "T": LONGEST, "K": 5, "V": 5}
    size = {name: rng.randint(1, high) for name, high in most.items()} | dict(sizes)
    tokens = size["B"], size["T"], size["H"]
    q, k, v = (make.vectors(*tokens, size[w], width=size[w]) for w in ("K", "K", "V"))
    coefficients: dict[str, float | Tensor] = {}
    for name, kind in layer.coefficients.items():
        own = tuple(size[axis] for axis in layer.axes(name) if axis != SINGLE)
        first = tokens if kind.every == "token" else (size["H"],) if own else ()
        low, high = bounded(kind)
        shape = (*first, *own)
        coefficients[name] = make.numbers(shape, low, high) if shape else rng.uniform(low, high)
    return Inputs(q, k, v, {}, coefficients)


def sizes(inputs: Inputs) -> tuple[tuple[str, int], ...]:
    """The lengths and widths of inputs, by name."""
    batch, tokens, heads, width = inputs.q.shape
    return (("B", batch), ("T", tokens), ("H", heads), ("K", width), ("V", inputs.v.shape[3]))
