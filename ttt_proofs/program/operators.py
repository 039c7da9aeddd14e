"""Operators on matrices that run, written in methods of tensors: this package has no torch.

Their source is pasted into a loop's code, so each stands by itself. Matrices are
`[..., rows, cols]`, of any floating dtype; results have the dtype of the argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def muon(G):
    """G with its singular values brought near 1: five Newton-Schulz steps; 0 stays 0.

    G is `[..., inputs, outputs]`. LaCT as released stores it outputs by inputs, and transposes
    what has more rows than columns there, so the steps run on the transpose of a square G: the
    same in real numbers, another rounding.
    Source: Section 5.3, Appendix E of arXiv 2602.21204; the constant 1e-7 from LaCT as released.
    """
    coefficients = (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    )
    tall = G.shape[-2] >= G.shape[-1]
    X = G.mT if tall else G  # the smaller of the two products X Xᵀ, Xᵀ X
    # float16 lacks the range; bfloat16 has it, and the released layer rounds the norm to it.
    wide = X.float() if X.dtype == X.half().dtype else X
    X = (X / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(X.dtype)
    for a, b, c in coefficients:
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X


def muon_bfloat16(G):
    """`muon` carried out in bfloat16: to the bit what LaCT as released gives, run eagerly."""
    return muon(G.bfloat16()).to(G.dtype)


RUNNABLE: dict[str, Callable[[Any], Any]] = {"muon": muon, "muon_bfloat16": muon_bfloat16}
