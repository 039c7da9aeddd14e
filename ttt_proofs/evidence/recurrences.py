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
from .sampling import LONGEST, PLAINLY, Inputs, Tensors, Values
from .scaling import bounded, end_of, ends
from .tolerances import PLAIN
from .trials import AGAIN, LARGE, LONG, Trial


def draw(layer: Recurrence, seed: int, number: int) -> Drawn:
    """The inputs of a trial, and the recurrence's outputs for them, from states of zeros."""

    def reference(inputs: Inputs) -> dict[str, Tensor]:
        outputs, _ = run_recurrence(
            layer, inputs.q, inputs.k, inputs.v, coefficients=inputs.coefficients
        )
        return {"outputs": outputs.detach()}

    trial = trial_of(seed, number)
    inputs = partial(random_inputs, layer, sizes=trial.sizes, values=trial.values)
    return steadiest(inputs, seed, reference, PLAIN.scale, DRAWS, layer.coefficients)


def trial_of(seed: int, number: int) -> Trial:
    """A trial; after the first TRIALS all sizes are random.

    Long ones with K < V and K = V, in which coefficients are near one end of their ranges and near
    the other, so that states last in one of them; a single token with K > V; and short ones with a
    V and a K of 1, with large values, and twice with K > V > 1, with coefficients at their ends.
    """
    if number == AGAIN:
        return Trial(trial_of(seed - 1, number - 1).sizes, Values(ends=1))
    low, mid, high = sorted(random.Random(seed).sample(range(2, 6), 3))
    plan = (
        ((2, 2, LONG, mid, high), Values(lasting="high")),
        ((1, 3, LONG // 2, mid, mid), Values(lasting="low")),
        ((1, 1, 1, high, low), Values()),
        ((2, 1, 5, mid, 1), Values()),
        ((3, 2, LONGEST, 1, high), Values()),
        ((1, 2, 3, low, mid), Values(large=LARGE)),
        ((2, 1, 5, high, mid), Values(ends=0)),
    )
    if number >= len(plan):
        return Trial()
    sizes, values = plan[number]
    return Trial(dict(zip(("B", "H", "T", "K", "V"), sizes, strict=True)), values)


def random_inputs(
    layer: Recurrence, seed: int, *, sizes: Mapping[str, int], values: Values = PLAINLY
) -> Inputs:
    """Inputs of random values, and of random sizes where `sizes` fixes none, without weights.

    Rows of q, k and v are no longer than 1, and none is near 0; coefficients are uniform in their
    ranges, those without a bound in what is within 1, unless `values` says otherwise. The same
    arguments give the same inputs.
    """
    rng = random.Random(seed)
    make = Tensors(rng.getrandbits(63), torch.float64, "cpu")
    most = {"B": 2, "H": 3, "T": LONGEST, "K": 5, "V": 5}
    size = {name: rng.randint(1, high) for name, high in most.items()} | dict(sizes)
    tokens = size["B"], size["T"], size["H"]
    q, k, v = (
        make.vectors(*tokens, size[w], width=size[w], scale=values.large) for w in ("K", "K", "V")
    )
    coefficients: dict[str, float | Tensor] = {}
    for name, kind in layer.coefficients.items():
        own = tuple(size[axis] for axis in layer.axes(name) if axis != SINGLE)
        first = tokens if kind.every == "token" else (size["H"],) if own else ()
        low, high = bounded(kind)
        if isinstance(values.lasting, str) and kind.every == "token":
            low, high = end_of((low, high), values.lasting, size["T"])
        shape = (*first, *own)
        number = make.numbers(shape, low, high) if shape else rng.uniform(low, high)
        if values.ends is not None:
            number = make.at_ends(number, ends(kind, (low, high), gain=False), values.ends)
        coefficients[name] = number
    return Inputs(q, k, v, {}, coefficients)


def sizes(inputs: Inputs) -> tuple[tuple[str, int], ...]:
    """The lengths and widths of inputs, by name."""
    batch, tokens, heads, width = inputs.q.shape
    return (("B", batch), ("T", tokens), ("H", heads), ("K", width), ("V", inputs.v.shape[3]))
