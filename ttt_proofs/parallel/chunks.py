"""A loop's inputs cut into chunks, and results put back: the layout that all forms work in.

Outside, as in flash-linear-attention: q, k `[B, T, H, K]`, v `[B, T, H, V]`. Inside, N chunks of
L tokens, heads first: `[B, H, N, L, K]`; weights `[B, H, 1, rows, cols]`, coefficients of a step
`[B, H, N, 1, 1]`. A short last chunk is filled with tokens that count nothing. States, and what
weighs them, are float32 or float64, also where tokens are shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..program.coefficients import Coefficient
from ..symbolic.torch_loop import TorchLoop
from .inputs import Coefficients, Number, Weights, wide
from .state import State

Outputs = tuple[Tensor, State]


@dataclass(frozen=True)
class Chunks:
    """What a loop runs on, in chunks.

    q, k `[B, H, N, L, K]`, v `[B, H, N, L, V]`: q is what is read with. weights, all of them, as
    the loop first had them: `[B, H, 1, rows, cols]`. now: the fast weights, where the loop stands;
    held: for each buffer, those of the fast weights. rows, of each fast weight: what each token's
    loss counts in its gradient, `[B, H, N, L, 1]`, 0 past the end. coefficients, of the update,
    by name: numbers, or tensors `[B or 1, H, N or 1, rows or 1, cols or 1]`. `shape` is that of
    the outputs, `[B, T, H, V]`; `apart` says that each column, by itself, is a head, so that H
    here is H·V and V here is 1.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    weights: dict[str, Tensor]
    now: dict[str, Tensor]
    held: dict[str, dict[str, Tensor]]
    rows: dict[str, Tensor]
    coefficients: dict[str, Number]
    shape: torch.Size
    apart: bool

    @property
    def steps(self) -> int:
        """How many chunks there are, N."""
        return self.q.shape[2]

    def each(self, function: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
        """What a function of single tokens and the weights makes of all chunks at once.

        Chunks are joined for it, `[B, H, 1, N·L, ·]`, lest a matrix be copied for each of them.
        """
        joined = (x.flatten(2, 3)[:, :, None] for x in tokens)
        return function(*joined, **self.weights).squeeze(2).unflatten(2, self.q.shape[2:4])

    def whole(
        self,
        outputs: Tensor,
        now: Mapping[str, Tensor],
        held: Mapping[str, Mapping[str, Tensor]],
    ) -> Outputs:
        """Outputs `[B, H, N, L, V]` as `[B, T, H, V]`; the state, of `[B, H, 1, rows, cols]`."""
        batch, tokens, heads, width = self.shape
        joined = outputs.flatten(2, 3)[:, :, :tokens].transpose(1, 2).reshape(self.shape)

        def back(x: Tensor) -> Tensor:
            x = x.squeeze(2).to(wide(x.dtype))
            return x.reshape(batch, heads, width, x.shape[-2]).mT if self.apart else x

        # Copies: a state must not change with the weights that it is made from.
        return joined, State(self.weights | dict(now), held).map(lambda x: back(x).clone())


def by_chunk(numbers: Mapping[str, Number], steps: int) -> list[dict[str, Number]]:
    """Those of each chunk, with its dimension kept; those for all chunks as they are."""
    each = {
        name: x.split(1, dim=2)
        if isinstance(x, Tensor) and x.ndim and x.shape[2] > 1
        else [x] * steps
        for name, x in numbers.items()
    }
    return [{name: x[n] for name, x in each.items()} for n in range(steps)]


def filled(x: Tensor, dim: int, multiple: int) -> Tensor:
    """A tensor with zeros after its entries along dim, up to the next multiple of a length."""
    missing = -x.shape[dim] % multiple
    return torch.nn.functional.pad(x, (*[0, 0] * (x.ndim - dim - 1), 0, missing)) if missing else x


def laid(x: Number, coefficient: Coefficient, there: Tensor, width: int) -> Number:
    """A coefficient of the update as it is in `Chunks`.

    there: `[B, H, N, L, 1]`, 1 for each token and 0 past the end, by which a mean is taken.
    width: how many heads each column apart makes of one; 0 where they are together.
    """
    if not isinstance(x, Tensor) or not x.ndim:
        return x
    x = x.to(wide(x.dtype))
    x = x[None, None] if coefficient.every == "loop" else x  # [B or 1, N, T or 1, H, *]
    x = x if coefficient.shape in ("row", "entry") else x.unsqueeze(3)
    x = x if coefficient.shape in ("column", "entry") else x.unsqueeze(4)
    if width:  # each column is a head
        x = x.expand(*x.shape[:4], width).transpose(3, 4).flatten(2, 3)[..., None]
    x = x.transpose(1, 2)
    if coefficient.every == "token" and not coefficient.mean and there.shape[3] > 1:
        return filled(x, 2, there.shape[3]).unflatten(2, there.shape[2:4])  # an update for each
    if not coefficient.mean:
        return x
    sides = x.shape[3:]
    cut = filled(x, 2, there.shape[3]).unflatten(2, there.shape[2:4]).flatten(4)
    return (cut.sum(3) / there.sum(3)).unflatten(3, sides)


def chunks(
    code: TorchLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients,
    initial_state: State | None = None,
) -> Chunks:
    """The inputs of a loop as its forms take them; a convolution's channels are `apart`."""
    shape, schedule, window = v.shape, code.schedule, code.window
    batch, tokens, _, width = shape
    length = max(1, min(schedule.chunk, tokens))
    steps = -(-tokens // length)
    if schedule.query == "key":
        q = k
    apart = window is not None
    if window is not None and code.windows is not None:
        q, k = (code.windows(x, *window) for x in (q, k))
    v = v.flatten(2)[..., None] if apart else v

    def cut(x: Tensor) -> Tensor:
        x = filled(x, 1, length).transpose(1, 2).contiguous()
        return x.unflatten(2, (steps, length))

    def fast(w: Tensor) -> Tensor:  # [B, H, rows, cols] as [B, H, 1, rows, cols]
        return (w.mT.flatten(1, 2)[..., None] if apart else w)[:, :, None]

    def by_head(x: Tensor) -> Tensor:  # [B, T, H] as [B, T, H, 1]
        x = x.to(wide(x.dtype))[..., None]
        return x.repeat_interleave(width, dim=2) if apart else x

    first = {name: fast(w.expand(batch, *w.shape)) for name, w in weights.items()}
    if initial_state is None:
        now = {name: first[name].to(wide(q.dtype)) for name in code.fast}
        held = {b: {n: torch.zeros_like(w) for n, w in now.items()} for b in code.buffers}
    else:
        now = {name: fast(initial_state[name]) for name in code.fast}
        held = {b: {n: fast(initial_state.buffers[b][n]) for n in code.fast} for b in code.buffers}
    there = cut(torch.ones_like(k[..., :1], dtype=wide(k.dtype)))
    weighing: dict[str, Any] = {n: coefficients[name] for n, name in code.loss_weights.items()}
    return Chunks(
        *map(cut, (q, k, v)),
        weights=first,
        now=now,
        held=held,
        rows={n: cut(by_head(weighing[n])) if n in weighing else there for n in code.fast},
        coefficients={
            name: laid(coefficients[name], code.coefficients[name], there, apart and width)
            for name in code.numbers
        },
        shape=shape,
        apart=apart,
    )
