"""Some steps of a loop as one affine map of its state, and the outputs of their tokens.

All tiles are worked on at once: within a tile, attention under the mask of `gates`; from tile to
tile, the maps that are made here and combined in `maps`. Where values depend on the state, as in
the delta rule, those of a tile solve a unit triangular system: its chunkwise WY form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..symbolic.torch_loop import TorchLoop
from .chunks import Chunks, filled
from .gates import Weighing, weighing
from .inputs import Number

Features = Callable[..., Tensor]


def features(code: TorchLoop, x: Chunks, made: Features | None = None) -> tuple[Tensor, Tensor]:
    """Those of what is read with and those of the keys, `[B, H, N, L, D]`; they do not change.

    `made` makes them in place of the derived code, of `[B, H, 1, N·L, K]` and the weights.
    """
    made = made or code.features
    return x.each(made, x.q), x.each(made, x.k)


def constant_values(code: TorchLoop, x: Chunks) -> Tensor:
    """The gradients in what the last layer makes at the state 0, `[B, H, N, L, V]`."""
    return x.each(code.values, x.k, code.cotangent(torch.zeros_like(x.v), x.v))


def gradients(code: TorchLoop, x: Chunks, keys: Tensor, values: Tensor) -> Tensor:
    """Those of each chunk in the last layer's weight, `[B, H, N, D, V]`."""
    return keys.mT @ (x.rows[code.last].to(keys.dtype) * values)


def gated(code: TorchLoop, x: Chunks, keys: Tensor, values: Tensor) -> Tensor:
    """The values times the gates that multiply a gradient, which each of its columns has."""
    if not code.folded:
        return values
    known: dict[str, Any] = {"G": gradients(code, x, keys, values)} | x.coefficients
    for step in code.steps:
        if step.seen in code.folded:
            known[step.seen] = step.made(known)
            values = values * known[step.seen].to(values.dtype)
    return values


def by_column(code: TorchLoop) -> bool:
    """Whether each column of the state has a map of its own: an output gate weighs it."""
    return code.gated and code.affine


def columns_apart(x: Tensor) -> Tensor:
    """`[B, H, N, L, V]` with each column as a head of its own, `[B, H·V, N, L, 1]`."""
    return x.movedim(-1, 2).flatten(1, 2)[..., None]


def columns_joined(x: Tensor, width: int) -> Tensor:
    """What `columns_apart` has taken apart, of so many columns."""
    return x.squeeze(-1).unflatten(1, (-1, width)).movedim(2, -1)


def slopes(code: TorchLoop, x: Chunks) -> Tensor:
    """How those gradients grow with what the last layer makes, if affine.

    `[B, H, N, L, 1]`, the same for all columns; behind a gate `[B, H, N, L, V]`, of each its own.
    """
    if not code.gated:  # a constant of the loss; tokens are as wide as they are, for means
        zero = x.v.new_zeros(x.v.shape[-1:])
        found = code.cotangent(zero + 1, zero) - code.cotangent(zero, zero)
        return found[:1].expand(*x.v.shape[:-1], 1)
    zero = torch.zeros_like(x.v)

    def values(made: Tensor) -> Tensor:
        outputs = x.each(code.outputs, x.k, made)
        return x.each(code.values, x.k, code.cotangent(outputs, zero))

    return values(zero + 1) - values(zero)


