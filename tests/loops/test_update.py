"""Update rules of one's own: compared by their lines, copied, and put into loops."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from tests.program.rules import RULES, titans, update
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


def plain(W, g, *, eta):
    return W - eta * g


@pytest.mark.parametrize("name", RULES)
def test_copies_are_equal_and_keep_their_code(name):
    mine = update(name)
    for twin in (copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert twin == mine and hash(twin) == hash(mine) and repr(twin) == repr(mine)
        assert twin.function is mine.function
    loop = InnerLoop(MLP(2), Frobenius(), mine)
    assert pickle.loads(pickle.dumps(loop)) == loop


def test_a_copy_without_its_code_has_the_lines_and_says_so():
    local = Update(lambda W, g: W - 2 * g)
    twin = pickle.loads(pickle.dumps(local))
    assert twin == local and twin.function is None
    with pytest.raises(ValueError, match="must have its code"):
        twin.call(torch.zeros(2, 2), torch.zeros(2, 2), {}, {}, None)
    assert local.call(torch.zeros(1, 1), torch.ones(1, 1), {}, {}, None)[0] == -2


def test_code_that_is_other_than_it_was_is_not_taken(monkeypatch):
    packed = pickle.dumps(Update(plain, {}, {"eta": STEP}))
    monkeypatch.setitem(plain.__globals__, "plain", lambda W, g, *, eta: W + eta * g)
    assert pickle.loads(packed).function is None


CHANGES = [
    {"code": lambda W, g, M, *, alpha, eta, theta: (W, M)},
    {"coefficients": dict.fromkeys(("alpha", "eta", "theta"), Coefficient())},
    {"coefficients": dict.fromkeys(("alpha", "eta", "theta"), Coefficient("step", range=(0, 2)))},
    {"trained": "last"},
    {"trained": ("W",)},
    {"loss_weights": {"W": "lr"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_part_tells_updates_apart(change):
    mine = update("titans")
    assert replace(mine, **change) != mine
    assert replace(mine) == mine != GradientStep()


def test_lines_alone_are_an_update():
    mine = update("titans")
    lines = Update(mine.rule, {}, mine.coefficients)
    assert lines == mine and lines.function is None and list(lines.buffers) == ["M"]


def test_what_a_loop_is_given():
    coefficients = {"alpha": STEP, "eta": STEP, "theta": Coefficient("token", mean=True)}
    mine = Update(titans, {"M": zeros_like}, coefficients, loss_weights={"W1": "lr", "W0": "lr"})
    loop = InnerLoop(SwiGLU(), Frobenius(), mine)
    assert loop.coefficients == {**coefficients, "lr": Coefficient("token")}
    assert loop.loss_weights == {"W0": "lr", "W1": "lr"}
    assert loop.rule == mine.rule and len(loop.fast_weights) == 3
    ranged = Coefficient("token", range=(0, None))
    again = Update(plain, {}, {"eta": STEP, "lr": ranged}, loss_weights={"W": "lr"})
    assert InnerLoop(Linear(), Frobenius(), again).coefficients == {"eta": STEP, "lr": ranged}


def test_some_weights_by_name():
    def moving(net, trained):
        rule = Update(plain, {}, {"eta": STEP}, trained)
        loop = InnerLoop(net, Frobenius(), rule)
        return [w.name for w in loop.fast_weights], loop.is_static

    assert moving(MLP(3), ("W3", "W1")) == (["W1", "W3"], False)
    assert moving(MLP(3), ("W3",)) == moving(MLP(3), "last") == (["W3"], True)
    assert moving(Features(), "all") == (["W"], False)
    assert moving(Features(), ("W",)) == (["W"], True)


def row():
    """A rate for each row."""
    return {"eta": Coefficient("step", "row")}


def named_as(name):
    """A plain step whose rate has this name."""
    names: dict = {}
    exec(f"def rule(W, g, *, {name}): return W - {name} * g", names)
    return Update(names["rule"], {}, {name: STEP})


TOGETHER = [
    (
        lambda: InnerLoop(Linear(), Frobenius(), Update(plain, {}, {"eta": Coefficient("token")})),
        "a coefficient of each token must be `mean=True` or a loss weight",
    ),
    (lambda: InnerLoop(MLP(2), Frobenius(), Update(plain, {}, row())), "of one fast weight"),
    (lambda: InnerLoop(MLP(2), Frobenius(), update_of(("W1",))), "`trained` must name weights"),
    (lambda: InnerLoop(MLP(2), Frobenius(), update_of(("W2", "A"))), "`trained` must name weights"),
    (
        lambda: InnerLoop(MLP(2), Frobenius(), update_of("last", {"W1": "lr"})),
        "`loss_weights` must name weights that move; got W1",
    ),
    (lambda: InnerLoop(MLP(2), Frobenius(), named_as("W1")), "names of their own; got `W1`"),
    (lambda: InnerLoop(MLP(2), Frobenius(), named_as("G_W1")), "names of their own; got `G_W1`"),
    (lambda: InnerLoop(MLP(2), Frobenius(), named_as("X_W2")), "names of their own; got `X_W2`"),
    (
        lambda: InnerLoop(
            DepthwiseConv(), Frobenius(), Update(lambda W, g: W - operator("o")(g)), Schedule(4)
        ),
        "no operator for a convolution",
    ),
    (
        lambda: InnerLoop(Linear(), Frobenius(), update("restored"), Schedule(2, "causal")),
        "`read` must not be 'causal'",
    ),
    (
        lambda: InnerLoop(Linear(), Frobenius(), update("muon, decay"), Schedule(2, "causal")),
        "`read` must not be 'causal'",
    ),
]


def update_of(trained, weights=None) -> Update:
    """A plain step of these weights."""
    return Update(plain, {}, {"eta": STEP}, trained, weights or {})


@pytest.mark.parametrize(("make", "told"), TOGETHER)
def test_an_update_must_suit_the_loop(make, told):
    with pytest.raises(ValueError) as caught:
        make()
    assert told in str(caught.value)


def test_an_update_suits_the_loop():
    causal = Schedule(2, "causal")
    for name in ("titans", "two buffers", "old buffers", "decay"):
        InnerLoop(Linear(), SquaredError(), update(name), causal)
    InnerLoop(DepthwiseConv(3, 2, 3), Frobenius(), update("titans"), Schedule(6))
