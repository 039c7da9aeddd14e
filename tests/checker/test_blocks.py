"""What is admitted has one solution: random blocks, solved by brute force; planted faults."""

from math import inf
from random import Random

import pytest

from tests.checker.blocks import Blocks, Endless, Solved
from ttt_proofs.checker import definitions
from ttt_proofs.checker.definitions import Block, Define, admit
from ttt_proofs.checker.terms import CheckerError, Ix, check


def admitted(block: Block) -> bool:
    """Whether the checker accepts the block."""
    try:
        check(block, Block)
        admit((block,))
    except CheckerError:
        return False
    return True


def solution(block: Block, seed: int) -> str:
    """`none` where a value needs itself or ever more values, `one` where all equations hold."""
    random = Random(seed)
    try:
        breach = Solved(seed, {"D": random.randint(0, 2)}, block).breach()
    except Endless:
        return "none"
    return "wrong" if breach else "one"


def levels(block: Block) -> set[int]:
    """How many times come first in the symbols that recurse."""
    return {definitions.lead(d.every) for d in block if isinstance(d, Define) and d.start}


def first_unsolved(seeds: range) -> int | None:
    """The first seed of an admitted block that does not have exactly one solution."""
    for seed in seeds:
        block = Blocks(Random(seed)).block()
        if admitted(block) and solution(block, seed) != "one":
            return seed
    return None


@pytest.mark.parametrize("part", range(4))
def test_admitted_blocks_have_one_solution(part):
    # A seed that a checker failed on: 6746, where a start followed a third time as if it were j.
    seeds = range(2000 * part, 2000 * (part + 1))
    assert first_unsolved(seeds) is None


def test_the_random_blocks_are_worth_trying():
    # Of those admitted many recurse over two times; of those refused many have no solution.
    blocks = [Blocks(Random(seed)).block() for seed in range(800)]
    good = [block for block in blocks if admitted(block)]
    assert sum(2 in levels(block) for block in good) > 15
    assert sum(1 in levels(block) for block in good) > 10
    assert sum(len(block) > 1 for block in good) > 15
    bad = [(k, block) for k, block in enumerate(blocks[:200]) if not admitted(block)]
    assert sum(solution(block, k) == "none" for k, block in bad) > 30


true_moment, true_determined = definitions.moment, definitions.determined


def late(index, times, level: int, missing) -> list:
    """As the checker has it, with another value where an index does not follow its time."""
    pairs = zip(index[:level], times, strict=False)
    return [i.shift if i.vars == (v,) else missing for i, v in pairs]


def no_level(index, times, level: int, k: int) -> tuple:
    """All symbols are due together."""
    t, _, j, k = true_moment(index, times, level, k)
    return t, 0, j, k


def constants_at_once(index, times, level: int, k: int) -> tuple:
    """A time that does not follow is taken as the present one."""
    return (*late(index, times, level, 0), 0)[0], level, 0, k


def steps_early(index, times, level: int, k: int) -> tuple:
    """A step that does not follow is infinitely early."""
    t, level, j, k = true_moment(index, times, level, k)
    return t, level, -inf if j == inf else j, k


def any_variable(index, times, level: int, k: int) -> tuple:
    """An index follows its time if it has one variable, whichever."""
    named = tuple(
        Ix(times[n : n + 1], i.shift) if len(i.vars) == 1 else i for n, i in enumerate(index)
    )
    return true_moment(named, times, level, k)


def no_order(index, times, level: int, k: int) -> tuple:
    """All symbols of a block are the first in it."""
    return (*true_moment(index, times, level, k)[:3], -1)


def inner_first(index, times, level: int, k: int) -> tuple:
    """Symbols of two times are due before those of one."""
    t, level, j, k = true_moment(index, times, level, k)
    return t, {1: 2, 2: 1}.get(level, level), j, k


MOMENTS = [no_level, constants_at_once, steps_early, any_variable, no_order, inner_first]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda f: f.__name__)
def test_a_loosened_moment_is_noticed(moment, monkeypatch):
    monkeypatch.setattr(definitions, "moment", moment)
    assert first_unsolved(range(8000)) is not None


LATER = {
    "by a chunk": lambda own: (own[0] + 1, *own[1:]),
    "by a step": lambda own: (*own[:2], own[2] + 1, own[3]),
    "to the last of its kind": lambda own: (*own[:3], inf),
    "to itself, as well": lambda own: (*own[:3], own[3] + 0.5),
    "to the inner symbols": lambda own: (own[0], own[1] + 1, *own[2:]),
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_a_definition_that_is_due_later_is_noticed(later, monkeypatch):
    def determined(define, every, term, own, order):
        true_determined(define, every, term, later(own), order)

    monkeypatch.setattr(definitions, "determined", determined)
    assert first_unsolved(range(8000)) is not None


def test_a_start_after_the_first_step_is_noticed(monkeypatch):
    def determined(define, every, term, own, order):
        if own[2] == -1:
            own = (*own[:2], inf, inf)
        true_determined(define, every, term, own, order)

    monkeypatch.setattr(definitions, "determined", determined)
    assert first_unsolved(range(8000)) is not None


def test_a_wrong_equation_is_noticed(monkeypatch):
    # The recursion over the first of two leading times instead of the last.
    monkeypatch.setattr(definitions, "lead", lambda every: min(1, len(every)))
    blocks = [Blocks(Random(seed)).block() for seed in range(800)]
    found = {solution(block, seed) for seed, block in enumerate(blocks) if admitted(block)}
    assert "wrong" in found
