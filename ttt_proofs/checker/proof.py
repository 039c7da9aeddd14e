"""Proofs: recorded steps, the rules, and the one way to replay them.

A proof is data. It opens with *definitions* (the loop under study), which are accepted only
if they cannot contradict anything (`definitions`), and goes on with steps: a rule with its
arguments, the numbers of the earlier steps that are its premises, and the conclusion.
Replaying computes each conclusion again and compares. A `Theorem` is made by replaying its
proof, and in no other way.
"""

from dataclasses import field, replace
from typing import Any

from .definitions import Block, Define, DefineGradient, Equation, admit
from .normal import Scope, Table, close, implied, naturals, normal_form
from .terms import LARGEST_SOURCES, TIME, Atom, CheckerError, Ix, Lam, Node, Sum, Term, Var
from .terms import binders, check, free, ix
from .terms import parts, rebuild, record, renamed, require, substitute, symbols, work

Definitions = dict[str, Define | DefineGradient]


@record
class Sequent(Node):
    """What a step concludes: under the hypotheses, the equation."""

    hypotheses: tuple[Equation, ...]
    equation: Equation


def united(sequents: list[Sequent]) -> tuple[Equation, ...]:
    """The hypotheses of several sequents, each once."""
    return tuple(dict.fromkeys(h for s in sequents for h in s.hypotheses))


@record
class Definition(Node):
    """The equation that defines a symbol, or with `start` the one that starts it.

    For a symbol defined as a gradient, its `entry`, which is checked by the differential: it
    may mention the gradient's parameter, and is evaluated at its point.
    """

    name: str
    entry: Lam | None = None
    start: bool = False

    def conclude(self, definitions: Definitions, premises: list[Sequent]) -> Sequent:
        """The equation."""
        require(self.name in definitions, f"`{self.name}` must be a defined symbol.")
        return Sequent((), definitions[self.name].equation(self.entry, self.start))


@record
class Assume(Node):
    """The equation, under itself as a hypothesis; induction discharges it."""

    equation: Equation

    def conclude(self, definitions: Definitions, premises: list[Sequent]) -> Sequent:
        """The equation, assumed."""
        return Sequent((self.equation,), self.equation)


@record
class Reflexivity(Node):
    """A term equals itself, for all indices `every`: the start of a calculation."""

    every: tuple[Var, ...]
    term: Term

    def conclude(self, definitions: Definitions, premises: list[Sequent]) -> Sequent:
        """The term on both sides."""
        return Sequent((), Equation(self.every, self.term, self.term))


@record
class Calculate(Node):
    """Use the equations `sources` on the target's right side, in turn; then any rearrangement.

    A source's left side is a symbol; its instances are replaced where its indices are in
    range. The new right side `term`, as it stands or with the sources used on it as well, must
    have the same normal form, ranges split at `peel`.
    """

    term: Term
    peel: Ix | None = None

    def conclude(self, definitions: Definitions, premises: list[Sequent]) -> Sequent:
        """The first premise with the new right side, under the hypotheses of all."""
        require(0 < len(premises) <= 1 + LARGEST_SOURCES, "a target and few sources are required.")
        target, *sources = premises
        sides, done = (target.equation.right, self.term), Scope({})
        for source in (premise.equation for premise in sources):
            known = naturals(free(sides))
            done.spend(work(sides, symbols(source.left), source.right))
            sides = tuple(replaced(side, source, known) for side in sides)
        known, (old, new) = naturals(free((*sides, self.term))), sides
        tried = (normal_form(side, known, self.peel) for side in dict.fromkeys((self.term, new)))
        alike = normal_form(old, known, self.peel) in tried
        require(alike, "the two sides must have one normal form; they differ.")
        return Sequent(united(premises), replace(target.equation, right=self.term))


@record
class Induction(Node):
    """From P(0), and P(time + 1) under P(time), conclude part `pick` of P for every time.

    `predicate` is a tuple of equations in which `time` is free; the checker itself puts in
    0 and time + 1. Premises: the base cases, then the steps, both in the predicate's order.
    """

    time: Var
    predicate: tuple[Equation, ...]
    pick: int

    def conclude(self, definitions: Definitions, premises: list[Sequent]) -> Sequent:
        """The picked equation for every time; only the predicate itself is discharged."""
        n, time = len(self.predicate), self.time
        fits = time.sort == TIME and 0 <= self.pick < n and len(premises) == 2 * n
        require(fits, f"induction on {n} equations needs a time and {2 * n} premises.")
        goals = [part.put({time: now}) for now in (Ix(()), ix(time, 1)) for part in self.predicate]
        fits = all(map(same, (premise.equation for premise in premises), goals))
        require(fits, "premises must be P(0) and P(t + 1).")
        others = (h for h in united(premises[n:]) if h not in self.predicate)
        kept = tuple(dict.fromkeys((*united(premises[:n]), *others)))
        require(all(time not in h.free() for h in kept), f"`{time.name}` must be fixed nowhere.")
        e = self.predicate[self.pick]
        return Sequent(kept, Equation((time, *e.every), e.left, e.right))


