"""A proof as a list of entries that every format lays out in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..kernel.definitions import Block, Define, DefineGradient, Equation
from ..kernel.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Sequent,
    Step,
    Theorem,
)
from ..kernel.terms import TIME, App, Atom, Ix, Lam, Node, Sum, Var, at, binders, inside, ix, symbols
from ..symbolic.assumptions import assumptions
from .arrange import arranged
from .formula import Writer
from .notation import MEANINGS, TIMES, Names, bind, letter, scope

Wrap = Callable[[str], str]  # a formula within a sentence


class Entry(NamedTuple):
    """A sentence, the formula that it announces (if any), and a step's number."""

    words: str
    formula: str = ""
    number: int | None = None


class Section(NamedTuple):
    """A heading with its entries."""

    heading: str
    entries: tuple[Entry, ...]


class Outline:
    """Writes the parts of a proof with one `writer`; `wrap` sets a formula into a sentence."""

    def __init__(self, writer: Writer, wrap: Wrap) -> None:
        self.writer, self.wrap = writer, wrap

    def sections(self, theorem: Theorem) -> tuple[Section, ...]:
        """Statement, what is given, definitions, assumptions, proof, conclusion."""
        proof = theorem.proof
        numbers = {step.rule.equation: k for k, step in enumerate(proof.steps)
                   if isinstance(step.rule, Assume)}  # fmt: skip
        steps = [self.step(proof, k, numbers) for k in range(len(proof.steps))]
        statement = self.claim(theorem.statement.equation)
        left = [Entry(words) for words in assumptions(proof)]
        end = f"∎ Step ({len(steps) - 1}) is what was to be shown."
        return (
            Section("Theorem", (statement, *self.legend(theorem.statement.equation))),
            Section("Given", self.given(proof)),
            Section("Definitions", self.definitions(proof.definitions)),
            Section("Assumptions", tuple(left or [Entry("None.")])),
            Section("Proof", (*steps, Entry(end))),
        )

    def statement(self, equation: Equation, definitions: tuple[Block, ...]) -> tuple[Entry, ...]:
        """The claim, its indices, and the definitions that it rests on."""
        names, kept = symbols(equation), {}
        known = {define.name: define for block in definitions for define in block}
        while new := [d for d in known.values() if d.name in names and d.name not in kept]:
            kept |= {d.name: d for d in new}
            names |= symbols(tuple(new))
        blocks = tuple(tuple(d for d in block if d.name in kept) for block in definitions)
        rest = self.definitions(blocks)
        head = [Entry("where")] if rest else []
        return (self.claim(equation), *self.legend((equation, blocks)), *head, *rest)

    def claim(self, equation: Equation) -> Entry:
        """`for every t and every ...: left = right`."""
        return Entry(self.every(equation, named=True) + ":", self.equation(equation))

    def names(self, equation: Equation) -> Names:
        """What the equation's indices are called, free ones by their own names."""
        return bind(equation.every, scope(equation))

    def every(self, equation: Equation, *, named: bool) -> str:
        """The quantifier in words; with `named`, the widths as well."""
        names = self.names(equation)
        parts = []
        for var in equation.every:
            shown, time = self.writer.variable(names[var]), var.sort == TIME
            reach = " ≥ 0" if time else f" over {self.width(var.sort)}"
            plain = self.wrap(f"{shown}{self.writer.at_least_zero()}" if time else shown)
            parts.append((plain if time else plain + reach) if named else self.wrap(shown))
        return "For every " + ", ".join(parts) if parts else "It holds"

    def width(self, sort: str) -> str:
        """The name of a width, in a sentence."""
        return self.wrap(self.writer.width(sort))

    def equation(self, equation: Equation) -> str:
        """Both sides."""
        names = self.names(equation)
        left = self.writer.term(equation.left, names)
        return f"{left} = {self.writer.term(equation.right, names)}"

    def right(self, equation: Equation) -> str:
        """The right side alone, after an equality sign."""
        return f"= {self.writer.term(equation.right, self.names(equation))}"

    def legend(self, node: object) -> tuple[Entry, ...]:
        """Which letter runs over which width."""
        found = {v.sort: letter(v) for n in inside(node, Node) for v in binders(n)
                 if v.sort != TIME}  # fmt: skip
        if isinstance(node, Equation):
            found |= {v.sort: letter(v) for v in node.every if v.sort != TIME}
        parts = [f"{self.wrap(self.writer.variable(found[sort]))} over {self.width(sort)}"
                 for sort in sorted(found, key=lambda s: found[s])]  # fmt: skip
        return (Entry(f"Indices, primed or not: {', '.join(parts)}."),) if parts else ()
