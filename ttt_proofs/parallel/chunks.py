"""A loop's inputs cut into chunks, and results put back: the layout that all forms work in.

Outside, as in flash-linear-attention: q, k `[B, T, H, K]`, v `[B, T, H, V]`. Inside, N chunks of
L tokens, heads first: `[B, H, N, L, K]`; weights `[B, H, 1, rows, cols]`, numbers of a step
`[B, H, N, 1, 1]`. A short last chunk is filled with tokens that count nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loops import DepthwiseConv, InnerLoop
from ..symbolic.torch_functions import windows
from .inputs import Number, Outputs, Rates, Weights


@dataclass(frozen=True)
class Chunks:
    """What a loop runs on, in chunks.

    q, k `[B, H, N, L, K]`, v `[B, H, N, L, V]`: q is what is read with. weights, all of them:
    `[B, H, 1, rows, cols]`. rows, of each trained weight: what each token's loss counts in its
    gradient, `[B, H, N, L, 1]`, 0 past the end. eta, alpha: `[B, H, N, 1, 1]`, a number, or None.
    `shape` is that of the outputs, `[B, T, H, V]`; `apart` says that each column, by itself, is
    a head, so that H here is H·V and V here is 1.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    weights: dict[str, Tensor]
    rows: dict[str, Tensor]
    eta: Number | None
    alpha: Number | None
    shape: torch.Size
    apart: bool

    @property
    def steps(self) -> int:
        """How many chunks there are, N."""
        return self.q.shape[2]

    def whole(self, outputs: Tensor, final: Mapping[str, Tensor]) -> Outputs:
        """Outputs `[B, H, N, L, V]` as `[B, T, H, V]`, weights as `[B, H, rows, cols]`."""
        batch, tokens, heads, width = self.shape
        joined = outputs.flatten(2, 3)[:, :, :tokens].transpose(1, 2).reshape(self.shape)
        if not self.apart:
            return joined, {name: w.squeeze(2) for name, w in final.items()}
        return joined, {name: w.reshape(batch, heads, width, w.shape[-2]).mT
                        for name, w in final.items()}  # fmt: skip


def at(x: Number | None, n: int) -> Number | None:
    """The part of chunk n, with its dimension kept; a number for all chunks as it is."""
    return x[:, :, n : n + 1] if isinstance(x, Tensor) and x.ndim else x


def chunks(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Weights, rate: Rates,
           momentum: Number | None, *, apart: bool = False) -> Chunks:  # fmt: skip
    """The inputs of a loop as its forms take them; a convolution's channels are always `apart`."""
    net, shape = loop.net, v.shape
    batch, tokens, _, width = shape
    length = max(1, min(loop.schedule.chunk, tokens))
    steps = -(-tokens // length)
    if loop.schedule.query == "key":
        q = k
    if isinstance(net, DepthwiseConv):
        apart = True
        q, k = (windows(x, net.size, net.height, net.width) for x in (q, k))
    elif apart:
        q, k = (x.repeat_interleave(width, dim=2) for x in (q, k))
    repeat = width if apart else 1
    if apart:
        v = v.flatten(2)[..., None]
        weights = {name: w.mT.flatten(0, 1)[..., None] for name, w in weights.items()}

    def cut(x: Tensor) -> Tensor:
        filled = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, steps * length - tokens))
        return filled.transpose(1, 2).unflatten(2, (steps, length))

    def scalars(x: Tensor) -> Tensor:  # one per head, to multiply matrices
        return x.repeat_interleave(repeat, dim=2)[..., None]

    def per_step(x: Number) -> Number:
        return scalars(x).transpose(1, 2)[..., None] if isinstance(x, Tensor) and x.ndim else x

    there = cut(torch.ones_like(k[..., :1]))
    given = rate if isinstance(rate, Mapping) else {}
    rows = {w.name: cut(scalars(given[w.name])) if given else there for w in loop.trained}
    if loop.update.momentum == "per_token" and isinstance(momentum, Tensor):
        alpha = cut(scalars(momentum)).sum(3, keepdim=True) / there.sum(3, keepdim=True)
    else:
        alpha = None if momentum is None else per_step(momentum)
    return Chunks(
        *map(cut, (q, k, v)),
        weights={name: w.expand(batch, *w.shape)[:, :, None] for name, w in weights.items()},
        rows=rows,
        eta=None if rate is None or isinstance(rate, Mapping) else per_step(rate),
        alpha=alpha,
        shape=shape,
        apart=apart,
    )
