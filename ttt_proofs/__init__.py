"""Test-time training with key-value binding is linear attention, made executable.

Give it an inner loop; it derives the linear-attention form, proves it for every length and
width, checks it in exact arithmetic and against PyTorch autograd, and refutes what is false.
Names are loaded when first used, so that the checker alone needs nothing but Python.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checker.proof import Theorem
    from .evidence.check import check
    from .evidence.report import prove, refute, verify
    from .evidence.types import Evidence, Observation, Refutation, Verdict
    from .layer import TTTLayer
    from .loops import InnerLoop, Recurrence
    from .reduction import Reduction, reduce
    from .symbolic.closed_forms import NotCoveredError
    from .symbolic.plan import NotParallelError

__version__ = "0.1.0"

_HOME = {
    "Evidence": "evidence.types",
    "InnerLoop": "loops",
    "NotCoveredError": "symbolic.closed_forms",
    "NotParallelError": "symbolic.plan",
    "Observation": "evidence.types",
    "Recurrence": "loops",
    "Reduction": "reduction",
    "Refutation": "evidence.types",
    "TTTLayer": "layer",
    "Theorem": "checker.proof",
    "Verdict": "evidence.types",
    "check": "evidence.check",
    "prove": "evidence.report",
    "reduce": "reduction",
    "refute": "evidence.report",
    "verify": "evidence.report",
}

__all__ = [
    "Evidence",
    "InnerLoop",
    "NotCoveredError",
    "NotParallelError",
    "Observation",
    "Recurrence",
    "Reduction",
    "Refutation",
    "TTTLayer",
    "Theorem",
    "Verdict",
    "check",
    "prove",
    "reduce",
    "refute",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module `ttt_proofs` has no `{name}`; it has {', '.join(__all__)}.")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
