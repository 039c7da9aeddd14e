"""Update rules of one's own: put into loops, which compare their lines; copied, declared."""

import copy
import pickle
from dataclasses import replace

import pytest

from tests.program.rules import RULES, ruled, titans
from ttt_proofs.loops import (
    MLP,
    Coefficient,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
    Update,
    operator,
    zeros_like,
)

STEP = Coefficient("step")
ZERO = {"M": zeros_like}


def plain(W, g, *, eta):
    return W - eta * g


@pytest.mark.parametrize("name", RULES)
def test_copies_are_equal_and_keep_their_code(name):
    mine = ruled(name, net=MLP(2))
    for twin in (copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert twin == mine and hash(twin) == hash(mine) and repr(twin) == repr(mine)
        assert twin.update.function is mine.update.function
        assert list(twin.update.buffers) == list(mine.update.buffers)
    for twin in (copy.copy(mine.update), copy.deepcopy(mine.update)):
        assert twin == mine.update and hash(twin) == hash(mine.update)


def test_a_copy_without_its_code_has_the_lines():
    local = InnerLoop(Linear(), Frobenius(), Update(lambda W, g, M: (W - 2 * M, g), ZERO))
    twin = pickle.loads(pickle.dumps(local))
    assert twin == local and hash(twin) == hash(local) and repr(twin) == repr(local)
    assert twin.update.function is None and list(twin.update.buffers) == ["M"]
    assert copy.deepcopy(local).update.function is local.update.function


@pytest.mark.parametrize(
    "other", [lambda W, g, *, eta: W + eta * g, lambda W, g: W - g, lambda W: W, 3]
)
def test_code_that_is_other_than_it_was_is_not_taken(monkeypatch, other):
    packed = pickle.dumps(looped(plain, {"eta": STEP}))
    monkeypatch.setitem(plain.__globals__, "plain", other)
    assert pickle.loads(packed).update.function is None


def looped(rule, coefficients, net=None, **options) -> InnerLoop:
    """A loop with that rule, a linear net where nothing else is said."""
    net = net or Linear()
    return InnerLoop(net, Frobenius(), Update(rule), coefficients=coefficients, **options)


CHANGES = [
    {
        "update": Update(
            lambda W, g, M, *, alpha, eta, theta: (W - alpha * eta * theta * g, M), ZERO
        )
    },
    {"coefficients": dict.fromkeys(("alpha", "eta", "theta"), Coefficient())},
    {"coefficients": dict.fromkeys(("alpha", "eta", "theta"), Coefficient("step", range=(0, 2)))},
    {"trained": "last"},
    {"trained": ("W",)},
    {"loss_weights": {"W": "lr"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=", ".join)
def test_each_part_tells_updates_apart(change):
    mine = ruled("titans")
    assert replace(mine, **change) != mine
    assert replace(mine) == mine != InnerLoop(Linear(), Frobenius())


def test_lines_alone_are_an_update():
    mine = ruled("titans")
    lines = mine.under(mine.rule)
    assert lines == mine and lines.update.function is None
    assert list(lines.update.buffers) == ["M"]


def test_updates_are_equal_if_their_code_is():
    assert Update(plain) == Update(plain) and hash(Update(plain)) == hash(Update(plain))
    assert Update(plain) != Update(titans, ZERO) and Update(plain) != GradientStep()
    assert "plain" in repr(Update(plain)) and "-G + W" in repr(Update(GradientStep(None).rule))


STEPS = [
    GradientStep(),
    GradientStep("per_step", momentum="constant"),
    GradientStep("per_token", "inside", momentum="per_token", orthogonal="muon"),
]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_of_the_library_is_equal_to_its_code(step):
    """A loop is what its program is, whoever wrote it."""
    theirs = InnerLoop(MLP(2), Frobenius(), step)
    update = Update(step.function, step.buffers)
    numbers, weights = dict(theirs.coefficients), dict(theirs.loss_weights)
    mine = InnerLoop(MLP(2), Frobenius(), update, coefficients=numbers, loss_weights=weights)
    assert mine == theirs and hash(mine) == hash(theirs)


def test_what_a_step_of_the_library_supplies_goes_with_it():
    loop = InnerLoop(MLP(2), Frobenius(), GradientStep("per_token", "inside", "per_step"))
    assert loop.loss_weights == {"W1": "eta_W1", "W2": "eta_W2"}
    assert list(loop.coefficients) == ["alpha", "eta_W1", "eta_W2"]
    assert list(loop.update_coefficients) == ["alpha"]
    assert replace(loop, trained="last").loss_weights == {"W2": "eta_W2"}
    assert replace(loop, update=GradientStep()) == InnerLoop(MLP(2), Frobenius())
    weighed = replace(loop, update=GradientStep("per_step"), loss_weights={"W1": "lr"})
    assert weighed.coefficients == {"eta": STEP, "lr": Coefficient("token")}
    again = replace(weighed, update=GradientStep(None))
    assert again.coefficients == {"lr": Coefficient("token")}
    assert again.loss_weights == {"W1": "lr"}


def test_what_a_loop_is_given():
    coefficients = {"alpha": STEP, "eta": STEP, "theta": Coefficient("token", mean=True)}
    loop = InnerLoop(
        SwiGLU(),
        Frobenius(),
        Update(titans, ZERO),
        coefficients=coefficients,
        loss_weights={"W1": "lr", "W0": "lr"},
    )
    assert loop.coefficients == {**coefficients, "lr": Coefficient("token")}
    assert loop.loss_weights == {"W0": "lr", "W1": "lr"}
    assert loop.update_coefficients == coefficients and len(loop.fast_weights) == 3
    ranged = Coefficient("token", range=(0, None))
    again = looped(plain, {"eta": STEP, "lr": ranged}, loss_weights={"W": "lr"})
    assert again.coefficients == {"eta": STEP, "lr": ranged}


def test_some_weights_by_name():
    def moving(net, trained):
        loop = looped(plain, {"eta": STEP}, net, trained=trained)
        return [w.name for w in loop.fast_weights], loop.is_static

    assert moving(MLP(3), ("W3", "W1")) == (["W1", "W3"], False)
    assert moving(MLP(3), ("W3",)) == moving(MLP(3), "last") == (["W3"], True)
    assert moving(Features(), "all") == (["W"], False)
    assert moving(Features(), ("W",)) == (["W"], True)


def row():
    """A rate for each row."""
    return {"eta": Coefficient("step", "row")}


def named_as(name):
    """A loop whose rate has this name."""
    names: dict = {}
    exec(f"def rule(W, g, *, {name}): return W - {name} * g", names)
    return looped(names["rule"], {name: STEP}, MLP(2))


TOGETHER = [
    (
        lambda: looped(plain, {"eta": Coefficient("token")}),
        "a coefficient of each token must be `mean=True` or a loss weight",
    ),
    (lambda: looped(plain, row(), MLP(2)), "of one fast weight"),
    (lambda: moved(("W1",)), "`trained` must name weights"),
    (lambda: moved(("W2", "A")), "`trained` must name weights"),
    (
        lambda: moved("last", loss_weights={"W1": "lr"}),
        "`loss_weights` must name weights that move; got W1",
    ),
    (lambda: named_as("W1"), "names of their own; got `W1`"),
    (lambda: named_as("G_W1"), "names of their own; got `G_W1`"),
    (lambda: named_as("X_W2"), "names of their own; got `X_W2`"),
    (
        lambda: InnerLoop(
            DepthwiseConv(), Frobenius(), Update(lambda W, g: W - operator("o")(g)), Schedule(4)
        ),
        "no operator for a convolution",
    ),
    (
        lambda: ruled("restored", schedule=Schedule(2, "causal")),
        "`read` must not be 'causal'",
    ),
    (
        lambda: ruled("muon, decay", schedule=Schedule(2, "causal")),
        "`read` must not be 'causal'",
    ),
]


def moved(trained, **options) -> InnerLoop:
    """Plain steps of these weights."""
    return looped(plain, {"eta": STEP}, MLP(2), trained=trained, **options)


@pytest.mark.parametrize(("make", "told"), TOGETHER)
def test_an_update_must_suit_the_loop(make, told):
    with pytest.raises(ValueError) as caught:
        make()
    assert told in str(caught.value)


def test_an_update_suits_the_loop():
    causal = Schedule(2, "causal")
    for name in ("titans", "two buffers", "old buffers", "decay"):
        ruled(name, loss=SquaredError(), schedule=causal)
    ruled("titans", net=DepthwiseConv(3, 2, 3), schedule=Schedule(6))
