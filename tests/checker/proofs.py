"""Whole random proofs: definitions, and steps of all rules, many of which are accepted.

The checker itself is asked for each conclusion, so that what a faulty one accepts gets in. All
that is proposed may be spoiled a little: then it is refused, or true all the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.checker.build import at, atom, mul
from tests.checker.ladders import Definers, Ladder
from tests.checker.symbols import TIMES, WIDTHS
from ttt_proofs.checker import definitions, proof
from ttt_proofs.checker.definitions import Block, DefineGradient, Equation
from ttt_proofs.checker.normal import naturals
from ttt_proofs.checker.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Rule,
    Sequent,
    Step,
)
from ttt_proofs.checker.terms import (
    TIME,
    Atom,
    CheckerError,
    Ix,
    Lam,
    Sum,
    Var,
    binders,
    check,
    free,
    in_order,
    inside,
    ix,
    substitute,
    symbols,
)


class Proofs(Definers):
    """A proof in the making; `random` decides everything."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.blocks: tuple[Block, ...] = ()
        self.steps: list[Step] = []
        self.refused: list[str] = []
        for _ in range(self.choice([0, 1, 1, 2, 3])):
            self.open()
        moves = [self.cite, self.begin_anew, self.suppose, self.go_on, self.go_on, self.go_on]
        moves += [self.climb, self.climb, self.climb_supposed, self.again, self.identity]
        moves += [self.rewrite] * 5 + [self.take_out]
        moves += [self.empty_handed, self.guess]
        while len(self.steps) < 5 or (len(self.steps) < 14 and self.flip(0.8)):
            self.choice(moves)()

    @property
    def proof(self) -> Proof:
        """The record."""
        return Proof(self.blocks, tuple(self.steps))

    # Definitions

    def open(self) -> None:
        """Add a block of definitions, if one is admitted soon."""
        makers = [self.any_block, self.ladder_block, self.ladder_block, self.twins, self.gradient]
        maker = self.choice(makers)
        for _ in range(12):
            block = maker()
            if self.flip(0.1):
                block = self.terms.spoiled(block)
            try:
                check(block, Block)
                definitions.admit((*self.blocks, block))
            except CheckerError:
                continue
            self.blocks += (block,)
            for define in block:
                binders = define.at.binders if isinstance(define, DefineGradient) else ()
                self.terms.shapes[define.name] = tuple(v.sort for v in define.every + binders)
            return

    # Steps; each returns its number, or None if it is refused.

    def add(self, rule: Rule, *premises: int) -> int | None:
        """Append a step with what the checker concludes."""
        known = {define.name: define for block in self.blocks for define in block}
        try:
            check(rule, type(rule))
            conclusion = proof.infer(known, rule, [self.steps[k].conclusion for k in premises])
        except CheckerError:
            self.refused.append(type(rule).__name__)
            return None
        self.steps.append(Step(rule, premises, conclusion))
        return len(self.steps) - 1

    def some(self) -> int | None:
        """A step, if there is one."""
        return self.random.randrange(len(self.steps)) if self.steps else None

    def define(self, name: str, start: bool = False) -> int | None:
        """The equation that defines a symbol, its gradient's entry rewritten or spoiled."""
        entry = self.entries.get(name)
        if entry is not None:
            entry = self.terms.rewritten(entry)
        return self.add(Definition(name, entry, start))

    def cite(self) -> int | None:
        """The equation of some symbol."""
        names = [define.name for block in self.blocks for define in block]
        return self.define(self.choice(names), self.flip(0.4)) if names else None

    def begin(self, every: Sequence[Var], term) -> int | None:
        """Reflexivity."""
        return self.add(Reflexivity(tuple(every), term))

    def quantified(self, term, rate: float = 0.6, widths: float = 0.95) -> tuple[Var, ...]:
        """Some of the free indices: widths but rarely left out."""
        every = [v for v in in_order(free(term)) if self.flip(rate if v.sort == TIME else widths)]
        every.sort(key=lambda v: (v.sort != TIME, v.name, v.sort))
        return tuple({v.name: v for v in every}.values()) if self.flip(0.95) else tuple(every)

    def begin_anew(self) -> int | None:
        """A random term equals itself."""
        term = self.terms.term([*self.scope()], self.choice([0, 1, 2]))
        return self.begin(self.quantified(term), term)

    def suppose(self) -> int | None:
        """A random hypothesis, about a symbol of its own or about one that is there."""
        every = self.scope()
        name = self.new("H")
        shape = self.random.sample(every, len(every))
        indices = [ix(v, self.choice([0, 0, 1, -1]) if v.sort == TIME else 0) for v in shape]
        if self.flip(0.2):
            indices.append(self.terms.index([*every]))
        left: Any = Atom(name, tuple(indices))
        if self.flip(0.15):
            left = self.terms.atom([*every])
        else:
            self.terms.shapes[name] = tuple(v.sort for v in shape) + (TIME,) * (
                len(indices) - len(shape)
            )
        right = self.terms.term([*every], self.choice([0, 1, 1, 2]))
        if name in symbols(right):
            right = atom("K")
        return self.add(Assume(Equation(self.quantified((left, right), 0.65), left, right)))

    def used(self, term, source: Equation) -> Any:
        """The term with instances of the equation replaced, as the checker does, if it does."""
        try:
            return proof.replaced(term, source, naturals(free((term, source.right))))
        except CheckerError:  # no term at all
            return term

    def peel(self, term) -> Ix | None:
        """A place to cut ranges, or none."""
        times = [v for v in free(term) if v.sort == TIME]
        return ix(self.choice(times), self.choice([0, 0, 0, 1, -1])) if times else None

    def calculate(self, target: int | None, term, *sources: int | None, peel=None) -> int | None:
        """Calculate, if all steps are there."""
        steps = [k for k in (target, *sources) if k is not None]
        if target is None or len(steps) <= len(sources):
            return None
        return self.add(Calculate(term, peel), *steps)

    def go_on(self) -> int | None:
        """Use some equations on a conclusion; what comes out is rewritten, or spoiled."""
        target = self.some()
        if target is None:
            return None
        term = self.steps[target].conclusion.equation.right
        sources = []
        for _ in range(self.choice([0, 1, 1, 2, 3])):
            near = symbols(term)
            fit = [
                k for k, s in enumerate(self.steps) if near & symbols(s.conclusion.equation.left)
            ]
            source = self.choice(fit) if fit and self.flip(0.9) else self.some()
            assert source is not None
            sources.append(source)
            term = self.used(term, self.steps[source].conclusion.equation)
        term = self.terms.rewritten(term)
        if self.flip(0.1):
            self.random.shuffle(sources)
        return self.calculate(
            target, term, *sources, peel=self.peel(term) if self.flip(0.5) else None
        )

    def instance(self, e: Equation, scope: list[Var]) -> Any:
        """The left side with indices in place of the quantified ones, most of them fitting."""
        values = {
            v: self.terms.fitting(v.sort if self.flip(0.9) else self.choice(["D", "E"]), scope)
            for v in e.every
        }
        return substitute(e.left, values)

    def rewrite(self) -> int | None:
        """Use an equation on a term that is made for it, with the equation's own names in it."""
        sources = [
            k
            for k, s in enumerate(self.steps)
            if isinstance((e := s.conclusion.equation).left, Atom) and e.left != e.right
        ]
        if not sources:
            return self.suppose()
        source = self.choice(sources)
        e = self.steps[source].conclusion.equation
        own = [v for node in inside(e, Sum | Lam) for v in binders(node)]
        names = [*self.random.sample(TIMES + WIDTHS, 1), *e.free(), *own]
        scope = list({v.name: v for v in self.random.sample(names, len(names))}.values())
        term = self.instance(e, scope)
        if self.flip(0.5):
            term = mul(term, self.terms.term(scope, self.choice([0, 1])))
        if self.flip(0.7):
            term = self.terms.summed_over(self.choice(scope), term)
        start = self.add(Reflexivity(self.quantified(term, 0.4, 0.8), term))
        found = self.terms.rewritten(self.used(term, e))
        peel = self.peel(found) if self.flip(0.5) else None
        return self.calculate(start, found, source, peel=peel)

    def take_out(self) -> int | None:
        """Take the last step out of a range that may be empty."""
        term = self.terms.ranged(self.scope())
        start = self.add(Reflexivity(self.quantified(term), term))
        return self.calculate(start, self.terms.split(term), peel=self.peel(term))

    # Inductions

    def climb(self) -> int | None:
        """The closed forms of one or two recursions, by induction."""
        here = [ladder for ladder in self.ladders if ladder.name in self.terms.shapes]
        if not here:
            return None
        first = self.choice(here)
        twins = [x for x in here if x.term == first.at(ix(first.time)) and x is not first]
        return self.induct([first, *twins[:1]])

    def climb_supposed(self) -> int | None:
        """The closed form of a recursion that is supposed."""
        return self.induct([self.ladder(False)])

    def law(self, ladder: Ladder, start: bool) -> int | None:
        """The start or the step of a recursion; a hypothesis may fix a time."""
        if ladder.defined:
            return self.define(ladder.name, start)
        e = ladder.starting() if start else ladder.going()
        if self.flip(0.25):
            e = replace(e, every=tuple(v for v in e.every if v.sort != TIME or self.flip(0.3)))
        return self.add(Assume(e))

    def induct(self, ladders: list[Ladder]) -> int | None:
        """Cite, assume, calculate the base and the step, and conclude; all may be spoiled."""
        laws = [(self.law(x, True), self.law(x, False)) for x in ladders]
        starts, goings = [s for s, _ in laws], [g for _, g in laws]
        var = ladders[0].time
        if self.flip(0.3):
            var = self.choice(TIMES)
        parts = [x.predicate(var) for x in ladders]
        extra: list[int | None] = []
        if self.flip(0.4) and (fit := self.near(parts[0].right)):
            extra = [self.choice(fit)]
            source = self.steps[extra[0] or 0].conclusion.equation
            parts = [replace(p, right=self.used(p.right, source)) for p in parts]
        if self.flip(0.25):
            parts = [replace(p, right=self.terms.spoiled(p.right)) for p in parts]
        assumed = [self.add(Assume(p)) for p in parts]
        bases = [self.reach(p, var, at(0), *starts, *extra) for p in parts]
        nexts = [self.reach(p, var, ix(var, 1), *goings, *assumed, *extra) for p in parts]
        return self.close(var, parts, [*bases, *nexts], [*assumed, *starts, *goings, *extra])

    def near(self, term) -> list[int]:
        """Steps whose equation is about a symbol of the term."""
        return [
            k
            for k, s in enumerate(self.steps)
            if isinstance(s.conclusion.equation.left, Atom)
            and s.conclusion.equation.left.name in symbols(term)
        ]

    def reach(self, part: Equation, var: Var, now: Ix, *sources: int | None) -> int | None:
        """The equation where `now` is put for the time, by a calculation."""
        every = tuple(v for v in part.every if v != var)
        left, right = substitute((part.left, part.right), {var: now})
        peel = ix(var, self.choice([0, 0, 0, 0, 1, -1])) if now.vars or self.flip(0.2) else None
        return self.calculate(self.begin(every, left), right, *sources, peel=peel)

    def close(
        self, var: Var, parts: list[Equation], premises: list[int | None], others: list[int | None]
    ) -> int | None:
        """Induction, from what was reached; rarely from something else."""
        known = [k for k in others if k is not None] or [0]
        if not self.steps:
            return None
        found = [self.choice(known) if k is None or self.flip(0.03) else k for k in premises]
        if self.flip(0.05):
            self.random.shuffle(found)
        pick = self.random.randrange(len(parts)) if self.flip(0.97) else self.choice([-1, 2])
        return self.add(Induction(var, tuple(parts), pick), *found)

    def again(self) -> int | None:
        """Prove by induction over a quantified time what is shown already."""
        target = self.some()
        if target is None:
            return None
        shown = self.steps[target].conclusion.equation
        times = [v for v in shown.every if v.sort == TIME]
        if not times:
            return None
        var = self.choice(times)
        part = replace(shown, every=tuple(v for v in shown.every if v != var))
        bases = [self.reach(part, var, at(0), target)]
        nexts = [self.reach(part, var, ix(var, 1), target)]
        return self.close(var, [part], [*bases, *nexts], [target])

    def identity(self) -> int | None:
        """Prove by induction that two forms of a term are equal."""
        term = self.terms.term([*self.scope()], self.choice([1, 2]))
        if self.flip(0.3):
            term = self.terms.ranged(self.scope())
        var = self.choice(TIMES)
        other = self.terms.rewritten(term)
        every = tuple(v for v in self.quantified((term, other)) if v != var)
        part = Equation(every, term, other)
        extra = [self.some()] if self.steps and self.flip(0.4) else []
        found = [self.reach(part, var, now, *extra) for now in (at(0), ix(var, 1))]
        return self.close(var, [part], found, [*extra])

    def empty_handed(self) -> int | None:
        """An induction whose base, or step, or both are nothing but the assumption."""
        every, var = self.scope(1), self.choice(TIMES)
        left, right = self.terms.atom([*every]), self.terms.atom([*every])
        if self.flip(0.5):
            var = next((v for v in every if v.sort == TIME), var)
        part = Equation(
            tuple(v for v in self.quantified((left, right), 0.4) if v != var), left, right
        )
        assumed = self.add(Assume(part))
        if assumed is None:
            return None
        values = ({var: at(0)}, {var: ix(var, 1)})
        found = []
        for e in (
            replace(part, left=x, right=y)
            for x, y in (substitute((left, right), v) for v in values)
        ):
            found.append(self.add(Assume(e)) if self.flip(0.3) else assumed)
        return self.close(var, [part], found, [assumed])

    def guess(self) -> int | None:
        """An induction from any steps whatever."""
        if not self.steps:
            return None
        shown = [self.choice(self.steps).conclusion.equation for _ in range(self.choice([1, 1, 2]))]
        var = self.choice(TIMES)
        premises = [self.some() for _ in range(2 * len(shown))]
        return self.close(var, shown, premises, [])


