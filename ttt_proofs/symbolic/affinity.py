"""Is one step of a loop affine in its state? Copies of the loop, started at sums of states.

The state is the weights; buffers start at 0, as at the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..checker.definitions import Define, Equation
from ..checker.proof import Proof
from ..checker.terms import Add, Atom
from ..loops import InnerLoop, Weight
from ..program.rules import W
from . import theory
from .bridge import at, place
from .equality import Definitions, joined, tagged, unfolded
from .prover import Prover

# The four corners of a parallelogram of states: S, S + A, S + B, S + A + B.
CORNERS = {"": "S", "_a": "SA", "_b": "SB", "_ab": "SAB"}


def part(loop: InnerLoop, letter: str, weight: Weight) -> str:
    """What a part of a weight's start is called, `A_W`: numbered, where that is a buffer's name."""
    return (
        f"{letter}{'0' if letter in map(str, theory.targets(loop).defined) else ''}_{weight.name}"
    )


def corner(loop: InnerLoop, tail: str) -> Definitions:
    """The loop's weights, started at a sum of states; the norms that it restores stay those of W_0.

    Each weight of the state is called after it, as `S_W`, `A_W` and `B_W`.
    """
    block = theory.weight_definitions(loop)
    starts = {
        w.name: Add(
            tuple(
                Atom(part(loop, letter, w), place(theory.cell(loop, w))) for letter in CORNERS[tail]
            )
        )
        for w in loop.fast_weights
    }
    moved = tuple(
        replace(d, start=starts[d.name]) if isinstance(d, Define) and d.name in starts else d
        for d in block
    )
    return tagged((moved,), tail)


def after_one_step(loop: InnerLoop, tail: str) -> Atom:
    """The last layer's weight after a step from that corner."""
    weight = loop.net.last
    return Atom(weight.name + tail, (at(1), *place(theory.cell(loop, weight))))


def affine_claim(loop: InnerLoop) -> Equation:
    """`F(S + A + B) + F(S) = F(S + A) + F(S + B)`, F one step, for the last layer's weight."""
    every = theory.cell(loop, loop.net.last)
    corners = {tail: after_one_step(loop, tail) for tail in CORNERS}
    return Equation(every, Add((corners["_ab"], corners[""])), Add((corners["_a"], corners["_b"])))


def additive_claim(loop: InnerLoop) -> Equation:
    """`F(S + A) = F(S) + A`: what a step adds does not depend on the state."""
    every = theory.cell(loop, loop.net.last)
    added = Atom(part(loop, "A", loop.net.last), place(every))
    begun, moved = (after_one_step(loop, tail) for tail in ("", "_a"))
    return Equation(every, moved, Add((begun, added)))


def prove_corners(loop: InnerLoop, goal: Equation, tails: Sequence[str] = tuple(CORNERS)) -> Proof:
    """The steps that unfold one step of the loop from each corner, on both sides."""
    prover = Prover(joined(*(corner(loop, tail) for tail in tails)))
    sources: list[int] = []
    for tail in tails:
        sources += unfolded(prover, loop, (loop.net.last,), tail)
        states = (W.name, *(s.name for s in theory.targets(loop).states))
        starts = [theory.state(name, w) + tail for w in loop.fast_weights for name in states]
        sources += [prover.definition(name, start=True) for name in starts if name in prover.known]
    number = prover.begin(goal.every, goal.left)
    return prover.claim(prover.use(number, *sources), goal, None, *sources)
