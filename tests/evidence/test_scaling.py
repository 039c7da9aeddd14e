"""What scales a step is read off the rule, and with what is drawn no loop runs away."""

from itertools import combinations, product

import pytest
import torch

from tests.evidence.updates import MUON, UPDATES, loop_of, own
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.evidence.scaling import corners, is_smooth, scale
from ttt_proofs.loops import (
    GLU,
    Coefficient,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    SquaredError,
    column_norm,
)
from ttt_proofs.reference import run_loop
from ttt_proofs.symbolic.gains import Gains, gains

EVERY = UPDATES | MUON
WANTED = {
    "decay": ("eta",),
    "constant decay": ("eta",),
    "decay of rows": ("eta",),
    "decay of columns": ("eta",),
    "decay of entries": ("eta",),
    "coupled": ("eta",),
    "titans": ("theta",),
    "nesterov": ("eta",),
    "averaged": ("eta",),
    "gated": (),
    "gated rows": (),
    "forgetting": ("eta",),
    "twice": ("eta", "theta"),
    "weighed": (),
}


@pytest.mark.parametrize("name", list(WANTED))
def test_gains_of_a_rule(name):
    loop = loop_of(UPDATES[name])
    assert gains(loop) == Gains(WANTED[name], (), False) and is_smooth(loop.rule)


def test_an_operator_takes_a_gain_out_again():
    inside, outside = (loop_of(update) for update in MUON.values())
    assert gains(inside) == Gains((), ("eta",), True) and gains(inside).by_one
    assert gains(outside) == Gains(("eta",), (), True) and not gains(outside).by_one
    assert not is_smooth(inside.rule) and not is_smooth(outside.rule)


@pytest.mark.parametrize(
    ("update", "outer", "inner", "smooth"),
    [
        (GradientStep("per_step", momentum="per_step"), ("eta",), (), True),
        (GradientStep("per_step", "inside", "per_step"), ("eta",), (), True),
        (GradientStep("constant", "inside", clip="column_norm"), ("eta",), (), False),
        (GradientStep("constant", weight_norm="initial_norm"), ("eta",), (), False),
        (GradientStep("constant", clip="own"), ("eta",), (), False),
        (GradientStep(None, momentum="per_token"), (), (), True),
        (GradientStep("per_token", "inside"), (), (), True),
        (GradientStep("constant", "inside", orthogonal="muon"), (), ("eta",), False),
        (GradientStep("constant", orthogonal="muon"), ("eta",), (), False),
    ],
)
def test_gains_of_the_library(update, outer, inner, smooth):
    loop = InnerLoop(Linear(), Frobenius(), update)
    found = gains(loop)
    assert (found.outer, found.inner, is_smooth(loop.rule)) == (outer, inner, smooth)


@pytest.mark.parametrize(
    "rule",
    [
        lambda W, g, *, eta: W - eta * g / column_norm(g),
        lambda W, g, *, eta: W - eta * g / (column_norm(W) + 1),
        lambda W, g, *, eta: W / (1 + eta) - g,
    ],
)
def test_a_rule_that_divides_is_not_smooth(rule):
    assert not is_smooth(loop_of(own(rule, {"eta": Coefficient()})).rule)


RATES, FREE = (0.01, 0.04), (0.2, 1.0)


@pytest.mark.parametrize(
    ("allowed", "drawn", "tokens"),
    [
        ((0.0, 1.0), RATES, 1.0),
        ((0.0, None), RATES, 1.0),
        ((None, None), RATES, 1.0),
        ((0.0, 0.02), (0.01, 0.02), 1.0),
        ((0.02, 0.1), (0.02, 0.04), 1.0),
        ((-1.0, 0.0), (-0.04, -0.01), 1.0),
        ((None, 0.0), (-0.04, -0.01), 1.0),
        ((0.5, 2.0), (0.5, 1.0), 0.02**0.5),  # it is never small: keys and values are instead
        ((2.0, 3.0), (2.0, 3.0), 0.02**0.5),
        ((2.0, None), (2.0, 3.0), 0.02**0.5),
    ],
)
def test_a_gain_is_small_where_its_range_lets_it(allowed, drawn, tokens):
    update = own(lambda W, g, *, eta: W - eta * g, {"eta": Coefficient(range=allowed)})
    found = scale(loop_of(update), RATES, FREE)
    assert found.ranges["eta"] == drawn and found.tokens == pytest.approx(tokens)


