"""Outputs with all their gradients, as the benchmarks run and compare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[..., Tensor]


def leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same values, as leaves that need gradients."""
    return [x.detach().requires_grad_() for x in tensors]


def like(o: Tensor, seed: int = 1) -> Tensor:
    """A fixed random gradient for an output."""
    generator = torch.Generator(o.device).manual_seed(seed)
    return torch.randn(o.shape, generator=generator, device=o.device, dtype=torch.float32).to(o)


def forward(function: Function, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The output alone, nothing kept for gradients."""
    with torch.no_grad():
        return (function(*tensors),)


def both(function: Function, tensors: Sequence[Tensor], do: Tensor) -> tuple[Tensor, ...]:
    """The output and the gradient of every tensor, which are leaves."""
    o = function(*tensors)
    return o, *torch.autograd.grad(o, tensors, do)
