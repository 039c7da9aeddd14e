"""The real inner loop, run in float64: `run_loop`, and the choice between its two oracles.

Most loops of the library have an oracle written apart (`library`); any loop is run by the functions
that it was made of (`functions`). Where a loop has both, they agree, and share no code that
computes: not the schedule, nor the gradient, nor the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from ttt_proofs.loops import InnerLoop

from . import by_autograd, library
from .arguments import Coefficients, Weights, given


def run_loop(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Mapping[str, Tensor],
    coefficients: Coefficients | None = None,
) -> tuple[Tensor, Weights]:
    """The outputs and the final weights of the inner loop, by running it.

    For each chunk of `loop.schedule.chunk` tokens (the last may be shorter, images are whole), as
    often as `loop.schedule.steps` says: take the gradient of the loss, summed over the chunk's
    tokens, at the current weights, and move each fast weight by `loop.update`. Then, or before
    that, read `net(Q; W)`; a causal reading reads each token after one update, made from before
    the chunk, that counts the losses of the tokens up to it, with the chunk's coefficients.
    Heads and batch entries are independent.

    Shapes, with N = ceil(T / chunk):
        q, k: `[B, T, H, K]`; v: `[B, T, H, V]`.
        weights: each `[H, rows, cols]`, by name as in `loop.net.weights`; shared by the batch.
        coefficients: by name, exactly those of `loop.coefficients`: of each loop one number, of
            each step `[B, N, H]`, of each token `[B, T, H]`; those that tell rows, columns or
            entries apart have these as further axes, and of each loop begin with `[H]`. Tokens'
            are averaged over a chunk, or weigh the losses in the gradient of a weight
            (`loop.loss_weights`).
        Returns `[B, T, H, V]` and, for every weight, `[B, H, rows, cols]`.
    All is converted to float64; so are the results. Gradients flow from the results through the
    inner gradients to every argument that requires them; the arguments are not changed. T = 0
    and B = 0 give empty results. NaN stays NaN.

    Raises ValueError for what is abstract or lacks its function, since there is nothing to run,
    and for names and shapes that do not match.
    Source: Section 3, Theorems 5.1 to 5.3, Appendices E to G of arXiv 2602.21204.

    By hand, Frobenius with k = 1, 2; v = 3, 1; W = 1; η = ½: W becomes 1 + 3/2, then 5/2 + 1.

    >>> from ttt_proofs.loops import Frobenius, InnerLoop, Linear
    >>> q, k, v = (torch.tensor(x).view(1, 2, 1, 1) for x in ([1., 1.], [1., 2.], [3., 1.]))
    >>> o, final = run_loop(InnerLoop(Linear(), Frobenius()), q, k, v,
    ...                     weights={"W": torch.ones(1, 1, 1)}, coefficients={"eta": 0.5})
    >>> o.flatten().tolist(), final["W"].item()
    ([2.5, 3.5], 3.5)
    """
    return _run(of(loop), loop, q, k, v, weights, coefficients)


def run_functions(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Mapping[str, Tensor],
    coefficients: Coefficients | None = None,
) -> tuple[Tensor, Weights]:
    """The same as `run_loop`, by the loop's own functions also for a loop of the library."""
    return _run(by_autograd, loop, q, k, v, weights, coefficients)


def first_gradient(
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Mapping[str, Tensor],
    coefficients: Coefficients | None = None,
) -> Weights:
    """The gradient of the first chunk's loss in each fast weight, `[B, H, rows, cols]`.

    Arguments and errors are those of `run_loop`; what weighs losses counts.
    """
    with torch.enable_grad():
        return of(loop).first_gradient(given(loop, q, k, v, weights, coefficients))


def of(loop: InnerLoop) -> ModuleType:
    """The oracle of a loop: the one written apart where it covers the loop."""
    return library if library.covers(loop) else by_autograd


def _run(
    oracle: ModuleType,
    loop: InnerLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Mapping[str, Tensor],
    coefficients: Coefficients | None,
) -> tuple[Tensor, Weights]:
    """The outputs and final weights by one of the oracles."""
    arguments = given(loop, q, k, v, weights, coefficients)
    with torch.enable_grad():
        outputs, final = oracle.run(arguments)
    return outputs.transpose(1, 2).contiguous(), final
