"""Weights that are used more than once, by code and by modules, and layers around others."""

import torch
from torch import nn

from ttt_proofs.loops import GradientStep, InnerLoop, SquaredError


def twice(x, W, U):
    return torch.tanh(torch.sigmoid(x @ W) @ W.T) @ U


def around(x, W, A, U):
    x = torch.tanh(x @ W)
    return (x + x @ A) @ U


def residual(x, W):
    return x + x @ W


class Tied(nn.Module):
    """Two layers of one weight, and one module under two names."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.one = nn.Linear(width, width, bias=False)
        self.two = nn.Linear(width, width, bias=False)
        self.two.weight = self.one.weight
        self.scale = self.again = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(torch.tanh(self.one(self.scale(x))))
        return self.out(torch.tanh(self.two(x)))


LOOPS = {
    net.__name__: InnerLoop(net, SquaredError(), GradientStep())
    for net in (twice, around, residual)
} | {"tied": InnerLoop(Tied(), SquaredError(), GradientStep(), trained="last")}
