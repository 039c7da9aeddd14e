"""Fed in pieces, a sequence gives what it gives at once, wherever it is cut."""

import copy
import pickle
import random
from dataclasses import replace

import pytest
import torch

from tests.parallel.test_options import CAUSAL, EXCLUSIVE, MUON, STEP, TOKEN
from tests.parallel.ways import changed, cut, entries, leaves
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.loops import (
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.parallel import forms, streaming
from ttt_proofs.parallel.streaming import Stream, feed, must_be_whole

RATES = GradientStep("per_step", "outside", "constant")
LOOPS = [
    InnerLoop(Linear(), Frobenius(), STEP, Schedule(1)),
    InnerLoop(Linear(), SquaredError(), RATES, Schedule(1, "before_update")),
    InnerLoop(SwiGLU(), Frobenius(), TOKEN, EXCLUSIVE, trained="last"),
    InnerLoop(SwiGLU(), Frobenius(), TOKEN, EXCLUSIVE),
    InnerLoop(SwiGLU(), Frobenius(), replace(TOKEN, weight_norm="initial_norm"), EXCLUSIVE),
    InnerLoop(Linear(), Frobenius(), MUON, EXCLUSIVE),
    InnerLoop(Linear(), SquaredError(), STEP, CAUSAL),
    InnerLoop(Linear(), Frobenius(), RATES, CAUSAL),
    InnerLoop(Linear(), Frobenius(), STEP, Schedule(3)),
    InnerLoop(DepthwiseConv(3, 1, 3), Frobenius(), TOKEN, Schedule(3)),
]


def runs(loop: InnerLoop):
    """The forms of a loop, called as those of a reduction are."""
    every = [forms.recurrent]
    if loop.is_static and not loop.update.weight_norm:
        every.append(forms.composed if loop.update.orthogonal else forms.chunked)
    for form in every:
        yield lambda q, k, v, *, weights, coefficients=None, initial_state=None, form=form: form(
            loop, q, k, v, weights, coefficients, initial_state
        )


def pieces(loop: InnerLoop, x: Inputs, cuts: list[int], run, last: bool = True):
    """The outputs piece by piece, and where the sequence stands after them."""
    stream, outputs = Stream(), []
    for start, stop in zip([0, *cuts], [*cuts, x.q.shape[1]], strict=True):
        given = vars(cut(loop, x, start, stop, begun=True))
        o, stream = feed(loop, run, stream, **given, last=last and stop == x.q.shape[1])
        outputs.append(o)
    return torch.cat(outputs, dim=1), stream


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_any_cut_gives_the_whole(loop):
    rng, length = random.Random(0), loop.schedule.chunk
    x = random_inputs(loop, 1, sizes={"B": 2, "H": 2, "T": 9 if loop.net.tokens else 10})
    whole, total = bool(must_be_whole(loop)), x.q.shape[1]
    for run in runs(loop):
        o, final = run(x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients)
        for cuts in (
            [],
            [3],
            [3, 6],
            [3, 6, 9],
            *([*sorted(rng.choices(range(total + 1), k=3))] for _ in range(4)),
        ):
            if whole:
                cuts = [c // length * length for c in cuts]
            found, stream = pieces(loop, x, cuts, run)
            assert torch.allclose(found, o, rtol=1e-11, atol=1e-12), cuts
            assert stream.open is None
            assert stream.state.parts.keys() == final.parts.keys()
            for what, one in stream.state.parts.items():
                other = final.parts[what]
                assert one.keys() == other.keys()
                assert all(torch.allclose(one[n], other[n], rtol=1e-11, atol=1e-12) for n in one)


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if not must_be_whole(loop)], ids=str)
def test_token_by_token_in_constant_size(loop):
    x = random_inputs(loop, 2, sizes={"B": 1, "H": 2, "T": 8})
    run = next(iter(runs(loop)))
    o, _ = run(x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients)
    found, stream = pieces(loop, x, list(range(1, 8)), run, last=False)
    assert torch.allclose(found, o, rtol=1e-11, atol=1e-12)
    assert stream.waiting == 8 % loop.schedule.chunk < loop.schedule.chunk


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if must_be_whole(loop)], ids=str)
def test_a_chunk_that_is_needed_whole_is_not_cut(loop):
    x = random_inputs(loop, 2, sizes={"B": 1, "H": 2, "T": 6})
    with pytest.raises(ValueError, match=r"^a piece must end with a chunk of 3 tokens, .*[.]$"):
        pieces(loop, x, [2], next(iter(runs(loop))))


FAULTS = [
    ("torch.cat([old, new], dim=1)", "torch.cat([new, old], dim=1)"),
    ("else piece.cut(whole,", "else piece.cut(whole + 1,"),
    ("initial_state=state,", "initial_state=None,"),
    ("state = after if stop == whole or last else state", "state = after"),
]


