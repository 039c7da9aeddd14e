"""The order that is proposed depends on structure alone, and a bad one makes nothing false pass."""

from random import Random

import pytest

from tests.checker.build import atom, mul, total, width
from tests.checker.generate import FREE, Terms
from tests.checker.model import Model, labels
from ttt_proofs.checker import normal
from ttt_proofs.checker.normal import naturals, normal_form
from ttt_proofs.checker.terms import TIME, CheckerError, free
from ttt_proofs.naming import propose


def graph(random: Random, n: int) -> list[tuple[int, int]]:
    """A random directed graph."""
    return [(a, b) for a in range(n) for b in range(n) if random.random() < 0.3]


def seen(n: int, pairs: list[tuple[int, int]]) -> list:
    """The graph with its vertices in the order proposed."""
    sorts = dict.fromkeys(range(n), "D")
    edges = [(frozenset(pair), pair) for pair in pairs]
    order = propose(sorts, edges, lambda pair, names: tuple(names[v] for v in pair))
    assert sorted(order) == list(range(n))
    return sorted((order.index(a), order.index(b)) for a, b in pairs)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_renamed_graphs_look_alike(n):
    random = Random(n)
    for _ in range(60):
        pairs = graph(random, n)
        shuffled = random.sample(range(n), n)
        moved = [(shuffled[a], shuffled[b]) for a, b in random.sample(pairs, len(pairs))]
        assert seen(n, pairs) == seen(n, moved)


def any_order(random: Random):
    """A proposer that has no idea."""
    return lambda sorts, *_: random.sample(list(sorts), len(sorts))


def test_a_proposer_that_has_no_idea_makes_nothing_false_equal(monkeypatch):
    # The form still means what the term means: it is only less often equal to another.
    equal = 0
    for seed in range(300):
        random = Random(seed)
        monkeypatch.setattr(normal, "propose", any_order(random))
        term = Terms(random).term(FREE, 4)
        form = normal_form(term, naturals(free(term)))
        sizes = {"D": random.randint(0, 2), "E": random.randint(0, 2)}
        tops = {TIME: 2} | {sort: max(size - 1, 0) for sort, size in sizes.items()}
        env = {v: random.randint(0, tops[v.sort]) for v in FREE}
        model = Model(seed, sizes)
        assert model.meaning(form, labels(env)) == model.value(term, env)
        equal += form == normal_form(term, naturals(free(term)))
    assert 0 < equal < 300


@pytest.mark.parametrize(
    "wrong",
    [
        lambda order: order[:-1],
        lambda order: [*order, order[0]],
        lambda order: [order[0]] * len(order),
        lambda order: [*order, width("other")],
    ],
    ids=["one missing", "one twice", "the same for all", "one too many"],
)
def test_what_is_no_order_of_the_indices_is_refused(wrong, monkeypatch):
    monkeypatch.setattr(normal, "propose", lambda sorts, *_: wrong(list(sorts)))
    g, h = width("g"), width("h")
    term = total(g, total(h, mul(atom("x", g, h), atom("x", h, g))))
    with pytest.raises(CheckerError, match="one number"):
        normal_form(term, {})
