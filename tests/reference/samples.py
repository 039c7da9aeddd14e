"""Inputs for the oracle, and copies of it with a fault."""

import importlib
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from ttt_proofs import reference


def numbers(values):
    """Plain numbers as `[1, T, 1, 1]`."""
    return torch.tensor([float(x) for x in values], dtype=torch.float64).view(1, -1, 1, 1)


def scalars(value):
    """A coefficient as the oracle takes it: tuples are one number a step or a token."""
    return numbers(value)[..., 0] if isinstance(value, tuple) else float(value)


def named(rate, momentum):
    """A rate, or those of each weight, and a momentum under their coefficients' names."""
    rates = {f"eta_{name}": x for name, x in rate.items()} if isinstance(rate, dict) else None
    given = {"eta": rate, "alpha": momentum} if rates is None else rates | {"alpha": momentum}
    return {name: x for name, x in given.items() if x is not None}


def play(run, loop, qkv, weights, rate, momentum):
    """Run an example of one sequence, one head and widths of 1, in plain numbers."""
    start = {name: numbers([w])[0] for name, w in weights.items()}
    given = {name: scalars(x) for name, x in named(rate, momentum).items()}
    o, final = run(loop, *map(numbers, qkv), weights=start, coefficients=given)
    return o.flatten().tolist(), {name: w.item() for name, w in final.items()}


def sample(loop, batch=2, length=5, heads=2, key=3, value=2, hidden=4, seed=7, dtype=torch.float64):
    """Tensors for a loop: (q, k, v), weights. A convolution has `value` channels."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (torch.randn(shape, generator=generator) / 2).to(dtype)

    if loop.net.tokens:
        key = value
    widths = {"D_k": key, "D_v": value, "D_w": getattr(loop.net, "size", 0) ** 2}
    weights = {
        w.name: draw(heads, widths.get(w.rows.name, hidden), widths.get(w.cols.name, hidden))
        for w in loop.net.weights
    }
    q, k = draw(batch, length, heads, key), draw(batch, length, heads, key)
    return (q, k, draw(batch, length, heads, value)), weights


def sample_coefficients(loop, batch=2, length=5, heads=2, seed=8):
    """The coefficients of a loop: positive, all different; momenta are larger than rates."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "loop": (),
        "step": (batch, -(-length // loop.schedule.chunk), heads),
        "token": (batch, length, heads),
    }
    given = {}
    for name in [*loop.loss_weights.values(), *loop.coefficients]:
        if name not in given:
            shape = shapes[loop.coefficients[name].every]
            low = 0.3 if name == "alpha" else 0.1
            given[name] = low + torch.rand(shape, generator=generator, dtype=torch.float64) / 2
    return given


@contextmanager
def faulty(folder, module, sound, fault, run="run_loop"):
    """A copy of the oracle in which one text of one module, there once, is another: its `run`."""
    name = f"faulty_{folder.name}"
    shutil.copytree(Path(reference.__file__).parent, folder / name)
    file = folder / name / f"{module}.py"
    source = file.read_text(encoding="utf-8")
    assert source.count(sound) == 1, f"{sound!r} is there {source.count(sound)} times"
    file.write_text(source.replace(sound, fault), encoding="utf-8")
    # Other bytes compiled in the same second would be taken for the copy's.
    shutil.rmtree(folder / name / "__pycache__", ignore_errors=True)
    sys.path.insert(0, str(folder))
    try:
        yield getattr(importlib.import_module(name), run)
    finally:
        sys.path.remove(str(folder))
        for loaded in [other for other in sys.modules if other.partition(".")[0] == name]:
            del sys.modules[loaded]
