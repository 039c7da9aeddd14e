"""SymPy finds, the kernel judges: gradients, closed forms, proofs, PyTorch code.

For writing derivations: `Derivation`, `Part`, and the functions that make parts.
"""

from .derivation import (
    Derivation,
    Part,
    attention_part,
    gradient_part,
    identity_part,
    running_product,
    single_step_part,
)
from .linear_attention import last_step

__all__ = [
    "Derivation",
    "Part",
    "attention_part",
    "gradient_part",
    "identity_part",
    "last_step",
    "running_product",
    "single_step_part",
]