def tiled(x: Tensor, steps: int) -> Tensor:
    """`[B, H, N, ...]` as `[B, H, N', steps, ...]`, filled up with zeros."""
    x = filled(x, 2, steps)
    return x.unflatten(2, (x.shape[2] // steps, steps))


def repeated(x: Tensor, times: int, dim: int) -> Tensor:
    """Each entry along dim so many times in a row; the tensor itself for one time."""
    return x.repeat_interleave(times, dim=dim) if times > 1 else x


def numbers(x: Chunks, steps: int) -> dict[str, Number]:
    """The coefficients of steps, `[B, H, N, 1, 1]`, by tile: `[B, H, N', steps]`."""
    return {
        name: tiled(c[..., 0, 0], steps) if isinstance(c, Tensor) and c.ndim else c
        for name, c in x.coefficients.items()
    }


def spread(weights: Tensor, x: Tensor) -> Tensor:
    """Rows times each of m weights, side by side.

    `[..., T, m]` and `[..., T, D]` to `[..., T, m·D]`.
    """
    return (weights.to(x.dtype)[..., None] * x[..., None, :]).flatten(-2)


@dataclass(frozen=True)
class Tiles:
    """The tokens of N' tiles, P steps in each: R tokens are read with, S are learned from.

    queries `[B, H, N', R, D]`, keys `[.., S, D]`; values `[.., S, V]`, what each key stores if the
    tile starts from zero, and `slope`, `[.., S, m·D]`, what it stores beside that: slope times
    the state, or None. `within`, `[.., R, S]`: what weighs scores, or None where tokens read no
    more than a state: that which `leaves` the tile, or the entering one. `before` `[.., R, m]`:
    what the state weighs for each query. `after` `[.., S, m]`, `gate` `[.., m, m]`: what each key
    and the entering state weigh in the leaving one. S is R for one update a step.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    slope: Tensor | None
    within: Tensor | None
    before: Tensor
    after: Tensor
    gate: Tensor
    leaves: bool

    def maps(self) -> tuple[Tensor, Tensor]:
        """Each tile's map, for `maps`: r is m if the gates are all of it, m·D if values depend."""
        m, width = self.gate.shape[-1], self.keys.shape[-1]

        def learned(values: Tensor) -> Tensor:
            each = (by[..., None].to(values.dtype) * values for by in self.after.unbind(-1))
            return torch.cat([self.keys.mT @ x for x in each], dim=-2).to(self.gate.dtype)

        shift = learned(self.values)
        if self.slope is None:
            gate = self.gate.expand(*shift.shape[:-2], m, m)
            return gate, shift.unflatten(-2, (m, width)).flatten(-2)
        one = torch.eye(width, dtype=self.gate.dtype, device=self.gate.device)
        gates = (self.gate[..., :, None, :, None] * one[:, None]).flatten(-2).flatten(-3, -2)
        return gates + learned(self.slope), shift

    def read(self, states: Tensor) -> Tensor:
        """What the last layer makes of the queries, `[.., R, V]`, of states `[.., m·D, V]`."""
        states = states.to(self.queries.dtype)
        *others, last = zip(
            self.before.to(states.dtype)[..., None].unbind(-2),
            states.chunk(self.before.shape[-1], dim=-2),
            strict=True,
        )
        made = last[0] * (self.queries @ last[1])
        for by, state in others:  # in place, which no gradient minds: sums are not needed again
            made.addcmul_(by, self.queries @ state)
        if self.within is None:
            return made
        values = self.values if self.slope is None else self.values + self.slope @ states
        scores = ((self.queries @ self.keys.mT) * self.within).to(made.dtype)
        made.flatten(0, 2).baddbmm_(scores.flatten(0, 2), values.flatten(0, 2))
        return made


def tiles(code: TorchLoop, x: Chunks, tokens: int, made: Features | None = None) -> Tiles:
    """A loop's chunks, as many in a tile as have `tokens` tokens together, one at least."""
    schedule, affine = code.schedule, code.affine
    length, each, causal = x.k.shape[3], schedule.steps, schedule.read == "causal"
    copies = each if affine else 1  # where values depend on the state, a step's updates differ
    steps = in_tile(tokens // (length * copies), x.steps)

    def flat(y: Tensor, copies: int = 1) -> Tensor:
        return repeated(tiled(y, steps), copies, 3).flatten(3, 4)

    def by_token(y: Tensor) -> Tensor:
        return repeated(y, length, -2)

    queries, keys = features(code, x, made)
    rows, values = x.rows[code.last], gated(code, x, keys, constant_values(code, x))
    slope, given = slopes(code, x) if affine else None, numbers(x, steps)
    if slope is not None and by_column(code):
        heads = x.v.shape[-1]  # that each makes
        queries, keys, rows = (repeated(y, heads, 1) for y in (queries, keys, rows))
        values, slope = columns_apart(values), columns_apart(slope)
        given = {
            name: repeated(c, heads, 1) if isinstance(c, Tensor) and c.ndim else c
            for name, c in given.items()
        }
    c = weighing(code, given, rows, steps, apart=affine)
    m, count, read = c.entering, steps * each, seen(code, c, steps)
    within = weighed(read[..., :-m], length, causal)
    after, gate = leaving(c, x.steps, steps, each)
    keys, values, rows = (flat(y, copies) for y in (keys, values, rows.to(values.dtype)))
    if slope is not None:
        values, slope = solved(
            keys, values, rows, flat(slope, copies), by_token(c.state[..., :count, :]), m
        )
        slope = rows * slope
    alone = steps == 1 and not causal  # then a state has all that is read
    leaves = alone and schedule.read == "after_update"
    state = torch.arange(m, device=rows.device) == m - 1
    before = state.expand(length, m) if leaves else by_token(read[..., -m:])
    return Tiles(
        flat(queries),
        keys,
        rows * values,
        slope,
        None if alone else within,
        before,
        by_token(after),
        gate,
        leaves,
    )


def in_tile(most: int, steps: int) -> int:
    """How many of `steps` steps are worked on together, `most` of them at most."""
    # One graph for all lengths needs tiles of one size.
    return max(1, most if torch.compiler.is_compiling() else min(most, steps))


def seen(code: TorchLoop, c: Weighing, steps: int) -> Tensor:
    """What each step of a tile is read with, `[B, H, N', steps, columns]`."""
    each = code.schedule.steps
    if code.schedule.read == "before_update":
        return c.state[..., : steps * each : each, :]
    return c.state[..., each::each, :]


def weighed(weights: Tensor, length: int, causal: bool) -> Tensor:
    """Weights of steps as those of tokens, `length` for each; a causal reading sees no later one.

    `[..., steps, updates]` to `[..., steps · length, updates · length]`.
    """
    each = repeated(repeated(weights, length, -2), length, -1)
    return each.tril() if causal else each


def leaving(c: Weighing, steps: int, tile: int, each: int) -> tuple[Tensor, Tensor]:
    """What gradients `[.., columns, m]` and the entering state `[.., m, m]` weigh at the end.

    A last tile that is not full ends with the last step that there is.
    """
    last, short = c.kept(-1), steps % tile
    if short:
        whole = last.expand(*last.shape[:2], steps // tile + 1, *last.shape[3:])
        last = torch.cat([whole[:, :, :-1], c.kept(short * each)[:, :, -1:]], dim=2)
    return last[..., : -c.entering].mT, last[..., -c.entering :]


def solved(
    keys: Tensor, values: Tensor, rows: Tensor, slope: Tensor, weights: Tensor, m: int
) -> tuple[Tensor, Tensor]:
    """The values of a tile's tokens, each of which depends on those before: constant and slope.

    value_i = values_i + slope_i keys_i W_i, and W_i = Σ weights_ij keys_jᵀ rows_j value_j + what
    the state weighs, is unit lower triangular in the values. Source: for the delta rule, Yang et
    al., arXiv 2406.06484, Section 3; momentum and chunks only change the weights.
    """
    length = weights.shape[-2] // (weights.shape[-1] - m)
    entering = slope * spread(weights[..., -m:], keys)
    if weights.shape[-1] - m == 1:  # one update: nothing comes before
        return values, entering
    scores = repeated(weights[..., :-m], length, -1) * (keys @ keys.mT)
    lower = slope * scores * rows.mT
    sides = torch.cat([values, entering], dim=-1).to(lower.dtype)
    one = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    found = torch.linalg.solve_triangular(one - lower, sides, upper=False, unitriangular=True)
    return tuple(found.to(values.dtype).split([values.shape[-1], entering.shape[-1]], dim=-1))
