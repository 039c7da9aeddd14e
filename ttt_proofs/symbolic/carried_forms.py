"""The form of a recurrence by carried writes: what it claims of each state, and the proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import sympy as sp

from ..checker.definitions import Block, Equation
from ..checker.terms import Atom, Ix, Term, ix
from ..loops.recurrence import Recurrence
from .bridge import at, product
from .carried import Group, at_most, group
from .linear_attention import PAST
from .prover import Prover
from .step_plan import in_groups
from .step_terms import Terms, closed, definitions, every, index_of, places
from .theory import NOW, T

Proved = Mapping[str, Callable[[], int]]  # by name, the function that adds an induction's last step


@dataclass(frozen=True)
class CarriedForm:
    """What the states of a recurrence are after t tokens, group by group."""

    layer: Recurrence
    groups: tuple[Group, ...]

    @property
    def carried_definitions(self) -> tuple[Block, ...]:
        """The definitions of what is carried from token to token."""
        return tuple(group.block() for group in self.groups)

    @property
    def definitions(self) -> tuple[Block, ...]:
        """The recurrence, and what is carried."""
        return (*definitions(self.layer), *self.carried_definitions)

    def after(self, terms: Terms, name: str, entry: tuple[Ix, ...], last: sp.Expr) -> Term:
        """A state after token `last` (t, or t - 1), at an entry."""
        (group,) = (group for group in self.groups if name in group.linear)
        return group.after(name, entry, index_of(last))

    def terms(self, last: sp.Expr | None = None) -> Terms:
        """Writes terms of the step; with these forms for states where `last` is the newest."""
        return Terms(self.layer) if last is None else closed(self, last)

    def prove_states(self) -> tuple[Prover, Proved]:
        """A proof of what each state is; for each, the function that adds its last step."""
        prover, known = Prover(self.definitions), {}
        for states in self.groups:
            known |= GroupProof(prover, states).states()
        return prover, known


@dataclass
class GroupProof:
    """Two inductions over tokens: nothing is carried before it is written, and what states are."""

    prover: Prover
    group: Group

    def states(self) -> Proved:
        """Each state is its carried start and the sum of what was written, as it is carried."""
        group, define = self.group, self.prover.definition
        names = {name: every(group.layer.states[name]) for name in group.linear}
        parts = {}
        for name, entry in names.items():
            right = group.after(name, tuple(map(ix, entry)), ix(T, -1))
            parts[name] = Equation(entry, Atom(name, (NOW, *map(ix, entry))), right)
        starts = [group.start_of(name) for name in names]
        writes = [group.symbol(name) for name in names if group.written]
        nothing = [found() for found in self.nothing_before().values()] if group.written else []
        begun = [define(name, start=True) for name in starts]
        return self.induct(parts, begun, [define(name) for name in (*starts, *writes)], nothing)

    def nothing_before(self) -> Proved:
        """The write of token i is 0 at t unless i < t: it is itself times the bracket [i < t]."""
        group, parts = self.group, {}
        for name in group.linear:
            axes = group.layer.states[name]
            symbol = group.key(name, ix(PAST), NOW, places(axes))
            right = product([symbol, at_most(ix(PAST), ix(T, -1))])
            parts[symbol.name] = Equation((PAST, *group.own(every(axes))), symbol, right)
        return self.induct(parts)

    def induct(
        self,
        parts: Mapping[str, Equation],
        begun: Sequence[int] = (),
        unfolding: Sequence[int] = (),
        last: Sequence[int] = (),
    ) -> Proved:
        """By induction over t: each part is a statement about the symbol of its name.

        begun: what is used on both sides at 0. unfolding and last: at t + 1, before and after the
        statements at t.
        """
        prover, bases, steps = self.prover, [], []
        own = [prover.definition(name) for name in parts]
        assumed = [prover.assume(part) for part in parts.values()]
        for name, part in parts.items():
            base, goal = part.put({T: at(0)}), part.put({T: ix(T, 1)})
            start = prover.definition(name, start=True)
            bases.append(prover.conclude(start, base.right, *begun))
            number = prover.begin(goal.every, goal.left)
            while used := [source for source in own if prover.applies(number, source)]:
                number = prover.use(number, *used)
            steps.append(prover.conclude(number, goal.right, *own, *unfolding, *assumed, *last))
        told = tuple(parts.values())
        return {
            name: partial(prover.induct, T, told, bases, steps, pick)
            for pick, name in enumerate(parts)
        }


def carried_form(layer: Recurrence) -> CarriedForm:
    """The form of a recurrence; `NotAffineError` where states that read each other are not affine.

    States that others read, but which read none of those, are to them as data.
    """
    return CarriedForm(layer, tuple(group(layer, names) for names in in_groups(layer)))
