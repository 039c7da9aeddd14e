"""From a function to the lines of a rule: states, gates and operators, in order of computation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import sympy as sp

from .coefficients import Coefficient, Shape, t
from .names import IN_LINES
from .rule_tracing import INITIAL, Function, RuleNode, RuleProxy, RuleTrace, refuse
from .rules import (
    W_0,
    G,
    Line,
    Rule,
    W,
    column_norm,
    following,
    gate_of,
    inverse,
    operator,
    root,
    unknown_gate,
)
from .tracing import head, home

# Each operation of a trace on entries.
APPLY: dict[str, Callable[..., sp.Expr]] = {
    "add": sp.Add,
    "mul": sp.Mul,
    "inverse": lambda x: 1 / x if x.is_Rational else inverse(x),
    "root": root,
    "norm": column_norm,
}
NAMED: dict[str, Callable[[Any, sp.Expr], sp.Expr]] = {
    "power": lambda power, x: x**power,
    "gate": lambda name, x: unknown_gate(name.name, x),
    "own gate": lambda name, x: unknown_gate(name.name, x, varies=True),
    "operator": lambda name, x: operator(name.name, x),
}
OF_COLUMNS = (column_norm, gate_of)


@dataclass(frozen=True)
class Signature:
    """How a rule is called: its buffers in order, the coefficients that it names, and W_0."""

    buffers: tuple[str, ...]
    coefficients: tuple[str, ...]
    initial: bool

    def call(
        self,
        function: Function,
        weight: Any,
        gradient: Any,
        buffers: Mapping[str, Any],
        coefficients: Mapping[str, Any],
        initial: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """The new weight and the new buffers, by name; `ValueError` for what is no such tuple."""
        named = {name: coefficients[name] for name in self.coefficients}
        if self.initial:
            named[INITIAL] = initial
        held = [buffers[name] for name in self.buffers]
        found = function(weight, gradient, *held, **named)
        values = found if isinstance(found, tuple | list) else (found,)
        if len(values) != 1 + len(held):
            wanted = ", ".join(["the weight", *self.buffers])
            raise ValueError(
                f"an update rule must return the new values of {wanted}; got {len(values)} "
                f"from {head(function)}. Return {1 + len(held)}."
            )
        return values[0], dict(zip(self.buffers, values[1:], strict=True))


def parameters(function: Function) -> tuple[list[inspect.Parameter], list[inspect.Parameter]]:
    """The arguments of a rule by place, and those by name after the weight and its gradient."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(f"`rule` must be a Python function; got {function!r}. Write one.") from None
    by_place = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return by_place, [p for p in rest if p not in by_place[:2]]


def required(function: Function) -> list[str]:
    """The buffers and coefficients that a rule must be given: arguments without a default."""
    rest = parameters(function)[1]
    return [p.name for p in rest if p.default is p.empty and p.name != INITIAL]


def signature(function: Function, buffers: Mapping[str, Any], names: tuple[str, ...]) -> Signature:
    """How the rule is called with these buffers and coefficients; `ValueError` if it cannot be."""
    by_place, rest = parameters(function)
    held = tuple(p.name for p in by_place[2:] if p.name in buffers)
    known = {*buffers, *names, INITIAL}
    strange = [p.name for p in rest if p.name not in known and p.default is p.empty]
    missing = [n for n in (*buffers, *names) if n not in {p.name for p in rest}]
    told = head(function)
    if len(by_place) < 2:
        raise ValueError(
            f"an update rule must be given the weight and its gradient first; got {told}. "
            "Write `def rule(W, g, ...)`."
        )
    if strange:
        raise ValueError(
            f"every argument of an update rule must be a buffer or a coefficient that is declared; "
            f"got `{strange[0]}` in {told}. Declare it in `buffers` or `coefficients`."
        )
    if missing:
        raise ValueError(
            f"every buffer and coefficient must be an argument of the rule; `{missing[0]}` is none "
            f"in {told}. Add it there, or do not declare it."
        )
    if [p.name for p in by_place[2 : 2 + len(held)]] != list(held):
        raise ValueError(
            f"buffers must be the arguments after the weight and its gradient; got {told}. "
            "Write `def rule(W, g, buffers, *, coefficients)`."
        )
    return Signature(held, names, INITIAL in {p.name for p in rest})


