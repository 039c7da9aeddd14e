"""What is studied: `InnerLoop` = net + loss + update rule + schedule. SymPy, no torch."""

from ..program.expressions import ACTIVATIONS
from .ladder import lact, ladder
from .loop import InnerLoop, Schedule
from .losses import AbstractLoss, Frobenius, Loss, SquaredError
from .nets import MLP, AnyNet, Features, Linear, Net, Weight
from .systems import GLU, DepthwiseConv, SwiGLU
from .update import GradientStep

__all__ = [
    "ACTIVATIONS",
    "GLU",
    "MLP",
    "AbstractLoss",
    "AnyNet",
    "DepthwiseConv",
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
    "lact",
    "ladder",
]
