"""What gradients weigh in the states: the update rule itself, run on units.

A tile is some steps in a row. The weight and the buffers after each of its steps are sums of the
tile's gradients and of the states that it started from; the coefficients are found by giving the
rule units for all of these. So there is no second writing of the rule, and nothing is divided:
rates and momenta of 0 and 1 are as good as others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    each, count = code.schedule.steps, len(code.buffers) + 1
    columns = steps * (each if apart else 1)
    tiles = [x.shape[:-1] for x in numbers.values() if isinstance(x, Tensor) and x.ndim]
    shape = (*(tiles[0] if tiles else (1, 1, 1)), 1, columns + count)
    whole = torch.eye(columns + count, dtype=like.dtype, device=like.device)
    units = whole[:, None, None, None, None].expand(-1, *shape).unbind(0)
    *buffers, weight = units[columns:]
    rows = [(weight, *buffers)]
    given = list(zip(*each_step(numbers, steps), strict=True)) if numbers else [()] * steps
    for update in range(steps * each):
        n = update // each
        unit = units[update if apart else n]
        rows.append(code.ungated(unit, *rows[-1], *given[n], None))
    state, *buffers = zip(*rows, strict=True)
    laid = torch.cat([w.movedim(-2, 0) for w in state])  # the fastest way to lay them side by side
    return Weighing(laid.movedim(0, -2), tuple(buffers))
