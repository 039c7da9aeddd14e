"""A loop's inputs cut into chunks, and results put back: the layout that all forms work in.

Outside, as in flash-linear-attention: q, k `[B, T, H, K]`, v `[B, T, H, V]`. Inside, N chunks of
L tokens, heads first: `[B, H, N, L, K]`; weights `[B, H, 1, rows, cols]`, numbers of a step
`[B, H, N, 1, 1]`. A short last chunk is filled with tokens that count nothing. States, and what
weighs them, are float32 or float64, also where tokens are shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loops import DepthwiseConv, InnerLoop
from ..symbolic.torch_functions import windows
from .inputs import Number, Rates, Weights, wide
from .state import State

Outputs = tuple[Tensor, State]


@dataclass(frozen=True)
class Chunks:
    """What a loop runs on, in chunks.

    q, k `[B, H, N, L, K]`, v `[B, H, N, L, V]`: q is what is read with. weights, all of them, as
    the loop first had them: `[B, H, 1, rows, cols]`. now, held: the trained weights and their
    accumulators, where the loop stands. rows, of each trained weight: what each token's loss
    counts in its gradient, `[B, H, N, L, 1]`, 0 past the end. eta, alpha: `[B, H, N, 1, 1]`, a
    number, or None. `shape` is that of the outputs, `[B, T, H, V]`; `apart` says that each
    column, by itself, is a head, so that H here is H·V and V here is 1.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    weights: dict[str, Tensor]
    now: dict[str, Tensor]
    held: dict[str, Tensor]
    rows: dict[str, Tensor]
    eta: Number | None
    alpha: Number | None
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
        self, outputs: Tensor, now: Mapping[str, Tensor], held: Mapping[str, Tensor]
    ) -> Outputs:
        """Outputs `[B, H, N, L, V]` as `[B, T, H, V]`; the state, of `[B, H, 1, rows, cols]`."""
        batch, tokens, heads, width = self.shape
        joined = outputs.flatten(2, 3)[:, :, :tokens].transpose(1, 2).reshape(self.shape)

        def back(x: Tensor) -> Tensor:
            x = x.squeeze(2).to(wide(x.dtype))
            return x.reshape(batch, heads, width, x.shape[-2]).mT if self.apart else x

        # Copies: a state must not change with the weights that it is made from.
        return joined, State(self.weights | dict(now), dict(held)).map(lambda x: back(x).clone())


def at(x: Number | None, n: int) -> Number | None:
    """The part of chunk n, with its dimension kept; a number for all chunks as it is."""
    return x[:, :, n : n + 1] if isinstance(x, Tensor) and x.ndim else x


def filled(x: Tensor, dim: int, multiple: int) -> Tensor:
    """A tensor with zeros after its entries along dim, up to the next multiple of a length."""
    missing = -x.shape[dim] % multiple
    return torch.nn.functional.pad(x, (*[0, 0] * (x.ndim - dim - 1), 0, missing)) if missing else x


def chunks(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    rate: Rates,
    momentum: Number | None,
    initial_state: State | None = None,
    *,
    apart: bool = False,
) -> Chunks:
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
    v = v.flatten(2)[..., None] if apart else v

    def cut(x: Tensor) -> Tensor:
        x = filled(x, 1, length).transpose(1, 2).contiguous()
        return x.unflatten(2, (steps, length))

    def scalars(x: Tensor) -> Tensor:  # one per head, to multiply matrices
        return x.to(wide(x.dtype)).repeat_interleave(repeat, dim=2)[..., None]

    def per_step(x: Number) -> Number:
        return scalars(x).transpose(1, 2)[..., None] if isinstance(x, Tensor) and x.ndim else x

    def fast(w: Tensor) -> Tensor:  # [B, H, rows, cols] as [B, H, 1, rows, cols]
        return (w.mT.flatten(1, 2)[..., None] if apart else w)[:, :, None]

    first = {name: fast(w.expand(batch, *w.shape)) for name, w in weights.items()}
    names = [w.name for w in loop.fast_weights]
    now = {name: first[name].to(wide(q.dtype)) for name in names}
    held = {name: torch.zeros_like(w) for name, w in now.items() if loop.update.momentum}
    if initial_state is not None:
        now = {name: fast(initial_state[name]) for name in names}
        held = {name: fast(initial_state.accumulators[name]) for name in held}
    there = cut(torch.ones_like(k[..., :1], dtype=wide(k.dtype)))
    given = rate if isinstance(rate, Mapping) else {}
    rows = {name: cut(scalars(given[name])) if given else there for name in names}
    if loop.update.momentum == "per_token" and isinstance(momentum, Tensor):
        alpha = cut(scalars(momentum)).sum(3, keepdim=True) / there.sum(3, keepdim=True)
    else:
        alpha = None if momentum is None else per_step(momentum)
    return Chunks(
        *map(cut, (q, k, v)),
        weights=first,
        now=now,
        held=held,
        rows=rows,
        eta=None if rate is None or isinstance(rate, Mapping) else per_step(rate),
        alpha=alpha,
        shape=shape,
        apart=apart,
    )
