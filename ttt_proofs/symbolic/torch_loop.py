"""A loop made ready to run: its compiled code, and all that forms ask of it, found once.

After this nothing symbolic is left to decide, so that what runs on tensors can be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sympy as sp

from ..loops import InnerLoop, Schedule
from ..loops.copies import Unchanging
from ..program.coefficients import Coefficient
from ..program.dataflow import reached
from ..program.rules import G, Line, Rule, unfolded
from .plan import Plan, plan_of
from .torch_code import loop_code, read, scalar_code, seen_name, step_code

Known = Mapping[str, Any]  # what names stand for: tensors, or numbers
Way = Literal["tiles", "states", "matrices"]


@dataclass(frozen=True, eq=False)
class NamedFunction:
    """A function of some names, of which it takes what they stand for."""

    reads: tuple[str, ...]
    function: Callable[..., Any]

    def __call__(self, known: Known) -> Any:
        return self.function(*[known[name] for name in self.reads])


@dataclass(frozen=True, eq=False)
class CompiledLine:
    """A line of the rule: what it computes, and how later lines name it."""

    target: str
    kind: str
    seen: str
    made: NamedFunction


@dataclass(frozen=True, eq=False)
class Stage:
    """Lines that depend on each other, and so are worked out together, for all steps at once.

    A map is one line. A scan carries `states` from step to step: state i becomes the sum of
    `transition[i][j]` times state j, and of `shift[i]`, which reads none of them.
    """

    lines: tuple[CompiledLine, ...]
    states: tuple[str, ...] = ()
    transition: tuple[tuple[NamedFunction, ...], ...] = ()
    shift: tuple[NamedFunction, ...] = ()


@dataclass(frozen=True, eq=False)
class TorchLoop(Unchanging):
    """The functions that `loop_code` writes and its text, and what the forms are chosen by.

    ungated: `update` with all gates 1; gated: whether the net has an output gate; affine: whether
    values depend on the state, which they do by an affine map; numbers: the coefficients of the
    update, all but those that weigh losses; fast: the weights that move; last: the last layer's,
    which is the state. lines: the lines of the update in order; buffers: the states that it has
    beside the weight. stages: the same lines, by what depends on what, where data alone give the
    gradients. folded: the gates that multiply each gradient, and nothing else, so that values may
    have them instead. way: how the loop runs in parallel: "tiles", masked attention within tiles,
    or "states", a state for each step; None where `refusal` says why it does not.
    """

    loop: InnerLoop
    source: str
    net: Callable
    features: Callable
    outputs: Callable
    cotangent: Callable
    values: Callable
    gradients: Callable
    update: Callable
    ungated: Callable
    windows: Callable | None
    schedule: Schedule
    window: tuple[int, int, int] | None
    gated: bool
    affine: bool
    lines: tuple[CompiledLine, ...]
    buffers: tuple[str, ...]
    coefficients: Mapping[str, Coefficient]
    loss_weights: Mapping[str, str]
    numbers: tuple[str, ...]
    fast: tuple[str, ...]
    last: str
    plan: Plan
    stages: tuple[Stage, ...]
    folded: tuple[str, ...]
    way: Way | None
    refusal: str | None

    def __reduce__(self) -> tuple[Callable[..., TorchLoop], tuple[InnerLoop, str]]:
        return compiled, (self.loop, self.source)


def made(expression: sp.Expr) -> NamedFunction:
    """An expression of numbers and entries as a function."""
    names = tuple(sorted(read(expression)))
    known: dict[str, Any] = {}
    exec(f"import torch\ndef made({', '.join(names)}): return {scalar_code(expression)}", known)
    return NamedFunction(names, known["made"])


def grouped(rule: Rule) -> list[list[Line]]:
    """The lines, those on one cycle together, each group after what it reads."""
    edges = {target: read - {G} for target, read in rule.reads.items()}
    reach = {target: reached(target, edges.__getitem__) for target in edges}

    def together(line: Line) -> list[Line]:
        others = [x for x in rule.lines if x is not line and line.target in reach[x.target]]
        return [line, *(x for x in others if x.target in reach[line.target])]

    left = list(rule.lines)
    groups: list[list[Line]] = []
    while left:
        known = {x.target for group in groups for x in group}
        ready = (together(x) for x in left)
        group = next(g for g in ready if reads_only(g, edges, known))
        groups.append(sorted(group, key=rule.lines.index))
        left = [x for x in left if x not in group]
    return groups


def reads_only(
    group: list[Line], edges: Mapping[sp.Symbol, set[sp.Symbol]], known: set[sp.Symbol]
) -> bool:
    """Whether lines read nothing but what is known and each other."""
    return set().union(*(edges[x.target] for x in group)) <= known | {x.target for x in group}


def stage(group: list[Line], rule: Rule, lines: Mapping[str, CompiledLine]) -> Stage:
    """A group as a map or a scan; `ValueError` where a state is carried by what is not linear."""
    own = tuple(lines[x.target.name] for x in group)
    carried = [x for x in group if x.target in rule.states]
    if not carried:
        return Stage(own)
    states = [x.target for x in carried]
    for line in group:
        if line.kind != "state":
            raise ValueError(f"a scan must be of linear lines; got {line}. Run it step by step.")
    made_of = unfolded(group)
    whole = [sp.expand(made_of[x.seen]) for x in carried]
    transition = [[e.coeff(s) for s in states] for e in whole]
    shift = [
        sp.expand(e - sum(a * s for a, s in zip(row, states, strict=True)))
        for e, row in zip(whole, transition, strict=True)
    ]
    if sp.Tuple(*shift, *map(sp.Tuple, *transition)).has(*states):
        raise ValueError(f"a scan must be of linear lines; got {group}. Run it step by step.")
    return Stage(
        own,
        tuple(s.name for s in states),
        tuple(tuple(map(made, row)) for row in transition),
        tuple(map(made, shift)),
    )


@cache
def folded(rule: Rule) -> tuple[str, ...] | None:
    """The gates, if each gradient in the states' lines is multiplied by all of them and nothing
    else is, and they read the gradient alone; None otherwise.
    """
    gates = rule.of_kind("gate")
    whole = sp.prod([line.seen for line in gates])
    others = {x.target for x in rule.lines if x.kind != "gate"}
    for line in gates:
        if rule.reads[line.target] & others:
            return None
    for line in rule.of_kind("state"):
        ungated = sp.expand(line.expression.xreplace({G: G / whole}))
        if ungated.has(*(x.seen for x in gates)):
            return None
    return tuple(seen_name(line) for line in gates)


@cache
def way_of(loop: InnerLoop) -> tuple[Way | None, str | None]:
    """How a loop runs in parallel, or why it does not; of abstract loops as well."""
    plan, rule = plan_of(loop), loop.rule
    if plan.word == "sequential":
        return None, f"this loop is sequential: {plan.reason}"
    operators = rule.of_kind("operator")
    tiled = plan.shape == "scalar" and not operators and folded(rule) is not None
    if plan.word == "affine" and loop.loss.proportion is None:
        return None, "this loop's values mix the columns of the state, or weigh them apart"
    if plan.word == "affine" and not tiled:
        return None, f"this loop's values depend on the state, with numbers for each {plan.shape}"
    return ("tiles" if tiled else "states"), None


def compiled(loop: InnerLoop, source: str) -> TorchLoop:
    """A loop with the functions of a text, such as `loop_code` writes."""
    names: dict[str, Any] = {}
    ungated = step_code(loop, "ungated", gates=False)
    for text in (source, ungated):
        exec(compile(text, "<derived from the loop's SymPy expressions>", "exec"), names)
    rule, plan = loop.rule, plan_of(loop)

    def ready(line: Line) -> CompiledLine:
        function = names[f"next_{line.target.name}"]
        given = function.__code__.co_varnames[: function.__code__.co_argcount]
        return CompiledLine(
            line.target.name, line.kind, seen_name(line), NamedFunction(given, function)
        )

    lines = {line.target.name: ready(line) for line in rule.lines}
    way, refusal = way_of(loop)
    of_data = way is not None and plan.word != "affine"
    functions = ("net", "features", "outputs", "cotangent", "values", "gradients")
    functions += ("update", "ungated")
    return TorchLoop(
        loop,
        source,
        *(names[name] for name in functions),
        windows=names.get("windows"),
        schedule=loop.schedule,
        window=loop.net.window,
        gated=loop.net.gate is not None,
        affine=plan.word == "affine",
        lines=tuple(lines.values()),
        buffers=tuple(s.name for s in rule.buffers),
        coefficients=dict(loop.coefficients),
        loss_weights=dict(loop.loss_weights),
        numbers=tuple(loop.update_coefficients),
        fast=tuple(w.name for w in loop.fast_weights),
        last=loop.net.last.name,
        plan=plan,
        stages=tuple(stage(g, rule, lines) for g in grouped(rule)) if of_data else (),
        folded=(folded(rule) or ()) if way == "tiles" else (),
        way=way,
        refusal=refusal,
    )


@cache
def derived(loop: InnerLoop) -> TorchLoop:
    """The loop with its own code."""
    return compiled(loop, loop_code(loop))


def torch_loop(loop: InnerLoop | TorchLoop) -> TorchLoop:
    """A loop made ready to run, once; `ValueError` where part of the loop is abstract."""
    return loop if isinstance(loop, TorchLoop) else derived(loop)
