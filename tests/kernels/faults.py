"""Copies of the kernels with one text changed: what a test must see."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ttt_proofs
from ttt_proofs import kernels

HOME = Path(kernels.__file__).parent
FILES = (
    "__init__",
    "requirements",
    "empty",
    "tiling",
    "gated",
    "gated_backward",
    "gated_numbers",
    "launches",
    "limits",
    "scan",
    "additive",
    "with_momentum",
    "delta",
    "delta_rule_forward",
    "delta_rule_backward",
    "swiglu",
    "swiglu_kernels",
)


@contextmanager
def faulty(folder: Path, module: str, old: str, new: str) -> Iterator[Any]:
    """The package of kernels, in the folder and under another name, with `old` replaced once."""
    package = folder / "planted"
    package.mkdir()
    for name in FILES:
        text = (HOME / f"{name}.py").read_text("utf-8")
        if name == module:
            if text.count(old) != 1:
                raise ValueError(f"{old!r} occurs {text.count(old)} times in {module}")
            text = text.replace(old, new)
        (package / f"{name}.py").write_text(text, "utf-8")
    ttt_proofs.__path__.append(str(folder))  # beside `parallel`, which the kernels import
    try:
        yield importlib.import_module("ttt_proofs.planted")
    finally:
        ttt_proofs.__path__.remove(str(folder))
        for name in [name for name in sys.modules if name.startswith("ttt_proofs.planted")]:
            del sys.modules[name]
        vars(ttt_proofs).pop("planted", None)
