"""Random, well-scaled inputs for any loop."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from ttt_proofs.loops import (
    InnerLoop,
)

from ..symbolic.gains import gains
from .scaling import Side, end_of, ends, lasting, scale, within

LONGEST = 9  # tokens, unless two chunks and a token are more
IMAGES = 3
RATES = (0.02, 0.3)  # for a chunk of one token
INNER = (0.2, 1.0)  # rates that an operator on matrices takes out again
LEAST = 0.25  # of the largest entry; columns near zero would make norms enlarge rounding


@dataclass(frozen=True)
class Inputs:
    """What an inner loop runs on; the fields are the arguments of `reference.run_loop`.

    q, k: `[B, T, H, K]`. v: `[B, T, H, V]`. weights: each `[H, rows, cols]`, by name.
    coefficients: by name, exactly those that the loop has: a number of each loop, `[B, N, H]` of
    each step, for N = ceil(T / chunk), `[B, T, H]` of each token; those that tell rows, columns or
    entries apart have further axes (`Coefficient`).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    weights: dict[str, Tensor]
    coefficients: dict[str, float | Tensor]


@dataclass(frozen=True)
class Values:
    """How the values of inputs are chosen.

    large: what q, k, v and weights are multiplied by, while the coefficients that scale steps are
        divided by its square, once for each weight.
    ends: None, or which turn it is to draw coefficients at the ends of their ranges
        (`scaling.ends`): half of a tensor's numbers are, and a number of the loop is one end after
        another from turn to turn.
    lasting: whether coefficients that multiply the weight are so near an end of their ranges that
        over all steps together much of it is kept
        (of recurrences, whose coefficients may do anything, "high" or "low" says which end).
    """

    large: float = 1.0
    ends: int | None = None
    lasting: bool | Side = False


PLAINLY = Values()


