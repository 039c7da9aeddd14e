"""Random loops reach every choice there is, and random inputs stay at unit scale."""

import random
from dataclasses import fields

import pytest
import torch

from ttt_proofs.evidence.sampling import Inputs, random_inputs, random_loop
from ttt_proofs.loops import (
    ACTIVATIONS,
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
from ttt_proofs.reference import run_loop

LOOPS = [random_loop(random.Random(seed)) for seed in range(400)]


def test_every_choice_is_drawn():
    nets = {loop.net for loop in LOOPS}
    assert nets == {
        Linear(),
        *(MLP(depth, name) for depth in (1, 2, 3) for name in ACTIVATIONS),
        *(SwiGLU(name) for name in ACTIVATIONS),
    }
    assert {loop.loss for loop in LOOPS} == {Frobenius(), SquaredError()}
    updates = {(u.rate, u.place, u.momentum, u.ascent, u.trained) for _, u in chosen()}
    assert len(updates) == 2 * 2 * 3 * 2 * 2
    assert {loop.schedule for loop in LOOPS} == {
        Schedule(chunk, read)
        for chunk in (1, 2, 3, 4)
        for read in ("after_update", "before_update")
    }


def chosen():
    """Each loop's net and update."""
    return [(loop.net, loop.update) for loop in LOOPS]


def test_choices_are_drawn_independently():
    """Every pair of two choices occurs together, not only each choice alone."""
    seen = {(type(net), u.trained, u.ascent, u.momentum) for net, u in chosen()}
    assert len(seen) == 3 * 2 * 2 * 3


def test_the_same_seed_gives_the_same_loop():
    assert [random_loop(random.Random(seed)) for seed in range(400)] == LOOPS
    rng = random.Random(0)
    assert len({random_loop(rng) for _ in range(50)}) > 40


def test_loops_lie_within_the_theorems():
    assert {loop.net.obstacle for loop in LOOPS} == {None}


def tensors(inputs: Inputs):
    """The tensors of some inputs, by name."""
    plain = {f.name: getattr(inputs, f.name) for f in fields(inputs) if f.name != "weights"}
    return {n: x for n, x in (plain | inputs.weights).items() if isinstance(x, torch.Tensor)}


def test_the_same_seed_gives_the_same_inputs():
    loop = LOOPS[0]
    first, again, other = (tensors(random_inputs(loop, seed)) for seed in (5, 5, 6))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["q"].shape != other["q"].shape or not torch.equal(first["q"], other["q"])


def test_tensors_of_equal_shape_differ():
    loop = InnerLoop(SwiGLU(), Frobenius(), GradientStep("per_step", momentum="per_step"))
    found = tensors(random_inputs(loop, 0, sizes={"B": 1, "T": 2, "H": 2, "D_k": 2, "D_v": 2}))
    names = ["q", "k", "v", "W0", "W2", "rate", "momentum"]
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


@pytest.mark.parametrize("index", range(0, 400, 40))
def test_shapes_fit_the_loop(index):
    loop = LOOPS[index]
    x = random_inputs(loop, index, sizes={"B": 2, "T": 7, "H": 3, "D_k": 4, "D_v": 5})
    steps = (2, -(-7 // loop.schedule.chunk), 3)
    assert x.q.shape == x.k.shape == (2, 7, 3, 4) and x.v.shape == (2, 7, 3, 5)
    for kind, value in ((loop.update.rate, x.rate), (loop.update.momentum, x.momentum)):
        assert {None: value is None, "constant": isinstance(value, float)}.get(
            kind, isinstance(value, torch.Tensor) and value.shape == steps
        )
    o, final = run_loop(loop, x.q, x.k, x.v, weights=x.weights, rate=x.rate, momentum=x.momentum)
    assert o.shape == x.v.shape and list(final) == [w.name for w in loop.net.weights]


@pytest.mark.parametrize("sizes", [{"T": 1}, {"T": 0}, {"B": 0}, {"H": 1, "D_h": 1}, {"T": 60}])
def test_sizes_can_be_fixed(sizes):
    loop = InnerLoop(SwiGLU(), SquaredError(), GradientStep("per_step"))
    x = random_inputs(loop, 3, sizes=sizes)
    got = dict(zip("BTH", x.q.shape, strict=False)) | {"D_h": x.weights["W1"].shape[1]}
    assert {name: got[name] for name in sizes} == sizes


@pytest.mark.parametrize("length", [None, 9, 40])
def test_nothing_grows(length):
    sizes = None if length is None else {"T": length}
    for seed, loop in enumerate(LOOPS[: 400 if length is None else 100]):
        x = random_inputs(loop, seed, sizes=sizes)
        o, final = run_loop(
            loop, x.q, x.k, x.v, weights=x.weights, rate=x.rate, momentum=x.momentum
        )
        assert max(t.abs().max() for t in (o, *final.values())) < 50, loop
        assert x.q.norm(dim=-1).max() <= 1 and x.k.norm(dim=-1).max() <= 1
        assert x.momentum is None or 0 <= torch.as_tensor(x.momentum).max() < 1
        assert torch.as_tensor(x.rate).min() > 0 and torch.as_tensor(x.rate).max() <= 0.3


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
