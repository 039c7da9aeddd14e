"""Every option of a loop, in every form that it has: the reference's outputs and gradients."""

import inspect
import random
import types
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.loops.random_loops import random_loop
from tests.parallel.test_forms import run, same, short
from tests.parallel.ways import CHUNKED, composed, masked, scanned, stepwise, tensors, tiled
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.loops import (
    GLU,
    MLP,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.parallel import chunks, forms, states, tiles, weighing
from ttt_proofs.parallel.forms import attention, recurrent
from ttt_proofs.reference import run_loop

STEP = GradientStep("per_step", "inside", "per_step")
TOKEN = GradientStep("per_token", "inside", "per_token")
LACT = replace(TOKEN, orthogonal="muon", weight_norm="initial_norm")
VITTT = GradientStep("constant", "inside", clip="column_norm")
MUON = replace(TOKEN, orthogonal="muon")
EXCLUSIVE, CAUSAL = Schedule(3, "before_update"), Schedule(3, "causal")
TWICE = Schedule(3, steps=2)
KEYS = Schedule(3, read_with="key")
IMAGE = Schedule(6)

LOOPS = [
    InnerLoop(SwiGLU(), Frobenius(), LACT, EXCLUSIVE),
    InnerLoop(SwiGLU(), Frobenius(), replace(LACT, clip="column_norm", ascent=True), TWICE),
    InnerLoop(SwiGLU(), NegatedValues(SquaredError()), TOKEN, KEYS),
    InnerLoop(MLP(3, "tanh"), SquaredError(), replace(STEP, weight_norm="initial_norm"), TWICE),
    InnerLoop(GLU(), Frobenius(), VITTT, Schedule(3)),
    InnerLoop(GLU("tanh"), SquaredError(), TOKEN, TWICE),
    InnerLoop(Linear(), SquaredError(), VITTT, EXCLUSIVE),
    InnerLoop(
        Linear(),
        NegatedValues(SquaredError()),
        replace(MUON, weight_norm="initial_norm"),
        KEYS,
    ),
    InnerLoop(Linear(), SquaredError(), GradientStep(None, momentum="per_token"), CAUSAL),
    *(
        InnerLoop(
            net,
            NegatedValues(loss) if schedule is KEYS else loss,
            update,
            schedule,
            trained="last",
        )
        for net, update in (
            (Linear(), TOKEN),
            (SwiGLU(), TOKEN),
            (GLU(), replace(TOKEN, ascent=True)),
        )
        for loss in (Frobenius(), SquaredError())
        for schedule in (EXCLUSIVE, CAUSAL, TWICE, KEYS)
    ),
    *(
        InnerLoop(GLU(), Frobenius(), update, schedule, trained="last")
        for update in (VITTT, replace(TOKEN, clip="column_norm"), replace(STEP, clip="column_norm"))
        for schedule in (EXCLUSIVE, TWICE)
    ),
    *(
        InnerLoop(net, Frobenius(), update, schedule, trained="last")
        for net in (Linear(), MLP(2, "tanh"), GLU())
        for update in (
            MUON,
            replace(MUON, rate="per_step", place="outside", clip="column_norm"),
            GradientStep("constant", ascent=True, orthogonal="muon"),
        )
        for schedule in (EXCLUSIVE, TWICE)
    ),
    *(
        InnerLoop(DepthwiseConv(3, 2, 3), loss, update, schedule)
        for loss in (Frobenius(), SquaredError())
        for update, schedule in (
            (VITTT, IMAGE),
            (TOKEN, replace(IMAGE, read="causal")),
            (STEP, replace(IMAGE, steps=2)),
            (replace(TOKEN, weight_norm="initial_norm"), replace(IMAGE, read="before_update")),
        )
    ),
]


def forms_of(loop: InnerLoop) -> list:
    """The forms that hold for the loop."""
    rule, dynamic = loop.update, "SquaredError" in str(loop.loss)
    if not loop.is_static or rule.weight_norm or (dynamic and (rule.orthogonal or rule.clip)):
        return [recurrent]
    if rule.orthogonal:
        return [recurrent, composed]
    return [recurrent, *CHUNKED]


def name(loop: InnerLoop) -> str:
    """An id that says which options there are."""
    u, s = loop.update, loop.schedule
    more = (loop.trained, u.clip, u.orthogonal, u.weight_norm, s.read_with, s.steps)
    return "-".join([short(loop), *map(str, more)])


def given(loop: InnerLoop, seed: int = 0) -> Inputs:
    """Two sequences of two heads; a short last chunk where there may be one."""
    length = 2 * loop.schedule.chunk if loop.net.tokens else 2 * loop.schedule.chunk + 1
    return random_inputs(loop, seed, sizes={"B": 2, "H": 2, "T": length, "D_v": 3})


def slopes(form, loop: InnerLoop, x: Inputs) -> dict[str, torch.Tensor]:
    """The gradients of a random sum of outputs and final weights, in every tensor."""
    leaves = tensors(x)
    for leaf in leaves.values():
        leaf.requires_grad_()
    outputs, final = run(form, loop, x)
    generator = torch.Generator().manual_seed(5)
    results = [outputs, *final.values()]
    weights = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in results]
    found = torch.autograd.grad(results, list(leaves.values()), weights, allow_unused=True)
    return {
        n: torch.zeros_like(leaf) if g is None else g
        for (n, leaf), g in zip(leaves.items(), found, strict=True)
    }


