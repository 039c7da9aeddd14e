"""Writes proofs down: proposes steps, asks the checker what they conclude, records that."""

from __future__ import annotations

from typing import Any

from ..checker.definitions import Block, DefineGradient, Equation
from ..checker.normal import naturals
from ..checker.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Rule,
    Sequent,
    Step,
    infer,
    replaced,
)
from ..checker.terms import Atom, Ix, Lam, Term, Var, free, ix, put_symbol


class Prover:
    """A proof in the making. Each method appends one step and returns its number."""

    def __init__(self, definitions: tuple[Block, ...]) -> None:
        self.definitions = definitions
        self.known = {define.name: define for block in definitions for define in block}
        self.steps: list[Step] = []

    def add(self, rule: Rule, *premises: int) -> int:
        """Append a step; `CheckerError` if the rule does not apply."""
        conclusion = infer(self.known, rule, [self.at(number) for number in premises])
        self.steps.append(Step(rule, premises, conclusion))
        return len(self.steps) - 1

    def at(self, number: int) -> Sequent:
        """What step `number` concluded."""
        return self.steps[number].conclusion

    def right(self, number: int) -> Term:
        """The right side that step `number` reached."""
        return self.at(number).equation.right

    def definition(self, name: str, *, start: bool = False, entry: Lam | None = None) -> int:
        """The equation that defines a symbol; replaying decides whether `entry` is its gradient."""
        rule, define = Definition(name, entry, start), self.known.get(name)
        if entry is None or not isinstance(define, DefineGradient):
            return self.add(rule)
        every = define.every + entry.binders
        value = put_symbol(entry.body, define.param, define.at)
        stated = Equation(every, Atom(name, tuple(map(ix, every))), value)
        self.steps.append(Step(rule, (), Sequent((), stated)))
        return len(self.steps) - 1

    def assume(self, equation: Equation) -> int:
        """A hypothesis."""
        return self.add(Assume(equation))

    def begin(self, every: tuple[Var, ...], term: Term) -> int:
        """The start of a calculation: `term = term`."""
        return self.add(Reflexivity(every, term))

    def use(self, target: int, *sources: int) -> int:
        """Replace by the equations `sources`, and leave the result as it stands."""
        return self.add(Calculate(self.rewritten(target, *sources)), target, *sources)

    def applies(self, target: int, source: int) -> bool:
        """Whether the equation `source` can be used on the target's right side."""
        return self.rewritten(target, source) != self.right(target)

    def rewritten(self, target: int, *sources: int) -> Term:
        """The target's right side with the equations `sources` used on it, in turn."""
        term: Any = self.right(target)
        for source in sources:
            term = replaced(term, self.at(source).equation, naturals(free(term)))
        return term

    def rearrange(self, target: int, term: Term, peel: Ix | None = None) -> int:
        """Bring the right side into the form `term`."""
        return self.add(Calculate(term, peel), target)

    def conclude(self, target: int, term: Term, *sources: int) -> int:
        """Bring the right side into the form `term`, which the sources may unfold."""
        return self.add(Calculate(term), target, *sources)

    def claim(self, target: int, goal: Equation, peel: Ix | None = None, *sources: int) -> Proof:
        """The whole proof, ending with `goal` as the last calculation's conclusion.

        The checker is not asked here: replaying the proof decides.
        """
        step = Step(Calculate(goal.right, peel), (target, *sources), Sequent((), goal))
        return Proof(self.definitions, (*self.steps, step))

    def induct(
        self,
        time: Var,
        predicate: tuple[Equation, ...],
        bases: list[int],
        steps: list[int],
        pick: int,
    ) -> int:
        """Conclude part `pick` of the predicate for every time."""
        return self.add(Induction(time, predicate, pick), *bases, *steps)