@pytest.mark.parametrize(("sound", "wrong"), FAULTS)
def test_a_fault_shows(sound, wrong, monkeypatch):
    from tests.parallel.test_options import faulty

    monkeypatch.setattr("tests.parallel.test_streaming.feed", faulty(streaming, sound, wrong).feed)
    seen = []
    for loop in LOOPS[6:8]:
        x = random_inputs(loop, 1, sizes={"B": 2, "H": 2, "T": 10})
        run = next(iter(runs(loop)))
        o, _ = run(x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients)
        try:
            found, _ = pieces(loop, x, [2, 4, 7], run)
            seen.append(found.shape != o.shape or not torch.allclose(found, o, rtol=1e-9))
        except (ValueError, RuntimeError):
            seen.append(True)
    assert any(seen)


def test_what_cannot_follow_is_refused():
    """Nothing is cut off without a word, and nothing follows a chunk that was ended short."""
    loop = LOOPS[3]
    x = random_inputs(loop, 1, sizes={"B": 2, "H": 2, "T": 8})
    run = next(iter(runs(loop)))

    def fed(stream, tokens, values, numbers, last=False):
        coefficients = {name: y[:, :numbers] for name, y in x.coefficients.items()}
        coefficients["alpha"] = x.coefficients["alpha"][:, :tokens]
        q, k, v = x.q[:, :tokens], x.k[:, :tokens], x.v[:, :values]
        given = {"weights": x.weights, "coefficients": coefficients, "last": last}
        return feed(loop, run, stream, q, k, v, **given)

    wrong = ((8, 5, "`v` must have 5"), (5, 6, r"`coefficients\[.eta_W0.\]` must have 5"))
    for values, numbers, told in wrong:
        with pytest.raises(ValueError, match=told):
            fed(Stream(), 5, values, numbers)
    _, stream = fed(Stream(), 5, 5, 5, last=True)
    with pytest.raises(ValueError, match="a stream must not go on after its last piece"):
        fed(stream, 2, 2, 2)


def test_a_stream_keeps_nothing_of_the_caller():
    """Neither a reused buffer nor an optimiser's step changes what is kept."""
    loop = LOOPS[2]
    x = random_inputs(loop, 1, sizes={"B": 1, "H": 2, "T": 5})
    run = next(iter(runs(loop)))
    _, stream = feed(
        loop, run, Stream(), x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients
    )
    kept = [*stream.state.values(), stream.open.k, *stream.open.coefficients.values()]
    before = [y.clone() for y in kept]
    for y in (x.k, *x.weights.values(), *x.coefficients.values()):
        y.zero_()
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))


def begun(loop: InnerLoop, batch: int = 3):
    """A stream with an open chunk, the run and inputs that it came from."""
    x = random_inputs(loop, 1, sizes={"B": batch, "H": 2, "T": 5})
    run = next(iter(runs(loop)))
    return pieces(loop, x, [], run, last=False)[1], run, x


def held(stream: Stream) -> list[torch.Tensor]:
    """Every tensor that a stream holds."""
    found: list[torch.Tensor] = []
    stream.map(lambda y: found.append(y) or y)
    return found


def equal(one: Stream, other: Stream) -> bool:
    """Whether two streams hold the same tensors."""
    pairs = zip(held(one), held(other), strict=True)
    return one.closed == other.closed and all(torch.equal(a, b) for a, b in pairs)


OPEN = [loop for loop in LOOPS if not must_be_whole(loop) and loop.schedule.chunk > 1]


@pytest.mark.parametrize("loop", OPEN, ids=str)
def test_a_reordered_stream_is_that_of_the_reordered_sequences(loop):
    """As in a beam search: some sequences go on twice and some not at all."""
    stream, run, x = begun(loop)
    before = copy.deepcopy(stream)
    for order in ([2, 0, 2, 1], [0], [1, 2, 0]):
        index = torch.tensor(order)
        alone = pieces(loop, picked(x, index), [], run, last=False)[1]
        for moved in (stream.reorder(order), stream.reorder(index), stream.reorder(index.int())):
            assert all(map(torch.allclose, held(moved), held(alone)))
            assert len(held(moved)) == len(held(alone)) > 5
    assert equal(stream, before)


def picked(x: Inputs, index: torch.Tensor) -> Inputs:
    """Some sequences of a batch."""

    numbers = {n: x.coefficients[n] for n in x.coefficients}
    many = [n for n, y in numbers.items() if isinstance(y, torch.Tensor) and y.ndim]
    numbers |= {n: numbers[n][index] for n in many}
    return Inputs(*(y[index] for y in (x.q, x.k, x.v)), x.weights, numbers)


def test_indices_must_be_those_of_sequences():
    stream, *_ = begun(OPEN[0])
    for wrong in ([0.0, 1.0], [True, False, True], [[0, 1]], torch.tensor(1)):
        with pytest.raises(TypeError, match=r"^`indices` must be a list of integers; got .*[.]$"):
            stream.reorder(wrong)
    for wrong in ([3], [-1], [0, 7]):
        with pytest.raises(IndexError):
            stream.reorder(wrong)
    assert all(len(y) == 0 for y in held(stream.reorder([])))
    assert held(Stream().reorder([0, 1])) == []


