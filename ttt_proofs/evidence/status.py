"""What each witness says of a derivation, as plain data; `report` puts it together."""

from __future__ import annotations

import math
from typing import Any

from ..reduction import Reduction
from ..symbolic.derivation import Derivation, Part
from .corruptions import PLACES
from .exact import exact_witness
from .proof_score import proof_score
from .score import score
from .types import Observation

MOST_CORRUPTIONS = 20  # of a kind, for a derivation


def skipped(**rest: Any) -> dict[str, Any]:
    """A witness that was not asked for."""
    return {"status": "skipped", **rest}


def not_applicable(why: str, **rest: Any) -> dict[str, Any]:
    """A witness that has nothing to say here, and why."""
    return {"status": "not_applicable", "reason": why, **rest}


def exact_status(parts: tuple[Part, ...], seed: int) -> dict[str, Any]:
    """Agreement at random points of prime fields, with the bound on being wrong."""
    found = [exact_witness(part.statement, part.proof.definitions, seed=seed) for part in parts]
    said = {evidence.status for evidence in found}
    status = next(s for s in ("refuted", "disagrees", "undecided", "agrees") if s in said)
    bound = max(evidence.error_bound_log2 for evidence in found)
    reason = next((evidence.reason for evidence in found if evidence.reason), "")
    return {
        "status": status,
        **({"reason": reason} if status == "undecided" else {}),
        "trials": sum(evidence.trials for evidence in found),
        "error_bound_log2": None if status in ("refuted", "disagrees") else round(bound, 1),
        "primes": sorted({prime for evidence in found for prime in evidence.primes}),
        "seed": seed,
    }


def autograd_status(
    derivation: Derivation, reductions: list[Reduction], seed: int
) -> dict[str, Any]:
    """The real inner loop, run by PyTorch, against each instance's reduction and statements."""
    if not derivation.loops:
        return not_applicable("no loop is an instance of this statement", device="cpu")
    from .autograd import autograd_witness  # these need torch, which the other witnesses do not
    from .statement import statement_witness

    try:
        derived = [autograd_witness(reduction, seed=seed) for reduction in reductions]
        stated = [
            statement_witness(part, loop, seed=seed)
            for loop in derivation.loops
            for part in derivation.restate(loop)
        ]
    except Exception as error:
        return broken(f"it raised {type(error).__name__}: {error}", device="cpu")
    seen = [*derived, *stated]
    worst = max(
        seen, key=lambda o: math.inf if math.isnan(o.max_relative_error) else o.max_relative_error
    )
    found = {
        **compared(seen),
        "max_relative_error": worst.max_relative_error if worst.is_finite else None,
        "tolerance": worst.tolerance,
        "trials": sum(o.trials for o in seen),
        "compared": sorted({name for o in seen for name in o.what}),
        "device": "cpu",
    }
    if derivation.expects == "fails" and found["status"] == "disagrees":
        # It is the statement that should fail, by more than rounding, not the code for its loop.
        if not all(o.agrees for o in derived):
            return found | broken("the derived code departs from the loop")
        if all(o.agrees or o.undecided for o in stated):
            return found | broken("rounding is enlarged too much to tell that the statement fails")
    return found


def broken(why: str, **rest: Any) -> dict[str, Any]:
    """A witness that compared no numbers, or other ones than it should: it says nothing."""
    return {"status": "broken", "reason": why, **rest}


def compared(seen: list[Observation]) -> dict[str, Any]:
    """Whether numbers agree; broken where some are missing or not finite, which is neither."""
    amplification = max((o.amplification for o in seen if o.amplification), default=None)
    told: dict[str, Any] = {"status": "agrees" if all(o.agrees for o in seen) else "disagrees"}
    if lost := [o.worst for o in seen if not o.is_finite]:
        told = broken(f"missing, of another shape, or not finite: {', '.join(dict.fromkeys(lost))}")
    if idle := sum(o.undecided for o in seen):
        why = "draws rounding is enlarged too much to tell small errors"
        told["meaningless"] = f"at {idle} of {sum(o.trials for o in seen)} {why}"
    finite = amplification if amplification and math.isfinite(amplification) else None
    return told | {"amplification": finite}


