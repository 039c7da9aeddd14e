"""The checker against brute force, on random terms whose names are made to collide."""

from itertools import cycle
from random import Random
from types import FunctionType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checker.build import add, atom, forall, mul, running, time, total, width
from tests.checker.generate import FREE, Terms
from tests.checker.model import Model, labels, plus, times
from ttt_proofs.checker import proof
from ttt_proofs.checker.definitions import differential
from ttt_proofs.checker.normal import naturals, normal_form
from ttt_proofs.checker.proof import Calculate, Sequent, replaced
from ttt_proofs.checker.terms import (
    TIME,
    Atom,
    CheckerError,
    Ix,
    Lam,
    Prod,
    Var,
    check,
    free,
    inside,
    ix,
    put_symbol,
    rebuild,
    renamed,
    substitute,
)

few = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
seeds = st.integers(0, 2**32)


def setting(random: Random) -> tuple[Model, dict[Var, int]]:
    """Random widths, often empty, and random values for the free indices, within them."""
    sizes = {"D": random.randint(0, 2), "E": random.randint(0, 2)}
    tops = {TIME: 2} | {sort: max(size - 1, 0) for sort, size in sizes.items()}
    values = {v: random.randint(0, tops[v.sort]) for v in FREE}
    return Model(random.randint(0, 2**32), sizes), values


@few
@given(seeds)
def test_normal_form_means_what_the_term_means(seed):
    # Reading a normal form back gives the term's value: equal forms, hence equal terms.
    random = Random(seed)
    terms = Terms(random)
    term = terms.term(FREE, 4)
    peel = random.choice([None, ix(time("t")), ix(time("t"), 1), ix(time("i"), -1)])
    form = normal_form(term, naturals(free(term)), peel)
    for _ in range(3):
        model, env = setting(random)
        assert model.meaning(form, labels(env)) == model.value(term, env)


@few
@given(seeds)
def test_normal_form_sees_through_renaming_shuffling_and_exchange(seed):
    random = Random(seed)
    terms = Terms(random)
    term = terms.term(FREE, 4)
    other = terms.scrambled(term)
    model, env = setting(random)
    assert model.value(term, env) == model.value(other, env), "the rewriting itself is wrong"
    known = naturals(free((term, other)))
    assert normal_form(term, known) == normal_form(other, known)


def altered(node, random: Random) -> Any:
    """A small change somewhere, that may or may not change the meaning."""
    if isinstance(node, Ix) and random.random() < 0.2:
        return Ix(node.vars, node.shift + random.choice([-1, 1]))
    if isinstance(node, Atom) and random.random() < 0.1:
        return Atom("B" if node.name == "A" else "A", node.ix)
    return rebuild(node, lambda part: altered(part, random))


@few
@given(seeds)
def test_terms_that_differ_have_different_normal_forms(seed):
    random = Random(seed)
    term = Terms(random).term(FREE, 3)
    other = altered(term, random)
    known = naturals(free((term, other)))
    if normal_form(term, known) == normal_form(other, known):
        for _ in range(4):
            model, env = setting(random)
            assert model.value(term, env) == model.value(other, env)


@few
@given(seeds)
def test_substitution_captures_nothing(seed):
    random = Random(seed)
    terms = Terms(random)
    term, var = terms.term(FREE, 4), random.choice(FREE)
    image = terms.index([v for v in FREE if v.sort == var.sort])
    put = substitute(term, {var: image})
    check_closed_bounds(put)
    for _ in range(3):
        model, env = setting(random)
        moved = env | {var: model.index(image, env)}
        assert model.value(put, env) == model.value(term, moved)
        assert free(put) <= free(term) - {var} | set(image.vars)


def check_closed_bounds(node) -> None:
    """No sum has its own index in its bounds."""
    for part in inside(node, type(node)):
        check(part, type(part))


@few
@given(seeds)
def test_renaming_keeps_the_meaning(seed):
    random = Random(seed)
    term = Terms(random).term(FREE, 4)
    other = renamed(term, frozenset(random.sample(FREE, 2)))
    check_closed_bounds(other)
    model, env = setting(random)
    assert model.value(other, env) == model.value(term, env)
    assert free(other) == free(term)


