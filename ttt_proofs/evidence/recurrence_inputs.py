"""Random well-scaled inputs for recurrences, at sizes at which code is most often wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..loops import Recurrence
from ..program.steps import SINGLE
from ..reference import run_recurrence
from .conditioning import Drawn, steadiest
from .lasting import lasting
from .sampling import LONGEST, Inputs, with_zeros
from .scaling import bounded, corners, ends
from .tolerances import PLAIN
from .trials import LARGE, LONG, SHORT, TILED, Trial, constants, drawn_of, later, sized
from .values import PLAINLY, Number, Tensors, Values, coefficients


def draw(layer: Recurrence, seed: int, trial: Trial) -> Drawn:
    """The inputs of a trial, and the recurrence's outputs for them, from states of zeros."""

    def reference(inputs: Inputs) -> dict[str, Tensor]:
        outputs, _ = run_recurrence(
            layer, inputs.q, inputs.k, inputs.v, coefficients=inputs.coefficients
        )
        return {"outputs": outputs.detach()}

    def steady(sizes: Mapping[str, int], values: Values, draws: int) -> Drawn:
        inputs = partial(random_inputs, layer, sizes=sizes, values=values)
        return steadiest(inputs, seed, reference, PLAIN.scale, draws, layer.coefficients)

    return drawn_of(trial, steady)


def plan(layer: Recurrence, seed: int) -> tuple[Trial, ...]:
    """The trials of a recurrence, as many at every seed.

    Long ones with K < V, and with K > V and whole tiles of powers of two, near coefficients at
    which states last; two at one length with K = V, with zeros in the second; a single token; and
    short ones with a K and a V of 1, with large values, and with coefficients at the ends of their
    ranges.
    """
    low, mid, high = sorted(random.Random(seed).sample(range(2, 6), 3))
    rows, own = lasting(layer), constants(layer.coefficients)
    turns = max(2, len(corners({n: ends(x, bounded(x), gain=False) for n, x in own.items()}, ())))

    def of(batch: int, tokens: int, heads: int, key: int, value: int, **how: Any) -> Trial:
        return sized(batch, tokens, heads, {"K": key, "V": value}, **how)

    def long(turn: int) -> Trial:
        return of(3, LONG, len(rows), mid, high, lasting=turn)

    return (
        long(0),
        of(1, TILED, 3, high, low, lasting=0),
        of(2, SHORT, 3, mid, mid),
        Trial(values=Values(zeros=True), again=True),
        of(1, 1, 1, high, low),
        of(3, LONGEST, 1, 1, high),
        of(1, 3, 2, low, mid, large=LARGE),
        of(2, 5, 1, mid, 1, ends=0),
        *(of(2, 5, 1, high, mid, ends=turn) for turn in range(1, turns)),
        *(long(turn) for turn in later(rows, own)),
    )


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
    numbers = {}
    for name, kind in layer.coefficients.items():
        own = tuple(size[axis] for axis in layer.axes(name) if axis != SINGLE)
        first = tokens if kind.every == "token" else (size["H"],) if own else ()
        numbers[name] = Number((*first, *own), kind, bounded(kind))
    rows = ({},) if values.lasting is None else lasting(layer)
    given = coefficients(make, rng, numbers, values, rows=rows, steps=size["T"])
    made = Inputs(q, k, v, {}, given)
    return with_zeros(made, 1) if values.zeros else made


def sizes(inputs: Inputs) -> tuple[tuple[str, int], ...]:
    """The lengths and widths of inputs, by name."""
    batch, tokens, heads, width = inputs.q.shape
    return (("B", batch), ("T", tokens), ("H", heads), ("K", width), ("V", inputs.v.shape[3]))
