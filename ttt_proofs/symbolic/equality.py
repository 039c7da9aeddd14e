"""Two loops, or copies of one, side by side: what they share, step for step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..checker.definitions import Block, Define, DefineGradient, Equation, sum_over
from ..checker.proof import Proof
from ..checker.terms import Add, Atom, CheckerError, Mul, Term, inside, ix, rebuild
from ..loops import InnerLoop, Weight
from . import theory
from .bridge import at, place, product, scalar
from .prover import Prover
from .theory import NOW, T

Definitions = tuple[Block, ...]
TAILS = ("", "_b")  # of the first loop's names and of the second's


def renamed_symbols(node: Any, names: dict[str, str]) -> Any:
    """The node with its symbols renamed, also where they are defined."""
    node = rebuild(node, lambda part: renamed_symbols(part, names))
    if isinstance(node, DefineGradient):
        node = replace(node, param=names.get(node.param, node.param))
    if isinstance(node, Atom | Define | DefineGradient):
        node = replace(node, name=names.get(node.name, node.name))
    return node


def own_names(definitions: Definitions, tail: str) -> dict[str, str]:
    """What the definitions define, gradients' parameters included, with `tail` after each name."""
    defined = [define for block in definitions for define in block]
    own = {define.name for define in defined}
    own |= {define.param for define in defined if isinstance(define, DefineGradient)}
    return {name: name + tail for name in own}


def tagged(definitions: Definitions, tail: str) -> Definitions:
    """The definitions with `tail` after each name that they define; inputs stay shared."""
    return renamed_symbols(definitions, own_names(definitions, tail))


def unfolded(
    prover: Prover,
    loop: InnerLoop,
    weights: Sequence[Weight],
    tail: str = "",
    *,
    states: bool = True,
) -> list[int]:
    """The definitions of a loop's copy, gradients as SymPy found them; other states if asked."""
    own, steps = own_names((theory.weight_definitions(loop),), tail), []
    made = theory.targets(loop)
    for name in (s.name for s in made.unfolding if states or s not in made.states):
        for weight in weights:
            known = theory.state(name, weight) + tail
            if known in prover.known:
                found = theory.gradient_entry(loop, weight) if name == "G" else None
                entry = renamed_symbols(found, own) if found else None
                steps.append(prover.definition(known, entry=entry))
    return steps


def joined(*copies: Definitions) -> Definitions:
    """Several lists of definitions as one."""
    return tuple(block for copy in copies for block in copy)


class Comparison:
    """A proof about two loops: both are unfolded until they say the same.

    The second loop's symbols end in `_b`. `ours` and `theirs` are the steps that unfold each
    loop's weights, with the gradients as SymPy found them.
    """

    def __init__(self, left: InnerLoop, right: InnerLoop) -> None:
        ours, theirs = theory.definitions(left), tagged(theory.definitions(right), "_b")
        self.prover = Prover(joined(ours, theirs))
        self.ours = unfolded(self.prover, left, left.fast_weights, states=False)
        self.theirs = unfolded(self.prover, right, right.fast_weights, "_b", states=False)

    def same(self, left: Term, right: Term, ours: list[int], theirs: list[int], every) -> int:
        """`left = right` for all `every`, by using `ours` on the left and `theirs` on both."""
        number = self.prover.begin(every, left)
        for source in ours:
            if self.prover.applies(number, source):
                number = self.prover.use(number, source)
        return self.prover.conclude(number, right, *theirs)


def accumulators(loop: InnerLoop, sign: int, time) -> list[Equation]:
    """`M = sign · M_b` for each state M beside a weight."""
    found = []
    for weight in loop.fast_weights:
        cell = theory.cell(loop, weight)
        for name in beside(loop, weight):
            left, right = (Atom(name + tail, (time, *place(cell))) for tail in ("", "_b"))
            found.append(Equation(cell, left, product([scalar(sign), right])))
    return found


def beside(loop: InnerLoop, weight: Weight) -> list[str]:
    """The names of the states that are computed before a weight."""
    return [theory.state(target.name, weight) for target in theory.targets(loop).states]


