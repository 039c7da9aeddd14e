"""The autograd witness: a reduction against the real inner loop, outputs and gradients alike."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ttt_proofs.loops import InnerLoop
from ttt_proofs.reference import run_loop

from .sampling import Inputs, random_inputs
from .tolerances import SMALLEST_SCALE, tolerance
from .types import Observation

Run = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]


class Reduced(Protocol):
    """What the witness needs of a reduction; both forms run as `reference.run_loop` does."""

    @property
    def loop(self) -> InnerLoop:
        """The inner loop that was reduced."""
        ...

    @property
    def parallel(self) -> str:
        """The parallel class; "sequential" has no parallel form."""
        ...

    @property
    def recurrent(self) -> Run:
        """`(q, k, v, *, weights, rate, momentum) -> (o, final weights)`, step by step."""
        ...

    @property
    def parallel_form(self) -> Run:
        """The same function, in parallel over time."""
        ...


def autograd_witness(reduction: Reduced, *, seed: int, trials: int = 3) -> Observation:
    """Whether a reduction computes what its inner loop computes, to rounding, in float64.

    Each trial draws sizes and inputs and runs three programs on copies of them: the loop itself
    (`reference.run_loop`), `recurrent` and, unless the class is sequential, `parallel_form`.
    Compared are the outputs `[B, T, H, V]`, each final weight `[B, H, rows, cols]`, and the
    gradients of

        J(o) = ⟨C, o⟩ + ½ ⟨D, o ⊙ o⟩    (C, D random)

    in q, k, v and every initial weight; a gradient that is absent counts as zero. The first trial
    takes two batch entries, two heads and two chunks and a token, so that even one trial sees
    momentum carried on, a short last chunk, and two sequences that must not mix.

    The error of a tensor is `max|a - b| / max|b|` for b of the reference (`SMALLEST_SCALE` where
    that is larger), and infinite where shapes differ or a number is NaN or infinite on either
    side. The tolerance is that of `tolerances` for the longest sequence drawn, 1e-12 up to 1024
    tokens.

    seed: an integer; with `trials` it fixes every draw. trials: 1 or more, else ValueError.
    What the reduction raises is passed on.
    Source: the theorems of Section 5 of arXiv 2602.21204 are what a reduction rests on.
    """
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise ValueError(f"`trials` must be a positive integer, for no trial shows nothing; got "
                         f"{trials!r}. Use 3.")  # fmt: skip
    forms: dict[str, Run] = {"recurrent": reduction.recurrent}
    if reduction.parallel != "sequential":
        forms["parallel_form"] = reduction.parallel_form
    rng = random.Random(seed)
    errors: dict[str, float] = {}
    longest = 0
    for trial in range(trials):
        chunk = reduction.loop.schedule.chunk
        sizes = {"B": 2, "T": 2 * chunk + 1, "H": 2} if trial == 0 else None
        inputs = random_inputs(reduction.loop, rng.getrandbits(63), sizes=sizes)
        draw = rng.getrandbits(63)
        longest = max(longest, inputs.q.shape[1])
        expected = _measured(partial(run_loop, reduction.loop), inputs, draw)
        for form, run in forms.items():
            for name, error in _errors(_measured(run, inputs, draw), expected).items():
                what = f"{form}: {name}"
                errors[what] = max(errors.get(what, 0.0), error)
    worst = max(errors, key=errors.__getitem__)
    allowed = tolerance("float64", longest)
    return Observation(
        agrees=errors[worst] <= allowed,
        max_relative_error=errors[worst],
        tolerance=allowed,
        trials=trials,
        device="cpu",
        dtype="float64",
        what=tuple(errors),
        worst=worst,
    )


def relative_error(actual: Tensor | None, expected: Tensor) -> float:
    """`max|a - b| / max|b|`, a pure number; infinite unless both are finite and of one shape.

    actual, expected: any shape and real dtype, compared in float64; None is a missing tensor.
    The scale is at least `SMALLEST_SCALE`, so two tensors of zeros have error 0, and a number
    where zero is due has a large one. Two empty tensors of one shape have error 0.
    """
    if actual is None or actual.shape != expected.shape:
        return math.inf
    a, b = actual.detach().to("cpu", torch.float64), expected.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        return math.inf
    if not b.numel():
        return 0.0
    return float((a - b).abs().max()) / max(float(b.abs().max()), SMALLEST_SCALE)


def _measured(run: Run, inputs: Inputs, draw: int) -> dict[str, Tensor]:
    """The outputs, final weights and gradients of one program, by name, on its own copies."""

    def copy(x):
        return x.clone() if isinstance(x, Tensor) else x

    tensors = {name: getattr(inputs, name).clone().requires_grad_() for name in "qkv"}
    weights = {name: w.clone().requires_grad_() for name, w in inputs.weights.items()}
    out, final = run(
        *tensors.values(), weights=dict(weights), rate=copy(inputs.rate),
        momentum=copy(inputs.momentum),
    )  # fmt: skip
    leaves = tensors | weights
    slopes: list[Tensor | None] = [None] * len(leaves)
    if out.requires_grad:
        generator = torch.Generator().manual_seed(draw)
        linear, square = torch.randn((2, *out.shape), generator=generator, dtype=torch.float64)
        functional = (linear * out + square * out * out / 2).sum()
        slopes = list(torch.autograd.grad(functional, list(leaves.values()), allow_unused=True))
    found = {"outputs": out} | {f"final {name}": weight for name, weight in final.items()}
    for (name, leaf), slope in zip(leaves.items(), slopes, strict=True):
        found[f"gradient in {name}"] = torch.zeros_like(leaf) if slope is None else slope
    return found


def _errors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """The relative error of each tensor by name; infinite for one that only one side has."""
    errors = {name: relative_error(actual.get(name), want) for name, want in expected.items()}
    return errors | {name: math.inf for name in actual if name not in expected}
