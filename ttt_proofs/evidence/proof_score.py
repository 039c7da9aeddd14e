"""How many corruptions of a proof the checker refuses, from the first changed step on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..checker.definitions import Block, DefineGradient, Equation, admit
from ..checker.proof import Calculate, Definition, Induction, Proof, Sequent, infer
from ..checker.terms import TIME, CheckerError, check
from .corruptions import Corruption, corruptions, unused
from .evaluate import Model
from .exact import Points
from .fields import Residues, random_primes
from .sizes_tried import fingerprint, widths_of

REFUSALS = (CheckerError, RecursionError, ValueError)  # those of `replay`


@dataclass(frozen=True)
class ProofScore:
    """How many corruptions of one kind were refused.

    total: the corruptions that are not equivalent to the proof.
    killed_by_proof: those of them that the checker refuses, before it accepts what is false.
    equivalent: the names of the others, each with the reason why it is no mistake.
    survivors: the names of those that were not refused, each with what shows the fault.
    """

    total: int
    killed_by_proof: int
    equivalent: tuple[tuple[str, str], ...]
    survivors: tuple[tuple[str, str], ...]


def retraced(proof: Proof, corruption: Corruption) -> Iterator[tuple[int, Sequent]]:
    """Each step that concludes something else than recorded, and its conclusion.

    Steps that rest on nothing changed are not looked at again. What a step now concludes stands in
    place of its record, so that a rule must refuse, not a comparison. Raises as `replay` does.
    """
    blocks = corruption.definitions or proof.definitions
    known = {define.name: define for block in blocks for define in block}
    changed: dict[int, Sequent] = {}
    for k, step in enumerate(proof.steps):
        rule = corruption.rules.get(k, step.rule)
        if k in corruption.given:
            conclusion = corruption.given[k]
            check(conclusion, Sequent)
        elif rule is not step.rule or rests_on(corruption, step.premises, rule, changed):
            premises = [changed.get(p, proof.steps[p].conclusion) for p in step.premises]
            conclusion = infer(known, rule, premises)
            if rule is not step.rule:
                check(rule, type(rule))
        else:
            continue
        if conclusion != step.conclusion:
            changed[k] = conclusion
            yield k, conclusion


def rests_on(corruption: Corruption, premises: tuple[int, ...], rule, changed: dict) -> bool:
    """Whether a step looks at anything that was changed before it."""
    redefined = isinstance(rule, Definition) and rule.name == corruption.redefined
    return redefined or any(p in changed for p in premises)


class Judge:
    """Says of a proof's corruptions whether the checker refuses them; the proof must replay."""

    def __init__(self, claim: Equation, proof: Proof, seed: int) -> None:
        self.claim, self.proof, self.seed = claim, proof, seed
        self.hypotheses = {h for step in proof.steps for h in step.conclusion.hypotheses}

    def says(self, corruption: Corruption) -> tuple[str, str]:
        """ "killed", "equivalent" or "survived", and why."""
        try:
            return self.judged(corruption)
        except (ValueError, RecursionError) as error:  # of evaluation
            return "survived", f"exact arithmetic finds no value: {error}"

    def judged(self, corruption: Corruption) -> tuple[str, str]:
        """The same; raises where a definition that was admitted has no values."""
        if corruption.definitions is not None:
            try:
                self.check_definition(corruption)
            except REFUSALS:
                return "killed", ""
            self.determine(corruption)
        ends_elsewhere, trace = False, retraced(self.proof, corruption)
        while True:
            try:
                k, conclusion = next(trace, (None, None))
            except REFUSALS:
                return "killed", ""
            if k is None or conclusion is None:
                break
            if self.is_false(corruption, k, conclusion):
                return "survived", f"step {k} is accepted, and exact arithmetic refutes it"
            ends_elsewhere = k == len(self.proof.steps) - 1  # another statement, or hypotheses left
        return ("killed", "") if ends_elsewhere else self.accepted(corruption)

    def check_definition(self, corruption: Corruption) -> None:
        """Raise as `replay` does for definitions; the unchanged ones were checked."""
        blocks = corruption.definitions or ()
        for define in (d for block in blocks for d in block if d.name == corruption.redefined):
            check(define, type(define))
        admit(blocks)

    def determine(self, corruption: Corruption) -> None:
        """Work the changed symbol out, for widths of 1 at time 2; raises where it has no value."""
        blocks = corruption.definitions or ()
        widths = dict.fromkeys(widths_of(self.claim, blocks), 1)
        source = fingerprint(self.claim, blocks, self.seed)
        model = Model(Residues(random_primes(source)), widths, blocks, source)
        define = model.defined[corruption.redefined]
        binders = define.at.binders if isinstance(define, DefineGradient) else ()
        index = [2 if v.sort == TIME else 0 for v in (*define.every, *binders)]
        model.symbol(define.name)(tuple(index))

    def accepted(self, corruption: Corruption) -> tuple[str, str]:
        """A corruption with which the proof ends as before."""
        blocks = corruption.definitions
        if blocks is not None and self.refuted(self.claim, blocks):
            return "survived", "the statement is proved, and exact arithmetic refutes it"
        for k, sequent in corruption.given.items():
            if self.refuted(sequent.equation, self.proof.definitions):
                return "survived", f"step {k} is false, and the steps after it do not notice"
        if corruption.given:
            return "equivalent", f"{corruption.site}: it holds as well"
        return "equivalent", f"{corruption.site}: the proof goes through with it"

    def is_false(self, corruption: Corruption, k: int, sequent: Sequent) -> bool:
        """Whether a rule inferred what exact arithmetic refutes, from what is true.

        Definitions, assumptions and reflexivity infer nothing. Hypotheses are true if the recorded
        proof has them, under its own definitions.
        """
        rule = self.proof.steps[k].rule
        infers = isinstance(rule, Calculate | Induction)
        infers = infers or (isinstance(rule, Definition) and rule.entry is not None)
        known = set() if corruption.definitions is not None else self.hypotheses
        if corruption.given or not infers or not set(sequent.hypotheses) <= known:
            return False
        return self.refuted(sequent.equation, corruption.definitions or self.proof.definitions)

    def refuted(self, equation: Equation, blocks: tuple[Block, ...]) -> bool:
        """Whether random points refute an equation under these definitions."""
        points = Points(equation, blocks, seed=self.seed, trials=1)
        return next(points.differences(equation.right), None) is not None


def proof_score(
    claim: Equation, proof: Proof, kind: str, *, seed: int, most: int | None
) -> ProofScore:
    """Try corruptions of a proof that replays; see `corruptions` for `kind` and `most`.

    A corruption is killed where the checker refuses it: no rule may accept anything on the way that
    exact arithmetic refutes, and the steps that are left must not lead to the statement. It is
    equivalent where they do lead there and exact arithmetic refutes neither the statement, under
    the definitions as corrupted, nor the premise that was put in; and where it changes a definition
    that no step uses, of which there is one entry for all mistakes. Otherwise it survives.
    """
    judge, source = Judge(claim, proof, seed), fingerprint(claim, proof.definitions, seed)
    killed = 0
    told: dict[str, list[tuple[str, str]]] = {"equivalent": [], "survived": []}
    for corruption in corruptions(proof, kind, most, source):
        word, why = judge.says(corruption)
        if word == "killed":
            killed += 1
        else:
            told[word].append((corruption.name, why))
    idle = [(name, "no step uses it") for name in unused(proof)] if kind == "definitions" else []
    equivalent, survivors = (*told["equivalent"], *idle), tuple(told["survived"])
    return ProofScore(killed + len(survivors), killed, equivalent, survivors)
