"""Loops: the update rule as written, what is trained, equality, and the errors."""

import pickle
import re
from dataclasses import replace
from itertools import product

import pytest
import sympy as sp

from ttt_proofs.loops import (
    MLP,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.loops.loop import NEXT_M, G, M, W, t

SENTENCE = re.compile(r"`(\w+)` must be .+; got .+\. [A-Z][^\n]*\.")

eta, alpha = sp.symbols("eta alpha")
eta_t, alpha_t = (sp.IndexedBase(name)[t] for name in ("eta", "alpha"))

# As the paper writes them: Theorem 5.1, Theorem 5.3, and the two places of the rate.
RULES = [
    (GradientStep(), {W: W - eta * G}),
    (GradientStep(ascent=True), {W: W + eta * G}),
    (GradientStep("per_step"), {W: W - eta_t * G}),
    (GradientStep("per_step", "inside"), {W: W - eta_t * G}),
    (GradientStep(momentum="constant"), {M: G + alpha * M, W: W - eta * NEXT_M}),
    (GradientStep(momentum="per_step"), {M: G + alpha_t * M, W: W - eta * NEXT_M}),
    (
        GradientStep("per_step", "outside", "per_step"),
        {M: G + alpha_t * M, W: W - eta_t * NEXT_M},
    ),
    (
        GradientStep("per_step", "inside", "per_step"),
        {M: eta_t * G + alpha_t * M, W: W - NEXT_M},
    ),
    (
        GradientStep("constant", "inside", "constant", ascent=True),
        {M: eta * G + alpha * M, W: W + NEXT_M},
    ),
]


@pytest.mark.parametrize(("update", "rule"), RULES, ids=[str(u) for u, _ in RULES])
def test_the_rule_is_the_one_written(update, rule):
    assert update.recurrence == rule
    assert list(update.recurrence) == list(rule)  # the accumulator is computed first


def test_every_choice_gives_its_own_rule():
    """No two choices share a rule, save for the place of the rate where there is no momentum."""
    kinds = ("constant", "per_step")
    seen = {}
    for rate, place, momentum, ascent in product(
        kinds, ("inside", "outside"), (None, *kinds), (False, True)
    ):
        rule = GradientStep(rate, place, momentum, ascent).recurrence
        key = (rate, place if momentum else "", momentum, ascent)
        assert seen.setdefault(key, rule) == rule
    rules = list(seen.values())
    assert all(a != b for n, a in enumerate(rules) for b in rules[:n])
    assert len(rules) == 2 * 2 + 2 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (Linear(), ["W"]),
        (Features(), ["W"]),
        (MLP(3), ["W1", "W2", "W3"]),
        (SwiGLU(), ["W0", "W2", "W1"]),
    ],
    ids=str,
)
def test_what_is_trained(net, names):
    assert [w.name for w in InnerLoop(net, Frobenius()).trained] == names
    last = InnerLoop(net, Frobenius(), GradientStep(trained="last"))
    assert [w.name for w in last.trained] == names[-1:]


def test_defaults():
    loop = InnerLoop(Linear(), Frobenius())
    assert loop.update == GradientStep("constant", "outside", None, False, "all")
    assert loop.schedule == Schedule(1, "after_update")


LOOP = InnerLoop(MLP(2), SquaredError(), GradientStep(momentum="constant"), Schedule(3))
CHANGES = [
    {"net": MLP(3)},
    {"loss": Frobenius()},
    {"update": GradientStep()},
    {"update": GradientStep(momentum="constant", trained="last")},
    {"schedule": Schedule(4)},
    {"schedule": Schedule(3, "before_update")},
]


def test_loops_are_equal_by_value_and_can_be_keys():
    again = InnerLoop(MLP(2), SquaredError(), GradientStep(momentum="constant"), Schedule(3))
    assert again == LOOP and hash(again) == hash(LOOP) and len({again, LOOP}) == 1
    assert pickle.loads(pickle.dumps(LOOP)) == LOOP


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_part_tells_loops_apart(change):
    assert replace(LOOP, **change) != LOOP


def test_loops_do_not_change():
    for owner, field in ((LOOP, "net"), (LOOP.update, "rate"), (LOOP.schedule, "chunk")):
        with pytest.raises(AttributeError):
            setattr(owner, field, "other")


WRONG = [
    ("rate", lambda: GradientStep("steps"), "'constant', 'per_step'; got 'steps'"),
    ("rate", lambda: GradientStep(0.1), "got 0.1"),
    ("rate", lambda: GradientStep(None), "got None"),
    ("rate", lambda: GradientStep(["constant"]), "got ['constant']"),
    ("place", lambda: GradientStep(place="between"), "'inside', 'outside'; got 'between'"),
    ("momentum", lambda: GradientStep(momentum=0.9), "None, 'constant', 'per_step'; got 0.9"),
    ("momentum", lambda: GradientStep(momentum=True), "got True"),
    ("trained", lambda: GradientStep(trained="first"), "'all', 'last'; got 'first'"),
    ("ascent", lambda: GradientStep(ascent=1), "True or False; got 1"),
    ("ascent", lambda: GradientStep(ascent="no"), "got 'no'"),
    ("chunk", lambda: Schedule(0), "a positive integer; got 0. Use 1 for the token recurrence."),
    ("chunk", lambda: Schedule(-1), "got -1"),
    ("chunk", lambda: Schedule(True), "got True"),
    ("chunk", lambda: Schedule(2.0), "got 2.0"),
    ("chunk", lambda: Schedule("2"), "got '2'"),
    ("read", lambda: Schedule(1, "never"), "'after_update', 'before_update'; got 'never'"),
    ("read", lambda: Schedule(read=None), "got None"),
]


def refused(kind, field, make) -> str:
    """The message with which `make` is refused; one sentence that begins with the field."""
    with pytest.raises(kind) as caught:
        make()
    message = str(caught.value)
    found = SENTENCE.fullmatch(message)
    assert found and found[1] == field, message
    return message


@pytest.mark.parametrize(("field", "make", "told"), WRONG)
def test_a_wrong_choice_is_one_sentence(field, make, told):
    assert told in refused(ValueError, field, make)


@pytest.mark.parametrize("wrong", [None, 3, "Linear"])
@pytest.mark.parametrize("field", ["net", "loss", "update", "schedule"])
def test_a_wrong_part_is_one_sentence(field, wrong):
    assert repr(wrong) in refused(TypeError, field, lambda: replace(LOOP, **{field: wrong}))


@pytest.mark.parametrize(
    ("field", "kind"),
    [("net", SwiGLU), ("loss", Frobenius), ("update", GradientStep), ("schedule", Schedule)],
)
def test_a_class_in_place_of_its_instance_is_one_sentence(field, kind):
    refused(TypeError, field, lambda: replace(LOOP, **{field: kind}))


def test_swapped_arguments_are_refused():
    refused(TypeError, "net", lambda: InnerLoop(Frobenius(), Linear()))  # pyright: ignore
