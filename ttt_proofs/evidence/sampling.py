"""Random inner loops, and random well-scaled inputs for any loop."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from ttt_proofs.loops import (
    ACTIVATIONS,
    MLP,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Net,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.loops.loop import Place, Rate, Read, Train

LONGEST = 9  # tokens, unless two chunks and a token are more


@dataclass(frozen=True)
class Inputs:
    """What an inner loop runs on; the fields are the arguments of `reference.run_loop`.

    q, k: `[B, T, H, K]`. v: `[B, T, H, V]`. weights: each `[H, rows, cols]`, by name.
    rate, momentum: a number where constant, `[B, N, H]` for N = ceil(T / chunk) steps where per
    step; momentum is None where the loop has none.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    weights: dict[str, Tensor]
    rate: float | Tensor
    momentum: float | Tensor | None


def random_loop(rng: random.Random) -> InnerLoop:
    """An inner loop that can be run, each of its choices drawn independently.

    Linear, MLP of depth 1 to 3 with each named activation, or SwiGLU with each of them as its
    gate; both losses; ascent and descent; constant and per-step rate, inside and outside; no,
    constant and per-step momentum; all weights or the last; chunks of 1 to 4 tokens, read after
    or before their update. All lie within the theorems: no bias, a linear last layer.

    The same state of `rng` gives the same loop.
    """
    activation = rng.choice(list(ACTIVATIONS))
    nets: list[Net] = [Linear(), MLP(rng.randint(1, 3), activation), SwiGLU(activation)]
    update = GradientStep(
        rate=rng.choice(get_args(Rate)),
        place=rng.choice(get_args(Place)),
        momentum=rng.choice((None, *get_args(Rate))),
        ascent=rng.random() < 0.5,
        trained=rng.choice(get_args(Train)),
    )
    schedule = Schedule(rng.randint(1, 4), rng.choice(get_args(Read)))
    return InnerLoop(rng.choice(nets), rng.choice([Frobenius(), SquaredError()]), update, schedule)


def random_inputs(
    loop: InnerLoop,
    seed: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    sizes: Mapping[str, int] | None = None,
) -> Inputs:
    """Inputs of random sizes and values, scaled so that nothing grows or vanishes.

    Sizes: B in 1 to 2, H in 1 to 3, every width in 1 to 5, T in 1 to 9 or, for long chunks, in
    1 to two chunks and a token. `sizes` fixes any of them: "B", "T" (0 is allowed for both), "H",
    and widths by the names they have in `loop.net.weights`, such as "D_k" and "D_v".
    Values: each uniform in ±width^-½, for rows of q, k and v and columns of weights, so that none
    is longer than 1; rates uniform in 0.02 to 0.3, divided by the chunk's length, as its loss
    sums over tokens (for more than nine chunks, by a ninth of all tokens); momentum uniform in 0
    to 1 (excluded). With these, no loop runs away, ascent included.

    The same loop, seed and sizes give the same inputs on every device, drawn in float64 and then
    converted. Raises ValueError for a size that the loop does not have or that is too small.
    """
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    chunk = loop.schedule.chunk
    highest = {"B": 2, "T": max(LONGEST, 2 * chunk + 1), "H": 3, "D_k": 5, "D_v": 5}
    highest |= {side.name: 5 for w in loop.net.weights for side in (w.rows, w.cols)}
    drawn = {name: rng.randint(1, high) for name, high in highest.items()}
    size = drawn | _checked(sizes or {}, set(drawn))
    batch, length, heads = size["B"], size["T"], size["H"]
    scalars = (batch, -(-length // chunk), heads)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float64)
        return (low + (high - low) * values).to(device, dtype)

    def vectors(*shape: int, width: int) -> Tensor:
        return uniform(shape, -(width**-0.5), width**-0.5)

    def number(kind: Rate, low: float, high: float) -> float | Tensor:
        return uniform(scalars, low, high) if kind == "per_step" else rng.uniform(low, high)

    key, value = size["D_k"], size["D_v"]
    q, k = (vectors(batch, length, heads, key, width=key) for _ in range(2))
    v = vectors(batch, length, heads, value, width=value)
    weights = {}
    for w in loop.net.weights:
        rows, cols = size[w.rows.name], size[w.cols.name]
        weights[w.name] = vectors(heads, rows, cols, width=rows)
    share = max(chunk, length / LONGEST)
    rate = number(loop.update.rate, 0.02 / share, 0.3 / share)
    kind = loop.update.momentum
    momentum = None if kind is None else number(kind, 0.0, 1.0)
    return Inputs(q, k, v, weights, rate, momentum)


def _checked(sizes: Mapping[str, int], known: set[str]) -> dict[str, int]:
    """The sizes, or a ValueError that names the one that cannot be."""
    for name, size in sizes.items():
        if name not in known:
            raise ValueError(f"`sizes` must name some of {', '.join(sorted(known))}; got "
                             f"{name!r}. Leave it out.")  # fmt: skip
        least = 0 if name in ("B", "T") else 1
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise ValueError(f"`sizes[{name!r}]` must be an integer, {least} or more; got "
                             f"{size!r}. Correct it.")  # fmt: skip
    return dict(sizes)
