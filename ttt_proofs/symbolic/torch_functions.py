"""The functions that loops name, in PyTorch: what clips, orthogonalises, restores a norm.

Their source is pasted into a loop's code, so each stands by itself and needs `torch` alone.
Matrices are `[..., rows, cols]`, of any floating dtype; results have the dtype of the argument,
norms and what is added to them have the range of float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..program.operators import muon, muon_bfloat16


def column_norm(G: torch.Tensor) -> torch.Tensor:
    """`1 / (‖G[:, c]‖ + 1)`, `[..., 1, cols]`. Source: ViTTT as released."""
    wide = torch.promote_types(G.dtype, torch.float32)
    return (1 / (torch.linalg.vector_norm(G, dim=-2, keepdim=True, dtype=wide) + 1)).to(G.dtype)


def initial_norm(W: torch.Tensor, W_0: torch.Tensor) -> torch.Tensor:
    """`‖W_0[:, c]‖ / (‖W[:, c]‖ + 1e-5)`, `[..., 1, cols]`. Source: LaCT as released."""
    wide = torch.promote_types(W.dtype, torch.float32)
    now, first = (torch.linalg.vector_norm(x, dim=-2, keepdim=True, dtype=wide) for x in (W, W_0))
    return (first / (now + 1e-5)).to(W.dtype)


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
    "initial_norm": (initial_norm,),
    "muon": (muon,),
    "muon_bfloat16": (muon, muon_bfloat16),
    "windows": (windows,),
}