def departs(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest gradient.

    Of all tensors: that in a factor of Muon's argument is small, a difference of large ones.
    """
    scale = max(float(g.abs().max()) for g in other.values())
    assert one.keys() == other.keys()
    return max(float((one[n] - g).abs().max()) for n, g in other.items()) / scale


@pytest.mark.parametrize("loop", LOOPS, ids=name)
def test_every_form_is_the_loop(loop):
    x = given(loop)
    outputs, expected = run(run_loop, loop, x), slopes(run_loop, loop, x)
    for form in forms_of(loop):
        assert same(run(form, loop, x), outputs), form.__name__
        assert departs(slopes(form, loop, x), expected) < 1e-11, form.__name__


def test_every_form_is_there():
    assert {form for loop in LOOPS for form in forms_of(loop)} == {recurrent, *CHUNKED, composed}


@pytest.mark.parametrize("seed", range(60))
def test_loops_drawn_at_random(seed):
    loop = random_loop(random.Random(seed))
    x = random_inputs(loop, seed)
    expected = run(run_loop, loop, x)
    for form in forms_of(loop):
        assert same(run(form, loop, x), expected), (form.__name__, loop)


def other_loops(loop: InnerLoop) -> list[InnerLoop]:
    """Loops that take the same inputs, one option changed."""
    rule, schedule = loop.update, loop.schedule
    loss, keys = loop.loss, schedule.read_with == "key"
    changes = [
        replace(loop, loss=loss.loss if isinstance(loss, NegatedValues) else NegatedValues(loss)),
        replace(loop, update=replace(rule, ascent=not rule.ascent)),
        replace(loop, schedule=replace(schedule, read_with="query" if keys else "key")),
    ]
    for field in ("clip", "orthogonal", "weight_norm"):
        if getattr(rule, field):
            changes.append(replace(loop, update=replace(rule, **{field: None})))
    if schedule.steps > 1:
        changes.append(replace(loop, schedule=replace(schedule, steps=1)))
    return changes


@pytest.mark.parametrize("loop", LOOPS, ids=name)
def test_each_option_matters(loop):
    """Any one of them changed, the comparison above fails."""
    x = given(loop)
    expected = run(run_loop, loop, x)
    for other in other_loops(loop):
        for form in forms_of(loop):
            assert not same(run(form, other, x), expected), (form.__name__, other)


def faulty(module, sound: str, wrong: str):
    """A copy of a module in which one text, there once, is another."""
    source = inspect.getsource(module)
    assert source.count(sound) == 1, (sound, source.count(sound))
    copy = types.ModuleType(module.__name__)
    copy.__package__ = module.__package__
    exec(compile(source.replace(sound, wrong), "faulty", "exec"), copy.__dict__)
    return copy


def with_fault(module, sound: str, wrong: str):
    """The forms, with a fault in one of their modules."""
    copy, bad = faulty(forms, "import torch\n", "import torch\n"), faulty(module, sound, wrong)
    if module is forms:
        return bad
    home = module.__name__
    names = {
        name: x.__name__
        for name, x in vars(forms).items()
        if getattr(x, "__module__", "") == home and hasattr(x, "__name__")
    }
    if module is weighing:  # `tiles` imports from it as well
        copy.tiles = faulty(tiles, "import torch\n", "import torch\n").tiles
        copy.tiles.__globals__.update(weighing=bad.weighing)
    vars(copy).update({name: getattr(bad, own) for name, own in names.items()})
    return copy


MASKED = InnerLoop(Linear(), Frobenius(), TOKEN, CAUSAL)
AFFINE = InnerLoop(Linear(), SquaredError(), TOKEN, CAUSAL)
GATED = InnerLoop(GLU(), SquaredError(), TOKEN, EXCLUSIVE, trained="last")
COMPOSED = InnerLoop(Linear(), Frobenius(), MUON, TWICE)
CLIPPED = InnerLoop(GLU(), Frobenius(), VITTT, Schedule(3), trained="last")
ONE_RATE = GradientStep("constant", "inside", "constant")
CONSTANT = InnerLoop(Linear(), Frobenius(), ONE_RATE, Schedule(3))
AFTER = InnerLoop(Linear(), Frobenius(), STEP, Schedule(3))
TWICE_AFFINE = InnerLoop(Linear(), SquaredError(), STEP, TWICE)
IMAGES = InnerLoop(DepthwiseConv(3, 2, 3), Frobenius(), TOKEN, IMAGE)

FAULTS = [
    (recurrent, MASKED, forms, "length, length).tril()", "length, length).tril(-1)"),
    (recurrent, AFFINE, forms, "y[:, :, -1:] for name", "y[:, :, :1] for name"),
    (recurrent, LOOPS[0], forms, "*given, x.weights[name]", "*given, now[name]"),
    (recurrent, LOOPS[0], forms, "enumerate(held, start=1)", "enumerate(held, start=0)"),
    (recurrent, AFTER, chunks, "x[n] for name, x in each", "x[0] for name, x in each"),
    (tiled, MASKED, tiles, "each.tril()", "each.tril(-1)"),
    (tiled, MASKED, tiles, "each.tril()", "each"),
    (tiled, MASKED, tiles, "rows * values,\n", "values,\n"),
    (masked, MASKED, forms, "*held, now = final[", "now, *held = final["),
    (tiled, MASKED, forms, "made = t.read(before)", "made = t.read(before.flip(2))"),
    (tiled, CONSTANT, tiles, "c.kept(short * each)", "c.kept(-1)"),
    (tiled, MASKED, tiles, "short * each)", "short * each - 1)"),
    (tiled, CLIPPED, tiles, "values = values * known", "values = values + 0 * known"),
    (tiled, CLIPPED, tiles, "gradients(code, x, keys, values)} |", "values} |"),
    (stepwise, AFTER, tiles, "leaves = alone and", "leaves = not alone and"),
    (tiled, AFFINE, tiles, "lower = slope * scores * rows.mT", "lower = slope * scores"),
    (tiled, AFFINE, tiles, "        slope = rows * slope\n", ""),
    (scanned, AFFINE, tiles, "self.values + self.slope @ states", "self.values"),
    (tiled, GATED, tiles, "values(zero + 1) - values(zero)", "zero + 1"),
    (tiled, TWICE_AFFINE, weighing, "units[update if apart else n]", "units[n]"),
    (tiled, AFTER, weighing, "given[n]", "given[0]"),
    (tiled, AFTER, weighing, "*buffers, weight = units", "weight, *buffers = units"),
    (composed, COMPOSED, states, '"G": moved.to(dtype)', '"G": moved.flip(2).to(dtype)'),
    (composed, COMPOSED, states, "each - 1 :: each", "::each"),
    (composed, COMPOSED, states, "before.unbind(3)", "(0 * before).unbind(3)"),
    (
        composed,
        COMPOSED,
        states,
        "last[..., m:] @ shifts, start",
        "last[..., m:] @ shifts, 0 * start",
    ),
    (composed, COMPOSED, states, "weights[..., :m].flatten(-3, -2) @ before", "0 * own"),
    (recurrent, MASKED, chunks, " / there.sum(3)", ""),
    (recurrent, MASKED, chunks, " / there.sum(3)", " / there.shape[3]"),
    (recurrent, IMAGES, chunks, "*window)", "window[0], window[2], window[1])"),
    (recurrent, IMAGES, chunks, "w.mT.flatten(1, 2)", "w.reshape(len(w), -1, w.shape[2])"),
]


@pytest.mark.parametrize(("form", "loop", "module", "sound", "wrong"), FAULTS)
def test_a_fault_in_a_form_shows(form, loop, module, sound, wrong):
    copy = with_fault(module, sound, wrong)
    x = given(loop)
    expected = run(run_loop, loop, x)
    assert same(run(form, loop, x), expected)
    form = copy.recurrent if form is recurrent else partial(form, module=copy)
    found = run(form, loop, x)
    assert not same(found, expected)


def test_a_longer_chunk_is_filled_with_nothing():
    """Features that are not zero at zero count nothing past the end."""
    for net in (MLP(2, "sigmoid"), SwiGLU("sigmoid")):
        for update, trained in ((TOKEN, "all"), (MUON, "last"), (TOKEN, "last")):
            loop = InnerLoop(net, Frobenius(), update, Schedule(4), trained=trained)
            x = random_inputs(loop, 0, sizes={"T": 5, "B": 2})
            for form in forms_of(loop):
                assert same(run(form, loop, x), run(run_loop, loop, x)), form.__name__


@pytest.mark.parametrize("loop", LOOPS, ids=name)
@pytest.mark.parametrize(("batch", "tokens"), [(2, 0), (0, 6), (0, 0)])
def test_nothing_in_gives_nothing_out(batch, tokens, loop):
    x = random_inputs(loop, 0, sizes={"B": batch, "T": tokens, "H": 3, "D_v": 4})
    for form in forms_of(loop):
        outputs, final = run(form, loop, x)
        assert outputs.shape == (batch, tokens, 3, 4)
        for weight, w in final.items():
            assert torch.equal(w, x.weights[weight].expand(batch, *x.weights[weight].shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loop", LOOPS, ids=name)
def test_results_have_the_dtype_of_the_inputs(loop, dtype):
    x = random_inputs(loop, 0, dtype=dtype, sizes={"T": 6})
    for form in forms_of(loop):
        outputs, final = run(form, loop, x)
        assert outputs.dtype == dtype
        assert {w.dtype for w in final.values()} == {torch.float32}
        assert outputs.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("schedule", [EXCLUSIVE, TWICE], ids=str)
def test_muon_in_bfloat16_runs_in_every_precision(schedule, dtype):
    """Near the loop with Muon in full precision: five steps at 2^-8 move no entry by more."""
    rounded = replace(MUON, orthogonal="muon_bfloat16")
    loop = InnerLoop(SwiGLU(), Frobenius(), rounded, schedule, trained="last")
    x = random_inputs(loop, 0, dtype=dtype, sizes={"B": 2, "T": 7, "H": 2})
    full, _ = run(run_loop, replace(loop, update=MUON), x)
    for form in (recurrent, composed):
        outputs, _ = run(form, loop, x)
        assert outputs.dtype == dtype
        assert 0 < float((outputs.double() - full).abs().max()) < 0.1
        for gradient in slopes(form, loop, given(loop)).values():
            assert gradient.isfinite().all()


@pytest.mark.parametrize("net", [Linear(), GLU(), DepthwiseConv(3, 2, 3)], ids=str)
@pytest.mark.parametrize("read", ["after_update", "before_update", "causal"])
def test_attention_weighs_the_values(net, read):
    """`γ(Q) ⊙ (Φ(Q) W_0 + A V̂)`, for a convolution channel by channel; no later token counts."""
    loop = InnerLoop(net, Frobenius(), TOKEN, Schedule(6, read), trained="last")
    x = random_inputs(loop, 0, sizes={"B": 2, "T": 12, "H": 2, "D_v": 3})
    code = forms.torch_loop(loop)
    laid = chunks.chunks(code, x.q, x.k, x.v, x.weights, x.coefficients)
    weights = attention(loop, x.q, x.k, x.weights, x.coefficients)
    heads = 6 if net.tokens else 2
    assert weights.shape == (2, heads, 12, 12)
    stored = -code.values(laid.k, code.cotangent(laid.v, laid.v), **laid.weights).flatten(2, 3)
    made = code.features(laid.q, **laid.weights) @ laid.weights[net.last.name]
    made = made + (weights @ stored).unflatten(2, (2, 6))
    outputs = code.outputs(laid.q, made, **laid.weights)
    found, _ = laid.whole(outputs, laid.now, laid.held)
    assert torch.allclose(found, run(run_loop, loop, x)[0], rtol=1e-11, atol=1e-12)
    assert (read == "after_update") != torch.equal(weights, weights.tril())


@pytest.mark.parametrize("loop", LOOPS, ids=name)
def test_segments_are_the_whole(loop, monkeypatch):
    """On a CPU long sequences go a segment after the other; here each is as short as can be."""
    x = given(loop)
    if tiled not in forms_of(loop):
        return
    expected, slope = run(run_loop, loop, x), slopes(run_loop, loop, x)
    monkeypatch.setattr(forms, "CACHED", 1)
    calls = []
    whole = forms.in_segments
    monkeypatch.setattr(forms, "in_segments", lambda *a, **k: calls.append(a) or whole(*a, **k))
    for form in (stepwise, scanned):
        assert same(run(form, loop, x), expected), form.__name__
        assert departs(slopes(form, loop, x), slope) < 1e-11, form.__name__
    assert calls
