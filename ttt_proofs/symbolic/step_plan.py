"""The plan of a recurrence: whether and how it runs in parallel over time, read off its step.

A state that is a multiple of itself, entry by entry, plus what data and states before it give, is
scanned; its factors may be of rows, columns or entries. So is one that goes through a matrix, alike
in all columns or rows, by whole columns or rows. States that read each other, and functions and
products of states, run step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..loops.recurrence import Recurrence
from ..program.coefficients import Shape, united
from ..program.dataflow import reached
from ..program.steps import (
    SINGLE,
    Affine,
    Axes,
    Carried,
    Contraction,
    Entangled,
    Operation,
    Operations,
    Splitter,
    View,
    reads,
)
from .plan import ADDITIVE, DECAY, Parallel, Plan
from .step_maps import Mapped, mapped

COUPLED = "states are coupled, each with those before it; writes depend on none of them"
MAPPED = "scans, one after the other, with functions of a state between them"


@dataclass(frozen=True)
class Scanned:
    """A state that becomes `factor · state + shift`, by the numbers of these values.

    shift is None where nothing is added. Both may read data, and states that come before.
    """

    state: str
    factor: int
    shift: int | None


@dataclass(frozen=True)
class StepPlan:
    """A plan with its scans in order, of entries or of whole columns, and what their numbers count.

    A plan without scans is one for which running in parallel is refused; its reason is the cause.
    """

    plan: Plan
    operations: tuple[Operation, ...]
    scans: tuple[Scanned | Mapped, ...]


def in_groups(layer: Recurrence) -> tuple[tuple[str, ...], ...]:
    """The states, those together that read each other, each group after those that it reads."""
    step = layer.traced
    edges = {
        name: {step.old[n] for n in reads(step.operations, k) if n in step.old}
        for name, k in step.states
    }
    read = {name: reached(name, edges.__getitem__) | {name} for name in edges}
    groups = [tuple(m for m in read if n in read[m] and m in read[n]) for n in read]
    return tuple(sorted(dict.fromkeys(groups), key=lambda group: len(read[group[0]])))


def in_order(layer: Recurrence) -> tuple[str, ...] | None:
    """The states, each after those that it reads; None where some read each other."""
    groups = in_groups(layer)
    return tuple(name for (name,) in groups) if len(groups) == len(layer.states) else None


def coupled(layer: Recurrence) -> str:
    """Which states read each other."""
    names = [name for name, _ in layer.traced.states]
    return f"the states {', '.join(names[:-1])} and {names[-1]} read each other's past"


def carried(layer: Recurrence) -> dict[int, Carried]:
    """All values that stand for states, those before the step and those after it."""
    step = layer.traced
    after = {k: (name, 0) for k, name in step.made.items()}
    return after | {k: (name, 1) for k, name in step.old.items()}


def split(
    layer: Recurrence, operations: Operations, name: str, among: Mapping[int, Carried]
) -> Affine:
    """A state's new value as an affine map of what is carried; `Entangled` where it is none."""
    number = dict(layer.traced.states)[name]
    return Splitter(operations, among).split(number, layer.traced.made.get(number) == name)


@cache
def step_plan(layer: Recurrence) -> StepPlan:
    """The plan of a recurrence, a pure function of its step."""
    order, step = in_order(layer), layer.traced
    if order is None:
        return StepPlan(Plan("sequential", coupled(layer)), step.operations, ())
    operations, scans = Operations(step.operations), []
    made_of: set[str] = set()
    for name in order:
        own = {k: (name, 1) for k, old in step.old.items() if old == name}
        try:
            form = split(layer, operations, name, own)
        except Entangled as found:
            number = dict(step.states)[name]
            whole = None
            if degree(step.operations, number, own) == 1:
                whole = mapped(operations, name, layer.states[name], next(iter(own)), number)
            if whole is None:
                reason = cause(layer, name, found, own)
                return StepPlan(Plan("sequential", reason), step.operations, ())
            scans.append(whole)
            made_of |= set(Splitter(operations, own).made_of(number))
            continue
        factor = form.factors.get((name, 1), operations.number(0))
        scans.append(Scanned(name, factor, form.write))
    entries = [scan for scan in scans if isinstance(scan, Scanned)]
    word, reason = described(layer, operations, entries)
    if len(entries) < len(scans) and word != "composed":
        word, reason = "affine", f"S ← A S + B, A a matrix made of {' and '.join(sorted(made_of))}"
    shape = united(told_apart(operations.list[scan.factor].axes) for scan in entries)
    return StepPlan(Plan(word, reason, shape), tuple(operations.list), tuple(scans))


