"""What is admitted has one solution: random blocks, solved by brute force; planted faults."""

from collections import namedtuple
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
    recursive = (d for d in block if isinstance(d, Define) and d.start)
    return {len(definitions.leading_times(d.every)) for d in recursive}


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


true_due = definitions.due
Due = namedtuple("Due", "time level inner place")
true_times = definitions.leading_times


def of_use(change):
    """A fault in when a value that is used is due: `other` is then positive."""

    def due(block, name, index, times, other):
        found = Due(*true_due(block, name, index, times, other))
        return change(found) if other > 0 else found

    return due


def of_own(change):
    """A fault in when the definition at hand is due: `other` is then negative."""

    def due(block, name, index, times, other):
        found = Due(*true_due(block, name, index, times, other))
        return change(found) if other < 0 else found

    return due


def constants_at_once(block, name, index, times, other):
    """A time that does not follow is taken as the present one."""
    return true_due(block, name, index, times, 0 if other > 0 else other)


def any_variable(block, name, index, times, other):
    """An index follows its time if it has one variable, whichever."""
    named = tuple(
        Ix(times[n : n + 1], i.shift) if len(i.vars) == 1 else i for n, i in enumerate(index)
    )
    return true_due(block, name, named, times, other)


ORDERS = {
    "all symbols are due together": of_use(lambda due: due._replace(level=0)),
    "a constant is the present": constants_at_once,
    "any variable follows": any_variable,
    "a step that does not follow is early": of_use(
        lambda due: due._replace(inner=-inf if due.inner == inf else due.inner)
    ),
    "all are first in the block": of_use(lambda due: due._replace(place=-1)),
    "two times are due before one": of_use(
        lambda due: due._replace(level={1: 2, 2: 1}.get(due.level, due.level))
    ),
    "later by a chunk": of_own(lambda due: due._replace(time=due.time + 1)),
    "later by a step": of_own(lambda due: due._replace(inner=due.inner + 1)),
    "the last of its kind": of_own(lambda due: due._replace(place=inf)),
    "after itself": of_own(lambda due: due._replace(place=due.place + 0.5)),
    "after the inner symbols": of_own(lambda due: due._replace(level=due.level + 1)),
    "a start after all steps": of_own(
        lambda due: due._replace(inner=inf, place=inf) if due.inner == -inf else due
    ),
}


@pytest.mark.parametrize("due", ORDERS.values(), ids=ORDERS)
def test_a_loosened_order_is_noticed(due, monkeypatch):
    monkeypatch.setattr(definitions, "due", due)
    assert first_unsolved(range(8000)) is not None


def test_a_wrong_equation_is_noticed(monkeypatch):
    # The recursion over the first of two leading times instead of the last.
    monkeypatch.setattr(definitions, "leading_times", lambda every: true_times(every)[:1])
    blocks = [Blocks(Random(seed)).block() for seed in range(800)]
    found = {solution(block, seed) for seed, block in enumerate(blocks) if admitted(block)}
    assert "wrong" in found
