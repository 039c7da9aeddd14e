"""What every form owes its caller: second derivatives, graphs of nothing, precision, range."""

from dataclasses import replace

import pytest
import torch

from tests.parallel.test_options import CAUSAL, EXCLUSIVE, LOOPS, MUON, STEP, TOKEN, TWICE, VITTT
from tests.parallel.ways import entries, leaves
from ttt_proofs import reduce
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.loops import (
    GLU,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)

SOME = [
    InnerLoop(Linear(), Frobenius(), STEP),
    InnerLoop(SwiGLU(), Frobenius(), TOKEN, EXCLUSIVE, trained="last"),
    InnerLoop(GLU(), SquaredError(), STEP, CAUSAL, trained="last"),
    InnerLoop(Linear(), SquaredError(), GradientStep(), TWICE),
    InnerLoop(Linear(), SquaredError(), TOKEN, EXCLUSIVE),
    InnerLoop(Linear(), Frobenius(), replace(MUON, orthogonal="muon"), EXCLUSIVE),
    InnerLoop(GLU(), Frobenius(), VITTT, Schedule(3), trained="last"),
    InnerLoop(Linear(), Frobenius(), replace(STEP, weight_norm="initial_norm"), EXCLUSIVE),
]


def ways(loop: InnerLoop) -> dict:
    """The public forms of a loop."""
    reduced = reduce(loop)
    found = {"recurrent": reduced.recurrent}
    if reduced.parallel != "sequential":
        found["parallel"] = lambda *x, **more: reduced.parallel_form(*x, tile=6, **more)
    return found


def second(run, x: Inputs, n: int) -> torch.Tensor:
    """A second derivative of outputs and state, in a tensor that has another path as well."""
    asked = leaves(x)[n]
    o, state = run(**vars(x))
    total = o.square().sum() + asked.pow(4).sum()
    total = total + sum(s.pow(3).sum() for s in entries(state))
    (slope,) = torch.autograd.grad(total, asked, create_graph=True)
    weights = torch.linspace(-1, 1, slope.numel(), dtype=slope.dtype).view_as(slope)
    return torch.autograd.grad((slope * weights).sum(), asked)[0]


@pytest.mark.parametrize("loop", SOME, ids=str)
def test_second_derivatives_are_those_of_the_recurrence(loop):
    sizes = {"B": 1, "H": 2, "T": 7, "D_k": 3, "D_v": 2}
    for n in range(len(leaves(random_inputs(loop, 0, sizes=sizes)))):
        found = {
            name: second(run, random_inputs(loop, 0, sizes=sizes), n)
            for name, run in ways(loop).items()
        }
        scale = found["recurrent"].abs().max()
        assert scale > 0
        for name, other in found.items():
            assert (other - found["recurrent"]).abs().max() <= 1e-8 * scale, (name, n)


@pytest.mark.parametrize("loop", SOME + [x for x in LOOPS if x.schedule.steps == 1][::4], ids=str)
@pytest.mark.parametrize(("batch", "count"), [(0, 6), (2, 0), (0, 0)])
def test_of_nothing_every_gradient_is_zero(loop, batch, count):
    """Of outputs and of the final state; but a state of no tokens is the first weights."""
    sizes = {"B": batch, "H": 2, "D_v": 4}
    for name, run in ways(loop).items():
        for first in (False, True):
            x = random_inputs(loop, 0, sizes=sizes | {"T": count})
            asked, given = leaves(x), vars(x)
            if first:
                _, state = run(**vars(random_inputs(loop, 0, sizes=sizes | {"T": 6})))
                state = state.map(lambda y: y.detach().requires_grad_())
                given = given | {"initial_state": state}
                asked += entries(state)[len(state) :]  # the buffers
            o, final = run(**given)
            assert o.numel() == 0
            slopes = torch.autograd.grad(o.sum(), asked, allow_unused=True, retain_graph=True)
            assert all(z is not None and not z.any() for z in slopes), (name, first)
            total = sum(y.sum() for y in final.values())
            tokens = asked[:3]
            slopes = torch.autograd.grad(total, tokens, allow_unused=True)
            assert all(z is not None and not z.any() for z in slopes), (name, first)


