"""Affine maps `x ↦ a_n x + b_n`, one after the other: what every parallel form comes down to.

a `[..., N, r, r]`, b `[..., N, r, c]`, start `[..., r, c]`, floating; results are the states before
each map, `[..., N, r, c]`, and after all, `[..., r, c]`. For one state r is 1 and a row of it is
all of the state; for state and accumulator under scalar gates r is 2; for the delta rule r is the
number of rows of the state. That maps may be combined in any grouping is what the scan rests on:
(a₂, b₂) after (a₁, b₁) is (a₂ a₁, a₂ b₁ + b₂). Nothing is ever divided.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

States = tuple[Tensor, Tensor]
Along = Callable[[Tensor, Tensor, Tensor], States]


def fold(a: Tensor, b: Tensor, start: Tensor) -> States:
    """One map after the other: least work, N steps."""
    batch, (count, rows, columns) = b.shape[:-3], b.shape[-3:]
    many = math.prod(batch)
    maps = zip(
        a.expand(*batch, count, rows, rows).reshape(many, count, rows, rows).unbind(1),
        b.reshape(many, count, rows, columns).unbind(1),
        strict=True,
    )
    states = [start.reshape(many, rows, columns)]
    for gate, shift in maps:
        states.append(torch.baddbmm(shift, gate, states[-1]))
    *before, final = states
    # Without any map, still a function of the start: ranks exchange their gradients.
    stacked = torch.stack(before, dim=1) if before else final[:, None][:, :0]
    return stacked.reshape(b.shape), final.reshape(start.shape)


def scan(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """All prefixes of the maps, in log2(N) rounds (Hillis and Steele, CACM 29, 1986)."""
    reach = 1
    while reach < b.shape[-3]:
        later, earlier = a[..., reach:, :, :], a[..., :-reach, :, :]
        shifted = later @ b[..., :-reach, :, :] + b[..., reach:, :, :]
        b = torch.cat([b[..., :reach, :, :], shifted], dim=-3)
        a = torch.cat([a[..., :reach, :, :], later @ earlier], dim=-3)
        reach *= 2
    return a, b


def scanned(a: Tensor, b: Tensor, start: Tensor) -> States:
    """The same states by a parallel scan: log2(N) rounds, and log2(N) times the work."""
    gates, shifts = scan(a, b)
    first = start[..., None, :, :]
    states = torch.cat([first, gates @ first + shifts], dim=-3)
    return states[..., :-1, :, :], states[..., -1, :, :]


def by_tile(a: Tensor, b: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The maps in tiles of `steps` maps, `[..., N', steps, r, r]` and `[..., N', steps, r, c]`.

    A last tile that is not full ends with maps that keep the state.
    """
    rows, missing = a.shape[-1], -b.shape[-3] % steps
    one = torch.eye(rows, dtype=a.dtype, device=a.device)
    a = torch.cat([a, one.expand(*a.shape[:-3], missing, rows, rows)], dim=-3)
    b = torch.cat([b, b.new_zeros(*b.shape[:-3], missing, *b.shape[-2:])], dim=-3)
    return a.unflatten(-3, (-1, steps)), b.unflatten(-3, (-1, steps))


def total(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """All the maps as one: `[..., r, r]` and `[..., r, c]`."""
    rows, columns = b.shape[-2:]
    one = torch.eye(rows, dtype=b.dtype, device=b.device).expand(*b.shape[:-3], rows, rows)
    start = torch.cat([b.new_zeros(*b.shape[:-3], rows, columns), one], dim=-1)
    shifts = torch.cat([b, torch.zeros_like(a)], dim=-1)
    # Of no maps, too, the result depends on them: a rank without tokens takes part in gradients.
    start = start + shifts[..., :0, :, :].sum(-3)
    _, final = fold(a, shifts, start)
    return final[..., columns:], final[..., :columns]