def random_inputs(
    loop: InnerLoop,
    seed: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    sizes: Mapping[str, int] | None = None,
    values: Values = PLAINLY,
) -> Inputs:
    """Inputs of random sizes and values, scaled so that nothing grows or vanishes.

    Sizes: B in 1 to 2, H in 1 to 3, every width in 1 to 5, T in 1 to 9 or, for long chunks, in
    1 to two chunks and a token; of images 1 to 3. `sizes` fixes any of them: "B", "T" (0 is
    allowed for both), "H", and widths by the names they have in `loop.net.weights`, such as
    "D_k" and "D_v"; a net that takes tokens and outputs together, as a convolution does, has "D_v"
    alone.
    Values: each uniform in ±width^-½ without the middle quarter, for rows of q, k and v and
    columns of weights (for a convolution, width is the number of pixels in a window), so that
    none is longer than 1 or near 0. What scales a step (`symbolic.gains`: a rate, or what weighs
    losses) is uniform in 0.02 to 0.3, divided by the chunk's length, as its loss sums over tokens
    (for more than nine chunks, by a ninth of all tokens), and by the steps of a chunk; other
    coefficients, such as momenta, are uniform in their own range. Where a weight has no rate, k
    and v are scaled by the root of a middle one, to the same effect. With these, no loop of the
    library runs away, ascent included. Muon takes out whatever scales its argument: where no rate
    comes after it, each step moves a weight by about 1, so rates are uniform in 0.2 to 1, k and v
    are left as they are, and T is at most two chunks and a token. `values` says what is otherwise.

    The same arguments give the same inputs on every device, drawn in float64 and then converted.
    Raises ValueError for a size that the loop does not have or that is too small, and
    for images that are not whole.
    """
    rng = random.Random(seed)
    draw = Tensors(rng.getrandbits(63), dtype, device)
    size = _sizes(loop, rng, sizes or {})
    batch, length, heads = size["B"], size["T"], size["H"]
    share = max(loop.schedule.summed, length / LONGEST) * loop.schedule.steps
    known = scale(loop, (RATES[0] / share, RATES[1] / share), INNER)
    key, value = size.get("D_k", size["D_v"]), size["D_v"]
    wide = size.get("D_w", key)
    large, steps = values.large, -(-length // loop.schedule.chunk)
    q = draw.vectors(batch, length, heads, key, width=wide, scale=large)
    k = draw.vectors(batch, length, heads, key, width=wide, scale=known.tokens * large)
    v = draw.vectors(batch, length, heads, value, width=value, scale=known.tokens * large)
    weights = {}
    for w in loop.net.weights:
        rows, cols = size[w.rows.name], size[w.cols.name]
        weights[w.name] = draw.vectors(heads, rows, cols, width=rows, scale=large)
    coefficients = {}
    sides = lasting(loop) if values.lasting else {}
    for name in dict.fromkeys([*loop.loss_weights.values(), *loop.coefficients]):
        shape, kind = _shape(loop, name, size), loop.coefficients[name]
        low, high = known.ranges[name]
        if name in known.gains and values.large > 1:
            less = large ** (-2 * len(loop.net.weights))
            low, high = within(kind.range, (low * less, high * less)) or (low, high)
        if name in sides:
            low, high = end_of((low, high), sides[name], steps * loop.schedule.steps)
        number = rng.uniform(low, high) if shape == () else draw.numbers(shape, low, high)
        if values.ends is not None:
            extremes = ends(kind, (low, high), gain=name in known.gains)
            number = draw.at_ends(number, extremes, values.ends)
        coefficients[name] = number
    return Inputs(q, k, v, weights, coefficients)


def _shape(loop: InnerLoop, name: str, size: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that a coefficient arrives in."""
    coefficient, moving = loop.coefficients[name], loop.fast_weights[-1]
    rows, cols = size[moving.rows.name], size[moving.cols.name]
    told = {"scalar": (), "row": (rows,), "column": (cols,), "entry": (rows, cols)}
    apart = told[coefficient.shape]
    if coefficient.every == "loop":
        return (size["H"], *apart) if apart else ()
    chunks = -(-size["T"] // loop.schedule.chunk)
    return (size["B"], {"step": chunks, "token": size["T"]}[coefficient.every], size["H"], *apart)


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

    def at_ends(
        self, number: float | Tensor, extremes: tuple[float, ...], turn: int
    ) -> float | Tensor:
        """Half of the numbers, drawn at random, one of the extremes; a single one that of its turn.

        Of three numbers or more, each extreme is one.
        """
        if not isinstance(number, Tensor):
            return extremes[turn % len(extremes)]
        size = number.numel()
        order = torch.randperm(size, generator=self.generator)[: max(len(extremes), -(-size // 2))]
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


def ragged(loop: InnerLoop, chunks: int) -> int:
    """The tokens of that many chunks and, unless these are images, of a short one."""
    return chunks * loop.schedule.chunk + (0 if loop.net.tokens else 1)


def widths(loop: InnerLoop, key: int, inner: tuple[int, ...], value: int) -> dict[str, int]:
    """The widths of keys, of all layers between, by turns, and of values, by their names.

    A convolution's weight has the pixels of its window for rows, so only the order of keys and
    values can be kept: its channels are more than the pixels, as many, or `value`.
    """
    if loop.net.window:
        pixels = loop.net.fixed["D_w"]
        return {"D_v": pixels if key == value else pixels + value if key < value else value}
    ends = {loop.net.keys.name: key, "D_v": value}
    names = [name for name in of_weights(loop) if name not in ends]
    return ends | dict(zip(names, cycle(inner), strict=False))


def of_weights(loop: InnerLoop) -> list[str]:
    """The names of the widths of weights that can be chosen."""
    names = dict.fromkeys(side.name for w in loop.net.weights for side in (w.rows, w.cols))
    return [name for name in names if name not in loop.fixed]


def square(loop: InnerLoop, seed: int) -> dict[str, int]:
    """Widths at which every weight is square, so that one that is transposed has its shape.

    All widths are one number from 2 to 5; a convolution has as many channels as its window pixels.
    """
    side = random.Random(seed).randint(2, 5)
    return widths(loop, side, (side,), side)


def _sizes(loop: InnerLoop, rng: random.Random, fixed: Mapping[str, int]) -> dict[str, int]:
    """Every size of the loop's tensors: as fixed, others drawn."""
    chunk, net = loop.schedule.chunk, loop.net
    longest = max(0 if gains(loop).by_one else LONGEST, 2 * chunk + 1)
    highest = {"B": 2, "T": longest, "H": 3, net.keys.name: 5, "D_v": 5}
    highest |= dict.fromkeys(of_weights(loop), 5)
    drawn = {name: rng.randint(1, high) for name, high in highest.items()}
    if net.tokens:
        drawn["T"] = chunk * rng.randint(1, IMAGES)
    size = drawn | _checked(fixed, set(drawn))
    if net.tokens and size["T"] % chunk:
        raise ValueError(
            f"`sizes['T']` must be a multiple of {chunk}, the pixels of an image; got "
            f"{size['T']}. Give whole images."
        )
    return size | loop.fixed


def _checked(sizes: Mapping[str, int], known: set[str]) -> dict[str, int]:
    """The sizes, or a ValueError that names the one that cannot be."""
    for name, size in sizes.items():
        if name not in known:
            raise ValueError(
                f"`sizes` must name some of {', '.join(sorted(known))}; got {name!r}. Leave it out."
            )
        least = 0 if name in ("B", "T") else 1
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise ValueError(
                f"`sizes[{name!r}]` must be an integer, {least} or more; got {size!r}. Correct it."
            )
    return dict(sizes)
