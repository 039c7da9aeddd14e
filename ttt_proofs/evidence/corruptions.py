"""Corruptions of a proof: one mistake in a definition, in a step, or in what an induction proves.

The mistakes are those of `mutants`. Each place of a proof where a term stands takes them all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..checker.definitions import Block, Define, DefineGradient, Equation
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
)
from ..checker.terms import Term, Var, ix
from ..symbolic.bridge import at
from .mutants import OPERATORS, changes


@dataclass(frozen=True)
class Corruption:
    """A recorded proof with one mistake in it; what it leaves out stays as recorded.

    name: the place and the operator, such as `step 3, sign 2`. site: what was changed, in symbols.
    definitions: in place of the recorded ones, with `redefined` the name of the changed symbol.
    rules: by the number of a step, the rule in place of its own.
    given: by the number of a step, a conclusion that later steps start from, itself not checked.
    """

    name: str
    site: str
    definitions: tuple[Block, ...] | None = None
    redefined: str = ""
    rules: dict[int, Rule] = field(default_factory=dict)
    given: dict[int, Sequent] = field(default_factory=dict)


Build = Callable[[str, str, Term], Corruption]


class Place(NamedTuple):
    """A term of a proof, the indices in its scope, and the corruption that a change of it makes."""

    name: str
    term: Term
    scope: tuple[Var, ...]
    build: Build


def definition_places(proof: Proof) -> Iterator[Place]:
    """The terms of the definitions that some step uses; see `unused` for the others."""
    used = definitions_used(proof)
    for b, block in enumerate(proof.definitions):
        for d, define in enumerate(block):

            def build(
                name: str, site: str, new: Define | DefineGradient, b: int = b, d: int = d
            ) -> Corruption:
                block = proof.definitions[b]
                changed = (*block[:d], new, *block[d + 1 :])
                blocks = (*proof.definitions[:b], changed, *proof.definitions[b + 1 :])
                return Corruption(name, site, blocks, new.name)

            for where, term, scope, put, start in definition_terms(define):
                if (define.name, start) in used:
                    yield Place(
                        f"definition of {where}",
                        term,
                        scope,
                        lambda name, site, new, put=put, build=build: build(name, site, put(new)),
                    )


def definitions_used(proof: Proof) -> set[tuple[str, bool]]:
    """The symbols whose definitions some step uses, and whether it is their start."""
    rules = [step.rule for step in proof.steps]
    return {(rule.name, rule.start) for rule in rules if isinstance(rule, Definition)}


def unused(proof: Proof) -> list[str]:
    """The terms of definitions that no step uses: whatever stands there, the proof is the same."""
    used = definitions_used(proof)
    return [
        f"definition of {where}"
        for block in proof.definitions
        for define in block
        for where, *_, start in definition_terms(define)
        if (define.name, start) not in used
    ]


def definition_terms(define: Define | DefineGradient) -> Iterator[tuple]:
    """Each term of a definition: its name, itself, its scope, how to put another there, and
    whether it is the start.
    """
    name, every = define.name, define.every
    if isinstance(define, DefineGradient):
        point = define.at
        yield f"{name}, loss", define.loss, every, lambda new: replace(define, loss=new), False
        yield (
            f"{name}, point",
            point.body,
            every + point.binders,
            lambda new: replace(define, at=replace(point, body=new)),
            False,
        )
        return
    yield name, define.term, every, lambda new: replace(define, term=new), False
    if define.start is not None:
        start = define.start
        yield f"{name}, start", start, every, lambda new: replace(define, start=new), True


def rule_term(rule: Rule) -> tuple[Term, tuple[Var, ...], Callable[[Term], Rule]] | None:
    """The term that a rule is given, its scope, and how to put another there; None if none is."""
    if isinstance(rule, Assume):
        e = rule.equation
        return e.right, e.every, lambda new: Assume(replace(e, right=new))
    if isinstance(rule, Reflexivity):
        return rule.term, rule.every, lambda new: replace(rule, term=new)
    if isinstance(rule, Definition) and rule.entry is not None:
        entry = rule.entry
        return (
            entry.body,
            entry.binders,
            lambda new: replace(rule, entry=replace(entry, body=new)),
        )
    return None


def step_places(proof: Proof) -> Iterator[Place]:
    """What each step but the last is given or concludes; and the same as a premise of later steps.

    The last step ends in the statement, whose mutants are tried in `score`.
    """
    for k, step in enumerate(proof.steps[:-1]):
        e = step.conclusion.equation
        found = rule_term(step.rule)
        if isinstance(step.rule, Calculate):
            found = e.right, e.every, lambda new, rule=step.rule: replace(rule, term=new)
        if found is not None:
            term, scope, put = found
            yield Place(
                f"step {k}",
                term,
                scope,
                lambda name, site, new, k=k, put=put: Corruption(name, site, rules={k: put(new)}),
            )
        yield Place(
            f"step {k} as a premise",
            e.right,
            e.every,
            lambda name, site, new, k=k, step=step: Corruption(
                name, site, given={k: with_right(step.conclusion, new)}
            ),
        )


def with_right(sequent: Sequent, right: Term) -> Sequent:
    """The sequent with another right side."""
    return replace(sequent, equation=replace(sequent.equation, right=right))


def predicate_places(proof: Proof) -> Iterator[Place]:
    """Each equation that an induction proves: in the induction alone, and wherever it is used."""
    for k, step in enumerate(proof.steps):
        if not isinstance(step.rule, Induction):
            continue
        for j, e in enumerate(step.rule.predicate):

            def alone(name: str, site: str, new: Term, k: int = k, j: int = j) -> Corruption:
                return Corruption(name, site, rules={k: with_part(proof.steps[k], j, new)})

            def throughout(name: str, site: str, new: Term, k: int = k, j: int = j) -> Corruption:
                return Corruption(name, site, rules=rewritten(proof, k, j, new))

            for where, build in (("", alone), (", throughout", throughout)):
                yield Place(f"induction {k}, equation {j}{where}", e.right, e.every, build)


def with_part(step: Step, j: int, right: Term) -> Induction:
    """The induction with another right side in one equation of its predicate."""
    rule = step.rule
    if not isinstance(rule, Induction):
        raise TypeError(f"an induction is required; got {type(rule).__name__}. Give its step.")
    changed = replace(rule.predicate[j], right=right)
    return replace(rule, predicate=(*rule.predicate[:j], changed, *rule.predicate[j + 1 :]))


def rewritten(proof: Proof, k: int, j: int, right: Term) -> dict[int, Rule]:
    """The rules of a proof in which an induction's equation has another right side throughout:
    in all inductions on that predicate, where it is assumed, and where it is shown at 0 and t + 1.
    """
    rule = with_part(proof.steps[k], j, right)
    old = proof.steps[k].rule
    e, new = old.predicate[j], rule.predicate[j]  # pyright: ignore[reportAttributeAccessIssue]
    nows = [{rule.time: now} for now in (at(0), ix(rule.time, 1))]
    shown: dict[Equation, Term] = {e.put(now): new.put(now).right for now in nows}
    found: dict[int, Rule] = {}
    for n, step in enumerate(proof.steps):
        equation = step.conclusion.equation
        if step.rule == Assume(e):
            found[n] = Assume(new)
        elif isinstance(step.rule, Induction) and step.rule.predicate == old.predicate:  # pyright: ignore[reportAttributeAccessIssue]
            found[n] = replace(step.rule, predicate=rule.predicate)
        elif isinstance(step.rule, Calculate) and equation in shown:
            found[n] = replace(step.rule, term=shown[equation])
    return found


PLACES: dict[str, Callable[[Proof], Iterator[Place]]] = {
    "definitions": definition_places,
    "steps": step_places,
    "predicates": predicate_places,
}


def corruptions(proof: Proof, kind: str, most: int | None, seed: str) -> Iterator[Corruption]:
    """Corruptions of one kind (see `PLACES`): all of them, or at most so many, chosen by the seed.

    Of each place and operator at most one is chosen, in an order of chance.
    """
    places = list(PLACES[kind](proof))
    if most is None:
        for place in places:
            for name, site, new in changes(place.term, place.scope):
                yield place.build(f"{place.name}, {name}", site, new)
        return
    rng = random.Random(f"{kind} {seed}")
    pairs = [(place, name) for place in places for name in OPERATORS]
    count = 0
    for place, name in rng.sample(pairs, len(pairs)):
        if count == most:
            return
        found = [c for c in OPERATORS[name](place.term, place.scope) if c[1] != place.term]
        if found:
            n = rng.randrange(len(found))
            count += 1
            yield place.build(f"{place.name}, {name} {n + 1}", *found[n])
