"""What is studied: `InnerLoop` = net + loss + update rule + schedule; `Recurrence`. No torch."""

from ..program.coefficients import Coefficient
from ..program.expressions import ACTIVATIONS
from ..program.operations import Abstract, layer_norm, relu, rms_norm, sigmoid, silu, tanh
from ..program.rule_tracing import column_norm, operator, unknown_gate, zeros_like
from ..program.step_tracing import outer
from .ladder import lact, ladder
from .loop import InnerLoop, Schedule
from .losses import AbstractLoss, Frobenius, Loss, NegatedValues, SquaredError
from .nets import MLP, AnyNet, Features, Linear, Net, Weight
from .recurrence import Recurrence
from .rule import Update
from .systems import GLU, DepthwiseConv, SwiGLU
from .update import GradientStep

__all__ = [
    "ACTIVATIONS",
    "GLU",
    "MLP",
    "Abstract",
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
    "NegatedValues",
    "Net",
    "Recurrence",
    "Schedule",
    "SquaredError",
    "SwiGLU",
    "Update",
    "Weight",
    "column_norm",
    "lact",
    "ladder",
    "layer_norm",
    "operator",
    "outer",
    "relu",
    "rms_norm",
    "sigmoid",
    "silu",
    "tanh",
    "unknown_gate",
    "zeros_like",
]
