"""Loops: the update rule as written, what is trained, equality, and the errors."""

import copy
import pickle
import re
from dataclasses import replace
from itertools import product

import pytest
import sympy as sp

from ttt_proofs import loops
from ttt_proofs.loops import (
    GLU,
    MLP,
    AbstractLoss,
    AnyNet,
    Coefficient,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
    ladder,
)
from ttt_proofs.program.coefficients import t
from ttt_proofs.program.rules import (
    EPSILON,
    W_0,
    G,
    W,
    column_norm,
    following,
    inverse,
    operator,
    unknown_gate,
)

SENTENCE = re.compile(r"`(\w+)` must (?:not )?(?:be|have) .+; got .+\. [A-Z][^\n]*\.")

M, U, R, N, eta, alpha = sp.symbols("M U R N eta alpha")
NEXT_M = following(M)
eta_t, alpha_t, R_t = (sp.IndexedBase(name)[t] for name in ("eta", "alpha", "R"))
N_next = sp.IndexedBase("N")[t + 1]


def clip(x: sp.Expr) -> sp.Expr:
    """ViTTT's, as released."""
    return inverse(column_norm(x) + 1)


def restore(x: sp.Expr) -> sp.Expr:
    """LaCT's, as released."""
    return column_norm(W_0) * inverse(column_norm(x) + EPSILON)


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
    (GradientStep(None), {W: W - G}),
    (GradientStep(None, ascent=True), {W: W + G}),
    (GradientStep("per_token", "inside"), {W: W - G}),  # the rates are in the gradient
    (GradientStep(momentum="per_token"), {M: G + alpha_t * M, W: W - eta * NEXT_M}),
    (GradientStep("per_step", clip="column_norm"), {R: clip(G), W: W - eta_t * R_t * G}),
    (
        GradientStep("per_step", "inside", "per_step", clip="column_norm"),
        {R: clip(eta_t * G), M: R_t * eta_t * G + alpha_t * M, W: W - NEXT_M},
    ),
    # with an operator the accumulator holds the direction, and the step is added
    (GradientStep(None, orthogonal="muon"), {M: -G, U: operator("muon", NEXT_M), W: W + U}),
    (
        GradientStep(None, orthogonal="muon", ascent=True),
        {M: G, U: operator("muon", NEXT_M), W: W + U},
    ),
    (
        GradientStep("per_step", "outside", "per_step", orthogonal="muon"),
        {M: -G + alpha_t * M, U: operator("muon", NEXT_M), W: W + eta_t * U},
    ),
    (
        GradientStep("per_step", "inside", orthogonal="muon"),
        {M: -eta_t * G, U: operator("muon", NEXT_M), W: W + U},
    ),
    (
        GradientStep(weight_norm="initial_norm"),
        {N: restore(W - eta * G), W: N_next * (W - eta * G)},
    ),
    (
        GradientStep(
            "per_token", "inside", "per_token", True, clip="c", orthogonal="o", weight_norm="n"
        ),
        {
            R: unknown_gate("c", G),
            M: R_t * G + alpha_t * M,
            U: operator("o", NEXT_M),
            N: unknown_gate("n", W + U, varies=True),
            W: N_next * (W + U),
        },
    ),
]


@pytest.mark.parametrize(("update", "rule"), RULES, ids=[str(u) for u, _ in RULES])
def test_the_rule_is_the_one_written(update, rule):
    assert dict(update.rule) == rule
    assert list(update.rule) == list(rule)  # the accumulator is computed first
    assert update.rule.buffers == ((M,) if update.momentum else ())


def test_every_choice_gives_its_own_rule():
    """No two choices share a rule, save for the place of the rate where there is no momentum."""
    kinds = ("constant", "per_step")
    seen = {}
    for rate, place, momentum, ascent in product(
        kinds, ("inside", "outside"), (None, *kinds), (False, True)
    ):
        rule = GradientStep(rate, place, momentum, ascent).rule
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
        (GLU(), ["W0", "W1"]),
    ],
    ids=str,
)
def test_what_is_trained(net, names):
    assert [w.name for w in InnerLoop(net, Frobenius()).fast_weights] == names
    last = InnerLoop(net, Frobenius(), trained="last")
    assert [w.name for w in last.fast_weights] == names[-1:]