def test_of_nothing_an_attention_matrix_has_zeros():
    loop = SOME[1]
    for sizes in ({"B": 0, "T": 6}, {"B": 2, "T": 0}):
        x = random_inputs(loop, 0, sizes=sizes | {"H": 2})
        leaves(x)
        found = reduce(loop).attention(x.q, x.k, weights=x.weights, coefficients=x.coefficients)
        asked = [x.q, x.k, *x.weights.values(), *x.coefficients.values()]
        slopes = torch.autograd.grad(found.sum(), asked, allow_unused=True)
        assert all(z is not None and not z.any() for z in slopes)


def cast(x: Inputs, dtype: torch.dtype) -> Inputs:
    """The inputs in another dtype."""

    def to(y):
        if isinstance(y, dict):
            return {name: to(z) for name, z in y.items()}
        return y.to(dtype) if isinstance(y, torch.Tensor) else y

    return Inputs(*map(to, (x.q, x.k, x.v, x.weights, x.coefficients)))


@pytest.mark.parametrize("loop", SOME, ids=str)
@pytest.mark.parametrize("short", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(loop, short):
    """Outputs, states and gradients are those without it, and states as wide as tokens are."""
    for run in ways(loop).values():
        found = []
        for on in (False, True):
            x = cast(random_inputs(loop, 0, sizes={"B": 1, "T": 7, "H": 2}), torch.float32)
            asked = leaves(x)
            with torch.autocast("cpu", short, enabled=on):
                o, state = run(**vars(x))
            every = [o, *entries(state)]
            assert {y.dtype for y in every} == {torch.float32}
            found.append([*every, *torch.autograd.grad(o.sum(), asked, allow_unused=True)])
        for one, other in zip(*found, strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def test_autocast_changes_no_attention_matrix():
    loop = SOME[1]
    x = cast(random_inputs(loop, 0, sizes={"B": 1, "T": 7, "H": 2}), torch.float32)
    given = {"weights": x.weights, "coefficients": x.coefficients}
    expected = reduce(loop).attention(x.q, x.k, **given)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reduce(loop).attention(x.q, x.k, **given), expected)


LARGE = [
    InnerLoop(Linear(), Frobenius(), STEP),
    InnerLoop(Linear(), Frobenius(), replace(STEP, rate="constant", momentum=None), CAUSAL),
    InnerLoop(GLU("sigmoid"), Frobenius(), STEP, EXCLUSIVE, trained="last"),
    InnerLoop(SwiGLU(), Frobenius(), TOKEN, EXCLUSIVE, trained="last"),
    InnerLoop(Linear(), Frobenius(), replace(STEP, clip="column_norm"), EXCLUSIVE),
    InnerLoop(Linear(), Frobenius(), MUON, EXCLUSIVE),
    InnerLoop(Linear(), Frobenius(), replace(STEP, weight_norm="initial_norm"), EXCLUSIVE),
    InnerLoop(Linear(), SquaredError(), replace(STEP, momentum=None), EXCLUSIVE),
]


@pytest.mark.parametrize("loop", LARGE, ids=str)
def test_float16_has_room_for_sums(loop):
    """Sums of tokens beyond the largest float16, read by small queries, are as in float32."""
    x = random_inputs(loop, 0, sizes={"B": 1, "T": 40, "H": 2, "D_k": 4, "D_v": 4})
    keep = loop.loss == Frobenius()
    ones = {n: y * 0 + 1 if n.startswith("eta") and keep else y for n, y in x.coefficients.items()}
    x = replace(
        x,
        q=x.q.abs() * 1e-2,
        k=x.k.abs() + 0.5 * keep,
        v=(x.v.abs() + 0.5) * 3e4,
        coefficients=ones,
    )
    x = cast(x, torch.float16)
    for name, run in ways(loop).items():
        o, state = run(**vars(x))
        expected, wide = run(**vars(cast(x, torch.float32)))
        assert o.dtype == torch.float16 and {y.dtype for y in state.values()} == {torch.float32}
        assert (o.float() - expected).abs().max() <= 2e-3 * expected.abs().max() < 65, name
        for one, other in zip(state.values(), wide.values(), strict=True):
            assert torch.allclose(one, other, rtol=1e-4)
        plain = not (loop.update.orthogonal or loop.update.clip or loop.update.weight_norm)
        if plain and keep:
            assert max(float(y.abs().max()) for y in state.values()) > 65504
