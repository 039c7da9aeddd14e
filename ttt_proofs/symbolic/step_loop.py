"""A recurrence made ready to run: its operations and its scans, found once.

As of a loop (`torch_loop`), nothing symbolic is left to decide after this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..loops import InnerLoop, Recurrence, Schedule
from ..loops.copies import Unchanging
from ..program.coefficients import Coefficient
from ..program.operations import Abstract, compiled
from ..program.steps import FUNCTIONS, SINGLE, Operation, StepProgram, reads
from .plan import Plan
from .step_maps import Mapped
from .step_plan import Scanned, step_plan
from .torch_loop import TorchLoop, Way, torch_loop

GIVEN = ("data", "coefficient", "number")


@dataclass(frozen=True, eq=False)
class StepLoop(Unchanging):
    """What is read off a recurrence, for those that run it.

    operations: those of the step, then those that its scans need besides. states: by name the
    number of each new value; old: of each value before the step that is read; output: its number.
    made: by number, the state that is made of states whose new value that is. ahead: vectors and
    numbers that data alone give and that the step reads, for all tokens at once; matrices are left,
    for one of each token takes more room than it saves time. functions: by number, those that are
    functions of one value, on tensors. scans: in order, if there are any. `plan` and `way` are as
    in `TorchLoop`.
    """

    loop: Recurrence
    operations: tuple[Operation, ...]
    states: tuple[tuple[str, int], ...]
    old: Mapping[str, int]
    made: Mapping[int, str]
    output: int
    ahead: tuple[int, ...]
    functions: Mapping[int, Callable[..., Any]]
    coefficients: Mapping[str, Coefficient]
    schedule: Schedule
    plan: Plan
    scans: tuple[Scanned | Mapped, ...]

    @property
    def way(self) -> Way | None:
        """How it runs in parallel: with a state or a matrix for each token, or not at all."""
        if any(isinstance(scan, Mapped) for scan in self.scans):
            return "matrices"
        return "states" if self.scans else None

    def __reduce__(self) -> tuple[Callable[..., StepLoop], tuple[Recurrence]]:
        return step_loop, (self.loop,)


def ahead(step: StepProgram) -> tuple[int, ...]:
    """The vectors and numbers that data alone give and that a step reads."""
    operations, roots = step.operations, {n for _, n in step.states} | {step.output}
    inside = set().union(*(reads(operations, n) for n in roots))
    read = {a for n in inside for a in operations[n].args} | roots
    moving = {n for n in inside if not reads(operations, n).isdisjoint(step.old)}
    return tuple(
        n
        for n in sorted(read - moving)
        if operations[n].does in GIVEN or sum(x != SINGLE for x in operations[n].axes) < 2
    )


def functions(operations: Sequence[Operation]) -> dict[int, Callable[..., Any]]:
    """The operations that are functions of one value, on tensors, by number.

    Raises `ValueError` for unknown functions.
    """
    found: dict[int, Callable[..., Any]] = {}
    for n, operation in enumerate(operations):
        if isinstance(operation.does, Abstract):
            operation.does.run(None)  # raises, for there is nothing to run
        elif isinstance(operation.does, str) and operation.does in FUNCTIONS:
            found[n] = compiled(FUNCTIONS[operation.does].code)
    return found


@cache
def derived(layer: Recurrence) -> StepLoop:
    """A recurrence made ready to run."""
    found, step = step_plan(layer), layer.traced
    return StepLoop(
        layer,
        found.operations,
        step.states,
        {name: n for n, name in step.old.items()},
        dict(step.made),
        step.output,
        ahead(step),
        functions(found.operations),
        dict(layer.coefficients),
        layer.schedule,
        found.plan,
        found.scans,
    )


def step_loop(layer: Recurrence | StepLoop) -> StepLoop:
    """A recurrence made ready to run, once; `ValueError` where its step has unknown functions."""
    return layer if isinstance(layer, StepLoop) else derived(layer)


Runnable = TorchLoop | StepLoop


def runnable(loop: InnerLoop | Recurrence | Runnable) -> Runnable:
    """What runs, made ready once; `ValueError` where part of it is abstract."""
    if isinstance(loop, Recurrence | StepLoop):
        return step_loop(loop)
    return torch_loop(loop)
