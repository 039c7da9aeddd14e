"""A state for each step: scans of entries, and between them gates and operators on all steps.

For loops whose gradients data alone give. What the update's lines read of each other decides the
order (`symbolic.torch_loop.Stage`); a scan may have another factor for each row, column or entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..symbolic.torch_loop import Stage, TorchLoop
from .chunks import Chunks
from .inputs import Number
from .maps import Along, by_tile, fold
from .tiles import constant_values, gradients, in_tile, repeated

Known = dict[str, Any]  # what names stand for: tensors, or numbers


def prefixes(
    a: Tensor, b: Tensor, start: Tensor, steps: int, along: Along
) -> tuple[Tensor, Tensor]:
    """The states before each map, and after all, as `along` has them; `steps` at once in products.

    a `[..., N, m, m]`, b `[..., N, m, c]`, start `[..., m, c]`. Within a tile of steps, states are
    sums of its shifts and of the state it starts from, and their weights are small.
    """
    count, m = b.shape[-3:-1]
    steps = min(steps, count)
    if steps <= 1:
        return along(a, b, start)
    a, b = by_tile(a, b, steps)
    units = torch.eye((steps + 1) * m, dtype=a.dtype, device=a.device).unflatten(0, (-1, m))
    wide = (*a.shape[:-3], steps, m, units.shape[-1])
    weights, last = fold(a, units[1:].expand(wide), units[0].expand(*wide[:-3], *wide[-2:]))
    shifts = b.flatten(-3, -2)
    own = weights[..., m:].flatten(-3, -2) @ shifts  # [..., N', P·m, c]
    before, final = along(last[..., :m], last[..., m:] @ shifts, start)
    found = own + weights[..., :m].flatten(-3, -2) @ before
    return found.unflatten(-2, (steps, m)).flatten(-4, -3)[..., :count, :, :], final


def scan(
    stage: Stage, known: Known, start: Tensor, steps: int, along: Along
) -> tuple[Tensor, Tensor]:
    """The states before each step, `[B, H, N, m, rows, cols]`, and after all.

    start `[B, H, m, rows, cols]`. Entries whose factors differ lie along the batch.
    """
    m, like = len(stage.states), start
    shift = [
        torch.as_tensor(each(known), dtype=like.dtype, device=like.device) for each in stage.shift
    ]
    b = torch.stack(torch.broadcast_tensors(*shift), dim=3)
    factors = [
        torch.as_tensor(each(known), dtype=like.dtype, device=like.device)
        for row in stage.transition
        for each in row
    ]
    factors = [x if x.ndim else x.expand(1, 1, 1, 1, 1) for x in factors]
    a = torch.stack(torch.broadcast_tensors(*factors), dim=-1).unflatten(-1, (m, m))
    return scan_entries(a, b, start, steps, along)


def scan_entries(
    a: Tensor, b: Tensor, start: Tensor, steps: int, along: Along
) -> tuple[Tensor, Tensor]:
    """The states before each step, `[B, H, N, m, rows, cols]`, and after all, of m×m maps a.

    a `[B or 1, H or 1, N or 1, rows or 1, cols or 1, m, m]`, b `[B, H, N, m, rows, cols]`, start
    `[B, H, m, rows, cols]`.
    """
    batch, heads, count, m, rows, cols = b.shape
    tall, broad = (1 if a.shape[n] == 1 else size for n, size in ((3, rows), (4, cols)))
    a = a.expand(batch, heads, count, tall, broad, m, m).movedim(
        2, 4
    )  # [B, H, tall, broad, N, m, m]

    def laid(x: Tensor) -> Tensor:  # [..., rows, cols] as [..., tall, broad, rest]
        x = x.unflatten(-1, (broad, cols // broad)).unflatten(-3, (tall, rows // tall))
        return x.transpose(-3, -2).flatten(-2)

    def back(x: Tensor) -> Tensor:
        x = x.unflatten(-1, (rows // tall, cols // broad)).transpose(-3, -2)
        return x.flatten(-2).flatten(-3, -2)

    before, final = prefixes(
        a,
        laid(b).permute(0, 1, 4, 5, 2, 3, 6),
        laid(start).permute(0, 1, 3, 4, 2, 5),
        steps,
        along,
    )
    return back(before.permute(0, 1, 4, 5, 2, 3, 6)), back(final.permute(0, 1, 4, 2, 3, 5))


def every(x: Number, times: int) -> Number:
    """A number of each chunk as that of each of its updates."""
    many = isinstance(x, Tensor) and x.ndim and x.shape[2] > 1
    return repeated(x, times, 2) if isinstance(x, Tensor) and many else x


def worked_out(
    code: TorchLoop, x: Chunks, moved: Tensor, steps: int, along: Along
) -> tuple[Known, dict[str, Tensor]]:
    """What each name of the update stands for at all of its steps, and the last states.

    moved: the gradients of all steps, `[B, H, N, rows, cols]`.
    """
    first = {name: held[code.last] for name, held in x.held.items()} | {"W": x.now[code.last]}
    dtype = x.now[code.last].dtype
    known: Known = {name: every(y, code.schedule.steps) for name, y in x.coefficients.items()}
    known |= {"G": moved.to(dtype), "W_0": x.weights[code.last].to(dtype)}
    last: dict[str, Tensor] = {}
    for stage in code.stages:
        if stage.states:
            start = torch.cat([first[name] for name in stage.states], dim=2)
            before, final = scan(stage, known, start, steps, along)
            known |= dict(zip(stage.states, before.unbind(3), strict=True))
            last |= dict(zip(stage.states, final[:, :, :, None].unbind(2), strict=True))
        for line in stage.lines:
            known[line.seen] = line.made(known)
    return known, last


def seen_by_tokens(code: TorchLoop, x: Chunks, known: Mapping[str, Number], g: Tensor) -> Tensor:
    """The weight as each token of a chunk sees it, `[B, H, N·L, rows, cols]`.

    g: the gradient of the chunk's tokens up to each one, of that shape.
    """
    length = x.k.shape[3]
    seen: Known = {name: every(y, length) for name, y in known.items()} | {"G": g}
    for line in code.lines:
        seen[line.seen] = line.made(seen)
    return seen["W_next"]


def states(
    code: TorchLoop, x: Chunks, queries: Tensor, keys: Tensor, tile: int, along: Along = fold
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the last layer makes of the queries, `[B, H, N, L, V]`, and the last states."""
    each, read = code.schedule.steps, code.schedule.read
    values = constant_values(code, x)
    g = repeated(gradients(code, x, keys, values), each, 2)
    steps = in_tile(tile // x.k.shape[3], x.steps) * each
    known, last = worked_out(code, x, g, steps, along)
    if read == "causal" and x.k.shape[3] > 1:
        tokens = keys[..., :, None] * (x.rows[code.last].to(keys.dtype) * values)[..., None, :]
        upto = tokens.cumsum(3).flatten(2, 3).to(x.now[code.last].dtype)
        seen = seen_by_tokens(code, x, known, upto).unflatten(2, x.k.shape[2:4])
        made = queries[..., None, :] @ seen.to(queries.dtype)
        return made.squeeze(-2), last
    seen = (
        known["W"][:, :, ::each]
        if read == "before_update"
        else known["W_next"][:, :, each - 1 :: each]
    )
    return queries @ seen.to(queries.dtype), last
