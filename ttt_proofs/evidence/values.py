"""How values of random inputs are chosen: tensors, and coefficients as a trial wants them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..program.coefficients import Coefficient
from .lasting import Near, near
from .scaling import Range, corners, ends

LEAST = 0.25  # of the largest entry; columns near zero would make norms enlarge rounding
LASTING = 2.0  # of a range of length 1, over all steps together
APART = {"scalar": 0, "row": 1, "column": 1, "entry": 2}  # axes behind that of heads


@dataclass(frozen=True)
class Values:
    """How the values of inputs are chosen.

    large: what q, k, v and weights are multiplied by, while the coefficients that scale steps are
        divided by its square, once for each weight.
    ends: None, or which turn it is to draw coefficients at the ends of their ranges
        (`scaling.ends`): half of a tensor's numbers are, and numbers of the loop are together as
        `scaling.corners` has them at that turn.
    lasting: None, or which of the combinations of `lasting.lasting` the first head has, with the
        numbers of the loop: coefficients are so near them that over all steps together much is
        kept of states. The heads behind it have the other combinations, one after another.
    zeros: whether all keys of the second chunk are 0, and some other tokens and weights
        (`sampling.with_zeros`).
    """

    large: float = 1.0
    ends: int | None = None
    lasting: int | None = None
    zeros: bool = False


PLAINLY = Values()


@dataclass(frozen=True)
class Number:
    """A coefficient to be drawn: in what shape, () for one number, and between what numbers."""

    shape: tuple[int, ...]
    kind: Coefficient
    between: Range


class Tensors:
    """Draws tensors in float64, and converts them."""

    def __init__(self, seed: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype, self.device = dtype, device

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """Numbers between low and high, in float64."""
        values = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * values

    def numbers(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """Numbers between low and high."""
        return self.uniform(shape, low, high).to(self.device, self.dtype)

    def of_heads(self, number: Number, between: Sequence[Range]) -> Tensor:
        """Numbers of which those of each head lie between others, by turns."""
        heads = APART[number.kind.shape]
        made = self.uniform(number.shape, 0, 1).movedim(-1 - heads, 0)
        rows = [between[i % len(between)] for i in range(len(made))]
        each = [low + (high - low) * x for (low, high), x in zip(rows, made, strict=True)]
        return torch.stack(each, -1 - heads).to(self.device, self.dtype)

    def at_ends(self, number: Tensor, extremes: tuple[float, ...], *, timed: bool) -> Tensor:
        """Half of the numbers, drawn at random, one of the extremes.

        Of three numbers or more, each extreme is one. timed: whether the second axis is time; then
        each is one in its middle, since a first buffer is 0 and a last update may never be read.
        """
        size = number.numel()
        order = torch.randperm(size, generator=self.generator)
        if timed:
            time = torch.arange(number.shape[1]).view(-1, *[1] * (number.ndim - 2))
            third = number.shape[1] // 3
            inside = ((time >= third) & (time < number.shape[1] - third)).expand(number.shape)
            middle = order[inside.flatten()[order]][: 2 * len(extremes)]
            order = torch.cat([middle, order[~torch.isin(order, middle)]])
        order = order[: max(len(extremes), -(-size // 2))]
        chosen = torch.tensor(extremes, dtype=torch.float64)[
            torch.arange(len(order)) % len(extremes)
        ]
        made = number.flatten().clone()
        made[order.to(made.device)] = chosen.to(made)
        return made.unflatten(0, number.shape)

    def vectors(self, *shape: int, width: int, scale: float = 1.0) -> Tensor:
        """Entries of either sign, of size LEAST to 1 times `scale · width^-½`."""
        values = self.uniform(shape, -1, 1)
        away = values.sign() * (LEAST + (1 - LEAST) * values.abs())
        return (scale * width**-0.5 * away).to(self.device, self.dtype)


def coefficients(
    draw: Tensors,
    rng: random.Random,
    numbers: Mapping[str, Number],
    values: Values,
    *,
    gains: tuple[str, ...] = (),
    rows: Sequence[Near] = ({},),
    steps: int = 1,
) -> dict[str, float | Tensor]:
    """Coefficients, uniform in their ranges unless `values` says otherwise.

    gains: the names of those that scale steps. rows: the combinations that `values.lasting` counts.
    steps: how many there are.
    """
    made: dict[str, float | Tensor] = {}
    turn = values.lasting or 0
    for name, number in numbers.items():
        near_it = number.between, LASTING / max(steps, 1)
        places = [rows[(turn + i) % len(rows)].get(name) for i in range(len(rows))]
        between = [near(*near_it, x) if x is not None else number.between for x in places]
        if not number.shape:
            made[name] = rng.uniform(*between[0])
        elif any(x is not None for x in places):
            made[name] = draw.of_heads(number, between)
        else:
            made[name] = draw.numbers(number.shape, *number.between)
    if values.ends is not None:
        extremes = {n: ends(x.kind, x.between, gain=n in gains) for n, x in numbers.items()}
        turns = corners({n: x for n, x in extremes.items() if not numbers[n].shape}, gains)
        made |= turns[values.ends % len(turns)] if turns else {}
        for name, x in made.items():
            if isinstance(x, Tensor):
                timed = numbers[name].kind.every != "loop"
                made[name] = draw.at_ends(x, extremes[name], timed=timed)
    return made
