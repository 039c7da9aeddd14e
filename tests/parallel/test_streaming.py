"""Fed in pieces, a sequence gives what it gives at once, wherever it is cut."""

import random
from dataclasses import replace

import pytest
import torch

from tests.parallel.test_options import CAUSAL, EXCLUSIVE, LAST, MUON, STEP, TOKEN
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
    InnerLoop(SwiGLU(), Frobenius(), LAST, EXCLUSIVE),
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
        yield lambda q, k, v, *, weights, rate, momentum, initial_state=None, form=form: form(
            loop, q, k, v, weights, rate, momentum, initial_state
        )


def pieces(loop: InnerLoop, x: Inputs, cuts: list[int], run, last: bool = True):
    """The outputs piece by piece, and where the sequence stands after them."""
    stream, outputs, length = Stream(), [], loop.schedule.chunk
    for start, stop in zip([0, *cuts], [*cuts, x.q.shape[1]], strict=True):
        steps = slice(-(-start // length), -(-stop // length))  # the chunks that begin here

        def cut(y, kind, start=start, stop=stop, steps=steps):
            if isinstance(y, dict):
                return {name: z[:, start:stop] for name, z in y.items()}
            return (
                y[:, {"per_token": slice(start, stop), "per_step": steps}[kind]]
                if isinstance(y, torch.Tensor)
                else y
            )

        o, stream = feed(
            loop,
            run,
            stream,
            x.q[:, start:stop],
            x.k[:, start:stop],
            x.v[:, start:stop],
            weights=x.weights,
            rate=cut(x.rate, loop.update.rate),
            momentum=cut(x.momentum, loop.update.momentum),
            last=last and stop == x.q.shape[1],
        )
        outputs.append(o)
    return torch.cat(outputs, dim=1), stream


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_any_cut_gives_the_whole(loop):
    rng, length = random.Random(0), loop.schedule.chunk
    x = random_inputs(loop, 1, sizes={"B": 2, "H": 2, "T": 9 if loop.net.tokens else 10})
    whole, total = bool(must_be_whole(loop)), x.q.shape[1]
    for run in runs(loop):
        o, final = run(x.q, x.k, x.v, weights=x.weights, rate=x.rate, momentum=x.momentum)
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
            for one, other in (
                (stream.state, final),
                (stream.state.accumulators, final.accumulators),
            ):
                assert one.keys() == other.keys()
                assert all(torch.allclose(one[n], other[n], rtol=1e-11, atol=1e-12) for n in one)


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if not must_be_whole(loop)], ids=str)
def test_token_by_token_in_constant_size(loop):
    x = random_inputs(loop, 2, sizes={"B": 1, "H": 2, "T": 8})
    run = next(iter(runs(loop)))
    o, _ = run(x.q, x.k, x.v, weights=x.weights, rate=x.rate, momentum=x.momentum)
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
        o, _ = run(x.q, x.k, x.v, weights=x.weights, rate=x.rate, momentum=x.momentum)
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
        rate = {name: r[:, :numbers] for name, r in x.rate.items()}
        return feed(
            loop,
            run,
            stream,
            x.q[:, :tokens],
            x.k[:, :tokens],
            x.v[:, :values],
            weights=x.weights,
            rate=rate,
            momentum=x.momentum[:, :tokens],
            last=last,
        )

    for values, numbers, told in ((8, 5, "`v` must have 5"), (5, 6, "`rate W0` must have 5")):
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
        loop, run, Stream(), x.q, x.k, x.v, weights=x.weights, rate=x.rate, momentum=x.momentum
    )
    kept = [*stream.state.values(), stream.open.k, *stream.open.rate.values()]
    before = [y.clone() for y in kept]
    for y in (x.k, *x.weights.values(), *x.rate.values()):
        y.zero_()
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))
