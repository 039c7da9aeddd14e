"""What a theorem takes for granted, read off the checker's record of its proof."""

from __future__ import annotations

from ..checker.definitions import ZERO, Define, DefineGradient, differential
from ..checker.proof import Assume, Proof
from ..checker.terms import Add, App, Mul, Sum, Term, Var, inside, symbols
from ..program.expressions import CHUNK
from ..program.operations import WHOLE

RELU = "The derivative of `relu` at 0 is taken as 0, as PyTorch does."
CHUNKS = "All chunks have one length, L; a shorter last one is not covered."
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def assumptions(proof: Proof) -> tuple[str, ...]:
    """Plain sentences: hypotheses left open, what must be differentiable, conventions.

    Names stand in backquotes, as the record has them. An empty tuple means that the theorem
    holds as it stands.
    """
    return (*hypotheses(proof), *chunks(proof), *differentiable(proof), *conventions(proof))


def hypotheses(proof: Proof) -> tuple[str, ...]:
    """One sentence for each hypothesis of the conclusion, which no induction discharged."""
    left = proof.steps[-1].conclusion.hypotheses
    return tuple(
        f"Step {number} is assumed: an equation for `{'`, `'.join(sorted(symbols(h.left)))}`."
        for h in left
        for number in [next(k for k, s in enumerate(proof.steps) if s.rule == Assume(h))]
    )


def chunks(proof: Proof) -> tuple[str, ...]:
    """That chunks are alike, where what is defined over time has the length of a chunk."""
    over_time = any(
        isinstance(define, Define) and define.start is not None
        for block in proof.definitions
        for define in block
    )
    sorts = {v.sort for v in inside(proof.definitions, Var)}
    return (CHUNKS,) if over_time and CHUNK.name in sorts else ()


def differentials(proof: Proof) -> tuple[Term, ...]:
    """The differentials by which the proof's gradients are defined."""
    gradients = [d for block in proof.definitions for d in block if isinstance(d, DefineGradient)]
    return tuple(pruned(differential(d.loss, d.param, "$direction")) for d in gradients)


def pruned(term: Term) -> Term:
    """The term without products by zero: what they mention need not exist."""
    if isinstance(term, Add):
        terms = tuple(part for part in map(pruned, term.terms) if part != ZERO)
        return Add(terms) if terms else ZERO
    if isinstance(term, Mul):
        factors = tuple(map(pruned, term.factors))
        return ZERO if ZERO in factors else Mul(factors)
    if isinstance(term, Sum):
        body = pruned(term.body)
        return ZERO if body == ZERO else Sum(term.var, term.low, term.high, body)
    return term


def differentiable(proof: Proof) -> tuple[str, ...]:
    """Unknown functions whose derivatives occur, in the definitions of gradients or in a step."""
    orders: dict[tuple[str, int, int], int] = {}
    for app in inside((differentials(proof), proof), App):
        if app.fn in WHOLE:
            continue
        arguments = [argument for argument, _ in app.slots]
        for argument in arguments:
            key = (app.fn, len(app.args), argument)
            orders[key] = max(orders.get(key, 0), arguments.count(argument))
    return tuple(smoothness(*key, orders[key]) for key in sorted(orders))


def smoothness(name: str, arity: int, argument: int, order: int) -> str:
    """The sentence that one function has derivatives."""
    times = "" if order == 1 else f"{order} times "
    ordinal = ORDINALS[argument] if argument < len(ORDINALS) else f"{argument + 1}th"
    where = f" in its {ordinal} argument" if arity > 1 else ""
    return f"`{name}` is {times}differentiable{where}."


def conventions(proof: Proof) -> tuple[str, ...]:
    """How the derivative of `relu` is read at its jump."""
    gradients = [d for block in proof.definitions for d in block if isinstance(d, DefineGradient)]
    moved = {a.fn for d in gradients for a in inside(d.loss, App) if d.param in symbols(a)}
    return (RELU,) if "relu" in moved else ()
