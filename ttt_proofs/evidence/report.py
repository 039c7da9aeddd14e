"""`prove`, `refute`, `verify`: the witnesses on a derivation, and what they say together."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..checker.definitions import Equation
from ..checker.proof import Proof, Theorem
from ..checker.terms import CheckerError
from ..reduction import reduce
from ..render.text import statement_text
from ..symbolic.assumptions import assumptions
from ..symbolic.derivation import Derivation, Part
from ..symbolic.records import digest
from .exact import refute as find_counterexample
from .status import (
    all_mutants,
    autograd_status,
    exact_status,
    kernel_status,
    parallel_status,
    skipped,
)
from .types import Refutation

WITNESSES = ("proof", "exact", "autograd", "kernel")


def prove(claim: Equation, steps: Proof) -> Theorem:
    """The theorem that `claim` holds, if replaying `steps` ends with just that.

    claim: a checker `Equation`; steps: a checker `Proof`, as a derivation's parts hold them.
    Raises `CheckerError` where a step does not follow, where the steps end elsewhere, or where
    a hypothesis is left, and `TypeError` for other arguments.

    >>> from derivations.sum_order import derive
    >>> part = derive().parts[0]
    >>> prove(part.statement, part.proof).statement.hypotheses
    ()
    """
    if not isinstance(claim, Equation) or not isinstance(steps, Proof):
        raise TypeError(
            "`prove` takes a statement and its steps; got "
            f"{type(claim).__name__} and {type(steps).__name__}. Pass those of a "
            "derivation's part."
        )
    theorem = Theorem(steps)
    if theorem.statement.equation != claim:
        raise CheckerError("the steps must end with the claim; they end with another statement.")
    if theorem.statement.hypotheses:
        raise CheckerError(
            f"the steps must leave no hypothesis; they leave {len(theorem.statement.hypotheses)}."
        )
    return theorem


def refute(derivation: Derivation, *, seed: int = 0) -> Refutation | None:
    """The smallest counterexample found to one of the derivation's statements; None if none is.

    That none is found proves nothing. Raises `TypeError` for anything but a derivation.
    """
    check_derivation(derivation)
    for part in derivation.parts:
        found = find_counterexample(part.statement, part.proof.definitions, seed=seed)
        if found is not None:
            return found
    return None


def check_derivation(value: object) -> None:
    """Raise `TypeError` unless the value is a derivation."""
    if not isinstance(value, Derivation):
        raise TypeError(
            f"a Derivation is required; got {type(value).__name__}. "
            "Call derive() of a module in derivations/."
        )


@dataclass(frozen=True)
class Report:
    """What each witness said of one derivation; `json()` is an entry of `verify --json`.

    `outcome` is "holds" only where every statement was proved and nothing disagreed, "fails"
    only where a counterexample is at hand, and "undecided" otherwise. `as_stated` says whether
    each witness that was asked for said what the derivation expects; the parallel class is asked
    for with the autograd witness.
    """

    name: str
    title: str
    statement: str
    expects: str
    outcome: str
    as_stated: bool
    proof: dict[str, Any]
    exact: dict[str, Any]
    autograd: dict[str, Any]
    kernel: dict[str, Any]
    mutants: dict[str, Any]
    parallel: dict[str, Any]
    counterexample: Refutation | None = None
    seconds: float = field(default=0.0, compare=False)

    def json(self) -> dict[str, Any]:
        """Plain data, as the command line writes it."""
        told = str(self.counterexample) if self.counterexample else None
        return {**asdict(self), "counterexample_text": told}

    def __str__(self) -> str:
        steps = f"proof {self.proof['status']} ({self.proof['steps']} steps)"
        exact, autograd = self.exact["status"], self.autograd["status"]
        told = f"{self.name}: {self.outcome} | {steps} | exact {exact} | autograd {autograd}"
        total = self.mutants["total"]
        killed = min(self.mutants["killed_by_proof"], self.mutants["killed_by_exact"])
        tried = f"{killed}/{total} killed twice" if total else self.mutants["status"]
        return f"{told} | mutants {tried} | digest {self.proof['digest'][:12]}"

    __repr__ = __str__


def verify(
    derivation: Derivation,
    *,
    witnesses: Iterable[str] = WITNESSES,
    seed: int = 0,
    device: str = "cpu",
    every_mutant: bool = False,
) -> Report:
    """All witnesses (or those named) on a derivation, and the mutants of its statements and proofs.

    derivation: a `Derivation`, as `derive()` in each file of derivations/ returns it. witnesses:
    names among "proof", "exact", "autograd", "kernel". seed: fixes all random draws. device: "cpu",
    where kernels run in Triton's interpreter, or "cuda"; all else runs on the CPU. every_mutant:
    all mutants of definitions, steps and predicates, which takes hours, in place of twenty each.
    Deterministic for a seed, `seconds` aside. Raises `ValueError` for an unknown witness and
    `TypeError` for anything but a derivation.
    """
    check_derivation(derivation)
    asked = set(witnesses)
    if unknown := sorted(asked - set(WITNESSES)):
        raise ValueError(
            f"witnesses must be among {', '.join(WITNESSES)}; got "
            f"{', '.join(unknown)}. Leave them out for all."
        )
    began = time.perf_counter()
    parts = derivation.parts
    proof = proof_status(parts) if "proof" in asked else skipped(steps=0, digest="", assumptions=[])
    exact = exact_status(parts, seed) if "exact" in asked else skipped()
    counterexample = None
    if exact["status"] in ("refuted", "disagrees"):
        # Of certain functions such as tanh a disagreement refutes nothing until numbers show it.
        counterexample = refute(derivation, seed=seed)
        exact = {**exact, "status": "refuted" if counterexample else "disagrees"}
    reductions = [reduce(loop) for loop in derivation.loops] if "autograd" in asked else []
    autograd = skipped()
    if "autograd" in asked:
        autograd = autograd_status(derivation, reductions, seed)
    kernel = (
        kernel_status(derivation, seed, device) if "kernel" in asked else skipped(device=device)
    )
    both = {"proof", "exact"} <= asked
    mutants = (
        all_mutants(parts, seed, proved=proof["status"] == "proved", every=every_mutant)
        if both
        else skipped(total=0, killed_by_proof=0, killed_by_exact=0, equivalent=[], survivors=[])
    )
    parallel = parallel_status(derivation, reductions)
    return Report(
        name=derivation.name,
        title=derivation.title,
        statement=statements(parts),
        expects=derivation.expects,
        outcome=decide(proof, exact, autograd),
        as_stated=expected(derivation, proof, exact, autograd, mutants, parallel, kernel),
        proof=proof,
        exact=exact,
        autograd=autograd,
        kernel=kernel,
        mutants=mutants,
        parallel=parallel,
        counterexample=counterexample,
        seconds=round(time.perf_counter() - began, 3),
    )


def statements(parts: tuple[Part, ...]) -> str:
    """The statements as text, each with its label if there are several."""
    told = [(part.label, statement_text(part.statement, part.proof.definitions)) for part in parts]
    return "\n".join(f"{label}: {text}" if label else text for label, text in told)


def proof_status(parts: tuple[Part, ...]) -> dict[str, Any]:
    """Whether the checker, replaying, accepts every part."""
    refusal, assumed = "", {}
    for part in parts:
        try:
            prove(part.statement, part.proof)
            assumed |= dict.fromkeys(assumptions(part.proof))
        except CheckerError as error:
            refusal = refusal or f"{part.label}: {error}".removeprefix(": ")
    joined = "".join(digest(part.proof) for part in parts)
    single = joined if len(parts) == 1 else hashlib.sha256(joined.encode()).hexdigest()
    status = {"status": "refused", "reason": refusal} if refusal else {"status": "proved"}
    return {
        **status,
        "assumptions": [*assumed],
        "digest": single,
        "steps": sum(len(part.proof.steps) for part in parts),
    }


def decide(proof: dict, exact: dict, autograd: dict) -> str:
    """What is known: a proof that nothing contradicts, or a counterexample; else undecided."""
    if exact["status"] == "refuted":
        return "undecided" if proof["status"] == "proved" else "fails"
    doubted = {"disagrees", "broken"} & {exact["status"], autograd["status"]}
    return "holds" if proof["status"] == "proved" and not doubted else "undecided"


def expected(
    derivation: Derivation,
    proof: dict,
    exact: dict,
    autograd: dict,
    mutants: dict,
    parallel: dict,
    kernel: dict,
) -> bool:
    """Whether some witness spoke, and each says what the derivation expects of it."""
    holds = derivation.expects == "holds"
    neutral = ("skipped", "not_applicable")
    wanted = ("proved", "agrees", "agrees") if holds else ("refused", "refuted", "disagrees")
    said = [witness["status"] for witness in (proof, exact, autograd)]
    # That no proof was found is no reason to call a claim false.
    spoke = [s for s in (*said, kernel["status"]) if s not in neutral and s != "refused"]
    return (
        bool(spoke)
        and not {"disagrees", "broken"} & {parallel["status"], kernel["status"]}
        and all(s in (word, *neutral) for s, word in zip(said, wanted, strict=True))
        and mutants["status"] in ("killed", *neutral)
        and (mutants["total"] > 0 or mutants["status"] in neutral)
    )
