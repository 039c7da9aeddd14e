"""Concrete loops at random inputs: what their definitions say, and what the reference runs."""

import numpy as np
import torch

from tests.symbolic.values import Iterated, muon_entry
from ttt_proofs.loops import DepthwiseConv, InnerLoop
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
        None: None,
        "constant": 0.3,
        "per_step": normal(1, steps, 1),
        "per_token": normal(1, length, 1),
    }
    rate = numbers[loop.update.rate]
    if loop.update.rate == "per_token":
        rate = {w.name: normal(1, length, 1) for w in loop.fast_weights}
    momentum = {
        None: None,
        "constant": -0.7,
        "per_step": normal(1, steps, 1),
        "per_token": normal(1, length, 1),
    }[loop.update.momentum]
    return {
        "q": normal(1, length, 1, key),
        "k": normal(1, length, 1, key),
        "v": normal(1, length, 1, sizes["D_v"]),
        "weights": {
            w.name: normal(1, sizes[w.rows.name], sizes[w.cols.name]) for w in loop.net.weights
        },
        "rate": rate,
        "momentum": momentum,
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
    rate, momentum = x["rate"], x["momentum"]
    if isinstance(rate, dict):
        given |= {f"eta_{n}": r[0, :, 0].reshape(tokens).numpy() for n, r in rate.items()}
    else:
        given["eta"] = rate[0, :, 0].numpy() if isinstance(rate, torch.Tensor) else lambda: rate
    if isinstance(momentum, torch.Tensor):
        given["alpha"] = momentum[0, :, 0].reshape(CHUNKS, -1).mean(1).numpy()
    else:
        given["alpha"] = lambda: momentum
    chunk = loop.schedule.chunk
    given["visible"] = np.tril(np.ones((chunk, chunk))).reshape(2 * shape_of(loop))
    sizes = WIDTHS | {"L": chunk, "D_y": size, "D_x": size}
    if size:
        sizes |= dict(zip("YX", shape_of(loop), strict=True))
    found = theory.definitions(loop) if definitions is None else definitions
    return Iterated(sizes, given, {"muon": muon_entry}, definitions=found)


def outputs(loop: InnerLoop, x: dict) -> np.ndarray:
    """The reference's outputs, `[chunk, tokens..., D_v]`."""
    found, _ = run_loop(loop, **x)
    return found[0, :, 0].reshape(CHUNKS, *shape_of(loop), -1).numpy()
