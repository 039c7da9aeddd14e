"""The recurrence, masked attention and the scan are one function, also at the edges."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from tests.parallel.ways import CHUNKED, changed, tensors
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.loops import (
    MLP,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.parallel import forms
from ttt_proofs.parallel.chunks import chunks
from ttt_proofs.parallel.forms import attention, recurrent
from ttt_proofs.parallel.maps import fold, scan, total
from ttt_proofs.parallel.maps import scanned as by_scan
from ttt_proofs.parallel.tiles import numbers
from ttt_proofs.parallel.weighing import weighing
from ttt_proofs.reference import run_loop
from ttt_proofs.symbolic.torch_loop import torch_loop

STEPS = [
    GradientStep(rate, place, momentum, ascent)
    for rate, place, momentum, ascent in (
        ("per_step", "outside", "per_step", False),
        ("per_step", "inside", "per_step", True),
        ("constant", "inside", "constant", False),
        ("constant", "outside", "per_step", False),
        ("per_step", "outside", None, False),
        ("constant", "outside", None, True),
    )
]
NETS = [Linear(), MLP(2, "tanh"), SwiGLU("gelu_tanh")]
READS = ("after_update", "before_update")
LOOPS = [
    InnerLoop(net, loss, update, Schedule(chunk, read), trained="last")
    for net, (update, chunk, read), loss in (
        *product(NETS, product(STEPS[:1], (1, 3), READS), (Frobenius(), SquaredError())),
        *product(NETS[:1], product(STEPS[1:], (2,), READS), (Frobenius(), SquaredError())),
    )
]


def short(loop: InnerLoop) -> str:
    """An id that can be read."""
    u, s = loop.update, loop.schedule
    names = (type(loop.net).__name__, type(loop.loss).__name__, u.rate, u.place, u.momentum)
    return "-".join(map(str, (*names, "up" if u.ascent else "down", s.chunk, s.read)))


def run(form, loop: InnerLoop, x: Inputs):
    """A form, or the reference, on some inputs."""
    if form is run_loop:
        return run_loop(loop, x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients)
    return form(loop, x.q, x.k, x.v, x.weights, x.coefficients)


def same(one, other) -> bool:
    """Outputs and final weights agree, shapes included."""
    (o, w), (p, y) = one, other
    pairs = [(o, p), *((w[name], y[name]) for name in y)]
    return w.keys() == y.keys() and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-11, atol=1e-12) for a, b in pairs
    )


def sized(loop: InnerLoop, seed: int, **sizes) -> Inputs:
    """Inputs; all sizes that are not given are drawn."""
    return random_inputs(loop, seed, sizes=sizes)


@pytest.mark.parametrize("loop", LOOPS, ids=short)
def test_all_forms_agree(loop):
    for seed in range(3):
        x = sized(loop, seed)
        expected = run(run_loop, loop, x)
        for form in (recurrent, *CHUNKED):
            assert same(run(form, loop, x), expected), form.__name__


LENGTHS = {
    "one token": (1, 1),
    "one token in a longer chunk": (1, 5),
    "chunk as long as the sequence": (4, 4),
    "chunk longer than the sequence": (4, 9),
    "whole chunks": (6, 3),
    "ragged": (7, 3),
    "ragged by one": (9, 4),
    "many steps": (33, 2),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("loss", [Frobenius(), SquaredError()], ids=str)
@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_and_chunks(name, loss, read):
    tokens, chunk = LENGTHS[name]
    loop = InnerLoop(MLP(2, "silu"), loss, STEPS[0], Schedule(chunk, read), trained="last")
    x = sized(loop, 0, T=tokens, B=2, H=2)
    expected = run(run_loop, loop, x)
    for form in (recurrent, *CHUNKED):
        assert same(run(form, loop, x), expected), form.__name__


@pytest.mark.parametrize("update", STEPS, ids=str)
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("loss", [Frobenius(), SquaredError()], ids=str)
@pytest.mark.parametrize(("batch", "tokens"), [(2, 0), (0, 5), (0, 0)])
def test_nothing_in_gives_nothing_out(batch, tokens, loss, read, update):
    loop = InnerLoop(SwiGLU(), loss, update, Schedule(2, read), trained="last")
    x = sized(loop, 0, B=batch, T=tokens, H=3, D_v=4)
    for form in (run_loop, recurrent, *CHUNKED):
        outputs, final = run(form, loop, x)
        assert outputs.shape == (batch, tokens, 3, 4) and outputs.dtype == torch.float64
        assert list(final) == [w.name for w in loop.net.weights]
        for name, weight in final.items():
            assert torch.equal(weight, x.weights[name].expand(batch, *x.weights[name].shape))


def number(kind: str, like, value: str):
    """A rate or momentum that is 0, 1 or random, as the loop declares it."""
    if kind == "constant":
        return {"0": 0.0, "1": 1.0, "random": 0.37}[value]
    filled = {"0": torch.zeros_like, "1": torch.ones_like, "random": torch.clone}
    if value == "mixed":
        return (like > like.median()).to(like.dtype)
    return filled[value](like)


VALUES = ("0", "1", "random")


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("loss", [Frobenius(), SquaredError()], ids=str)
@pytest.mark.parametrize("momentum", [*VALUES, "mixed"])
@pytest.mark.parametrize("rate", [*VALUES, "mixed"])
def test_zeros_and_ones_among_rates_and_momenta(rate, momentum, loss, read):
    """Nothing is divided: zeros are harmless, and so is a momentum that never fades."""
    for update in STEPS[:4]:
        if update.rate == "constant" and rate == "mixed":
            continue
        if update.momentum == "constant" and momentum == "mixed":
            continue
        loop = InnerLoop(Linear(), loss, update, Schedule(2, read))
        x = sized(loop, 1, B=2, T=7, H=2, D_k=2, D_v=2)
        kinds = {"eta": (update.rate, rate), "alpha": (update.momentum, momentum)}
        x = changed(
            x, **{n: number(kinds[n][0], y, kinds[n][1]) for n, y in x.coefficients.items()}
        )
        expected = run(run_loop, loop, x)
        assert torch.isfinite(expected[0]).all()
        for form in (recurrent, *CHUNKED):
            assert same(run(form, loop, x), expected), (form.__name__, update)


def test_a_rate_of_zero_reads_the_start():
    loop = InnerLoop(Linear(), Frobenius(), STEPS[0])
    x = sized(loop, 0, T=5)
    x = changed(x, eta=torch.zeros_like)
    for form in (recurrent, *CHUNKED):
        outputs, final = run(form, loop, x)
        assert torch.allclose(outputs, torch.einsum("bthk,hkv->bthv", x.q, x.weights["W"]))
        assert torch.equal(final["W"], x.weights["W"].expand_as(final["W"]))


CHANGES = {
    "rate": lambda x: changed(x, eta=lambda y: y * 1.001),
    "momentum": lambda x: changed(x, alpha=lambda y: y * 0.999),
    "rates in another order": lambda x: changed(x, eta=lambda y: y.flip(1)),
    "momenta in another order": lambda x: changed(x, alpha=lambda y: y.flip(1)),
    "values in another order": lambda x: replace(x, v=x.v.flip(1)),
    "keys for queries": lambda x: replace(x, q=x.k),
    "queries for keys": lambda x: replace(x, k=x.q),
    "heads swapped": lambda x: replace(x, k=x.k.flip(2)),
    "sequences swapped": lambda x: replace(x, v=x.v.flip(0)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", [recurrent, *CHUNKED])
def test_a_changed_input_is_told_apart(form, change):
    """The comparison above can fail: each input matters to each form."""
    loop = InnerLoop(Linear(), Frobenius(), STEPS[0], Schedule(2))
    x = sized(loop, 2, B=2, T=7, H=2, D_k=2, D_v=2)
    assert not same(run(form, loop, CHANGES[change](x)), run(run_loop, loop, x))


OTHERS = [
    {"schedule": Schedule(2, "before_update")},
    {"schedule": Schedule(3)},
    {"update": replace(STEPS[0], place="inside")},
    {"update": replace(STEPS[0], ascent=True)},
    {"loss": SquaredError()},
]


@pytest.mark.parametrize("form", [recurrent, *CHUNKED])
@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_loop_is_told_apart(form, other):
    loop = InnerLoop(Linear(), Frobenius(), STEPS[0], Schedule(2))
    x = sized(loop, 2, B=2, T=6, H=2, D_k=2, D_v=2)
    stranger = replace(loop, **other)
    if stranger.schedule.chunk == 3:
        x = changed(x, eta=lambda y: y[:, :2], alpha=lambda y: y[:, :2])
        loop = replace(loop, schedule=Schedule(3))
        stranger = replace(loop, schedule=Schedule(3, "before_update"))
    assert not same(run(form, stranger, x), run(run_loop, loop, x))


@pytest.mark.parametrize("form", [recurrent, *CHUNKED])
def test_a_later_token_changes_nothing_before_it(form):
    loop = InnerLoop(MLP(2, "tanh"), Frobenius(), STEPS[0], Schedule(2), trained="last")
    x = sized(loop, 0, B=1, T=8, H=2)
    before, _ = run(form, loop, x)
    v = x.v.clone()
    v[:, 6:] += 1
    after, _ = run(form, loop, replace(x, v=v))
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("form", [recurrent, *CHUNKED])
def test_inputs_are_left_as_they_were(form):
    loop = InnerLoop(SwiGLU(), Frobenius(), STEPS[0], Schedule(2), trained="last")
    x, again = sized(loop, 3), sized(loop, 3)
    run(form, loop, x)
    mine, others = tensors(x), tensors(again)
    assert all(torch.equal(mine[n], others[n]) for n in others) and len(others) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_have_the_dtype_of_the_inputs(dtype):
    for loss in (Frobenius(), SquaredError()):
        loop = InnerLoop(MLP(2, "gelu_tanh"), loss, STEPS[0], Schedule(2), trained="last")
        x = random_inputs(loop, 0, dtype=dtype)
        for form in (recurrent, *CHUNKED):
            outputs, final = run(form, loop, x)
            assert outputs.dtype == dtype
            assert {w.dtype for w in final.values()} == {torch.float32}


def coefficient(loop: InnerLoop, rates, momenta, n: int, i: int) -> float:
    """What the gradient of step i weighs after step n, by the formula of the paper."""
    u, total = loop.update, 0.0
    if u.momentum is None:
        total = rates[i] if i <= n else 0.0
    else:
        for j in range(i, n + 1):
            kept = 1.0
            for s in range(i + 1, j + 1):
                kept *= momenta[s]
            total += kept * rates[i if u.place == "inside" else j]
    return total if u.ascent else -total


@pytest.mark.parametrize("update", STEPS, ids=str)
def test_the_mask_is_the_coefficient(update):
    loop = InnerLoop(Linear(), Frobenius(), update)
    x = sized(loop, 0, B=2, T=5, H=3)
    code = torch_loop(loop)
    laid = chunks(code, x.q, x.k, x.v, x.weights, x.coefficients)
    c = weighing(code, numbers(laid, 5), laid.k, 5)
    units = c.state.expand(2, 3, 1, 6, -1)[:, :, 0]
    found = units[..., : -c.entering]
    assert found.shape == (2, 3, 6, 5) and (found[:, :, 0] == 0).all()
    assert (units[..., -1] == 1).all()  # nothing decays the state itself
    found = found[:, :, 1:]
    for b, h, n, i in product(range(2), range(3), range(5), range(5)):
        rates, momenta = (
            [y] * 5 if not isinstance(y, torch.Tensor) else y[b, :, h].tolist()
            for y in (x.coefficients.get(name) for name in ("eta", "alpha"))
        )
        expected = coefficient(loop, rates, momenta, n, i)
        assert float(found[b, h, n, i]) == pytest.approx(expected, rel=1e-13, abs=1e-300)
        other = coefficient(
            replace(loop, update=replace(update, ascent=not update.ascent)), rates, momenta, n, i
        )
        assert i > n or float(found[b, h, n, i]) != pytest.approx(other)


@pytest.mark.parametrize("read", READS)
def test_attention_repeats_the_mask_over_chunks(read):
    loop = InnerLoop(Linear(), Frobenius(), STEPS[0], Schedule(3, read))
    x = sized(loop, 0, B=1, T=7, H=1)
    x = replace(x, q=torch.ones_like(x.q), k=torch.ones_like(x.k))
    scores = attention(loop, x.q, x.k, x.weights, x.coefficients)[0, 0] / x.q.shape[-1]
    rates, momenta = (x.coefficients[n][0, :, 0].tolist() for n in ("eta", "alpha"))
    for t, i in product(range(7), range(7)):
        n = t // 3 - (read == "before_update")
        # what multiplies v̂, minus the gradient
        expected = -coefficient(loop, rates, momenta, n, i // 3) if n >= 0 else 0.0
        assert float(scores[t, i]) == pytest.approx(expected, rel=1e-13, abs=1e-300)
    assert (scores[:3] == 0).all() == (read == "before_update")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 13])
def test_the_scan_composes_maps_in_order(steps):
    a = torch.randn(2, 3, steps, 4, 4, dtype=torch.float64)
    b = torch.randn(2, 3, steps, 4, 2, dtype=torch.float64)
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    maps, shifts = scan(a, b)
    now = x
    for n in range(steps):
        now = a[:, :, n] @ now + b[:, :, n]
        assert torch.allclose(maps[:, :, n] @ x + shifts[:, :, n], now)
    if steps > 1:
        wrong, shifted = scan(a.flip(2), b.flip(2))
        assert not torch.allclose(wrong[:, :, -1] @ x + shifted[:, :, -1], now)
    for one, other in zip(fold(a, b, x), by_scan(a, b, x), strict=True):
        assert torch.allclose(one, other)
    assert torch.equal(fold(a, b, x)[0][:, :, 0], x)
    gate, shift = total(a, b)
    assert torch.allclose(gate @ x + shift, now)


def test_a_fault_in_the_code_shows(monkeypatch):
    """With a wrong update rule, every form leaves the reference."""
    loop = InnerLoop(Linear(), Frobenius(), STEPS[0], Schedule(2))
    wrong = torch_loop(replace(loop, update=replace(STEPS[0], place="inside")))
    monkeypatch.setattr(forms, "torch_loop", lambda _: wrong)
    x = sized(loop, 0, B=1, T=7, H=1)
    for form in (recurrent, *CHUNKED):
        assert not same(run(form, loop, x), run(run_loop, loop, x))
