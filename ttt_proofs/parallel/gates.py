"""What gradients weigh in the state: the update rule itself, run on units.

A tile is some steps in a row. W and M after each of its steps are sums of the tile's gradients and
of the M and W it started from; the coefficients are found by giving the rule units for all of
these. So there is no second writing of the rule, and nothing is divided: rates and momenta of 0
and 1 are as good as others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..symbolic.torch_code import TorchLoop, torch_loop
from .inputs import Number


@dataclass(frozen=True)
class Coefficients:
    """Rows: before the first update of a tile, and after each. Columns: what is summed.

    state: `[B, H, N, updates + 1, columns]` for N tiles, with dimensions of size 1 where all are
    equal; accumulators: the same row by row, `[B, H, N, 1, columns]`. The last columns are what
    the tile starts from: M where the loop has momentum, then W; those before are gradients, one
    for each step, or one for each update where `apart`.
    """

    state: Tensor
    accumulators: tuple[Tensor, ...]
    entering: int

    def kept(self, row: int) -> Tensor:
        """What is carried on after some updates, the accumulator if there is one and the state.

        `[B, H, N, m, columns]`.
        """
        state = self.state[..., row, None, :]
        return torch.cat([self.accumulators[row], state], dim=-2) if self.entering == 2 else state


def entering(loop: InnerLoop) -> int:
    """How many matrices a tile starts from: M and W, or W alone."""
    return 2 if loop.update.momentum else 1


def linear(
    code: TorchLoop, g: Tensor, w: Tensor, m: Tensor, eta: Number | None, alpha: Number | None
) -> tuple[Tensor, Tensor]:
    """The next W and M, of what the rule is without the gates of clip and norm."""
    m = code.accumulate(g, m, 1, eta, alpha)
    return code.move(w, m, 1, eta, None), m


def each_step(x: Number | None, steps: int) -> Sequence[Number | None]:
    """The number of each step of every tile, `[B, H, N, 1, 1]`; or as often as needed the one."""
    if isinstance(x, Tensor) and x.ndim:
        return x[..., None, None].unbind(3)
    return [x] * steps


def coefficients(
    loop: InnerLoop,
    eta: Number | None,
    alpha: Number | None,
    like: Tensor,
    steps: int,
    *,
    apart: bool = False,
) -> Coefficients:
    """Of a tile of `steps` steps. eta, alpha: `[B, H, N, steps]`, a number, or None.

    `like` gives dtype and device. apart: whether the gradients of a step's updates are told
    apart, as they must be if they differ.
    """
    code, each, count = torch_loop(loop), loop.schedule.steps, entering(loop)
    columns = steps * (each if apart else 1)
    tiles = [x.shape[:-1] for x in (eta, alpha) if isinstance(x, Tensor) and x.ndim]
    shape = (*(tiles[0] if tiles else (1, 1, 1)), 1, columns + count)
    units = torch.eye(columns + count, dtype=like.dtype, device=like.device)
    w, m = units[-1].expand(shape), (units[-2] * (count - 1)).expand(shape)
    rates, momenta = each_step(eta, steps), each_step(alpha, steps)
    states, accumulators = [w], [m]
    for update in range(steps * each):
        n = update // each
        unit = units[update if apart else n].expand(shape)
        w, m = linear(code, unit, w, m, rates[n], momenta[n])
        states.append(w)
        accumulators.append(m)
    rows = torch.cat([w.movedim(-2, 0) for w in states])  # the fastest way to lay them side by side
    return Coefficients(rows.movedim(0, -2), tuple(accumulators), count)
