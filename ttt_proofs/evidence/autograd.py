"""The autograd witness: a reduction against the real inner loop, outputs and gradients alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ttt_proofs.loops import InnerLoop
from ttt_proofs.loops.current import must_be_current
from ttt_proofs.reference import run_loop

from ..symbolic.plan import NotParallelError
from .conditioning import Drawn, amplified, draw_steady, relative_errors
from .sampling import Inputs, ragged, square
from .tolerances import allowance
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
        """`(q, k, v, *, weights, coefficients) -> (o, final weights)`, step by step."""
        ...

    @property
    def parallel_form(self) -> Run:
        """The same function, in parallel over time."""
        ...


def autograd_witness(reduction: Reduced, *, seed: int, trials: int = 3) -> Observation:
    """Whether a reduction computes what its inner loop computes, to rounding, in float64.

    Each trial draws sizes and inputs and runs three programs on copies of them: the loop itself
    (`reference.run_loop`), `recurrent` and, unless the class is sequential, `parallel_form`; one
    that refuses the first trial with `NotParallelError` is not compared.
    Compared are the outputs `[B, T, H, V]`, each final weight `[B, H, rows, cols]`, and the
    gradients of

        J(o) = ⟨C, o⟩ + ½ ⟨D, o ⊙ o⟩    (C, D random)

    in q, k, v, every initial weight, and the coefficients that are tensors; a gradient that
    is absent counts as zero. The first trial takes two batch entries, two heads and two chunks
    and a token (of images two), so that even one trial sees momentum carried on, a short last
    chunk, and two sequences that must not mix. In the second all weights are square, where
    a transpose has the right shape.

    The error of a tensor is `max|a - b| / max|b|` for b of the reference (or a least scale, where
    that is larger), and infinite where shapes differ or a number is NaN or infinite on either
    side. Tolerance and least scale are the `allowance` for the longest sequence drawn, 1e-12 up
    to 1024 tokens; for loops with norms or Muon, inputs are drawn by `draw_steady`.

    seed: an integer; with `trials` it fixes every draw. trials: 1 or more, else ValueError.
    ValueError for a loop whose code has changed since it was read; what the reduction raises is
    passed on.
    Source: the theorems of Section 5 of arXiv 2602.21204 are what a reduction rests on.
    """
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise ValueError(
            f"`trials` must be a positive integer, for no trial shows nothing; got "
            f"{trials!r}. Use 3."
        )
    loop, rng = reduction.loop, random.Random(seed)
    must_be_current(loop)
    forms: dict[str, Run] = {"recurrent": reduction.recurrent}
    if reduction.parallel != "sequential":
        forms["parallel_form"] = reduction.parallel_form
    smallest = allowance(loop, 1).scale
    errors: dict[str, float] = {}
    longest = 0
    drawn: list[Drawn] = []
    for trial in range(trials):
        start, draw = rng.getrandbits(63), rng.getrandbits(63)
        first = {"B": 2, "T": ragged(loop, 2), "H": 2}
        sizes = {0: first, 1: square(loop, start)}.get(trial)
        reference = partial(measured, partial(run_loop, loop), draw)
        drawn.append(draw_steady(loop, start, reference, sizes=sizes))
        inputs, expected, _ = drawn[-1]
        longest = max(longest, inputs.q.shape[1])
        for form, run in [*forms.items()]:
            try:
                found = measured(run, draw, inputs)
            except NotParallelError:
                if trial or form == "recurrent":
                    raise
                del forms[form]  # from the start: the loop has none
                continue
            for name, error in relative_errors(found, expected, smallest).items():
                what = f"{form}: {name}"
                errors[what] = max(errors.get(what, 0.0), error)
    worst = max(errors, key=errors.__getitem__)
    allowed = allowance(loop, longest).error
    return Observation(
        agrees=errors[worst] <= allowed,
        max_relative_error=errors[worst],
        tolerance=allowed,
        trials=trials,
        device="cpu",
        dtype="float64",
        what=tuple(errors),
        worst=worst,
        amplification=amplified(drawn),
        undecided=sum(not each.steady for each in drawn),
    )


def measured(run: Run, draw: int, inputs: Inputs) -> dict[str, Tensor]:
    """The outputs, final weights and gradients of one program, by name, on its own copies."""
    leaves: dict[str, Tensor] = {}

    def leaf(name: str, x: Any) -> Any:
        if isinstance(x, Tensor):
            x = leaves[name] = x.clone().requires_grad_()
        return x

    tensors = [leaf(name, getattr(inputs, name)) for name in "qkv"]
    weights = {name: leaf(name, w) for name, w in inputs.weights.items()}
    numbers = {name: leaf(f"coefficient {name}", x) for name, x in inputs.coefficients.items()}
    out, final = run(*tensors, weights=weights, coefficients=numbers)
    slopes: list[Tensor | None] = [None] * len(leaves)
    if out.requires_grad:
        generator = torch.Generator().manual_seed(draw)
        drawn = torch.randn((2, *out.shape), generator=generator, dtype=torch.float64)
        linear, square = drawn.to(out.device)
        functional = (linear * out + square * out * out / 2).sum()
        slopes = list(torch.autograd.grad(functional, list(leaves.values()), allow_unused=True))
    found = {"outputs": out} | {f"final {name}": weight for name, weight in final.items()}
    for (name, x), slope in zip(leaves.items(), slopes, strict=True):
        found[f"gradient in {name}"] = torch.zeros_like(x) if slope is None else slope
    return {name: x.detach() for name, x in found.items()}
