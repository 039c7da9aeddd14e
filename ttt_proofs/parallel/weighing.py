"""What gradients weigh in the states: the update rule itself, run on units.

A tile is some steps in a row. The weight and the buffers after each of its steps are sums of the
tile's gradients and of the states that it started from; the coefficients are found by giving the
rule units for all of these. So there is no second writing of the rule, and nothing is divided:
rates and momenta of 0 and 1 are as good as others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..symbolic.torch_loop import TorchLoop
from .inputs import Number


@dataclass(frozen=True)
class Weighing:
    """Rows: before the first update of a tile, and after each. Columns: what is summed.

    state: of the weight, `[B, H, N, updates + 1, columns]` for N tiles, with dimensions of size 1
    where all are equal; buffers: of each buffer the same row by row, `[B, H, N, 1, columns]`. The
    last columns are what the tile starts from: the buffers, then the weight; those before are
    gradients, one for each step, or one for each update where `apart`.
    """

    state: Tensor
    buffers: tuple[tuple[Tensor, ...], ...]

    @property
    def entering(self) -> int:
        """How many matrices a tile starts from: the buffers and the weight."""
        return len(self.buffers) + 1

    def kept(self, row: int) -> Tensor:
        """What is carried on after some updates, `[B, H, N, m, columns]`: buffers, then weight."""
        if torch.compiler.is_compiling():  # lengths are symbols, which a tuple has no index for
            buffers = [torch.stack(each).narrow(0, row, 1)[0] for each in self.buffers]
        else:
            buffers = [each[row] for each in self.buffers]
        return torch.cat([*buffers, self.state.narrow(-2, row, 1)], dim=-2)


def each_step(numbers: Mapping[str, Number], steps: int) -> list[Sequence[Number]]:
    """Each number at every step of every tile, `[B, H, N, 1, 1]`; or as often as needed the one."""
    return [
        x[..., None, None].unbind(3) if isinstance(x, Tensor) and x.ndim else [x] * steps
        for x in numbers.values()
    ]


def weighing(
    code: TorchLoop,
    numbers: Mapping[str, Number],
    like: Tensor,
    steps: int,
    *,
    apart: bool = False,
) -> Weighing:
    """Of a tile of `steps` steps. numbers: the coefficients, `[B, H, N, steps]`, or one number.

    `like` gives dtype and device. apart: whether the gradients of a step's updates are told
    apart, as they must be if they differ.
    """
    each, names = code.schedule.steps, (*code.buffers, "W")
    columns = steps * (each if apart else 1)
    tiles = [x.shape[:-1] for x in numbers.values() if isinstance(x, Tensor) and x.ndim]
    shape = (*(torch.broadcast_shapes(*tiles) if tiles else (1, 1, 1)), 1, columns + len(names))
    units = torch.eye(columns + len(names), dtype=like.dtype, device=like.device)
    now = [units[columns + n].expand(shape) for n in range(len(names))]
    rows = [[x] for x in now]
    # Names are places in a list here: the loop over steps is in Python, and counts.
    lines = [x for x in code.lines if x.kind == "state"]
    gates = [x.seen for x in code.lines if x.kind == "gate"]
    places = {name: n for n, name in enumerate((*names, "G", *numbers, *gates))}
    places |= {x.seen: len(places) + n for n, x in enumerate(lines)}
    made = [(places[x.seen], x.made.function, [places[y] for y in x.made.reads]) for x in lines]
    after = [places[next(x.seen for x in lines if x.target == name)] for name in names]
    known: list[Any] = [
        *now,
        None,
        *[None] * len(numbers),
        *[1.0] * len(gates),
        *[None] * len(made),
    ]
    given = list(zip(*each_step(numbers, steps), strict=True)) if numbers else [()] * steps
    unit, first = len(names), len(names) + 1
    for update in range(steps * each):
        n = update // each
        known[first : first + len(numbers)] = given[n]
        known[unit] = units[update if apart else n].expand(shape)
        for target, function, reads in made:
            known[target] = function(*[known[place] for place in reads])
        known[:unit] = [known[place] for place in after]
        for all_, value in zip(rows, known, strict=False):
            all_.append(value)
    *buffers, state = rows
    laid = torch.cat([w.movedim(-2, 0) for w in state])  # the fastest way to lay them side by side
    return Weighing(laid.movedim(0, -2), tuple(map(tuple, buffers)))
