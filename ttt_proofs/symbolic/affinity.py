"""Is one step of a loop affine in its state? Copies of the loop, started at sums of states.

The state is the weights; accumulators start at 0, as at the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..kernel.definitions import Define, Equation
from ..kernel.terms import Add, Atom, Ix, at
from ..loops import InnerLoop
from . import theory
from .bridge import place
from .equality import Definitions, joined, renamed_symbols, tagged
from .prover import Prover

# The four corners of a parallelogram of states: S, S + A, S + B, S + A + B.
CORNERS = {"": ("S",), "a": ("S", "A"), "b": ("S", "B"), "ab": ("S", "A", "B")}


def corner(loop: InnerLoop, tag: str) -> Definitions:
    """The loop's weights, started at a sum of states; the norms that it restores stay those of W_0.

    Each weight of the state is called after it, as `S_W`, `A_W` and `B_W`.
    """
    (block,) = theory.definitions(loop)[:1]
    starts = {w.name: Add(tuple(Atom(f"{letter}_{w.name}", place(theory.cell(loop, w)))
                                for letter in CORNERS[tag])) for w in loop.trained}  # fmt: skip
    moved = tuple(replace(d, start=starts[d.name])
                  if isinstance(d, Define) and d.name in starts else d for d in block)  # fmt: skip
    return tagged((moved,), tag) if tag else (moved,)


def after_one_step(loop: InnerLoop, tag: str, place_: tuple[Ix, ...]) -> Atom:
    """The last layer's weight after a step from that corner."""
    name = loop.net.last.name
    return Atom(f"{name}_{tag}" if tag else name, (at(1), *place_))


def affine_claim(loop: InnerLoop) -> Equation:
    """`F(S + A + B) + F(S) = F(S + A) + F(S + B)`, F one step, for the last layer's weight."""
    every = theory.cell(loop, loop.net.last)
    corners = {tag: after_one_step(loop, tag, place(every)) for tag in CORNERS}
    return Equation(every, Add((corners["ab"], corners[""])), Add((corners["a"], corners["b"])))


def additive_claim(loop: InnerLoop) -> Equation:
    """`F(S + A) = F(S) + A`: what a step adds does not depend on the state."""
    every = theory.cell(loop, loop.net.last)
    added = Atom(f"A_{loop.net.last.name}", place(every))
    begun = after_one_step(loop, "", place(every))
    return Equation(every, after_one_step(loop, "a", place(every)), Add((begun, added)))


def prove_corners(loop: InnerLoop, goal: Equation, tags: Sequence[str] = tuple(CORNERS)):
    """The steps that unfold one step of the loop from each corner, on both sides."""
    prover = Prover(joined(*(corner(loop, tag) for tag in tags)))
    sources: list[int] = []
    for tag in tags:
        tail, weight = (f"_{tag}" if tag else ""), loop.net.last
        own = {f"{d.name}": d.name + tail for block in corner(loop, "") for d in block}
        own |= {f"X_{w.name}": f"X_{w.name}{tail}" for w in loop.trained}
        for name in ("W", "N", "U", "M", "R", "G"):
            known = theory.state(name, weight) + tail
            if known in prover.known:
                found = theory.gradient_entry(loop, weight) if name == "G" else None
                entry = renamed_symbols(found, own) if found is not None else None
                sources.append(prover.definition(known, entry=entry))
        starts = [theory.state(name, w) + tail for w in loop.trained for name in "WM"]
        sources += [prover.definition(name, start=True) for name in starts if name in prover.known]
    number: int = prover.begin(goal.every, goal.left)
    return prover.claim(prover.use(number, *sources), goal, None, *sources)