# Records that no honest prover writes


def cone(steps: Sequence[Step], last: int) -> list[Step]:
    """The steps that the given one rests on, itself the last."""
    needed = {last}
    for k in range(last, -1, -1):
        if k in needed:
            needed.update(steps[k].premises)
    order = {old: new for new, old in enumerate(sorted(needed))}
    return [
        replace(steps[old], premises=tuple(order[k] for k in steps[old].premises)) for old in order
    ]


def tampered(made: Proofs) -> Proof:
    """A part of the proof with something forged in its last step, or in a definition."""
    random, terms = made.random, made.terms
    steps = cone(made.steps, random.randrange(len(made.steps)))
    step, number, blocks = steps[-1], len(steps) - 1, made.blocks
    e = step.conclusion.equation
    kind = random.choice(
        ["equation", "equation", "hypotheses", "every", "self", "later", "rule", "block"]
    )
    if kind == "equation":
        forged = replace(e, right=terms.spoiled(e.right))
        step = replace(step, conclusion=replace(step.conclusion, equation=forged))
    elif kind == "hypotheses":
        step = replace(step, conclusion=Sequent(step.conclusion.hypotheses[1:], e))
    elif kind == "every":
        more = tuple(v for v in free((e.left, e.right)) if v not in e.every)
        forged = replace(e, every=e.every[1:] if random.random() < 0.4 else e.every + more)
        step = replace(step, conclusion=replace(step.conclusion, equation=forged))
    elif kind in ("self", "later"):
        claim = Sequent((), replace(e, right=terms.spoiled(e.right)))
        premise = number if kind == "self" else number + 1
        step = Step(Calculate(claim.equation.right), (premise,), claim)
        steps += [step] if kind == "later" else []
    elif kind == "rule":
        step = replace(step, rule=terms.spoiled(step.rule))
    else:
        blocks = tuple(terms.spoiled(block) for block in blocks)
    steps[number] = step
    return Proof(blocks, tuple(steps))
