"""Widths of what is traced: unknowns made equal by equations, never by a coincidence of sizes."""

from __future__ import annotations

from dataclasses import dataclass


class ShapeError(ValueError):
    """Two widths are required to be equal and have names of their own."""


@dataclass(eq=False)
class Dim:
    """A width: named, or equal to another one, or unknown yet."""

    name: str | None = None
    same: Dim | None = None

    @property
    def root(self) -> Dim:
        """What stands for this width and all that are equal to it."""
        while self.same is not None:
            self = self.same
        return self

    def __str__(self) -> str:
        return self.root.name or "?"


Dims = tuple[Dim, ...]


class Widths:
    """The equations between widths that a trace has met.

    The keys' and the values' width may turn out to be one, `D_v`, as in a convolution; no other
    two names may.
    """

    def __init__(self) -> None:
        self.rows, self.keys, self.values = Dim("L"), Dim("D_k"), Dim("D_v")
        self.single = Dim("1")
        self._named: dict[str, Dim] = {"D_v": self.values, "D_k": self.keys}

    def named(self, name: str) -> Dim:
        """The width of that name."""
        return self._named.setdefault(name, Dim(name))

    def unify(self, a: Dim, b: Dim) -> None:
        """Make two widths equal. Raises `ShapeError` where their names forbid it."""
        a, b = a.root, b.root
        if a is b:
            return
        if {a, b} == {self.keys, self.values}:
            self.keys.same = self.values
        elif a.name is None:
            a.same = b
        elif b.name is None:
            b.same = a
        else:
            raise ShapeError(f"{a.name} and {b.name}")

    def broadcast(self, a: Dim, b: Dim) -> Dim:
        """The width of an entrywise operation: a literal 1 is repeated, others must be equal."""
        if a.root is self.single:
            return b
        if b.root is not self.single:
            self.unify(a, b)
        return a
