"""One step of a recurrence: a list of operations, each on those before it, without repetition.

An operation's value has named axes, `("K", "V")` for a matrix; "1" is an axis of one entry. Two
values are taken together as PyTorch does: axes are counted from the last, and one of one entry is
repeated. Equal steps have equal lists, so a list is what a recurrence is known by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from .dataflow import reached
from .operations import OPERATIONS, Abstract, Entrywise, Rowwise
from .rules import inverse, root
from .tracing import Source

Axes = tuple[str, ...]

SINGLE = "1"
NOWHERE = Source()
RECIPROCAL = Entrywise(
    "inverse", lambda x: inverse(x), "torch.reciprocal({0})", meant=("reciprocal",)
)
ROOT = Entrywise("root", lambda x: root(x), "torch.sqrt({0})", meant=("sqrt",))
FUNCTIONS: Mapping[str, Entrywise | Rowwise] = OPERATIONS | {"inverse": RECIPROCAL, "root": ROOT}


@dataclass(frozen=True)
class View:
    """Axes in another order: for each new axis the old one's number, None for one of one entry."""

    order: tuple[int | None, ...]
    name: str = "a transpose"


@dataclass(frozen=True)
class Contraction:
    """A product of values summed over the axes that `out` lacks: a letter for each axis."""

    operands: tuple[str, ...]
    out: str
    name: str = "`@`"


@dataclass(frozen=True)
class Operation:
    """`does` to the values with these numbers, which come before it; `axes` are the result's.

    does: "data" (of a token), "coefficient", "state" (before the step), each named by `label`;
    "number", "scale", "power", with `factor`; "add", "multiply"; the name of a function in
    `FUNCTIONS`; an unknown function of each entry; a `View` or a `Contraction`.
    """

    does: str | View | Contraction | Abstract
    args: tuple[int, ...] = ()
    axes: Axes = ()
    factor: Fraction = Fraction(1)
    label: str = ""
    source: Source = field(default=NOWHERE, compare=False)

    @property
    def name(self) -> str:
        """The operation as its user knows it."""
        return self.does if isinstance(self.does, str) else self.does.name


def broadcast(a: Axes, b: Axes) -> Axes:
    """The axes of two values taken together."""
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    filled = (SINGLE,) * (len(long) - len(short)) + short
    return tuple(y if x == SINGLE else x for x, y in zip(long, filled, strict=True))


class Operations:
    """A list of operations in the making: each is written once, and trivial ones not at all."""

    def __init__(self, found: Sequence[Operation] = ()) -> None:
        self.list = list(found)
        self.numbers = {operation: k for k, operation in enumerate(self.list)}

    def add(self, operation: Operation) -> int:
        """The number of this operation."""
        if operation not in self.numbers:
            self.numbers[operation] = len(self.list)
            self.list.append(operation)
        return self.numbers[operation]

    def number(self, value: Fraction | int) -> int:
        """A constant."""
        return self.add(Operation("number", factor=Fraction(value)))

    def constant(self, k: int) -> Fraction | None:
        """The value of a constant; None for what is none."""
        return self.list[k].factor if self.list[k].does == "number" else None

    def together(self, does: str, a: int, b: int, source: Source = NOWHERE) -> int:
        """The sum or the product of two values, entry by entry."""
        for one, other in ((a, b), (b, a)):
            value = self.constant(one)
            if value is not None and (known := self.constant(other)) is not None:
                return self.number(value + known if does == "add" else value * known)
            if value is not None and does == "multiply":
                return self.scaled(other, value, source)
        axes = broadcast(self.list[a].axes, self.list[b].axes)
        return self.add(Operation(does, (a, b), axes, source=source))

    def scaled(self, a: int, factor: Fraction, source: Source = NOWHERE) -> int:
        """A value times a number."""
        held = self.list[a]
        if held.does == "number":
            return self.number(held.factor * factor)
        if held.does == "scale":
            return self.scaled(held.args[0], held.factor * factor, source)
        if factor == 1:
            return a
        return self.add(Operation("scale", (a,), held.axes, factor, source=source))


@dataclass(frozen=True)
class StepProgram:
    """The operations of one step; `states` by name the number of each new value, `output` its own.

    The states come in an order in which each reads only new values of those before it.
    """

    operations: tuple[Operation, ...]
    states: tuple[tuple[str, int], ...]
    output: int

    @cached_property
    def made(self) -> dict[int, str]:
        """By number, the state whose new value that is, of those that are made of states."""
        found: dict[int, str] = {}
        for name, number in self.states:
            inside = reads(self.operations, number) - {number}
            if not inside.isdisjoint(self.old):
                found.setdefault(number, name)
        return found

    @cached_property
    def old(self) -> dict[int, str]:
        """By number, the state whose value before the step that is."""
        return {k: op.label for k, op in enumerate(self.operations) if op.does == "state"}