def kernel_status(derivation: Derivation, seed: int, device: str) -> dict[str, Any]:
    """The Triton kernel of each loop that has one, in the precisions that it runs in."""
    if derivation.expects == "fails":
        return not_applicable("kernels run loops, and the claim about them is false", device=device)
    from .kernels import kernel_witness, used, without_kernel

    reasons = {loop: without_kernel(loop, device) for loop in derivation.loops}
    loops = [loop for loop, reason in reasons.items() if reason is None]
    if not loops:
        told = "; ".join(dict.fromkeys(filter(None, reasons.values())))
        return not_applicable(told or "no loop is an instance of this statement", device=device)
    try:
        seen = [kernel_witness(loop, seed=seed, device=device) for loop in loops]
    except Exception as error:
        return broken(f"it raised {type(error).__name__}: {error}", device=device)
    worst = max(seen, key=lambda o: used(o.max_relative_error, o.tolerance))
    return {
        **compared(seen),
        "device": device,
        "dtype": worst.dtype,
        "max_relative_error": worst.max_relative_error if worst.is_finite else None,
        "tolerance": worst.tolerance,
        "loops": len(seen),
    }


def parallel_status(derivation: Derivation, reductions: list[Reduction]) -> dict[str, Any]:
    """Whether `reduce` puts each loop in the parallel class that the derivation says."""
    if not derivation.parallel:
        return not_applicable("no parallel class is claimed")
    if not reductions:
        return skipped()
    found = [reduction.parallel for reduction in reductions]
    agrees = set(found) == {derivation.parallel}
    return {
        "status": "agrees" if agrees else "disagrees",
        "claimed": derivation.parallel,
        "found": found,
    }


def mutant_status(parts: tuple[Part, ...], seed: int) -> dict[str, Any]:
    """How many mutants of the statements each of proof and exact witness refuses."""
    scores = [
        (part.label, score(part.statement, part.proof.definitions, part.proof, seed=seed))
        for part in parts
        if part.proof.steps
    ]
    return {
        "status": "killed" if not any(s.survivors for _, s in scores) else "survived",
        "total": sum(s.total for _, s in scores),
        "killed_by_proof": sum(s.killed_by_proof for _, s in scores),
        "killed_by_exact": sum(s.killed_by_exact for _, s in scores),
        "equivalent": [
            [f"{label} {n}".strip(), why] for label, s in scores for n, why in s.equivalent
        ],
        "survivors": [f"{label} {name}".strip() for label, s in scores for name in s.survivors],
    }


def proof_mutant_status(parts: tuple[Part, ...], seed: int, every: bool) -> dict[str, Any]:
    """How many corruptions of definitions, steps and predicates the checker refuses, by kind.

    All of them, or MOST_CORRUPTIONS of each kind, shared among the proofs, at least one for each.
    """
    most = None if every else max(1, MOST_CORRUPTIONS // len(parts))
    found = {}
    for kind in PLACES:
        scores = [
            (part.label, proof_score(part.statement, part.proof, kind, seed=seed, most=most))
            for part in parts
        ]
        found[kind] = {
            "status": "killed" if not any(s.survivors for _, s in scores) else "survived",
            "total": sum(s.total for _, s in scores),
            "killed_by_proof": sum(s.killed_by_proof for _, s in scores),
            "equivalent": [
                [f"{label} {n}".strip(), why] for label, s in scores for n, why in s.equivalent
            ],
            "survivors": [
                f"{label} {n}: {why}".strip() for label, s in scores for n, why in s.survivors
            ],
        }
    return found


def all_mutants(parts: tuple[Part, ...], seed: int, *, proved: bool, every: bool) -> dict[str, Any]:
    """The mutants of the statements and, where these are proved, those of the proofs.

    `total`, `killed_by_proof`, `killed_by_exact` and `equivalent` count the statements' mutants
    alone; `definitions`, `steps` and `predicates` say the same of the proofs', which exact
    arithmetic need not refute. `status` and `survivors` are of all together.
    """
    found = mutant_status(parts, seed)
    if not proved:
        why = "there is no proof to corrupt"
        return {**found, **{kind: not_applicable(why) for kind in PLACES}}
    kinds = proof_mutant_status(parts, seed, every)
    survivors = [
        *found["survivors"],
        *(name for kind in kinds.values() for name in kind["survivors"]),
    ]
    return {
        **found,
        "status": "survived" if survivors else found["status"],
        "survivors": survivors,
        **kinds,
    }
