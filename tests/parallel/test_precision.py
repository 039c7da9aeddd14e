"""The forms in float64 and float32 against the reference: lengths, tiles, widths, rates."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parallel.ways import changed, scanned, way
from ttt_proofs.evidence.conditioning import relative_error
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.evidence.tolerances import tolerance
from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear, Schedule, SquaredError
from ttt_proofs.parallel.forms import chunked, recurrent
from ttt_proofs.reference import run_loop

STEP = GradientStep("per_step", "outside", "per_step")
READS = ("after_update", "before_update", "causal")
LENGTHS = (1, 2, 63, 64, 65, 1000)
TILES = (1, 16, 64, 4096)
VALUES = ("zero", "one", "random", "tiny")
WIDTHS = (1, 8, 60, 64, 128)


def filled(x: torch.Tensor, value: str) -> torch.Tensor:
    """Numbers of one kind, in the shape of others that are random in (0, 1)."""
    of = {"zero": x * 0, "one": x * 0 + 1, "random": x, "tiny": x * 1e-6}
    return of[value]


def drawn(loop: InnerLoop, seed: int, rate: str, momentum: str, **sizes: int) -> Inputs:
    """Unit-scale inputs, with rates and momenta of some kinds anywhere in [0, 1]."""
    x = random_inputs(loop, seed, sizes={"B": 1, "H": 2, **sizes})
    draw = torch.Generator().manual_seed(seed)
    steps = torch.rand((2, *x.coefficients["eta"].shape), generator=draw, dtype=torch.float64)
    return changed(x, eta=filled(steps[0], rate), alpha=filled(steps[1], momentum))


def called(form, loop: InnerLoop, x: Inputs, dtype=torch.float64):
    """Outputs and the final weight of a form, in a dtype."""
    q, k, v, w = (y.to(dtype) for y in (x.q, x.k, x.v, x.weights["W"]))
    numbers = {n: y.to(dtype) for n, y in x.coefficients.items()}
    o, final = form(loop, q, k, v, {"W": w}, numbers)
    return o, final["W"]


def worst(form, loop: InnerLoop, x: Inputs, expected, dtype=torch.float64) -> float:
    """The larger of the two relative errors, of outputs and of the final weight."""
    pairs = zip(called(form, loop, x, dtype), expected, strict=True)
    return max(relative_error(a, b) for a, b in pairs)


def reference(loop: InnerLoop, x: Inputs):
    """The real loop, in float64."""
    o, final = run_loop(loop, x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients)
    return o, final["W"]


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("read", READS)
def test_lengths_tiles_and_chunks(tokens, read):
    """Every tile and every chunk, one token a step and more, in both precisions."""
    for chunk in (1, 16, 64, 1001):
        loop = InnerLoop(Linear(), Frobenius(), STEP, Schedule(chunk, read))
        x = drawn(loop, tokens, "random", "random", T=tokens, D_k=8, D_v=8)
        expected = reference(loop, x)
        for tile in TILES:
            form = way("", "chunked", tile=tile)
            assert worst(form, loop, x, expected) <= tolerance("float64", tokens)
            assert worst(form, loop, x, expected, torch.float32) <= tolerance("float32", tokens)


@pytest.mark.parametrize(("rate", "momentum"), [*product(VALUES, VALUES)])
def test_rates_and_momenta_at_the_edges(rate, momentum):
    for read, tokens in product(READS, (65, 200)):
        loop = InnerLoop(Linear(), Frobenius(), STEP, Schedule(1, read))
        x = drawn(loop, 1, rate, momentum, T=tokens, D_k=8, D_v=8)
        expected = reference(loop, x)
        for form in (chunked, scanned, way("", "chunked", tile=16), way("", "chunked", tile=999)):
            assert worst(form, loop, x, expected) <= tolerance("float64", tokens)
            assert worst(form, loop, x, expected, torch.float32) <= tolerance("float32", tokens)


@pytest.mark.parametrize(("key", "value"), [*product(WIDTHS, WIDTHS)])
def test_widths(key, value):
    for loss in (Frobenius(), SquaredError()):
        loop = InnerLoop(Linear(), loss, STEP, Schedule(1))
        x = random_inputs(loop, 2, sizes={"B": 1, "H": 2, "T": 65, "D_k": key, "D_v": value})
        expected = reference(loop, x)
        for form in (chunked, way("", "chunked", tile=16)):
            assert worst(form, loop, x, expected) <= tolerance("float64", 65)
            assert worst(form, loop, x, expected, torch.float32) <= tolerance("float32", 65)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 90),
    chunk=st.integers(1, 12),
    tile=st.integers(1, 100),
    read=st.sampled_from(READS),
    loss=st.sampled_from([Frobenius(), SquaredError()]),
    key=st.integers(1, 9),
    value=st.integers(1, 9),
    rate=st.sampled_from(VALUES),
    momentum=st.sampled_from(VALUES),
    place=st.sampled_from(["inside", "outside"]),
    ascent=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_sizes(
    tokens, chunk, tile, read, loss, key, value, rate, momentum, place, ascent, seed
):
    update = replace(STEP, place=place, ascent=ascent)
    loop = InnerLoop(Linear(), loss, update, Schedule(chunk, read))
    x = drawn(loop, seed, rate, momentum, T=tokens, D_k=key, D_v=value)
    if loss != Frobenius():  # steps that stay stable, whatever the momentum
        x = changed(x, eta=lambda y: y * 0.1 / chunk, alpha=lambda y: y * 0.5)
    if ascent and loss != Frobenius():
        x = changed(x, eta=lambda y: y / tokens)
    expected = reference(loop, x)
    assert worst(way("", "chunked", tile=tile), loop, x, expected) <= tolerance("float64", tokens)
    assert worst(recurrent, loop, x, expected) <= tolerance("float64", tokens)


def test_a_long_sequence_in_float32():
    """65536 tokens, α = ½: within 1e-5 of a recurrence in float64, written out here."""
    draw = torch.Generator().manual_seed(0)
    tokens, key, value = 65536, 16, 16
    q, k, v = (
        torch.randn(tokens, width, generator=draw, dtype=torch.float64) / 4
        for width in (key, key, value)
    )
    eta = torch.rand(tokens, generator=draw, dtype=torch.float64)
    start = torch.randn(key, value, generator=draw, dtype=torch.float64) / 4
    q, k, v, eta, start = (x.float().double() for x in (q, k, v, eta, start))
    w, m, read = start.clone(), torch.zeros_like(start), []
    for t in range(tokens):
        m = 0.5 * m - k[t, :, None] * v[t]
        w = w - eta[t] * m
        read.append(q[t] @ w)
    loop = InnerLoop(Linear(), Frobenius(), replace(STEP, momentum="constant"))
    found, final = chunked(
        loop,
        *(x.float()[None, :, None] for x in (q, k, v)),
        {"W": start.float()[None]},
        {"eta": eta.float()[None, :, None], "alpha": 0.5},
    )
    assert relative_error(found[0, :, 0], torch.stack(read)) <= 1e-5
    assert relative_error(final["W"][0, 0], w) <= 1e-5


@pytest.mark.parametrize("momentum", [0.0, 1.0, 1e-30])
def test_nothing_is_divided_at_any_length(momentum):
    """Running products of 65536 momenta vanish, or do not; both are harmless, backward as well."""
    loop = InnerLoop(Linear(), Frobenius(), STEP)
    x = drawn(loop, 3, "random", "random", T=65536, B=1, H=1, D_k=4, D_v=4)
    alpha = torch.full_like(x.coefficients["alpha"], momentum).float().requires_grad_()
    eta = x.coefficients["eta"].float().requires_grad_()
    q, k, v, w = (y.float() for y in (x.q, x.k, x.v, x.weights["W"]))
    o, _ = chunked(loop, q, k, v, {"W": w}, {"eta": eta, "alpha": alpha})
    assert o.isfinite().all()
    for slope in torch.autograd.grad(o.square().mean(), [alpha, eta]):
        assert slope.isfinite().all()
        assert slope.abs().max() > 0