def weights_agree(loop: InnerLoop, time) -> list[Equation]:
    """`W = W_b` for each trained weight."""
    found = []
    for weight in loop.fast_weights:
        cell = theory.cell(loop, weight)
        ours, theirs = (Atom(weight.name + tail, (time, *place(cell))) for tail in ("", "_b"))
        found.append(Equation(cell, ours, theirs))
    return found


def prove_same_outputs(left: InnerLoop, right: InnerLoop, goal: Equation, sign: int) -> Proof:
    """The steps to `o = o_b`: all weights agree at all times, by one induction over them.

    `sign` is what the second loop's accumulators are multiplied by.
    """
    both = Comparison(left, right)
    prover = both.prover
    try:
        known = agreement(both, left, sign)
    except CheckerError:  # the loops differ: leave it to the checker to refuse the last step
        known = []
    number = prover.definition("o")
    for source in known:
        if prover.applies(number, source):
            number = prover.use(number, source)
    return prover.claim(number, goal, None, prover.definition("o_b"))


def agreement(both: Comparison, left: InnerLoop, sign: int) -> list[int]:
    """By induction: each weight is the same in both loops; `CheckerError` where it is not."""
    prover = both.prover
    predicate = tuple(accumulators(left, sign, NOW) + weights_agree(left, NOW))
    bases, steps = [], []
    held = {name + tail for w in left.fast_weights for name in beside(left, w) for tail in TAILS}
    assumed = [prover.assume(part) for part in predicate]
    for part in predicate:
        start = part.put({T: at(0)})
        names = [atom.name for atom in inside((start.left, start.right), Atom)]
        sources = [prover.definition(name, start=True) for name in names]
        bases.append(both.same(start.left, start.right, sources[:1], sources[1:], part.every))
    for part in predicate:
        goal = part.put({T: ix(T, 1)})
        names = [atom.name for atom in inside((goal.left, goal.right), Atom)]
        # An accumulator is unfolded in its own step only: in the weights' step it is known.
        own = [prover.definition(name) for name in names if name in held]
        ours = [*own[:1], *both.ours, *steps, *assumed]
        steps.append(both.same(goal.left, goal.right, ours, [*own[1:], *both.theirs], part.every))
    picks = range(len(predicate) - len(left.fast_weights), len(predicate))
    return [prover.induct(T, predicate, bases, steps, pick) for pick in picks]


def textbook(loop: InnerLoop) -> Definitions:
    """Linear attention as textbooks have it: `S ← S + Σ k_lᵀ v_l`, read by `q S`."""
    weight, token = loop.net.last, theory.rows(loop)
    row, col = theory.ends(loop, weight)
    state, later = (Atom("S", (time, *place(row + col))) for time in (NOW, theory.NEXT))
    pair = Mul(
        (Atom("k", (NOW, *place(token), *place(row))), Atom("v", (NOW, *place(token), *place(col))))
    )
    read = Mul((Atom("q", (NOW, *place(token), *place(row))), later))
    return (
        (
            Define(
                "S",
                (T, *row, *col),
                Add((state, sum_over(token, pair))),
                theory.start(loop, weight),
            ),
        ),
        (Define("o_b", (T, *token, *col), sum_over(row, read)),),
    )


def prove_textbook(loop: InnerLoop, goal: Equation) -> Proof:
    """The steps to `o = o_b` for textbook linear attention: the states agree at all times."""
    prover, weight = Prover(joined(theory.definitions(loop), textbook(loop))), loop.net.last
    cell = theory.cell(loop, weight)
    names = (weight.name, "S")
    agree = Equation(cell, *(Atom(name, (NOW, *place(cell))) for name in names))
    starts = [prover.definition(name, start=True) for name in names]
    moves = [prover.definition(name) for name in names]
    gradient = prover.definition(f"G_{weight.name}", entry=theory.gradient_entry(loop, weight))
    base = prover.conclude(starts[0], agree.put({T: at(0)}).right, starts[1])
    later = agree.put({T: ix(T, 1)})
    number = prover.use(prover.begin(cell, later.left), moves[0], gradient, prover.assume(agree))
    step = prover.conclude(number, later.right, moves[1])
    known = prover.induct(T, (agree,), [base], [step], 0)
    number = prover.use(prover.definition("o"), known)
    return prover.claim(number, goal, None, prover.definition("o_b"))
