"""Random, well-scaled inputs for any loop."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from ..loops import InnerLoop
from ..symbolic.gains import gains
from .lasting import lasting
from .scaling import scale, within
from .values import PLAINLY, Number, Tensors, Values, coefficients

LONGEST = 9  # tokens, unless two chunks and a token are more
IMAGES = 3
RATES = (0.02, 0.3)  # for a chunk of one token
INNER = (0.2, 1.0)  # rates that an operator on matrices takes out again


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
    each, times = (
        (1 if loop.schedule.update == "token" else loop.schedule.chunk),
        loop.schedule.steps,
    )
    steps = -(-length // each) * times
    share = max(loop.schedule.summed, length / LONGEST) * times
    if values.lasting is not None:  # a buffer that lasts makes of each step as many
        share *= steps ** len(loop.rule.buffers)
    known = scale(loop, (RATES[0] / share, RATES[1] / share), INNER)
    key, value = size.get("D_k", size["D_v"]), size["D_v"]
    wide = size.get("D_w", key)
    large = values.large
    q = draw.vectors(batch, length, heads, key, width=wide, scale=large)
    k = draw.vectors(batch, length, heads, key, width=wide, scale=known.tokens * large)
    v = draw.vectors(batch, length, heads, value, width=value, scale=known.tokens * large)
    weights = {}
    for w in loop.net.weights:
        rows, cols = size[w.rows.name], size[w.cols.name]
        weights[w.name] = draw.vectors(heads, rows, cols, width=rows, scale=large)
    numbers = {}
    for name in dict.fromkeys([*loop.loss_weights.values(), *loop.coefficients]):
        kind, (low, high) = loop.coefficients[name], known.ranges[name]
        if name in known.gains and large > 1:
            less = large ** (-2 * len(loop.net.weights))
            low, high = within(kind.range, (low * less, high * less)) or (low, high)
        numbers[name] = Number(_shape(loop, name, size), kind, (low, high))
    rows = ({},) if values.lasting is None else lasting(loop)
    given = {"gains": known.gains, "rows": rows, "steps": steps}
    made = Inputs(q, k, v, weights, coefficients(draw, rng, numbers, values, **given))
    return with_zeros(made, loop.schedule.chunk) if values.zeros else made


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


def with_zeros(inputs: Inputs, chunk: int) -> Inputs:
    """The inputs with exact zeros in them, as padding and zero starts have.

    All keys of the second chunk are 0, and in the last batch entry its queries and values; in the
    first entry the first value and the last query; the first weight in the first head, and the
    first column of each weight in the last head.
    """
    q, k, v = (x.clone() for x in (inputs.q, inputs.k, inputs.v))
    weights = {name: w.clone() for name, w in inputs.weights.items()}
    second = slice(chunk, 2 * chunk)
    k[:, second] = q[-1, second] = v[-1, second] = 0
    v[0, :1] = q[0, -1:] = 0
    for number, w in enumerate(weights.values()):
        w[-1, :, 0] = 0
        if number == 0:
            w[0] = 0
    return Inputs(q, k, v, weights, inputs.coefficients)


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
