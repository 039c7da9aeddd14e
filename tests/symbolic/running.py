"""Concrete loops at random inputs: what their definitions say, and what the reference runs."""

import numpy as np
import torch

from tests.symbolic.values import Iterated, muon_entry
from ttt_proofs.loops import Coefficient, DepthwiseConv, InnerLoop
from ttt_proofs.reference import run_loop
from ttt_proofs.symbolic import theory

CHUNKS = 3
WIDTHS = {"D_k": 2, "D_h": 3, "D_v": 2, "D_1": 3, "D_2": 2}


def shape_of(loop: InnerLoop) -> tuple[int, ...]:
    """The extents of a chunk's token indices."""
    if isinstance(loop.net, DepthwiseConv):
        return (loop.net.height, loop.net.width)
    return () if loop.schedule.single else (loop.schedule.chunk,)


def drawn(loop: InnerLoop, seed: int = 0) -> dict:
    """Arguments of `run_loop`, one sequence and one head, of three chunks."""
    generator = torch.Generator().manual_seed(seed)
    chunk, window = loop.schedule.chunk, getattr(loop.net, "size", 0) ** 2
    steps, length = CHUNKS, CHUNKS * chunk
    sizes = WIDTHS | {"D_w": window}

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / 2

    key = sizes["D_v" if window else "D_k"]
    numbers = {
        ("loop", False): lambda: -0.7,
        ("step", False): lambda: normal(1, steps, 1),
        ("token", False): lambda: normal(1, length, 1),
        ("token", True): lambda: normal(1, length, 1),
    }
    return {
        "q": normal(1, length, 1, key),
        "k": normal(1, length, 1, key),
        "v": normal(1, length, 1, sizes["D_v"]),
        "weights": {
            w.name: normal(1, sizes[w.rows.name], sizes[w.cols.name]) for w in loop.net.weights
        },
        "coefficients": {name: numbers[c.every, c.mean]() for name, c in loop.coefficients.items()},
    }


def meaning(loop: InnerLoop, x: dict, definitions=None) -> Iterated:
    """What the loop's definitions say at these inputs."""
    tokens, size = (CHUNKS, *shape_of(loop)), getattr(loop.net, "size", 0)
    given: dict = {"epsilon": 1e-5}
    for name in "qkv":
        data = x[name][0, :, 0].reshape(*tokens, -1).numpy()
        edge = size // 2 if name != "v" else 0
        given[name] = np.pad(data, [(0, 0), *[(edge, edge)] * (data.ndim - 2), (0, 0)])
    for weight in loop.net.weights:
        value = x["weights"][weight.name][0].numpy()
        value = value.reshape(size, size, -1) if size else value
        given |= {weight.name: value, f"{weight.name}_0": value}
    for name, kind in loop.coefficients.items():
        given[name] = spoken(kind, x["coefficients"][name], tokens)
    chunk = loop.schedule.chunk
    given["visible"] = np.tril(np.ones((chunk, chunk))).reshape(2 * shape_of(loop))
    sizes = WIDTHS | {"L": chunk, "D_y": size, "D_x": size}
    if size:
        sizes |= dict(zip("YX", shape_of(loop), strict=True))
    found = theory.definitions(loop) if definitions is None else definitions
    return Iterated(sizes, given, {"muon": muon_entry}, definitions=found)


def spoken(kind: Coefficient, value, tokens: tuple[int, ...]):
    """A coefficient as definitions have it: one, one for each step, or one for each token."""
    if kind.every == "loop":
        return lambda: value
    if kind.mean:
        return value[0, :, 0].reshape(CHUNKS, -1).mean(1).numpy()
    return value[0, :, 0].reshape(tokens if kind.every == "token" else -1).numpy()


def outputs(loop: InnerLoop, x: dict) -> np.ndarray:
    """The reference's outputs, `[chunk, tokens..., D_v]`."""
    found, _ = run_loop(loop, **x)
    return found[0, :, 0].reshape(CHUNKS, *shape_of(loop), -1).numpy()