@few
@given(seeds)
def test_putting_a_term_for_a_symbol_captures_nothing(seed):
    random = Random(seed)
    terms = Terms(random)
    term = terms.term(FREE, 4)
    value = Lam((width("j"),), terms.term([*FREE, width("j")], 2))
    try:
        put = put_symbol(term, "A", value)
    except CheckerError:  # an `A` with two indices
        return
    check_closed_bounds(put)
    model, env = setting(random)
    meant = Model(model.seed, model.sizes)
    meant.fixed = {"A": lambda n: model.value(value.body, env | {width("j"): n})}
    assert model.value(put, env) == meant.value(term, env)


def extended(model: Model, env: dict, source, seed: int) -> dict:
    """`A` such that the equation holds in range, and random values out of range."""
    outside, every = Model(seed, model.sizes), source.every

    def value(*at: int):
        names = {i.vars[0]: n - i.shift for i, n in zip(source.left.ix, at, strict=False)}
        fits = len(at) == len(source.left.ix)
        fits = fits and all(names[v] >= 0 for v in every if v.sort == TIME)
        fits = fits and all(names[v] in model.range(v.sort) for v in every if v.sort != TIME)
        fits = fits and all(names[v] == env[v] for v in names if v not in every)
        return model.value(source.right, env | names) if fits else outside.symbol("A", *at)

    return {"A": value}


LEFTS = [
    ((time("k"),), atom("A", time("k"))),
    ((time("i"),), atom("A", ix(time("i"), 1))),
    ((time("i_"), width("i")), atom("A", time("i_"), width("i"))),
    ((width("h"),), atom("A", width("h"))),
    ((width("h"),), atom("A", time("i"), width("h"))),  # the time is fixed
    ((), atom("A", time("t"))),
]


@few
@given(seeds, st.sampled_from(LEFTS))
def test_replacing_by_an_equation_keeps_the_meaning(seed, left):
    # The equation holds for natural times and indices within the widths, nowhere else.
    random = Random(seed)
    terms = Terms(random)
    every, pattern = left
    right = without(terms.term([*FREE, *every], 2), "A")
    source, term = forall(every, pattern, right), terms.term(FREE, 4)
    found = replaced(term, source, naturals(free(term)))
    check_closed_bounds(found)
    for _ in range(2):
        model, env = setting(random)
        if any(v.sort != TIME and not model.sizes[v.sort] for v in free((term, source.right))):
            continue  # there is no such index
        model.fixed = extended(model, env, source, random.randint(0, 2**32))
        assert model.value(found, env) == model.value(term, env)


def partly(node, random: Random):
    """The term with some of its `A` called `Z`, so that an equation for `A` misses them."""
    if isinstance(node, Atom) and node.name == "A" and random.random() < 0.5:
        return Atom("Z", node.ix)
    return rebuild(node, lambda part: partly(part, random))


def calculated(seed: int, left) -> str:
    """Replace by an equation in some places, and ask for that calculation or one like it.

    What may have gone wrong: a true one is refused, or one is accepted that is false.
    """
    random = Random(seed)
    terms, (every, pattern) = Terms(random), left
    right = without(terms.term([*FREE, *every], 2), "A")
    source, term = forall(every, pattern, right), terms.term(FREE, 3)
    known = naturals(free((term, right)))
    true = without(whole(partly(term, random), source, known), "Z", "A")
    altering = random.random() < 0.5
    claim: Any = altered(true, random) if altering else terms.scrambled(true)
    loose = {v for v in free(claim) - free(term) if v.sort != TIME}
    if loose:
        return "loose"  # the rule itself leaves it to `infer` to refuse that
    premises = [Sequent((), forall((), term, term)), Sequent((source,), source)]
    try:
        conclusion = Calculate(claim).conclude({}, premises)
    except CheckerError:
        return "refused" if altering else "a true calculation is refused"
    assert conclusion.equation.right == claim and conclusion.hypotheses == (source,)
    for _ in range(2):
        model, env = setting(random)
        if any(v.sort != TIME and not model.sizes[v.sort] for v in free((term, right))):
            continue  # there is no such index
        model.fixed = extended(model, env, source, random.randint(0, 2**32))
        if model.value(claim, env) != model.value(term, env):
            return "a false calculation is accepted"
    return "accepted"


