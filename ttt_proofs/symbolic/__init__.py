"""SymPy finds, the checker judges: gradients, closed forms, proofs, PyTorch code.

For writing derivations: `Derivation`, `Part`, and the functions that make parts.
"""

from .claims import Claim
from .derivation import Derivation, Part
from .linear_attention import last_step
from .parts import (
    additive_part,
    affine_part,
    attention_part,
    delta_steps_part,
    gradient_part,
    identity_part,
    matrix_identity_part,
    outer_products_part,
    running_product,
    same_outputs_part,
    single_step_part,
    summed_rate_part,
    textbook_part,
)

__all__ = [
    "Claim",
    "Derivation",
    "Part",
    "additive_part",
    "affine_part",
    "attention_part",
    "delta_steps_part",
    "gradient_part",
    "identity_part",
    "last_step",
    "matrix_identity_part",
    "outer_products_part",
    "running_product",
    "same_outputs_part",
    "single_step_part",
    "summed_rate_part",
    "textbook_part",
]