def reads(operations: Sequence[Operation], number: int) -> set[int]:
    """The numbers that a value is made of, its own included."""
    return {number} | reached(number, lambda k: operations[k].args)


Carried = tuple[str, int]  # a state's name, and 1 for its value before the step, 0 for the new one


@dataclass(frozen=True)
class Affine:
    """A value as `Σ factors[state] ⊙ state + write`, by the numbers of its factors, entry by entry.

    `write` is None where nothing is added.
    """

    factors: Mapping[Carried, int]
    write: int | None


class Entangled(Exception):
    """A value is not affine in the states entry by entry: `kind` and the operation say why.

    kind: "matrix", "shape", "product" or "function".
    """

    def __init__(self, kind: str, number: int) -> None:
        super().__init__(kind)
        self.kind, self.number = kind, number


@dataclass
class Splitter:
    """Finds how a value depends on some others, `carried`, by their numbers."""

    operations: Operations
    carried: Mapping[int, Carried]
    known: dict[int, bool] = field(default_factory=dict)

    def depends(self, k: int) -> bool:
        """Whether a value is made of what is carried."""
        if k not in self.known:
            args = self.operations.list[k].args
            self.known[k] = k in self.carried or any(map(self.depends, args))
        return self.known[k]

    def split(self, k: int, root: bool = True) -> Affine:
        """The value as an affine map; `Entangled` where it is none.

        root: whether to look into the value though it is carried itself.
        """
        if k in self.carried and (not root or self.operations.list[k].does == "state"):
            return Affine({self.carried[k]: self.operations.number(1)}, None)
        if not root and not self.depends(k):
            return Affine({}, k)
        operation = self.operations.list[k]
        if not any(map(self.depends, operation.args)):
            return Affine({}, k)
        moving = [a for a in operation.args if self.depends(a)]
        if operation.does in ("add", "multiply", "scale") or isinstance(operation.does, View):
            if operation.does == "multiply" and len(moving) > 1:
                raise Entangled("product", k)
            parts = [self.split(a, False) for a in operation.args]
            if any(self.operations.list[a].axes != operation.axes for a in moving) or isinstance(
                operation.does, View
            ):
                raise Entangled("shape", k)
            return self.joined(operation, parts)
        if isinstance(operation.does, Contraction):
            if len(moving) > 1:
                raise Entangled("product", k)
            self.split(moving[0], False)
            raise Entangled("matrix", k)
        raise Entangled("function", k)

    def joined(self, operation: Operation, parts: list[Affine]) -> Affine:
        """The sum or the multiple of affine maps."""
        make = self.operations
        if operation.does == "scale":
            (part,) = parts
            by = operation.factor
            factors = {x: make.scaled(f, by) for x, f in part.factors.items()}
            return Affine(factors, None if part.write is None else make.scaled(part.write, by))
        one, other = parts
        if operation.does == "add":
            factors = dict(one.factors)
            for x, f in other.factors.items():
                factors[x] = make.together("add", factors[x], f) if x in factors else f
            writes = [w for w in (one.write, other.write) if w is not None]
            both = len(writes) == 2
            write = make.together("add", writes[0], writes[1]) if both else next(iter(writes), None)
            return Affine(factors, write)
        moving, fixed = (one, other) if one.factors else (other, one)
        by = fixed.write if fixed.write is not None else make.number(0)
        factors = {x: make.together("multiply", f, by) for x, f in moving.factors.items()}
        write = None if moving.write is None else make.together("multiply", moving.write, by)
        return Affine(factors, write)

    def made_of(self, k: int) -> tuple[str, ...]:
        """The names of the tokens' data that what is carried is multiplied by on its way into k."""
        operations, found = self.operations.list, set()
        for operation in (operations[n] for n in reads(operations, k) if self.depends(n)):
            if operation.does == "multiply" or isinstance(operation.does, Contraction):
                fixed = (a for a in operation.args if not self.depends(a))
                inside = (operations[n] for a in fixed for n in reads(operations, a))
                found |= {x.label for x in inside if x.does == "data"}
        return tuple(sorted(found))