def test_defaults():
    loop = InnerLoop(Linear(), Frobenius())
    assert loop.update == GradientStep(
        "constant", "outside", None, False, clip=None, orthogonal=None, weight_norm=None
    )
    assert loop.trained == "all" and loop.coefficients == {"eta": Coefficient()}
    assert loop.schedule == Schedule(1, "after_update", "query", 1, False)


LOOP = InnerLoop(MLP(2), SquaredError(), GradientStep(momentum="constant"), Schedule(3))
CHANGES = [
    {"net": MLP(3)},
    {"loss": Frobenius()},
    {"update": GradientStep()},
    {"trained": "last"},
    {"schedule": Schedule(4)},
    {"schedule": Schedule(3, "before_update")},
    {"schedule": Schedule(3, read_with="key")},
    {"loss": NegatedValues(SquaredError())},
    {"schedule": Schedule(3, steps=2)},
    {"update": GradientStep(momentum="constant", clip="column_norm")},
    {"update": GradientStep(momentum="constant", orthogonal="muon")},
    {"update": GradientStep(momentum="constant", weight_norm="initial_norm")},
]


def test_loops_are_equal_by_value_and_can_be_keys():
    again = InnerLoop(MLP(2), SquaredError(), GradientStep(momentum="constant"), Schedule(3))
    assert again == LOOP and hash(again) == hash(LOOP) and len({again, LOOP}) == 1
    assert pickle.loads(pickle.dumps(LOOP)) == LOOP