def described(
    layer: Recurrence, operations: Operations, scans: Sequence[Scanned]
) -> tuple[Parallel, str]:
    """The word for a plan of scans, and why."""
    try:
        forms = {x.state: split(layer, operations, x.state, carried(layer)) for x in scans}
    except Entangled:
        return "composed", MAPPED
    if any(set(form.factors) - {(name, 1)} for name, form in forms.items()):
        return "gated", COUPLED
    if all(operations.constant(scan.factor) == 1 for scan in scans):
        return "additive", ADDITIVE
    return "gated", DECAY


def told_apart(axes: Axes) -> Shape:
    """Which entries of a state a factor tells apart; those of a vector are rows."""
    sides = (*axes, SINGLE) if len(axes) == 1 else (SINGLE, SINGLE, *axes)[-2:]
    rows, cols = (axis != SINGLE for axis in sides)
    return "entry" if rows and cols else "row" if rows else "column" if cols else "scalar"


def degree(operations: Sequence[Operation], k: int, among: Mapping[int, Any]) -> int | None:
    """The degree of a value in what is carried; None inside a function. It is looked into."""
    known: dict[int, int | None] = {n: 1 for n in among if n != k}

    def of(n: int) -> int | None:
        if n not in known:
            operation = operations[n]
            inner = [of(a) for a in operation.args]
            degrees = [d for d in inner if d is not None]
            if operation.does == "state":
                known[n] = int(n in among)
            elif len(degrees) < len(inner):
                known[n] = None
            elif operation.does == "multiply" or isinstance(operation.does, Contraction):
                known[n] = sum(degrees)
            elif operation.does in ("add", "scale") or isinstance(operation.does, View):
                known[n] = max(degrees, default=0)
            elif operation.does == "power":
                known[n] = int(operation.factor) * degrees[0]
            else:
                known[n] = None if any(degrees) else 0
        return known[n]

    return of(k)


def not_affine(layer: Recurrence) -> str:
    """Why a state is not affine in the states that it reads and that read it, with the line."""
    step = layer.traced
    for names in in_groups(layer):
        among = {k: state for k, state in carried(layer).items() if state[0] in names}
        for name in names:
            number = dict(step.states)[name]
            others = [k for k in step.made if k != number and k in reads(step.operations, number)]
            before = set().union(*(reads(step.operations, k) for k in others))
            for k in sorted(reads(step.operations, number) - before):
                found = degree(step.operations, k, among)
                if found not in (0, 1):
                    power = step.operations[k].does == "power"
                    kind = "function" if found is None or power else "product"
                    return cause(layer, name, Entangled(kind, k), among)
    raise ValueError(f"a state of {layer} must not be affine; all are.")


def cause(layer: Recurrence, name: str, found: Entangled, among: Mapping[int, Carried]) -> str:
    """Why a state is not affine in what is carried entry by entry, with the user's line."""
    step = layer.traced
    operation = step.operations[found.number]
    line = str(operation.source)
    if found.kind == "matrix":
        data = Splitter(Operations(step.operations), among).made_of(dict(step.states)[name])
        made = " and ".join(data) or "numbers"
        return f"the transition of {name} is a matrix made of {made}, alike in no rows or columns"
    if found.kind == "shape":
        return f"{name} reads a state in another shape{line}"
    if found.kind == "product":
        return f"{name} is made of a product of two states{line}"
    return f"{name} is made of `{operation.name}` of a state{line}"
