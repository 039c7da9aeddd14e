"""Random loops reach every choice there is, and random inputs stay at unit scale."""

import random
from dataclasses import fields
from itertools import product

import pytest
import torch

from tests.loops.random_loops import random_loop
from ttt_proofs.evidence.sampling import Inputs, ragged, random_inputs
from ttt_proofs.loops import (
    ACTIVATIONS,
    GLU,
    MLP,
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
)
from ttt_proofs.reference import run_loop

LOOPS = [random_loop(random.Random(seed)) for seed in range(3000)]


def test_every_choice_is_drawn():
    nets = {loop.net for loop in LOOPS}
    assert nets == {
        Linear(),
        *(MLP(depth, name) for depth in (1, 2, 3) for name in ACTIVATIONS),
        *(gated(name) for name in ACTIVATIONS for gated in (SwiGLU, GLU)),
        *(DepthwiseConv(n, y, x) for n in (1, 3) for y in (1, 2) for x in (1, 2, 3)),
    }
    losses = (Frobenius(), SquaredError())
    assert {loop.loss for loop in LOOPS} == {*losses, *map(NegatedValues, losses)}
    pairs = {(u.rate, u.place) for _, u in chosen()}
    assert pairs == {
        (r, p) for r in RATES for p in ("inside", "outside") if (r, p) != ("per_token", "outside")
    }
    gates = {(u.clip, u.orthogonal, u.weight_norm) for _, u in chosen()}
    assert gates == set(product((None, "column_norm"), (None, "muon"), (None, "initial_norm")))
    schedules = {(x.chunk, x.read, x.read_with) for x in schedule()}
    reads = ("after_update", "before_update", "causal")
    assert schedules >= set(product((1, 2, 3, 4), reads, ("query", "key")))
    assert {(x.steps, x.read) for x in schedule()} == {
        (1, "causal"),
        *product((1, 2), ("after_update", "before_update")),
    }


RATES = (None, "constant", "per_step", "per_token")


def chosen():
    """Each loop's net and update."""
    return [(loop.net, loop.update) for loop in LOOPS]


def schedule():
    """Each loop's schedule."""
    return [loop.schedule for loop in LOOPS]


def test_choices_are_drawn_independently():
    """Every pair of two choices occurs together, not only each choice alone."""
    seen = {(type(x.net), x.trained, x.update.ascent, x.update.momentum) for x in LOOPS}
    assert len(seen) == 5 * 2 * 2 * 4
    assert (
        len({(u.rate, u.momentum, u.clip, u.orthogonal, u.weight_norm) for _, u in chosen()})
        == 4 * 4 * 2 * 2 * 2
    )


def test_causal_readings_meet_every_static_net():
    causal = [loop for loop in LOOPS if loop.schedule.read == "causal"]
    seen = {(type(x.net), x.trained, x.net.has_static_features) for x in causal}
    assert seen == {
        *product((Linear, DepthwiseConv, MLP), ("all", "last"), [True]),  # an MLP of depth 1
        *product((MLP, SwiGLU, GLU), ["last"], [False]),
    }
    assert {x.update.momentum for x in causal} == {x.update.rate for x in causal} == set(RATES)


def test_steps_can_be_left_at_one():
    drawn = [random_loop(random.Random(seed), most_steps=1) for seed in range(100)]
    assert {loop.schedule.steps for loop in drawn} == {1}


def test_the_same_seed_gives_the_same_loop():
    assert [random_loop(random.Random(seed)) for seed in range(400)] == LOOPS[:400]
    rng = random.Random(0)
    assert len({random_loop(rng) for _ in range(50)}) > 40


def test_loops_lie_within_the_theorems():
    assert {loop.net.obstacle for loop in LOOPS} == {None}


def tensors(inputs: Inputs):
    """The tensors of some inputs, by name."""
    plain = {f.name: getattr(inputs, f.name) for f in fields(inputs)}
    found = plain | plain.pop("weights") | plain.pop("coefficients")
    return {n: x for n, x in found.items() if isinstance(x, torch.Tensor)}


