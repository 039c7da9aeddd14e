"""Launches of the forward and reverse kernels: how they are cut, and what room they write to."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gated import forward_kernel
from .gated_backward import reverse_kernel
from .gated_numbers import numbers_kernel
from .requirements import accumulator
from .tiling import Tiling, launch, multiprocessors, padded

UNIT = 64  # a segment is a multiple of this many tokens, and so of every tile
LEAST = 1024  # tokens that are worth a segment of their own


class States(NamedTuple):
    """W and M, `[B, H, K, V]` or `[B H S, K, V]`; without momentum the state is M. None is zero."""

    w: Tensor | None = None
    m: Tensor | None = None


class Gates(NamedTuple):
    """The numbers of the tokens, `[B, T, H]`, or None where the mode has none."""

    eta: Tensor | None = None
    alpha: Tensor | None = None


# Where tuning goes, and the only place: bytes of a number, whether there are two states, and how
# many rows a state has at most, to the tilings of the forward and of the reverse kernel. Chosen so
# that ptxas spills little or nothing: float32 has no tensor cores, and takes small tiles.
TILINGS = {
    (2, False, 128): (Tiling(64, 64, 4, 2), Tiling(64, 64, 4, 2)),
    (2, False, 256): (Tiling(64, 32, 8, 2), Tiling(64, 32, 8, 2)),
    (2, True, 64): (Tiling(32, 64, 4, 2), Tiling(32, 64, 4, 2)),
    (2, True, 128): (Tiling(32, 64, 8, 2), Tiling(32, 64, 8, 2)),
    (2, True, 256): (Tiling(32, 32, 8, 2), Tiling(32, 32, 8, 2)),
    (4, False, 32): (Tiling(32, 32, 8, 1), Tiling(32, 32, 8, 1)),
    (4, False, 64): (Tiling(16, 32, 8, 1), Tiling(16, 32, 8, 1)),
    (4, False, 256): (Tiling(16, 16, 8, 1), Tiling(16, 16, 8, 1)),
    (4, True, 32): (Tiling(32, 32, 8, 1), Tiling(32, 32, 8, 1)),
    (4, True, 64): (Tiling(16, 32, 8, 1), Tiling(16, 32, 8, 1)),
    (4, True, 256): (Tiling(16, 16, 8, 1), Tiling(16, 16, 8, 1)),
}


def tiling(mode: str, dtype: torch.dtype, rows: int, columns: int, *, reverse: bool) -> Tiling:
    """How to cut and run the forward or the reverse kernel; float64 goes as float32 does."""
    kind = (min(4, dtype.itemsize), mode == "momentum")
    least = min(most for *key, most in TILINGS if tuple(key) == kind and most >= padded(rows))
    tiles = TILINGS[*kind, least][reverse]
    return tiles._replace(columns=min(tiles.columns, padded(columns)))


def segments_for(k: Tensor, v: Tensor, mode: str) -> int:
    """How many segments fill the device: 1 in the interpreter, and where heads are enough."""
    batch, tokens, heads, rows = k.shape
    tiles = tiling(mode, k.dtype, rows, v.shape[3], reverse=False)
    programs = batch * heads * triton.cdiv(v.shape[3], tiles.columns)
    places = multiprocessors(k.device)
    if 4 * programs >= 3 * places:
        return 1
    return max(1, min(triton.cdiv(2 * places, programs), tokens // LEAST))


class Call(NamedTuple):
    """What stays the same in all launches of one operator call, and the launches.

    In each, k is `[B, T, H, K]` and v `[B, T, H, V]`, whatever their roles are.
    """

    mode: str
    scale: float
    shift: int
    segments: int
    gates: Gates

    def constants(self, tiles: Tiling, k: Tensor, v: Tensor) -> dict[str, Any]:
        """The compile-time arguments of both kernels, and how many warps and stages."""
        wide = accumulator(k.dtype) == torch.float64
        return {
            "K": k.shape[3],
            "V": v.shape[3],
            "BK": padded(k.shape[3]),
            "BV": tiles.columns,
            "BT": tiles.tokens,
            "MODE": self.mode,
            "SCALE": self.scale,
            "SHIFT": self.shift,
            "ACC": tl.float64 if wide else tl.float32,
            "num_warps": tiles.num_warps,
            "num_stages": tiles.num_stages,
        }

    def sizes(self, k: Tensor) -> tuple[int, int, int, int]:
        """Tokens, heads, segments, and tokens of a segment."""
        _, tokens, heads, _ = k.shape
        return tokens, heads, self.segments, triton.cdiv(tokens, self.segments * UNIT) * UNIT

    def room(self, k: Tensor, v: Tensor, segments: int) -> States:
        """Room for the states that a launch writes."""
        batch, _, heads, rows = k.shape
        shape = (batch * heads * segments, rows, v.shape[3])
        m = torch.empty(shape, dtype=accumulator(k.dtype), device=k.device)
        return States(torch.empty_like(m) if self.mode == "momentum" else None, m)

    def programs(self, k: Tensor, v: Tensor, tiles: Tiling) -> int:
        """One for each head, segment and block of columns."""
        batch, _, heads, _ = k.shape
        return batch * heads * self.segments * triton.cdiv(v.shape[3], tiles.columns)

    def local_states(self, k: Tensor, v: Tensor) -> tuple[States, Tensor]:
        """What each segment makes of zero states, `[B H S, K, V]`, and its gates `[2, B H S]`."""
        tiles = tiling(self.mode, k.dtype, k.shape[3], v.shape[3], reverse=False)
        states = self.room(k, v, self.segments)
        ends = torch.empty(
            2, k.shape[0] * k.shape[2] * self.segments, device=k.device, dtype=accumulator(k.dtype)
        )
        launch(
            forward_kernel,
            self.programs(k, v, tiles),
            k.device,
            None,
            k,
            v,
            *self.gates,
            None,
            None,
            None,
            *states,
            None,
            ends,
            *self.sizes(k),
            TRANSPOSED=False,
            **self.constants(tiles, k, v),
        )
        return states, ends

    def local_answers(self, q: Tensor, do: Tensor) -> States:
        """The derivatives in W and M of each segment's own reads, `[B H S, K, V]`."""
        tiles = tiling(self.mode, q.dtype, q.shape[3], do.shape[3], reverse=True)
        states = self.room(q, do, self.segments)
        launch(
            reverse_kernel,
            self.programs(q, do, tiles),
            q.device,
            None,
            q,
            do,
            None,
            *self.gates,
            None,
            None,
            None,
            None,
            *states,
            None,
            None,
            *self.sizes(q),
            TRANSPOSED=False,
            **self.constants(tiles, q, do),
        )
        return states

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        starts: States,
        *,
        final: bool = False,
        transposed: bool = False,
        tile: int = 0,
    ) -> tuple[Tensor, States, Tensor | None]:
        """Outputs; final states if asked for; M at the starts of tiles, if their size is given."""
        batch, tokens, heads, rows = k.shape
        tiles = tiling(self.mode, k.dtype, rows, v.shape[3], reverse=False)
        o, kept = torch.empty_like(v), None
        states = self.room(k, v, 1) if final else States()
        if tile:
            tiles = tiles._replace(tokens=tile)
            kept = k.new_empty(batch * heads, triton.cdiv(tokens, tile), rows, v.shape[3])
        launch(
            forward_kernel,
            self.programs(k, v, tiles),
            k.device,
            q,
            k,
            v,
            *self.gates,
            *starts,
            o,
            *states,
            kept,
            None,
            *self.sizes(k),
            TRANSPOSED=transposed,
            **self.constants(tiles, k, v),
        )
        return o, by_head(states, batch), kept

    def reverse(
        self,
        x: Tensor,
        y: Tensor,
        z: Tensor,
        after: States,
        *,
        u: Tensor | None = None,
        kept: Tensor | None = None,
        transposed: bool = False,
        initial: bool = False,
    ) -> tuple[Tensor, States, tuple[Tensor, Tensor] | None]:
        """`r`, like z; the derivatives in the initial states, if asked for; with `kept`, the parts.

        `kept` is what `forward` kept at tiles of this kernel's size, and u is needed with it; the
        parts are what `numbers` needs.
        """
        tiles = tiling(self.mode, x.dtype, x.shape[3], z.shape[3], reverse=True)
        blocks = triton.cdiv(z.shape[3], tiles.columns)
        r, states = torch.empty_like(z), self.room(x, z, 1) if initial else States()
        parts = dots = None
        if kept is not None:
            of_w = int(self.mode == "momentum")
            room = {"dtype": accumulator(x.dtype), "device": x.device}
            parts = torch.empty(2 + of_w, *x.shape[:3], blocks, **room)
            dots = torch.empty(1 + of_w, *kept.shape[:2], blocks, **room)
        launch(
            reverse_kernel,
            self.programs(x, z, tiles),
            x.device,
            x,
            y,
            z,
            u,
            *self.gates,
            *after,
            kept,
            r,
            *states,
            parts,
            dots,
            *self.sizes(x),
            TRANSPOSED=transposed,
            **self.constants(tiles, x, z),
        )
        summed = None if parts is None or dots is None else (parts.sum(-1), dots.sum(-1))
        return r, by_head(states, x.shape[0]), summed

    def numbers(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, parts: Tensor, dots: Tensor
    ) -> Gates:
        """The gradients of the numbers, from what `reverse` left."""
        batch, tokens, heads, rows = k.shape
        of_gates = Gates(*(None if x is None else torch.empty_like(x) for x in self.gates))
        tiles = tiling(self.mode, v.dtype, v.shape[3], rows, reverse=True)
        tiles = tiles._replace(columns=padded(v.shape[3]))
        launch(
            numbers_kernel,
            batch * heads * triton.cdiv(tokens, tiles.tokens),
            k.device,
            q,
            k,
            v,
            do,
            *self.gates,
            parts,
            dots,
            *of_gates,
            tokens,
            heads,
            PRECISION="tf32" if k.element_size() == 2 else "ieee",
            **self.constants(tiles, k, v),
        )
        return of_gates


def by_head(states: States, batch: int) -> States:
    """States `[B H, K, V]` as `[B, H, K, V]`."""
    return States(*(None if x is None else x.unflatten(0, (batch, -1)) for x in states))
