"""A proof as a list of entries that every format lays out in its own way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ..checker.definitions import Block, Define, Equation
from ..checker.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Step,
    Theorem,
)
from ..checker.terms import TIME, App, Atom, Var, inside, ix, symbols
from ..symbolic.assumptions import assumptions
from .formula import Writer
from .given import Fact, Given, sentences
from .notation import Names, bind, letter, scope
from .order import in_order

Wrap = Callable[[str], str]  # a formula within a sentence


EACH = "Each part says which of these it uses."


class Entry(NamedTuple):
    """A sentence, the formula that it announces (if any), and a step's number.

    `mark` is what a definition is called that several parts refer to.
    """

    words: str
    formula: str = ""
    number: int | None = None
    mark: str = ""

    @property
    def label(self) -> str:
        """The number or mark in parentheses."""
        called = self.mark if self.number is None else str(self.number)
        return f"({called})" if called else ""


class Section(NamedTuple):
    """A heading with its entries."""

    heading: str
    entries: tuple[Entry, ...]


class Shared(NamedTuple):
    """What the parts of a derivation need to say once only.

    `facts` and `legend` hold for all of them; `definitions` are the places, from 0, of those
    that several use.
    """

    facts: frozenset[Fact] = frozenset()
    legend: tuple[Entry, ...] = ()
    definitions: Mapping[Entry, int] = MappingProxyType({})


APART = Shared()  # nothing is shared


class Outline:
    """Writes the parts of a proof with one `writer`; `wrap` sets a formula into a sentence."""

    def __init__(self, writer: Writer, wrap: Wrap) -> None:
        self.writer, self.wrap, self.given = writer, wrap, Given(writer, wrap)

    def sections(self, theorem: Theorem, shared: Shared = APART) -> tuple[Section, ...]:
        """Statement, what is given, definitions, assumptions, proof, conclusion.

        What is `shared` with other parts is said elsewhere, and referred to.
        """
        proof = theorem.proof
        numbers = {
            step.rule.equation: k
            for k, step in enumerate(proof.steps)
            if isinstance(step.rule, Assume)
        }
        steps = [self.step(proof, k, numbers) for k in range(len(proof.steps))]
        statement = self.claim(theorem.statement.equation)
        left = [Entry(self.sentence(words, proof)) for words in assumptions(proof)]
        legend = self.legend(theorem.statement.equation)
        end = f"∎ Step ({len(steps) - 1}) is what was to be shown."
        found = (
            Section("Theorem", (statement, *(e for e in legend if e not in shared.legend))),
            Section("Given", self.premises(proof, shared)),
            Section("Definitions", self.own_definitions(proof, shared)),
            Section("Assumptions", tuple(left or [Entry("None.")])),
            Section("Proof", (*steps, Entry(end))),
        )
        return tuple(section for section in found if section.entries)

    def shared(self, proofs: Sequence[Proof]) -> Shared:
        """What these proofs have in common: all of them, or for definitions any two."""
        facts = [self.given.facts(proof) for proof in proofs]
        legends = [self.legend(proof.steps[-1].conclusion.equation) for proof in proofs]
        uses = Counter(e for proof in proofs for e in {*self.definitions(proof.definitions)})
        often = (e for proof in proofs for e in self.definitions(proof.definitions) if uses[e] > 1)
        return Shared(
            frozenset(facts[0]).intersection(*facts),
            legends[0] if all(legend == legends[0] for legend in legends) else (),
            {entry: place for place, entry in enumerate(dict.fromkeys(often))},
        )

    def common(self, proofs: Sequence[Proof], shared: Shared) -> tuple[Section, ...]:
        """What is shared, said once, with marks to refer to the definitions by."""
        facts = [fact for fact in self.given.facts(proofs[0]) if fact in shared.facts]
        often = shared.definitions
        defined = (e._replace(mark=mark(place)) for e, place in often.items())
        found = (
            Section("Given in every part", (*map(Entry, sentences(facts)), *shared.legend)),
            Section("Definitions that parts share", (Entry(EACH), *defined) if often else ()),
        )
        return tuple(section for section in found if section.entries)

    def premises(self, proof: Proof, shared: Shared) -> tuple[Entry, ...]:
        """What the proof is given besides what all parts are given."""
        own = [fact for fact in self.given.facts(proof) if fact not in shared.facts]
        return tuple(map(Entry, sentences(own)))

    def own_definitions(self, proof: Proof, shared: Shared) -> tuple[Entry, ...]:
        """The proof's definitions: shared ones by their marks, then the others."""
        entries = self.definitions(proof.definitions)
        places = [shared.definitions[e] for e in entries if e in shared.definitions]
        named = [Entry(f"As above: {spans(places)}.")] if places else []
        return (*named, *(e for e in entries if e not in shared.definitions))

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
        words = self.given.every(equation.every, self.names(equation))
        return Entry(f"For every {words}:" if words else "", self.equation(equation))

    def names(self, equation: Equation) -> Names:
        """What the equation's indices are called, free ones by their own names."""
        return bind(equation.every, scope(tuple(equation.free())))

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
        parts = [
            f"{self.wrap(self.writer.variable(found[sort]))} over {self.given.width(sort)}"
            for sort in sorted(found, key=lambda s: found[s])
        ]
        return (Entry(f"Indices, primed or not: {', '.join(parts)}."),) if parts else ()

    def definitions(self, blocks: tuple[Block, ...]) -> tuple[Entry, ...]:
        """The defining equations, and of what a gradient is one."""
        found: list[Entry] = []
        for define in (d for block in blocks for d in in_order(block)):
            if isinstance(define, Define):
                starts = (True, False) if define.start else (False,)
                found += [Entry("", self.equation(define.equation(None, s))) for s in starts]
                continue
            names = bind((*define.every, *define.at.binders), {})
            entry = tuple(map(ix, define.at.binders))
            own = Atom(define.name, (*map(ix, define.every), *entry))
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
            return (
                f"induction on {self.wrap(shown)}: {bases} at 0, {steps} from "
                f"{self.wrap(shown)} to {self.wrap(onwards)}{freed}"
            )
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


def mark(place: int) -> str:
    """What a shared definition is called."""
    return f"D{place + 1}"


def spans(places: Iterable[int]) -> str:
    """Shared definitions by their marks: `(D1) to (D4), (D7)`."""
    found: list[list[int]] = []
    for place in sorted(places):
        if found and found[-1][-1] == place - 1:
            found[-1].append(place)
        else:
            found.append([place])
    joints = [" to " if len(run) > 2 else ", " for run in found]
    ends = [[run[0], run[-1]] if len(run) > 1 else run for run in found]
    return ", ".join(
        joint.join(f"({mark(end)})" for end in run) for joint, run in zip(joints, ends, strict=True)
    )


def numbers(found: Iterable[int]) -> str:
    """Steps by their numbers: `(1), (2)`."""
    return ", ".join(f"({number})" for number in found)
