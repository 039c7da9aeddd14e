"""The mutation score: how many mutants of a claim its proof and the exact witness refuse."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..checker.definitions import Block, Equation
from ..checker.normal import naturals, normal_form
from ..checker.proof import Calculate, Proof, Sequent, Step, infer
from ..checker.terms import CheckerError, check, free, require
from .exact import Points
from .mutants import Mutant, mutants

TRIALS = 4


@dataclass(frozen=True)
class Attempt:
    """The last step of a proof, or of an attempt at one: what it starts from, and its rule.

    premises: what earlier steps concluded; the first is the equation whose right side the rule
        rearranges.
    rule: the calculation that ends in the claim's right side, which the mutants replace.
    """

    premises: tuple[Sequent, ...]
    rule: Calculate


@dataclass(frozen=True)
class MutantScore:
    """How many mutants of a claim were refused.

    total: the mutants that are not equivalent to the claim.
    killed_by_proof: those of them that the checker refuses as the end of the proof.
    killed_by_exact: those of them that random points of prime fields refute.
    equivalent: the names of the others, each with the reason why it is no mistake.
    survivors: the names of mutants that one of the two did not refuse; there should be none.
    """

    total: int
    killed_by_proof: int
    killed_by_exact: int
    equivalent: tuple[tuple[str, str], ...]
    survivors: tuple[str, ...]


def last_step(proof: Proof) -> Attempt:
    """The last step of a proof; where this is no calculation, one that follows it."""
    step = proof.steps[-1]
    if isinstance(step.rule, Calculate):
        return Attempt(tuple(proof.steps[k].conclusion for k in step.premises), step.rule)
    return Attempt((step.conclusion,), Calculate(step.conclusion.equation.right))


def accepts(definitions: tuple[Block, ...], attempt: Attempt, goal: Equation) -> bool:
    """Whether the checker takes the attempt, its calculation changed to end in `goal`.

    These are the checks that replaying makes of a step: the rule, that the rule concludes what is
    recorded, and its form. The form comes last here, since few mutants get so far.
    """
    known = {define.name: define for block in definitions for define in block}
    hypotheses = tuple(dict.fromkeys(h for p in attempt.premises for h in p.hypotheses))
    step = Step(replace(attempt.rule, term=goal.right), (), Sequent(hypotheses, goal))
    try:
        conclusion = infer(known, step.rule, [*attempt.premises])
        require(conclusion == step.conclusion, "the rule does not conclude what is recorded.")
        check(goal, Equation)  # all that is new in the step
    except CheckerError:
        return False
    return True


def equal_forms(claim: Equation, mutant: Equation, attempt: Attempt) -> bool:
    """Whether the checker's normal form makes the two right sides equal, for all sizes."""
    known = naturals(free((claim.right, mutant.right)))
    peel = attempt.rule.peel
    return any(
        normal_form(claim.right, known, at) == normal_form(mutant.right, known, at)
        for at in dict.fromkeys((None, peel))
    )


def score(
    claim: Equation, definitions: tuple[Block, ...], proof: Proof | Attempt, *, seed: int
) -> MutantScore:
    """Try every mutant of a claim against its proof and against random points.

    A mutant that the points do not tell from the claim, and whose right side the checker's normal
    form makes equal to the claim's, is equivalent: no mistake. A mutant that the checker accepts
    and the points refute is a survivor, and shows a fault in the checker.

    For a claim that does not hold there is no proof; give an `Attempt`, what the proof would have
    ended with. A mutant that the checker then accepts and the points do not refute puts the claim
    right; it is listed as equivalent to what holds, with that reason.

    Raises ValueError for a proof of something else than the claim.
    """
    if isinstance(proof, Proof) and proof.steps[-1].conclusion.equation != claim:
        raise ValueError(
            "`proof` must end with the claim; it ends with another equation. "
            "Give the claim's own proof."
        )
    attempt = last_step(proof) if isinstance(proof, Proof) else proof
    points = Points(claim, definitions, seed=seed, trials=TRIALS)
    total = by_proof = by_exact = 0
    equivalent: list[tuple[str, str]] = []
    survivors: list[str] = []
    for mutant in mutants(claim):
        refused = not accepts(definitions, attempt, mutant.equation)
        refuted = next(points.differences(mutant.equation.right), None) is not None
        why = None if refuted else excuse(claim, mutant, attempt, refused)
        if why:
            equivalent.append((mutant.name, why))
            continue
        total, by_proof, by_exact = total + 1, by_proof + refused, by_exact + refuted
        if not (refused and refuted):
            survivors.append(mutant.name)
    return MutantScore(total, by_proof, by_exact, tuple(equivalent), tuple(survivors))


def excuse(claim: Equation, mutant: Mutant, attempt: Attempt, refused: bool) -> str | None:
    """Why a mutant that the points do not refute is no mistake, if the checker shows it is none."""
    if equal_forms(claim, mutant.equation, attempt):
        return f"{mutant.site}: the right side has the claim's normal form"
    if not refused:
        return f"{mutant.site}: the checker proves it from the same premises"
    return None
