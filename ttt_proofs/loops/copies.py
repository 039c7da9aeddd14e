"""Copies of what never changes: itself in memory; a pickle of code imports it where it can."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Self

Path = tuple[str, str]  # a module's name, and a qualified name in it


class Unchanging:
    """What never changes is its own copy."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def path(code: Any) -> Path:
    """Where a function is imported from; of anything else, its class."""
    named = code if hasattr(code, "__qualname__") else type(code)
    return str(named.__module__), named.__qualname__


def imported(path: Path) -> Any:
    """What is imported from there; None where there is nothing."""
    module, name = path
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found


def importable(code: Any) -> bool:
    """Whether importing by its path gives this very function."""
    return path(code)[0] in sys.modules and imported(path(code)) is code is not None


def restored(kind: Callable[..., Any], path: Path, read: Any, *declared: Any) -> Any:
    """`kind(code, *declared)`, its code imported; with what was read off it if that is not there.

    For `__reduce__`, where `read` stands for code that nobody can import, or that has changed.
    """
    plain, code = kind(read, *declared), imported(path)
    if code is None or isinstance(code, type):
        return plain
    try:
        again = kind(code, *declared)
    except (TypeError, ValueError):
        return plain
    return again if again == plain else plain
