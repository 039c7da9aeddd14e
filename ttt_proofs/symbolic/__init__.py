"""SymPy finds, the kernel judges: gradients, closed forms, proofs, PyTorch code.

For writing derivations: `Derivation`, `Part`, and the functions that make parts.
"""

from .derivation import (
    Derivation,
    Part,
    attention_part,
    gradient_part,
    identity_part,
    single_step_part,
)

__all__ = [
    "Derivation",
    "Part",
    "attention_part",
    "gradient_part",
    "identity_part",
    "single_step_part",
]