def test_the_same_seed_gives_the_same_inputs():
    loop = LOOPS[0]
    first, again, other = (tensors(random_inputs(loop, seed)) for seed in (5, 5, 6))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["q"].shape != other["q"].shape or not torch.equal(first["q"], other["q"])


def test_tensors_of_equal_shape_differ():
    loop = InnerLoop(SwiGLU(), Frobenius(), GradientStep("per_step", momentum="per_step"))
    found = tensors(random_inputs(loop, 0, sizes={"B": 1, "T": 2, "H": 2, "D_k": 2, "D_v": 2}))
    names = ["q", "k", "v", "W0", "W2", "eta", "alpha"]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert found[a].shape != found[b].shape or not torch.equal(found[a], found[b])


def test_every_size_is_drawn():
    loop = InnerLoop(SwiGLU(), Frobenius(), schedule=Schedule(4))
    drawn = [random_inputs(loop, seed) for seed in range(200)]
    assert {x.q.shape[0] for x in drawn} == {1, 2}
    assert {x.q.shape[1] for x in drawn} == set(range(1, 10))
    assert {x.q.shape[2] for x in drawn} == {1, 2, 3}
    assert {x.q.shape[3] for x in drawn} == set(range(1, 6))
    assert {x.v.shape[3] for x in drawn} == set(range(1, 6))
    assert {x.weights["W0"].shape[2] for x in drawn} == set(range(1, 6))


def test_a_long_chunk_is_still_seen_to_end():
    loop = InnerLoop(Linear(), Frobenius(), schedule=Schedule(20))
    assert max(random_inputs(loop, seed).q.shape[1] for seed in range(100)) > 40 - 4