WRONG = {"a true calculation is refused", "a false calculation is accepted"}


@pytest.mark.parametrize("left", LEFTS, ids=range(len(LEFTS)))
def test_calculations_are_true(left):
    found = [calculated(seed, left) for seed in range(120)]
    assert WRONG.isdisjoint(found)
    assert found.count("accepted") > 40 and found.count("refused") > 5


# The checker's own function, which calls itself and not what a fault puts in its place.
whole = FunctionType(replaced.__code__, names := dict(vars(proof)))
names["replaced"] = whole
TURNS = cycle(("old", "new"))  # a calculation rewrites its two sides in this order

FAULTS = {
    "ranges are not looked at": {"implied": lambda *_: True},
    "fixed times are taken as quantified": {
        "match": lambda source, atom, known: (
            {v: a for p, a in zip(source.left.ix, atom.ix, strict=False) for v in p.vars}
            if isinstance(source.left, Atom) and atom.name == source.left.name
            else None
        )
    },
    "names are captured": {"renamed": lambda node, avoid: node},
    "free times may be negative": {"naturals": lambda variables: {}},
    "only the old side is rewritten": {
        "replaced": lambda side, source, known: (
            whole(side, source, known) if next(TURNS) == "old" else side
        )
    },
    "only the new side is rewritten": {
        "replaced": lambda side, source, known: (
            whole(side, source, known) if next(TURNS) == "new" else side
        )
    },
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_calculation_is_noticed(fault, monkeypatch):
    for name, function in fault.items():
        monkeypatch.setattr(proof, name, function)
    seeds = ((seed, left) for seed in range(400) for left in LEFTS)
    assert any(calculated(seed, left) in WRONG for seed, left in seeds)


def without(node, name: str, other: str = "C"):
    """The term with another symbol for `name`."""
    if isinstance(node, Atom) and node.name == name:
        return Atom(other, node.ix)
    return rebuild(node, lambda part: without(part, name, other))


@few
@given(seeds)
def test_differential_is_the_derivative(seed):
    random = Random(seed)
    terms = Terms(random)
    term = terms.term(FREE, 4)
    try:
        change = differential(term, "A", "dA")
    except CheckerError:  # a running product that depends on A, or an argument over all times
        over_time = [lam for lam in inside(term, Lam) if any(v.sort == TIME for v in lam.binders)]
        assert inside(term, Prod) or over_time
        return
    for _ in range(2):
        model, env = setting(random)
        still = dict(model.fixed)

        def moved(*at, model=model):
            return plus(
                (
                    Model(model.seed, model.sizes).symbol("A", *at),
                    times(({0: 0, 1: 1}, model.symbol("dA", *at))),
                )
            )

        model.fixed = {"A": moved}
        slope = {0: model.value(term, env).get(1, 0)}
        model.fixed = still
        assert model.value(change, env) == slope


@few
@given(seeds)
def test_splitting_off_the_last_step_is_seen(seed):
    random = Random(seed)
    terms = Terms(random)
    v, t, c = time("k"), time("t"), 3
    body = terms.term([*FREE, v], 2)
    last = substitute(body, {v: ix(t, c)})
    if random.random() < 0.3:
        whole = running(v, 0, ix(t, c), body)
        split = mul(running(v, 0, ix(t, c - 1), body), last)
    else:
        whole = total(v, 0, ix(t, c), body)
        split = add(total(v, 0, ix(t, c - 1), body), last)
    known = naturals(free((whole, split)) | {t})
    # A range 2..t counts as 0..t-2, and is cut by a peel as low as that.
    peel = ix(t)
    assert normal_form(whole, known, peel) == normal_form(split, known, peel)


@pytest.mark.parametrize("seed", range(3))
def test_the_fuzzer_can_fail(seed):
    # A wrong normal form must be noticed: read one back with a coefficient changed.
    random = Random(seed)
    term = atom("A", time("t"))
    ((key, top, bottom),) = normal_form(term, naturals(free(term)))
    model, env = setting(random)
    assert model.meaning(((key, top + 1, bottom),), labels(env)) != model.value(term, env)