@pytest.mark.parametrize("loop", OPEN, ids=str)
def test_a_detached_stream_has_no_history(loop):
    """Every tensor: numbers of an open chunk too, those for all steps included."""
    x = random_inputs(loop, 1, sizes={"B": 2, "H": 2, "T": 5})
    constant = {n for n, c in loop.coefficients.items() if c.every == "loop"}
    x = changed(x, **{n: torch.tensor(0.5, dtype=torch.float64) for n in constant})
    leaves(x)
    _, stream = pieces(loop, x, [], next(iter(runs(loop))), last=False)
    assert any(y.requires_grad for y in held(stream))
    again = stream.detach()
    assert not any(y.requires_grad for y in held(again))
    assert any(y.requires_grad for y in held(stream)) and equal(again, stream)


def test_numbers_for_all_steps_are_those_of_the_call():
    """They are not kept with an open chunk: their gradients are those of the call."""
    loop = InnerLoop(Linear(), Frobenius(), GradientStep("constant"), Schedule(3, "before_update"))
    x = random_inputs(loop, 1, sizes={"B": 1, "H": 1, "T": 7})
    run = next(iter(runs(loop)))
    rates = [torch.tensor(0.5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    stream, total = Stream(), 0.0
    for rate, part in zip(rates, (slice(0, 2), slice(2, 7)), strict=True):
        o, stream = feed(
            loop,
            run,
            stream,
            x.q[:, part],
            x.k[:, part],
            x.v[:, part],
            weights=x.weights,
            coefficients={"eta": rate},
        )
        total = total + o.sum()
        assert stream.open is None or not stream.open.coefficients
    first, second = torch.autograd.grad(total, rates, allow_unused=True)
    assert (first is None or not first.any()) and second.abs() > 0


@pytest.mark.parametrize("loop", OPEN, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_stream_of_another_dtype_goes_on(loop, dtype):
    """Tokens have it, and the state is as wide as a form asks."""
    stream, run, x = begun(loop)
    before = copy.deepcopy(stream)
    for other in (
        stream.to(dtype),
        stream.to("cpu", dtype),
        stream.to(torch.zeros(1, dtype=dtype)),
    ):
        assert other.open.q.dtype == other.open.v.dtype == dtype
        assert {y.dtype for y in entries(other.state)} == {torch.float32}
        tokens = (y[:, :1].to(dtype) for y in (x.q, x.k, x.v))
        cast = {name: w.to(dtype) for name, w in x.weights.items()}
        numbers = {
            n: next_of(y, loop.coefficients[n].every, dtype) for n, y in x.coefficients.items()
        }
        o, _ = feed(loop, run, other, *tokens, weights=cast, coefficients=numbers)
        assert o.dtype == dtype and o.isfinite().all()
    assert equal(stream, before)
    with pytest.raises(TypeError, match=r"a stream must have a floating dtype; got torch.int32"):
        stream.to(torch.int32)


def next_of(y, every, dtype):
    """The numbers of one token that begins no chunk."""
    return y if every == "loop" else y[:, : every == "token"].to(dtype)


@pytest.mark.parametrize("history", [False, True])
def test_streams_and_states_copy_pickle_and_print(history):
    loop = OPEN[0]
    x = random_inputs(loop, 1, sizes={"B": 2, "H": 2, "T": 5})
    for w in x.weights.values():
        w.requires_grad_(history)
    _, stream = pieces(loop, x, [], next(iter(runs(loop))), last=False)
    assert any(y.requires_grad for y in held(stream)) == history
    for twin in (copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert equal(twin, stream) and str(twin) == str(stream)
    deep, before = copy.deepcopy(stream), [y.clone() for y in held(stream)]
    assert any(y.requires_grad for y in held(deep)) == history
    with torch.no_grad():
        for y in held(deep):
            y.zero_()
    assert all(torch.equal(a, b) for a, b in zip(held(stream), before, strict=True))
    state = copy.deepcopy(stream.state)
    assert all(torch.equal(state[n], stream.state[n]) for n in state)
    assert str(state) == str(stream.state) and "W1 (2, 2, " in str(state)
    assert str(stream).endswith("2 tokens in an open chunk)") and len(str(stream)) < 300


@pytest.mark.parametrize("loop", LOOPS, ids=str)
@pytest.mark.parametrize(("batch", "count"), [(0, 3), (2, 0)])
def test_a_piece_of_nothing_keeps_the_graph(loop, batch, count):
    x = random_inputs(loop, 1, sizes={"B": batch, "H": 2, "T": count})
    asked = leaves(x)
    for run in runs(loop):
        o, _ = feed(
            loop, run, Stream(), x.q, x.k, x.v, weights=x.weights, coefficients=x.coefficients
        )
        slopes = torch.autograd.grad(o.sum(), asked, allow_unused=True)
        assert all(z is not None and not z.any() for z in slopes)