@pytest.mark.parametrize(
    ("allowed", "drawn"),
    [
        ((0.0, 1.0), (0.0, 1.0)),
        ((0.9, 0.99), (0.9, 0.99)),
        ((None, None), (-1.0, 1.0)),
        ((0.5, None), (0.5, 1.5)),
        ((None, 0.5), (-0.5, 0.5)),
    ],
)
def test_what_is_no_gain_is_drawn_from_its_range(allowed, drawn):
    update = own(lambda W, g, *, a: a * W - g, {"a": Coefficient(range=allowed)})
    assert scale(loop_of(update), RATES, FREE).ranges["a"] == drawn


def test_several_gains_share_what_one_would_be():
    found = scale(loop_of(UPDATES["twice"]), RATES, FREE)
    assert found.ranges["eta"] == found.ranges["theta"] == (0.1, 0.2) and found.tokens == 1


def test_where_one_weight_has_no_gain_keys_and_values_are_scaled():
    some = own(lambda W, g: W - g, {}, loss_weights={"W1": "lr"})
    found = scale(loop_of(some, net=GLU("tanh")), RATES, FREE)
    assert found.ranges["lr"] == FREE and found.tokens == pytest.approx(0.02**0.5)
    both = own(lambda W, g: W - g, {}, loss_weights={"W1": "lr", "W0": "other"})
    found = scale(loop_of(both, net=GLU("tanh")), RATES, FREE)
    assert found.ranges == {"lr": RATES, "other": RATES} and found.tokens == 1


CONSTANTS = {
    "eta": (0.0, 0.3),
    "alpha": (-1.0, 0.0, 1.0),
    "beta": (0.0, 1.0),
    "gamma": (2.0, 3.0),
    "theta": (0.0, 0.1, -0.1),
}


@pytest.mark.parametrize("names", [x for n in range(1, 6) for x in combinations(CONSTANTS, n)])
def test_any_two_ends_of_constants_come_together_while_steps_are_made(names):
    extremes, scaling = {n: CONSTANTS[n] for n in names}, {*names} & {"eta", "theta"}
    turns = corners(extremes, ("eta", "theta"))
    still = [x for x in turns if any(x[n] == 0 for n in scaling & x.keys())]
    assert still == ([dict.fromkeys((n for n in names if n in scaling), 0.0)] if scaling else [])
    moving = turns[: len(turns) - len(still)]
    assert all(x.keys() == {*names} for x in moving)
    values = {n: [x for x in extremes[n] if x or n not in scaling] for n in names}
    for one, other in combinations(names, 2):
        met = {(x[one], x[other]) for x in moving}
        assert met == {*product(values[one], values[other])}
    assert {(n, x[n]) for x in moving for n in names} == {(n, y) for n in names for y in values[n]}


@pytest.mark.parametrize("name", list(EVERY))
@pytest.mark.parametrize("loss", [Frobenius(), SquaredError()], ids=str)
@pytest.mark.parametrize("chunk", [1, 16])
def test_nothing_runs_away(name, loss, chunk):
    loop = loop_of(EVERY[name], loss, chunk)
    for seed in range(3):
        x = random_inputs(loop, seed, sizes={} if name in MUON else {"T": 65})
        o, final = run_loop(loop, **vars(x))
        steps = -(-x.q.shape[1] // chunk)
        assert max(o.abs().max(), final["W"].abs().max()) < (5 * steps if name in MUON else 10)
        assert (final["W"] - x.weights["W"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(EVERY))
def test_every_coefficient_is_drawn_by_its_clock_and_shape(name):
    loop = loop_of(EVERY[name], chunk=2)
    x = random_inputs(loop, 0, sizes={"B": 2, "T": 5, "H": 3, "D_k": 4, "D_v": 6})
    assert x.coefficients.keys() == loop.coefficients.keys()
    clocks = {"loop": (), "step": (2, 3), "token": (2, 5)}
    told = {"scalar": (), "row": (4,), "column": (6,), "entry": (4, 6)}
    for key, kind in loop.coefficients.items():
        number = x.coefficients[key]
        if (kind.every, kind.shape) == ("loop", "scalar"):
            assert isinstance(number, float)
        else:
            assert isinstance(number, torch.Tensor)
            assert number.shape == (*clocks[kind.every], 3, *told[kind.shape])
            assert len(number.unique()) == number.numel()
