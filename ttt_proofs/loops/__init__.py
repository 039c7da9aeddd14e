"""What is studied: `InnerLoop` = net + loss + update rule + schedule. SymPy, no torch."""

from ..program.coefficients import Coefficient
from ..program.expressions import ACTIVATIONS
from ..program.rule_tracing import column_norm, operator, unknown_gate, zeros_like
from .ladder import lact, ladder
from .loop import InnerLoop, Schedule
from .losses import AbstractLoss, Frobenius, Loss, SquaredError
from .nets import MLP, AnyNet, Features, Linear, Net, Weight
from .rule import Update
from .systems import GLU, DepthwiseConv, SwiGLU
from .update import GradientStep

__all__ = [
    "ACTIVATIONS",
    "GLU",
    "MLP",
    "AbstractLoss",
    "AnyNet",
    "Coefficient",
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
    "Update",
    "Weight",
    "column_norm",
    "lact",
    "ladder",
    "operator",
    "unknown_gate",
    "zeros_like",
]
