"""What a value is made of, through others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def reached(start: T, edges: Callable[[T], Iterable[T]]) -> set[T]:
    """All that edges lead to from the start, one after another; itself only if they lead back."""
    found: set[T] = set()
    waiting = [start]
    while waiting:
        new = set(edges(waiting.pop())) - found
        found |= new
        waiting += new
    return found
