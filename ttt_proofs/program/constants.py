"""Numbers in code as the fractions that proofs take them for."""

from __future__ import annotations

import math
from fractions import Fraction

LARGEST = 2**53  # integers below it every reader of a proof reads alike
SIMPLE = (10**3, 10**6, 10**9, 10**12, LARGEST - 1)  # denominators, tried in turn


def fraction(value: float | Fraction) -> Fraction | None:
    """The number as a fraction of integers below LARGEST; None where none stands for it.

    An integer or a fraction is itself. A float is a fraction with a denominator of at most 1000
    that rounds to it, 1/10 for 0.1 and 2/3 for 0.6666666666666666, or else what it is written as,
    or one of a larger denominator.

    >>> fraction(0.1), fraction(1 / 3)
    (Fraction(1, 10), Fraction(1, 3))
    """
    if not isinstance(value, float):
        found = Fraction(value)
        return found if fits(found) else None
    value = float(value)  # of a subclass, which is written otherwise
    if not math.isfinite(value):
        return None
    exact = Fraction(value)
    simplest, *nearest = (exact.limit_denominator(largest) for largest in SIMPLE)
    for found in (simplest, Fraction(repr(value)), *nearest):
        if fits(found) and float(found) == value:
            return found
    return None


def fits(x: Fraction) -> bool:
    """Whether both integers of a fraction are small enough."""
    return max(abs(x.numerator), x.denominator) < LARGEST
