"""Definitions in the order in which one step computes them."""

from __future__ import annotations

from ..checker.definitions import Block, Define, DefineGradient, leading_times
from ..checker.terms import Atom, Ix, inside


def needs(define: Define | DefineGradient, carried: dict[str, int]) -> set[str]:
    """What a definition uses, without the values that a step finds when it begins.

    `carried` has the place of the time of each symbol that is carried from step to step.
    """
    if isinstance(define, DefineGradient):
        return {atom.name for atom in inside((define.loss, define.at), Atom)} - set(carried)
    if define.start is None:
        return {atom.name for atom in inside(define.term, Atom)}
    now = {Ix((v,)) for v in leading_times(define.every)}
    return {
        atom.name
        for atom in inside(define.term, Atom)
        if atom.name not in carried or atom.ix[carried[atom.name]] not in now
    }


def in_order(block: Block) -> Block:
    """Gradients, gates, accumulators, weights: each after what it uses, otherwise as they stand."""
    carried = {
        d.name: len(leading_times(d.every)) - 1 for d in block if isinstance(d, Define) and d.start
    }
    left, done = list(block), []
    while left:
        waiting = {d.name for d in left}
        ready = [d for d in left if not (needs(d, carried) - {d.name}) & waiting]
        done.append((ready or left)[0])
        left.remove(done[-1])
    return tuple(done)
