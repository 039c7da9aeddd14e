"""A proof as a list of entries that every format lays out in its own way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..kernel.definitions import Block, Define, DefineGradient, Equation
from ..kernel.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Step,
    Theorem,
)
from ..kernel.terms import TIME, App, Atom, Var, inside, ix, symbols
from ..symbolic.assumptions import assumptions
from .arrange import arranged
from .formula import Writer
from .notation import MEANINGS, Names, bind, letter, scope

Wrap = Callable[[str], str]  # a formula within a sentence


ARBITRARY = "Lengths and widths are arbitrary. An empty sum is 0, an empty product is 1."


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
        left = [Entry(self.sentence(words, proof)) for words in assumptions(proof)]
        end = f"∎ Step ({len(steps) - 1}) is what was to be shown."
        found = (
            Section("Theorem", (statement, *self.legend(theorem.statement.equation))),
            Section("Given", self.given(proof)),
            Section("Definitions", self.definitions(proof.definitions)),
            Section("Assumptions", tuple(left or [Entry("None.")])),
            Section("Proof", (*steps, Entry(end))),
        )
        return tuple(section for section in found if section.entries)

    def sentence(self, words: str, proof: Proof) -> str:
        """An assumption, its names in backquotes shown as they are in formulas."""
        functions = {app.fn for app in inside(proof, App)}

        def shown(match: re.Match[str]) -> str:
            name, writer = match[1], self.writer
            called = writer.function(name, "", (), ()) if name in functions else None
            return self.wrap(called or writer.symbol(name, ""))

        return re.sub(r"`(\w+)`", shown, words)

    def statement(self, equation: Equation, definitions: tuple[Block, ...]) -> tuple[Section, ...]:
        """The claim, its indices, and the definitions that it rests on."""
        names, kept = symbols(equation), {}
        known = {define.name: define for block in definitions for define in block}
        while new := [d for d in known.values() if d.name in names and d.name not in kept]:
            kept |= {d.name: d for d in new}
            names |= symbols(tuple(new))
        blocks = tuple(tuple(d for d in block if d.name in kept) for block in definitions)
        found = [Section("", (self.claim(equation), *self.legend((equation, blocks))))]
        rest = self.definitions(blocks)
        return (*found, Section("Definitions", rest)) if rest else tuple(found)

    def claim(self, equation: Equation) -> Entry:
        """`for every t and every ...: left = right`."""
        words = self.every(equation.every, self.names(equation))
        return Entry(f"For every {words}:" if words else "", self.equation(equation))

    def names(self, equation: Equation) -> Names:
        """What the equation's indices are called, free ones by their own names."""
        return bind(equation.every, scope(tuple(equation.free())))

    def every(self, variables: Iterable[Var], names: Names) -> str:
        """Indices and what they run over: `step t, h over D_h`."""
        parts = []
        for var in variables:
            shown = self.wrap(self.writer.variable(names[var]))
            time = var.sort == TIME
            parts.append(f"step {shown}" if time else f"{shown} over {self.width(var.sort)}")
        return ", ".join(parts)

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
        found = {v.sort: letter(v) for v in inside(node, Var) if v.sort != TIME}
        parts = [f"{self.wrap(self.writer.variable(found[sort]))} over {self.width(sort)}"
                 for sort in sorted(found, key=lambda s: found[s])]  # fmt: skip
        return (Entry(f"Indices, primed or not: {', '.join(parts)}."),) if parts else ()

    def given(self, proof: Proof) -> tuple[Entry, ...]:
        """The symbols and functions that nothing defines, with their shapes."""
        defined = {d.name for block in proof.definitions for d in block}
        defined |= {d.param for block in proof.definitions for d in block
                    if isinstance(d, DefineGradient)}  # fmt: skip
        atoms = {a.name: a for a in inside(proof, Atom) if a.name not in defined}
        apps = {a.fn: a for a in inside(shown_terms(proof), App)}
        found = [self.data(atom) for atom in atoms.values()]
        found += [self.function(app) for app in apps.values()]
        return (*found, Entry(ARBITRARY))

    def data(self, atom: Atom) -> Entry:
        """A symbol with its shape."""
        sorts = [index.vars[0].sort if index.vars else TIME for index in atom.ix]
        widths = [self.width(sort) for sort in sorts if sort != TIME]
        times = self.writer.listed((self.writer.variable(name), False)
                                   for name, sort in zip("tuvw", sorts, strict=False)
                                   if sort == TIME)  # fmt: skip
        shown = self.wrap(self.writer.symbol(atom.name, times))
        return Entry(f"{shown}, {self.kind(widths)}.")

    def kind(self, widths: Sequence[str]) -> str:
        """What has these widths."""
        names = {0: "number", 1: "vector", 2: "matrix"}
        shape = f" of shape {' × '.join(widths)}" if widths else ""
        return f"{'a ' + names[len(widths)] if len(widths) in names else 'an array'}{shape}"

    def function(self, app: App) -> Entry:
        """A function: what it is, or that it may be any."""
        if app.fn in MEANINGS:
            return Entry(f"{self.wrap(self.writer.meaning(app.fn))}.")
        every = tuple(Var(letter(v), v.sort) for index in app.ix for v in index.vars)
        every = tuple(Var("t", TIME) if v.sort == TIME else v for v in every)
        names = bind(every, {})
        kinds = [self.kind([self.width(v.sort) for v in a.binders]) for a in app.args]
        plain = Atom("x", tuple(map(ix, every)))
        shown = self.writer.function(app.fn, self.writer.indices(plain, names), (), ())
        own = f", one for every {self.every(every, names)}" if every else ""
        return Entry(f"{self.wrap(shown)}, any function of {' and '.join(kinds)}{own}.")

    def definitions(self, blocks: tuple[Block, ...]) -> tuple[Entry, ...]:
        """The defining equations, and of what a gradient is one."""
        found: list[Entry] = []
        for define in (d for block in blocks for d in block):
            if isinstance(define, Define):
                starts = (True, False) if define.start else (False,)
                found += [Entry("", self.equation(define.equation(None, s))) for s in starts]
                continue
            names = bind((*define.outer, *define.at.binders), {})
            entry = tuple(map(ix, define.at.binders))
            own = Atom(define.name, (*map(ix, define.outer), *entry))
            shown, param = (self.writer.term(a, names) for a in (own, Atom(define.param, entry)))
            place = f"{param} = {self.writer.term(define.at.body, names)}"
            words = f"{self.wrap(shown)} is the gradient in {self.wrap(param)}, at "
            loss = self.writer.term(define.loss, names)
            found.append(Entry(f"{words}{self.wrap(place)}, of", loss))
        return tuple(found)

    def step(self, proof: Proof, number: int, assumed: dict[Equation, int]) -> Entry:
        """One step: its rule, its premises by number, and what it says now."""
        step = proof.steps[number]
        equation, rule = step.conclusion.equation, step.rule
        under = [assumed[h] for h in step.conclusion.hypotheses if h in assumed]
        tail = f", under {numbers(under)}" if under and not isinstance(rule, Assume) else ""
        formula = self.equation(equation)
        if isinstance(rule, Calculate | Reflexivity):
            left = self.writer.term(equation.left, self.names(equation))
            starting = isinstance(rule, Reflexivity)
            formula = left if starting else self.right(equation)
            words = "start of a calculation" if starting else self.calculation(step)
            return Entry(words + tail, formula, number)
        return Entry(self.rule(proof, step, assumed) + tail, formula, number)

    def rule(self, proof: Proof, step: Step, assumed: dict[Equation, int]) -> str:
        """The name of a rule, and what it is applied to."""
        rule = step.rule
        if isinstance(rule, Assume):
            inductions = [s.rule for s in proof.steps if isinstance(s.rule, Induction)]
            times = [r.time for r in inductions if rule.equation in r.predicate]
            if not times:
                return "hypothesis"
            shown = self.wrap(self.writer.variable(times[0].name))
            return f"induction hypothesis, for a step {shown}"
        if isinstance(rule, Induction):
            shown, n = self.writer.variable(rule.time.name), len(rule.predicate)
            bases, steps = numbers(step.premises[:n]), numbers(step.premises[n:])
            known = [assumed[part] for part in rule.predicate if part in assumed]
            onwards = f"{shown}{self.writer.PLUS.replace(' ', '')}1"
            freed = f", discharging {numbers(known)}" if known else ""
            return (f"induction on {self.wrap(shown)}: {bases} at 0, {steps} from "
                    f"{self.wrap(shown)} to {self.wrap(onwards)}{freed}")  # fmt: skip
        if isinstance(rule, Definition):
            name = self.wrap(self.writer.symbol(rule.name, ""))
            if rule.entry:
                return f"gradient: {name}, checked by the differential that defines it"
            return f"definition of {name}" + (", at the start" if rule.start else "")
        return "start of a calculation"

    def calculation(self, step: Step) -> str:
        """A calculation: what it goes on from, and what it uses."""
        target, *sources = step.premises
        words = f"calculation, from ({target})"
        words += f" by {numbers(sources)}" if sources else " by rearranging"
        rule = step.rule
        if isinstance(rule, Calculate) and rule.peel:
            time = self.wrap(self.writer.index(rule.peel, scope(rule.peel)))
            words += f", splitting off the last step at {time}"
        return words


def numbers(found: Iterable[int]) -> str:
    """Steps by their numbers: `(1), (2)`."""
    return ", ".join(f"({number})" for number in found)


def shown_terms(proof: Proof) -> tuple:
    """Every term of the definitions and steps, as it is shown."""
    found = []
    for define in (d for block in proof.definitions for d in block):
        found += [define.term, define.start] if isinstance(define, Define) else [define.loss]
    for step in proof.steps:
        found += [step.conclusion.equation.left, step.conclusion.equation.right]
    return tuple(arranged(term) for term in found if term is not None)