Rule = Definition | Assume | Reflexivity | Calculate | Induction


@record
class Step(Node):
    """One application of a rule, with what it is said to conclude."""

    rule: Rule
    premises: tuple[int, ...]
    conclusion: Sequent


@record
class Proof(Node):
    """Definitions and steps; the last step's conclusion is what is proved."""

    definitions: tuple[Block, ...]
    steps: tuple[Step, ...]


@record
class Theorem(Node):
    """A statement that holds for every time and every width: its proof was replayed."""

    proof: Proof
    statement: Sequent = field(init=False)

    def __init__(self, proof: Proof) -> None:
        require(not hasattr(self, "statement"), "a theorem must be made from its proof, once.")
        object.__setattr__(self, "statement", replay(proof))  # raises before anything is put in
        object.__setattr__(self, "proof", proof)


def replay(proof: Proof) -> Sequent:
    """Check every step in order and return the last conclusion, or raise `CheckerError`."""
    check(proof, Proof)
    admit(proof.definitions)
    definitions: Definitions = {d.name: d for block in proof.definitions for d in block}
    shown: list[Sequent] = []
    for number, step in enumerate(proof.steps):
        try:
            require(all(0 <= k < number for k in step.premises), "premises must be earlier steps.")
            conclusion = infer(definitions, step.rule, [shown[k] for k in step.premises])
            require(same(conclusion, step.conclusion), "the rule does not conclude this.")
            stated(step.conclusion)
        except CheckerError as error:
            raise CheckerError(f"step {number}, {type(step.rule).__name__}: {error}") from None
        shown.append(step.conclusion)
    require(shown, "a proof must have at least one step; got none.")
    return shown[-1]


def infer(definitions: Definitions, rule: Rule, premises: list[Sequent]) -> Sequent:
    """What the rule concludes from the premises."""
    require(not premises or isinstance(rule, Calculate | Induction), "no premises are needed.")
    conclusion = rule.conclude(definitions, premises)
    stated(conclusion)
    return conclusion


def stated(sequent: Sequent) -> None:
    """Raise unless the sequent says something of every width, the empty one included."""
    for e in (sequent.equation, *sequent.hypotheses):
        require(len({v.name for v in e.every}) == len(e.every), "quantified indices must differ.")
        loose = {v.name for v in e.free() if v.sort != TIME}
        require(not loose, f"{loose} must be quantified: a width may be empty.")
    fixed = any(h.free().intersection(sequent.equation.every) for h in sequent.hypotheses)
    require(not fixed, "an index that a hypothesis fixes must not be quantified.")


def same(a: Any, b: Any) -> bool:
    """Whether two nodes differ at most by the names of their bound variables."""
    return a == b or nameless(a, {}, 0) == nameless(b, {}, 0)


def nameless(node: Any, numbers: dict[Any, tuple[int, str]], outside: int) -> Any:
    """The node with a number in place of each bound variable, counted from the outside."""
    if isinstance(node, Var) or not isinstance(node, Node | tuple):
        return numbers.get(node, node)
    if isinstance(node, Ix):
        return sorted(repr(numbers.get(v, v)) for v in node.vars), node.shift
    bound = node.every if isinstance(node, Equation) else binders(node)
    own = {v: (outside + k, v.sort) for k, v in enumerate(bound)}
    inner = numbers | own if own else numbers
    return type(node), [nameless(part, inner, outside + len(bound)) for part in parts(node)]


def match(equation: Equation, atom: Atom, known: Table) -> dict[Var, Ix] | None:
    """Values of the quantified indices, in range, that make the left side this atom, if any."""
    left = equation.left
    if not isinstance(left, Atom) or left.name != atom.name or len(left.ix) != len(atom.ix):
        return None
    values = {}
    for pattern, index in zip(left.ix, atom.ix, strict=True):
        for v in set(pattern.vars).intersection(equation.every) if len(pattern.vars) == 1 else ():
            values[v] = Ix(index.vars, index.shift - pattern.shift)
    met = all(v in values and in_range(v, values[v], known) for v in equation.every)
    return values if met and substitute(left, values) == atom else None


def in_range(v: Var, value: Ix, known: Table) -> bool:
    """Whether a quantified index may take this value: a natural number, an element of its width."""
    sorts = [w.sort for w in value.vars]
    natural = sorts in ([], [TIME]) and implied(known, Ix(()), value)
    return natural if v.sort == TIME else sorts == [v.sort] and value.shift == 0


def replaced(term: Any, source: Equation, known: Table) -> Any:
    """`term` with the instances of the source's left side replaced, scopes and ranges respected."""
    if isinstance(term, Atom):
        values = match(source, term, known)
        return term if values is None else substitute(source.right, values)
    term = renamed(term, source.free() | free((*known,))) if binders(term) else term
    if isinstance(term, Sum) and term.low and term.high:
        known = close(((term.low, ix(term.var)), (ix(term.var), term.high)), known)
    return rebuild(term, replaced, source, known)