@dataclass
class RuleLowering:
    """The lines of a rule in the making. `made` are the buffers' new values in the trace."""

    taken: set[str]
    made: dict[RuleNode, sp.Symbol]
    shaped: set[sp.Basic]
    lines: list[Line] = field(default_factory=list)
    known: dict[RuleNode, sp.Expr] = field(default_factory=dict)

    def name(self, letter: str) -> sp.Symbol:
        """The letter, or the first of it with a number, that nothing is called yet."""
        free = next(
            n for n in chain([letter], (f"{letter}{k}" for k in count(2))) if n not in self.taken
        )
        self.taken.add(free)
        return sp.Symbol(free)

    def assign(self, line: Line) -> sp.Expr:
        """Add a line; how its new value is seen."""
        self.lines.append(line)
        return line.seen

    def of(self, node: RuleNode) -> sp.Expr:
        """A value as later lines write it: a buffer's new value by its name."""
        if node not in self.known:
            if node in self.made:
                self.known[node] = self.assign(
                    Line(self.made[node], self.settled(self.built(node)))
                )
            else:
                self.known[node] = self.built(node)
        return self.known[node]

    def built(self, node: RuleNode) -> sp.Expr:
        """A value by what it is made of."""
        if node.operation == "leaf":
            return node.value  # pyright: ignore[reportReturnType]
        if node.operation == "operator":
            return self.operated(node)
        arguments = [self.of(argument) for argument in node.arguments]
        if node.operation in NAMED:
            return NAMED[node.operation](node.value, *arguments)
        return APPLY[node.operation](*arguments)

    def operated(self, node: RuleNode) -> sp.Expr:
        """What an operator makes: a line of its own, of a state that may be made for it."""
        operand = self.settled(self.of(node.arguments[0]))
        held = [line for line in self.lines if line.kind == "state"]
        whole = next((x.seen for x in held if operand in (x.seen, x.expression)), None)
        if whole is None:
            whole = self.assign(Line(self.name("M"), operand))
        return self.assign(Line(self.name("U"), NAMED["operator"](node.value, whole), "operator"))

    def settled(self, e: sp.Expr) -> sp.Expr:
        """The expression with a gate for what is one number for each column."""
        if not e.has(*OF_COLUMNS):
            return e
        if isinstance(e, OF_COLUMNS):
            return self.gate(self.inside(e))
        if isinstance(e, sp.Mul):
            gates = [factor for factor in e.args if self.of_columns(factor)]
            rest = [self.settled(factor) for factor in e.args if factor not in gates]
            return sp.Mul(self.gate(self.inside(sp.Mul(*gates))), *rest) if gates else sp.Mul(*rest)
        if self.of_columns(e):
            return self.gate(self.inside(e))
        return e.func(*map(self.settled, e.args))

    def inside(self, e: sp.Expr) -> sp.Expr:
        """The expression with gates in what norms and functions of columns are taken of."""
        if isinstance(e, column_norm):
            return column_norm(self.settled(e.args[0]))
        if isinstance(e, gate_of):
            return gate_of(e.args[0], self.settled(e.args[1]), e.args[2])
        return e.func(*map(self.inside, e.args)) if e.has(*OF_COLUMNS) else e

    def of_columns(self, e: sp.Basic) -> bool:
        """Whether this is a number of each column, made of norms or functions of columns."""
        outer = e.replace(lambda x: isinstance(x, OF_COLUMNS), lambda x: sp.Dummy())
        return e.has(*OF_COLUMNS) and not outer.has(*self.matrices)

    @property
    def matrices(self) -> tuple[sp.Basic, ...]:
        """The symbols that stand for entries."""
        lines = [line for line in self.lines if line.kind != "gate"]
        states = [x for line in lines for x in (line.target, line.seen)]
        return (W, G, W_0, *self.made.values(), *states, *self.shaped)

    def gate(self, e: sp.Expr) -> sp.Expr:
        """The gate with this expression, made once."""
        for line in self.lines:
            if line.kind == "gate" and line.expression == e:
                return line.seen
        late = e.has(*(x.seen for x in self.lines if x.kind != "gate" or x.start is not None))
        return self.assign(Line(self.name("R"), e, "gate", sp.Integer(0) if late else None))

    def weight(self, node: RuleNode) -> None:
        """The weight's line, the last. A gate on the whole new weight is one of the new time."""
        e = self.of(node)
        if isinstance(e, sp.Mul):
            gates = [factor for factor in e.args if self.of_columns(factor)]
            gate = self.inside(sp.Mul(*gates))
            moved = self.settled(sp.Mul(*(f for f in e.args if f not in gates)))
            first = gate.xreplace({moved: W_0})
            if moved != W and gate.has(moved) and not first.has(*(set(self.matrices) - {W_0}), t):
                e = self.assign(Line(self.name("N"), gate, "gate", first)) * moved
        self.assign(Line(W, self.settled(e)))


def traced(
    function: Function,
    buffers: Mapping[str, Function],
    coefficients: Mapping[str, Coefficient],
) -> Rule:
    """The rule that a function is, found by running it once on proxies.

    Raises `ValueError`, with the line of the code, for what is no rule.
    """
    how, trace = signature(function, buffers, tuple(coefficients)), RuleTrace()

    def proxy(value: sp.Expr, shape: Shape = "entry") -> RuleProxy:
        return RuleProxy(trace, trace.leaf(value, shape))

    weight = proxy(W)
    for name, begin in buffers.items():
        first = begin(weight)
        if not isinstance(first, RuleProxy) or first.node.value != 0:
            refuse(f"the buffer `{name}`", "Let it start at 0, with zeros_like.", home(function))
    given = {name: proxy(c.symbol(name), c.shape) for name, c in coefficients.items()}
    held = {name: proxy(sp.Symbol(name)) for name in how.buffers}
    moved, later = how.call(function, weight, proxy(G), held, given, proxy(W_0))
    for name, value in {"the weight": moved, **later}.items():
        if not isinstance(value, RuleProxy) or value.node.shape != "entry":
            refuse(f"no matrix for {name}", "Return one, of the weight's size.", home(function))
    made = {}
    for name in how.buffers:
        if later[name].node.operation != "leaf":
            made.setdefault(later[name].node, sp.Symbol(name))
    taken = {*buffers, *coefficients, *IN_LINES, *map(str, trace.constants)}
    shaped = {given[n].node.value for n, c in coefficients.items() if c.shape in ("row", "entry")}
    lowering = RuleLowering(taken, made, shaped)
    for name in how.buffers:
        seen = lowering.of(later[name].node)
        if seen != following(sp.Symbol(name)):
            lowering.assign(Line(sp.Symbol(name), lowering.settled(seen)))
    lowering.weight(moved.node)
    states = tuple(sp.Symbol(name) for name in how.buffers)
    return Rule(tuple(lowering.lines), states, tuple(trace.constants.items()))