PARTS = [
    *(Linear(), MLP(3, "tanh"), SwiGLU("gelu_tanh"), GLU(), DepthwiseConv(5, 2, 3)),
    *(Features("psi"), AnyNet("g"), Frobenius(), SquaredError(), AbstractLoss("loss_of")),
    GradientStep("per_token", "inside", "constant", True, clip="column_norm", orthogonal="muon"),
    NegatedValues(SquaredError()),
    Schedule(4, "before_update", "key", 2),
    LOOP,
    replace(LOOP, trained=("W2",), loss_weights={"W2": "lr"}),
    *ladder().values(),
]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_each_part_copies_pickles_and_prints_what_makes_it(part):
    for twin in (copy.copy(part), copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert twin == part and hash(twin) == hash(part) and str(twin) == str(part)
    assert eval(repr(part), vars(loops)) == part


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_part_tells_loops_apart(change):
    assert replace(LOOP, **change) != LOOP


def test_loops_do_not_change():
    for owner, field in ((LOOP, "net"), (LOOP.update, "rate"), (LOOP.schedule, "chunk")):
        with pytest.raises(AttributeError):
            setattr(owner, field, "other")


WRONG = [
    ("rate", lambda: GradientStep("steps"), "None, 'constant', 'per_step', 'per_token'; got"),
    ("rate", lambda: GradientStep(0.1), "got 0.1"),
    ("place", lambda: GradientStep(place=None), "got None"),
    ("place", lambda: GradientStep("per_token"), "'inside' for a rate per token, which weighs"),
    ("clip", lambda: GradientStep(clip="a b"), "a name; got 'a b'"),
    ("clip", lambda: GradientStep(clip=1.0), "got 1.0"),
    ("orthogonal", lambda: GradientStep(orthogonal=True), "got True"),
    ("weight_norm", lambda: GradientStep(weight_norm=""), "got ''"),
    ("weight_norm", lambda: GradientStep(weight_norm="step"), "got 'step'"),
    ("rate", lambda: GradientStep(["constant"]), "got ['constant']"),
    ("place", lambda: GradientStep(place="between"), "'inside', 'outside'; got 'between'"),
    ("momentum", lambda: GradientStep(momentum=0.9), "'per_step', 'per_token'; got 0.9"),
    ("momentum", lambda: GradientStep(momentum=True), "got True"),
    ("trained", lambda: replace(LOOP, trained="first"), "a tuple of weights' names; got 'first'"),
    ("trained", lambda: replace(LOOP, trained=()), "got ()"),
    ("ascent", lambda: GradientStep(ascent=1), "one of True, False; got 1"),
    ("ascent", lambda: GradientStep(ascent="no"), "got 'no'"),
    ("chunk", lambda: Schedule(0), "a positive integer; got 0. Use 1 for the token recurrence."),
    ("chunk", lambda: Schedule(-1), "got -1"),
    ("chunk", lambda: Schedule(True), "got True"),
    ("chunk", lambda: Schedule(2.0), "got 2.0"),
    ("chunk", lambda: Schedule("2"), "got '2'"),
    ("read", lambda: Schedule(1, "never"), "'before_update', 'causal'; got 'never'"),
    ("read", lambda: Schedule(read=None), "got None"),
    ("read_with", lambda: Schedule(read_with="value"), "one of 'query', 'key'; got 'value'"),
    ("steps", lambda: Schedule(steps=0), "a positive integer; got 0. Use 1 for a single update."),
    ("steps", lambda: Schedule(steps=True), "got True"),
    ("single", lambda: Schedule(single="yes"), "got 'yes'"),
    ("single", lambda: Schedule(2, single=True), "False for chunks of several tokens"),
    ("single", lambda: Schedule(read="causal", single=True), "or a causal reading"),
]

CAUSAL = Schedule(2, "causal")
TOGETHER = [
    # what one part of a loop asks of another
    ("chunk", lambda: InnerLoop(DepthwiseConv(3, 2, 3), Frobenius()), "6, the pixels of an image"),
    (
        "chunk",
        lambda: InnerLoop(DepthwiseConv(3, 2, 3), Frobenius(), schedule=Schedule(5)),
        "got 5",
    ),
    (
        "update",
        lambda: InnerLoop(
            DepthwiseConv(), Frobenius(), GradientStep(orthogonal="muon"), Schedule(4)
        ),
        "have no operator for a convolution",
    ),
    *(
        (
            "read",
            lambda rule=rule, net=net: InnerLoop(net, Frobenius(), rule, CAUSAL),
            "not be 'causal'",
        )
        for net, rule in (
            (MLP(2), GradientStep()),
            (SwiGLU(), GradientStep()),
            (Features(), GradientStep()),
            (Linear(), GradientStep(clip="column_norm")),
            (Linear(), GradientStep(orthogonal="muon")),
            (Linear(), GradientStep(weight_norm="initial_norm")),
        )
    ),
    (
        "read",
        lambda: InnerLoop(Linear(), Frobenius(), GradientStep(), Schedule(2, "causal", steps=2)),
        "not be 'causal'",
    ),
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


@pytest.mark.parametrize(("field", "make", "told"), TOGETHER)
def test_parts_that_do_not_go_together_are_one_sentence(field, make, told):
    assert told in refused(ValueError, field, make)


def test_parts_that_do_go_together():
    step = GradientStep("per_step", "outside", "per_token")
    for net in (Linear(), MLP(3), SwiGLU(), Features(), GLU()):
        assert InnerLoop(net, Frobenius(), step, CAUSAL, trained="last").is_static
    InnerLoop(Linear(), SquaredError(), replace(step, ascent=True), CAUSAL)
    InnerLoop(DepthwiseConv(3, 1, 2), SquaredError(), step, CAUSAL)
    InnerLoop(DepthwiseConv(5, 2, 3), Frobenius(), GradientStep(clip="column_norm"), Schedule(6))


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


def test_gates_have_names():
    """A fifth argument would be one of them, whatever it was meant to say."""
    with pytest.raises(TypeError):
        GradientStep("constant", "outside", None, False, "last")  # pyright: ignore


def test_swapped_arguments_are_refused():
    refused(TypeError, "net", lambda: InnerLoop(Frobenius(), Linear()))  # pyright: ignore