@pytest.mark.parametrize("index", range(0, 400, 8))
def test_shapes_fit_the_loop(index):
    loop = LOOPS[index]
    images = bool(loop.net.tokens)
    length = 2 * loop.schedule.chunk if images else 7
    widths = {"D_v": 5} if images else {"D_k": 4, "D_v": 5}
    x = random_inputs(loop, index, sizes={"B": 2, "T": length, "H": 3} | widths)
    assert x.q.shape == x.k.shape == (2, length, 3, 5 if images else 4)
    assert x.v.shape == (2, length, 3, 5)
    shapes = {"step": (2, -(-length // loop.schedule.chunk), 3), "token": (2, length, 3)}
    assert x.coefficients.keys() == loop.coefficients.keys()
    for name, value in x.coefficients.items():
        every = loop.coefficients[name].every
        assert isinstance(value, float) if every == "loop" else value.shape == shapes[every]
    o, final = run_loop(loop, **vars(x))
    assert o.shape == x.v.shape and list(final) == [w.name for w in loop.net.weights]


def test_rates_per_token_differ_between_weights():
    loop = InnerLoop(SwiGLU(), Frobenius(), GradientStep("per_token", "inside", "per_token"))
    x = random_inputs(loop, 0)
    drawn = list(x.coefficients.values())
    assert len(drawn) == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[i + 1 :])


def test_images_are_whole():
    loop = InnerLoop(DepthwiseConv(3, 2, 3), Frobenius(), schedule=Schedule(6))
    drawn = [random_inputs(loop, seed) for seed in range(60)]
    assert {x.q.shape[1] for x in drawn} == {6, 12, 18}
    assert {x.weights["W"].shape[1] for x in drawn} == {9}
    assert all(x.q.shape == x.v.shape for x in drawn)
    assert {x.q.shape[3] for x in drawn} == {*range(1, 6)}
    assert (ragged(loop, 2), ragged(InnerLoop(Linear(), Frobenius()), 2)) == (12, 3)
    with pytest.raises(ValueError, match=r"`sizes\['T'\]` must be a multiple of 6.*; got 7\. Give"):
        random_inputs(loop, 0, sizes={"T": 7})
    for name in ("D_k", "D_w"):
        with pytest.raises(ValueError, match="`sizes` must name some of B, D_v, H, T; got"):
            random_inputs(loop, 0, sizes={name: 2})


def test_no_entry_is_near_zero():
    for seed, loop in enumerate(LOOPS[:100]):
        x = random_inputs(loop, seed)
        for name, tensor in {"q": x.q, "k": x.k, "v": x.v, **x.weights}.items():
            size = tensor.abs()
            assert size.numel() == 0 or size.min() >= size.max() / 4, name


@pytest.mark.parametrize("sizes", [{"T": 1}, {"T": 0}, {"B": 0}, {"H": 1, "D_h": 1}, {"T": 60}])
def test_sizes_can_be_fixed(sizes):
    loop = InnerLoop(SwiGLU(), SquaredError(), GradientStep("per_step"))
    x = random_inputs(loop, 3, sizes=sizes)
    got = dict(zip("BTH", x.q.shape, strict=False)) | {"D_h": x.weights["W1"].shape[1]}
    assert {name: got[name] for name in sizes} == sizes


@pytest.mark.parametrize("chunks", [None, 2, 10])
def test_nothing_grows(chunks):
    for seed, loop in enumerate(LOOPS[: 400 if chunks is None else 100]):
        sizes = None if chunks is None else {"T": ragged(loop, chunks)}
        x = random_inputs(loop, seed, sizes=sizes)
        o, final = run_loop(loop, **vars(x))
        made = max(t.abs().max() for t in (o, *final.values()))
        unit = loop.update.orthogonal and (loop.update.place == "inside" or not loop.update.rate)
        steps = -(-x.q.shape[1] // loop.schedule.chunk) * loop.schedule.steps
        depth = len(loop.net.weights)
        # A step of Muon without a rate after it lengthens each weight by up to 1.3.
        assert made < (50 if not unit else 5 * (1 + 1.3 * steps) ** depth), loop
        # What a weight's column is multiplied by is no longer than 1: a row, or a window of pixels.
        window = loop.net.weights[0].rows.name == "D_w"
        for row in (x.q, x.k):
            longest = row.norm(dim=-1).max()
            if window:
                longest = row.abs().max() * x.weights["W"].shape[1] ** 0.5
            assert longest <= 1 + 1e-12
        for name, number in x.coefficients.items():
            number = torch.as_tensor(number)
            assert number.min() >= 0 and number.max() < 1
            rate = name.startswith("eta")
            assert not rate or (number.min() > 0 and number.max() <= (1.0 if unit else 0.3))


def test_precision_is_a_conversion():
    loop = InnerLoop(Linear(), Frobenius(), GradientStep("per_step"))
    wide, narrow = (random_inputs(loop, 1, dtype=d) for d in (torch.float64, torch.float32))
    for a, b in zip(tensors(wide).values(), tensors(narrow).values(), strict=True):
        assert b.dtype == torch.float32 and torch.equal(a.float(), b)


def test_an_abstract_net_gets_inputs_for_all_but_its_parameters():
    x = random_inputs(InnerLoop(Features(), Frobenius()), 0, sizes={"D_k": 2, "D_h": 4})
    assert x.q.shape[3] == 2 and x.weights["W"].shape[1] == 4


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"L": 3}, "`sizes` must name some of B, D_k, D_v, H, T; got 'L'. Leave it out."),
        ({"H": 0}, "`sizes['H']` must be an integer, 1 or more; got 0. Correct it."),
        ({"T": -1}, "`sizes['T']` must be an integer, 0 or more; got -1. Correct it."),
        ({"B": 1.5}, "`sizes['B']` must be an integer, 0 or more; got 1.5. Correct it."),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(ValueError) as error:
        random_inputs(InnerLoop(Linear(), Frobenius()), 0, sizes=sizes)
    assert str(error.value) == message
