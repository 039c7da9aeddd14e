"""The linear-attention form of a recurrence: what it claims, and the steps that prove it.

A state that follows `S ← a_t ∘ S + b_t`, a_t and b_t from data alone, is after token t

    S = (Π_{s=0..t} a_s) ∘ S_0 + Σ_{i=0..t} (Π_{s=i+1..t} a_s) ∘ b_i,

and through states that it reads likewise; the output is what the step reads of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

import sympy as sp

from ..checker.definitions import Block, Equation
from ..checker.proof import Proof
from ..checker.terms import Add, Atom, Ix, Sum, Term, ix, substitute, symbols
from ..loops.recurrence import OUTPUT, Recurrence
from ..program.coefficients import t
from ..program.steps import Affine, Entangled, Operations
from .bridge import at, product, scalar
from .carried import NotAffineError
from .carried_forms import CarriedForm, Proved, carried_form
from .closed_forms import Closed, LinearLine, NotCoveredError, i, unrolled
from .linear_attention import PAST, prove_states
from .prover import Prover
from .step_plan import carried, in_groups, in_order, not_affine, split
from .step_terms import (
    Terms,
    closed,
    definitions,
    every,
    index_of,
    output_term,
    places,
    start,
)
from .theory import NOW, T

RUNS = "Run it with ttt_proofs.parallel.recurrences.recurrent."


@dataclass(frozen=True)
class EntryForm:
    """The closed forms of a recurrence's states; `operations` are what their numbers count."""

    layer: Recurrence
    operations: Operations
    forms: Mapping[str, Affine]
    closed: Mapping[str, Closed]

    @property
    def peel(self) -> Ix:
        """Where the induction cuts ranges: a step earlier where past values are passed on."""
        lagging = any(
            lag and other != name
            for name, form in self.forms.items()
            for other, lag in form.factors
        )
        return ix(T, -1) if lagging else NOW

    def after(self, terms: Terms, name: str, entry: tuple[Ix, ...], last: sp.Expr) -> Term:
        """A state after token `last` (t, or t - 1), at an entry."""
        closed, read = self.closed[name], partial(self.scalar, terms, entry)
        parts = [
            product([read(found(last)), start(str(origin), entry)])
            for origin, found in closed.starts.items()
        ]
        for source, weight in closed.weights.items():
            write = self.write(terms, str(source), entry, ix(PAST))
            each = product([read(weight(i, last)), write])
            parts.append(Sum(PAST, at(0), index_of(last), each))
        return parts[0] if len(parts) == 1 else Add(tuple(parts))

    def write(self, terms: Terms, name: str, entry: tuple[Ix, ...], time: Ix) -> Term:
        """What a token writes into a state, at an entry."""
        number = self.forms[name].write
        if number is None:
            raise ValueError(f"`{name}` must be a state that is written to; got one that is not.")
        root = self.layer.traced.made.get(number) == name
        return terms.term(number, terms.aligned(entry, number), time, root)

    def scalar(self, terms: Terms, entry: tuple[Ix, ...], expression: sp.Expr) -> Term:
        """An expression in the factors `a_number[t]` at an entry."""
        env = {}
        for base in expression.atoms(sp.IndexedBase):
            number = int(base.label.name.removeprefix("a_"))
            place = terms.aligned(entry, number)
            env[base] = partial(self.at, terms.term(number, place, NOW))
        return scalar(expression, env)

    @staticmethod
    def at(term: Term, time: Ix) -> Term:
        """A factor at another time."""
        return substitute(term, {T: time})

    def terms(self, last: sp.Expr | None = None) -> Terms:
        """Writes terms of the step; with closed forms for states where `last` is the newest."""
        made = tuple(self.operations.list)
        return Terms(self.layer, made) if last is None else closed(self, last, made)

    @property
    def carried_definitions(self) -> tuple[Block, ...]:
        """Nothing is carried but sums and products of what tokens give."""
        return ()

    @property
    def definitions(self) -> tuple[Block, ...]:
        """The recurrence."""
        return definitions(self.layer)

    def prove_states(self) -> tuple[Prover, Proved]:
        """A proof of what each state is; for each, the function that adds its last step."""
        prover = Prover(self.definitions)
        return prover, prove_states(prover, predicate(self), self.peel)


def step_form(layer: Recurrence) -> EntryForm | CarriedForm:
    """The form of a recurrence.

    Raises `NotCoveredError`, with the cause, where states that read each other, or a state by
    itself, are not affine, with factors and writes that data and the states before them give. The
    output may be any function of them.
    """
    try:
        return entry_form(layer)
    except Entangled:
        pass
    try:
        return carried_form(layer)
    except NotAffineError:
        raise NotCoveredError(
            "the states must be affine in those that they read and that read them; "
            f"{not_affine(layer)}. {RUNS}"
        ) from None


def entry_form(layer: Recurrence) -> EntryForm:
    """The form of states that are affine, entry by entry; `Entangled` where one is not."""
    step, order = layer.traced, in_order(layer)
    if order is None:
        raise Entangled("coupled", 0)
    operations = Operations(step.operations)
    forms = {name: split(layer, operations, name, carried(layer)) for name in order}
    solved: dict[sp.Symbol, Closed] = {}
    for name in order:
        found = unrolled(linear(name, forms[name], operations), solved)
        solved[found.state] = found
    return EntryForm(layer, operations, forms, {str(x): found for x, found in solved.items()})


def linear(name: str, form: Affine, operations: Operations) -> LinearLine:
    """A state's line, with a family `a_number[t]` for each factor."""

    def factor(number: int) -> sp.Expr:
        value = operations.constant(number)
        if value is not None:
            return sp.Rational(value.numerator, value.denominator)
        return sp.IndexedBase(f"a_{number}")[t]

    state = sp.Symbol(name)
    own = form.factors.get((name, 1))
    through = {
        (sp.Symbol(other), lag): factor(number)
        for (other, lag), number in form.factors.items()
        if (other, lag) != (name, 1)
    }
    direct = {} if form.write is None else {state: sp.Integer(1)}
    return LinearLine(state, sp.Integer(0) if own is None else factor(own), direct, through)


def predicate(form: EntryForm) -> tuple[Equation, ...]:
    """What holds after t tokens: each state, by its start and what was written."""
    parts = []
    for name, _ in form.layer.traced.states:
        axes = form.layer.states[name]
        left = Atom(name, (NOW, *places(axes)))
        right = form.after(form.terms(), name, places(axes), t - 1)
        parts.append(Equation(every(axes), left, right))
    return tuple(parts)


def claim(form: EntryForm | CarriedForm) -> Equation:
    """`o[t, c] = ` what the step reads of the states' closed forms, for every t and c."""
    indices = (T, *every(OUTPUT))
    return Equation(indices, Atom("o", (NOW, *places(OUTPUT))), output_term(form.terms(t)))


def prove_claim(form: EntryForm | CarriedForm, goal: Equation) -> Proof:
    """The steps from the recurrence's definitions to `goal`, a statement about its output.

    Whether the steps lead there is for the checker to say: make a `Theorem` of the result.
    """
    prover, known = form.prove_states()
    number = prover.definition("o")
    for name in chain(*in_groups(form.layer)):  # what is put in may name states of groups before
        if name in symbols(prover.right(number)):
            number = prover.use(number, known[name]())
    return prover.claim(number, goal)
