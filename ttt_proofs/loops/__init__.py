"""What is studied: `InnerLoop` = net + loss + update rule + schedule. SymPy, no torch."""

from .expressions import ACTIVATIONS
from .loop import GradientStep, InnerLoop, Schedule
from .losses import AbstractLoss, Frobenius, Loss, SquaredError
from .nets import MLP, Features, Linear, Net, SwiGLU, Weight

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "AbstractLoss",
    "Features",
    "Frobenius",
    "GradientStep",
    "InnerLoop",
    "Linear",
    "Loss",
    "Net",
    "Schedule",
    "SquaredError",
    "SwiGLU",
    "Weight",
]
