"""How close is close enough: the one place that says so. Nothing outside loosens it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..loops import InnerLoop
from .scaling import is_smooth

UNIT = {"float64": 2.0**-52, "float32": 2.0**-23}
UNITS_ALLOWED = 1e-12 / UNIT["float64"]  # about 4500, for well-scaled inputs
SHORT = 1024  # terms in a sum; the allowance grows with what is longer

# An error is relative to the largest entry of the tensor it is in. Inputs are drawn at unit
# scale, so entries below this are what is left of larger ones that cancelled, and their rounding
# is that of the larger ones.
SMALLEST_SCALE = 1e-3

# A kernel is judged by what plain PyTorch makes of the same inputs in the same precision: an
# error against float64 of at most this many times the plain form's, forward and each gradient.
PLAIN_FACTOR = 2.0
FEW_UNITS = 4  # in the last place of float32, the precision that kernels sum in


def tolerance(precision: str, length: int) -> float:
    """The largest relative error that passes, a pure number.

    1e-12 in float64, and as many units in the last place in float32 (5.4e-4), for sums of up to
    1024 terms; in proportion to the number of terms above that, as the error bound of a sum is.

    precision: "float64" or "float32"; others are judged against plain PyTorch (`PLAIN_FACTOR`).
    length: the number of terms in the longest sum, such as the tokens of a sequence.
    Raises ValueError for another precision or a negative length.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, Section 4.2 (bound n·u).
    """
    if precision not in UNIT:
        raise ValueError(
            f"`precision` must be one of {', '.join(UNIT)}; got {precision!r}. "
            "Compare others with plain PyTorch, by PLAIN_FACTOR."
        )
    if not isinstance(length, int) or isinstance(length, bool) or length < 0:
        raise ValueError(
            f"`length` must be a number of terms, 0 or more; got {length!r}. Count the longest sum."
        )
    return UNITS_ALLOWED * UNIT[precision] * max(1.0, length / SHORT)


def budget(dtype: torch.dtype, plain: float) -> float:
    """The largest relative error of a kernel's tensor that passes, a pure number.

    Twice the error that plain PyTorch makes in the same dtype, and for one that happens to be
    exact, or is not finite, a few units in the last place of float32 (of float64 for float64).
    """
    unit = UNIT["float64" if dtype == torch.float64 else "float32"]
    return max(PLAIN_FACTOR * plain if math.isfinite(plain) else 0.0, FEW_UNITS * unit)


# Two forms of a loop in one precision, ‖a - b‖ / ‖b‖ for whole tensors of long sequences: an error
# above these is a fault. float32 keeps products to 1e-6, and sums of thousands of them lose two
# digits; operands in bfloat16 lose between two and three.
BETWEEN_FORMS = {
    torch.float64: 1e-8,
    torch.float32: 1e-3,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


# Muon's five steps `x ↦ a x + b x³ + c x⁵` have slope Π a = 494 at small singular values, and the
# matrix they start from is divided by its norm, so that a gradient in whatever only scales it is
# zero: what is left of terms up to so many times larger. Their rounding is measured by them.
MUON_SLOPE = math.prod((4.0848, 3.9505, 3.7418, 2.8769, 2.8366))


class Allowance(NamedTuple):
    """The largest relative error that passes, and the least scale that it is relative to."""

    error: float
    scale: float


PLAIN = Allowance(tolerance("float64", 1), SMALLEST_SCALE)


def is_normalised(loop: InnerLoop) -> bool:
    """Whether the update divides, as by norms, of columns or, in Muon, of a matrix."""
    return not is_smooth(loop.rule)


def allowance(loop: InnerLoop, length: int) -> Allowance:
    """What passes for a loop, in float64, on sequences of `length` tokens.

    The tolerance is the same for all loops: where norms or Muon would enlarge rounding beyond
    it, other inputs are drawn (`conditioning.draw_steady`).
    """
    slope = MUON_SLOPE if loop.rule.of_kind("operator") else 1.0
    return Allowance(tolerance("float64", length), slope * SMALLEST_SCALE)


# Where rounding may hide faults of the size of the tolerance, an error is still a fault if it is
# this many times what a unit in the last place of the inputs makes. Sound programs that order
# their sums otherwise were seen at up to 70.
SURE = 1e3

# Where the loop makes a change this many times as large, half of the digits are rounding, and
# agreement means nothing.
LOST = 1e7

# Where rounding in a precision makes more than this part of the outputs, comparing in it is idle.
NOISE = 0.25
