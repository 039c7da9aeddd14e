"""The functions that loops name, in PyTorch: norms of columns, operators on matrices, windows.

Their source is pasted into a loop's code, so each stands by itself and needs `torch` alone.
Matrices are `[..., rows, cols]`, of any floating dtype; results have the dtype of the argument,
but norms have the range of float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def column_norm(x: torch.Tensor) -> torch.Tensor:
    """`‖x[:, c]‖`, `[..., 1, cols]`, float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=-2, keepdim=True, dtype=wide)


def muon(G: torch.Tensor) -> torch.Tensor:
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
    wide = torch.float32 if X.dtype == torch.float16 else X.dtype
    X = (X / (torch.linalg.matrix_norm(X, keepdim=True, dtype=wide) + 1e-7)).to(X.dtype)
    for a, b, c in coefficients:
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X


def muon_bfloat16(G: torch.Tensor) -> torch.Tensor:
    """`muon` carried out in bfloat16: to the bit what LaCT as released gives, run eagerly."""
    return muon(G.to(torch.bfloat16)).to(G.dtype)


def windows(x: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
    """What a depthwise convolution sees: `[B, T, H, C]` to `[B, T, H·C, size²]`.

    Every height·width tokens are the pixels of an image, row by row; each pixel of each channel
    gets the `size` by `size` window around it, row by row, zero outside the image.
    """
    batch, tokens, heads, channels = x.shape
    images = x.reshape(batch, tokens // (height * width), height, width, heads * channels)
    padded = torch.nn.functional.pad(images, (0, 0, *[size // 2] * 4))
    seen = padded.unfold(2, size, 1).unfold(3, size, 1)  # [B, images, y, x, H·C, dy, dx]
    return seen.flatten(5).flatten(1, 3)


# What each name needs, in order of definition.
FUNCTIONS: dict[str, tuple[Callable, ...]] = {
    "column_norm": (column_norm,),
    "muon": (muon,),
    "muon_bfloat16": (muon, muon_bfloat16),
    "windows": (windows,),
}
OPERATORS = ("muon", "muon_bfloat16")
