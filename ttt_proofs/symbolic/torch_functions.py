"""The functions that loops name, in PyTorch: norms of columns, operators on matrices, windows.

Their source is pasted into a loop's code, so each stands by itself and needs `torch` alone.
Matrices are `[..., rows, cols]`, of any floating dtype; results have the dtype of the argument,
but norms have the range of float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..program.operators import RUNNABLE


def column_norm(x: torch.Tensor) -> torch.Tensor:
    """`‖x[:, c]‖`, `[..., 1, cols]`, float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=-2, keepdim=True, dtype=wide)


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


# In order of definition: each calls none after it.
FUNCTIONS: dict[str, Callable] = {"column_norm": column_norm, **RUNNABLE, "windows": windows}
