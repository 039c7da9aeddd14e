"""A digest of a loop: equal loops have the same one, in every process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any

import sympy as sp

from .loop import InnerLoop
from .recurrence import Recurrence


def digest(loop: InnerLoop | Recurrence) -> str:
    """The SHA-256 of all that equal loops share, in hexadecimal; of nothing else, such as names of
    functions.
    """
    return sha256(canonical(loop).encode()).hexdigest()


def canonical(value: Any) -> str:
    """A text that equal values of one kind share, and no others; `TypeError` if it is no data."""
    if isinstance(value, sp.Basic):
        return sp.srepr(value)
    if isinstance(value, int | float | Fraction):  # equal numbers are written alike
        return str(Fraction(value) if math.isfinite(value) else value)
    if isinstance(value, str) or value is None:
        return repr(value)
    if isinstance(value, Recurrence):
        return f"Recurrence{canonical(value.identity)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(map(canonical, value.items())))}}}"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(canonical, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(canonical, value))})"
    if is_dataclass(value):
        parts = (canonical(getattr(value, f.name)) for f in fields(value) if f.compare)
        return f"{type(value).__name__}({', '.join(parts)})"
    raise TypeError(f"a part of a loop must be data; got {type(value).__name__}. Make it a tuple.")
