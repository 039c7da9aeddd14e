"""States that a step puts through a matrix: the linear part of the step, and the axis it leaves.

`S ← A S + B` acts on each column alike, `C ← C A + B` on each row, `n ← A n + b` on a vector. The
matrix is what the linear part makes of unit vectors, so no more than that part need be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..program.steps import SINGLE, Axes, Contraction, Operation, Operations, View, reads


@dataclass(frozen=True)
class Mapped:
    """A state that becomes `linear(state) + shift`, by the numbers of these values.

    place: the number of the state's own value before the step. apart: the axis whose entries are
    mapped alike, each by itself; None of a vector. shift is None where nothing is added.
    """

    state: str
    place: int
    linear: int
    shift: int | None
    apart: int | None


@dataclass
class LinearPart:
    """The linear part and the rest of values that are affine in one, `place`."""

    operations: Operations
    place: int
    known: dict[int, tuple[int | None, int | None]] = field(default_factory=dict)

    def parts(self, k: int) -> tuple[int | None, int | None]:
        """The numbers of a value's linear part and of what is added to it; None for zero."""
        if k not in self.known:
            self.known[k] = self.found(k)
        return self.known[k]

    def found(self, k: int) -> tuple[int | None, int | None]:
        """The parts, worked out."""
        if k == self.place:
            return k, None
        operation = self.operations.list[k]
        parts = [self.parts(a) for a in operation.args]
        moving = [n for n, (linear, _) in enumerate(parts) if linear is not None]
        if not moving:
            return None, k
        if operation.does == "add":
            return self.total([x for x, _ in parts]), self.total([x for _, x in parts])
        if len(moving) > 1 or not (
            operation.does in ("multiply", "scale")
            or isinstance(operation.does, View | Contraction)
        ):
            raise ValueError("a value must be affine in the state; it is not.")
        linear, rest = parts[moving[0]]
        return self.through(operation, moving[0], linear), self.through(operation, moving[0], rest)

    def through(self, operation: Operation, at: int, k: int | None) -> int | None:
        """The operation with another argument in one place."""
        if k is None:
            return None
        args = (*operation.args[:at], k, *operation.args[at + 1 :])
        if operation.does == "multiply":
            return self.operations.together("multiply", args[0], args[1])
        return self.operations.add(replace(operation, args=args))

    def total(self, parts: Sequence[int | None]) -> int | None:
        """The sum of those that are there."""
        there = [x for x in parts if x is not None]
        if len(there) == 2:
            return self.operations.together("add", there[0], there[1])
        return there[0] if there else None


def axis_in(operations: Sequence[Operation], place: int, k: int, axis: int) -> int | None:
    """Where an axis of the state is in a value that is linear in it; each entry goes by itself.

    None where what is done to an entry of that axis depends on which it is, or mixes entries.
    """
    found: dict[int, int | None] = {place: axis}

    def of(n: int) -> int | None:
        if n not in found:
            args = operations[n].args
            moving = {m: of(a) for m, a in enumerate(args) if place in reads(operations, a)}
            found[n] = None if None in moving.values() else moved(operations, n, moving)
        return found[n]

    return of(k)


def moved(operations: Sequence[Operation], k: int, moving: dict[int, int | None]) -> int | None:
    """Where an axis is after an operation, by where it is in the arguments that have it."""
    operation = operations[k]
    n, at = next((n, at) for n, at in moving.items() if at is not None)
    if isinstance(operation.does, View):
        return operation.does.order.index(at) if at in operation.does.order else None
    if isinstance(operation.does, Contraction):
        letter = operation.does.operands[n][at]
        others = [x for m, x in enumerate(operation.does.operands) if m != n]
        apart = letter in operation.does.out and letter not in "".join(others)
        return operation.does.out.index(letter) if apart else None
    last = at - len(operations[operation.args[n]].axes)
    for m, a in enumerate(operation.args):
        axes = operations[a].axes
        if m in moving:
            same = moving[m] == last + len(axes)
        else:
            same = len(axes) < -last or axes[last] == SINGLE
        if not same:
            return None
    return last + len(operation.axes)


def mapped(operations: Operations, name: str, axes: Axes, place: int, number: int) -> Mapped | None:
    """A state with its new value, `number`, as a map; None where entries of no axis are alike."""
    linear, shift = LinearPart(operations, place).parts(number)
    if linear is None:
        return None
    if len(axes) < 2:
        return Mapped(name, place, linear, shift, None)
    made = operations.list
    for apart in (1, 0):
        if axis_in(made, place, linear, apart) == apart:
            return Mapped(name, place, linear, shift, apart)
    return None
