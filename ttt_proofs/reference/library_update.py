"""The library's update on numbers: clip, momentum, orthogonalisation, step, weight norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import matrix_norm, vector_norm

from .arguments import Weights

TINY = 1e-7  # keeps the zero matrix zero in Muon; as LaCT is released
EPSILON = 1e-5  # keeps a zero column zero in the weight norm; as LaCT is released

# The coefficients a, b, c of Muon's five steps.
NEWTON_SCHULZ = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def column_norms(weight: Tensor) -> Tensor:
    """The norm of each column, over the rows: `[..., rows, cols]` to `[..., 1, cols]`."""
    return vector_norm(weight, dim=-2, keepdim=True)


def _shrink(step: Tensor) -> Tensor:
    """Each column over its norm plus 1. Source: ViTTT as released."""
    return step / (column_norms(step) + 1)


def _muon(matrix: Tensor) -> Tensor:
    """Each matrix with its singular values brought near 1, in its own dtype.

    `X = G / (‖G‖_F + 1e-7)`, then five times `X <- a X + (b A + c A²) X` with `A = X Xᵀ`, on the
    transpose if that has as few rows: LaCT as released stores outputs by inputs, where this is
    inputs by outputs, and turns there what has more rows than columns, so no square.
    Source: Appendix E of arXiv 2602.21204; LaCT as released.
    """
    tall = matrix.shape[-2] >= matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (matrix_norm(x, keepdim=True) + TINY)
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _muon_bfloat16(matrix: Tensor) -> Tensor:
    """The same with every operation in bfloat16, cast back at the end."""
    return _muon(matrix.to(torch.bfloat16)).to(matrix.dtype)


def _restore(weight: Tensor, initial: Tensor) -> Tensor:
    """Each column brought to its initial norm `[..., 1, cols]`, up to epsilon."""
    return weight * (initial / (column_norms(weight) + EPSILON))


CLIPS: dict[str, Callable[[Tensor], Tensor]] = {"column_norm": _shrink}
OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {"muon": _muon, "muon_bfloat16": _muon_bfloat16}
NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"initial_norm": _restore}


def update(
    state: Weights,
    memory: Weights,
    gradient: Weights,
    eta: Tensor | float,
    alpha: Tensor | float,
    norms: Weights,
    *,
    place: str,
    momentum: str | None,
    ascent: bool,
    clip: str | None,
    orthogonal: str | None,
    weight_norm: str | None,
    **_: object,
) -> tuple[Weights, Weights]:
    """The weights and the buffers after one step of `GradientStep`; those without a gradient stay.

    All are `[B, H, rows, cols]` by name; eta and alpha are numbers or `[B, H, 1, 1]`; `norms`
    are those of the columns at the start, `[B, H, 1, cols]`. The keywords are the update's fields.
    """
    state, memory = dict(state), dict(memory)
    way = 1 if ascent else -1
    inside, outside = (eta, 1.0) if place == "inside" else (1.0, eta)
    for name, slope in gradient.items():
        step = inside * slope
        if clip:
            step = CLIPS[clip](step)
        if orthogonal:  # its buffer holds the direction, with its sign
            step = memory[name] = way * step + alpha * memory[name]
            moved = state[name] + outside * OPERATORS[orthogonal](step)
        else:
            if momentum:
                step = memory[name] = step + alpha * memory[name]
            moved = state[name] + way * (outside * step)
        state[name] = NORMS[weight_norm](moved, norms[name]) if weight_norm else moved
    return state, memory
