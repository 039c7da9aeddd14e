"""Any update rule, as code: the forms against the user's own function under autograd."""

import inspect
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn.functional import silu

from tests.parallel.ways import scanned, stepwise
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.loops import (
    GLU,
    MLP,
    Coefficient,
    Frobenius,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    Update,
    column_norm,
    operator,
    zeros_like,
)
from ttt_proofs.parallel import forms, maps
from ttt_proofs.symbolic.torch_loop import torch_loop

STEP, LOOP = Coefficient("step"), Coefficient()


def decayed(W, g, *, alpha, eta):
    return alpha * W - eta * g


def titans(W, g, M, *, alpha, eta, theta):
    M = eta * M - theta * g
    return (1 - alpha) * W + M, M


def nesterov(W, g, M, *, alpha, eta):
    M = alpha * M + g
    return W - eta * (alpha * M + g), M


def coupled(W, g, M, P, *, alpha, eta):
    """A buffer that reads the weight, and one that reads the other buffer."""
    M = alpha * M + g + 0.1 * W
    P = alpha * P + M
    return W - eta * P, M, P


def reads_the_past(W, g, M, P, *, alpha, eta):
    """The second buffer moves by the first one's value of the step before."""
    return W - eta * (M + g), alpha * M + g, alpha * P + M


def clipped(W, g, M, *, alpha, eta):
    M = alpha * M + g / (column_norm(g) + 1)
    return 0.9 * W - eta * M, M


def clipped_late(W, g, M, *, alpha, eta):
    """The gate is on the buffer, and the gradient goes beside it as well."""
    M = alpha * M + g
    return W - eta * (M / (column_norm(M) + 1) + g), M


def muon(W, g, M, *, alpha, eta):
    M = alpha * M + g
    return (1 - 0.1 * eta) * W - eta * operator("muon")(M), M


def muon_first(W, g, M, *, alpha, eta):
    """Momentum of what the operator makes."""
    M = alpha * M + operator("muon")(g)
    return 0.9 * W - eta * M, M


def twice_muon(W, g, M, P, *, alpha, eta):
    M = alpha * M + g
    P = alpha * P + operator("muon")(M)
    return W - eta * operator("muon")(P), M, P


BUFFERS = {
    "titans": "M",
    "nesterov": "M",
    "coupled": "MP",
    "reads_the_past": "MP",
    "clipped": "M",
    "clipped_late": "M",
    "muon": "M",
    "muon_first": "M",
    "twice_muon": "MP",
}
CHUNKS = [Schedule(), Schedule(3), Schedule(3, "before_update"), Schedule(2, steps=2)]
CAUSAL = Schedule(3, "causal")


def loop(rule, schedule=None, net=None, loss=None, every=STEP, **shapes) -> InnerLoop:
    """A linear net and Frobenius' loss, where nothing else is said.

    Coefficients are of each step; some for rows, columns, entries.
    """
    names = inspect.getfullargspec(rule).kwonlyargs
    given = {n: replace(every, shape=shapes.get(n, "scalar")) for n in names}
    update = Update(rule, dict.fromkeys(BUFFERS.get(rule.__name__, ""), zeros_like))
    parts = (net or Linear(), loss or Frobenius(), update, schedule or Schedule())
    return InnerLoop(*parts, coefficients=given, trained="last")


PLAIN = [decayed, titans, nesterov, coupled, reads_the_past]
GATED = [clipped, clipped_late]
COMPOSED = [muon, muon_first, twice_muon]
LOOPS = [loop(rule, s) for rule in (*PLAIN, *GATED, *COMPOSED) for s in CHUNKS]
LOOPS += [loop(rule, CAUSAL) for rule in PLAIN]
LOOPS += [loop(rule, s, loss=SquaredError()) for rule in PLAIN for s in (*CHUNKS, CAUSAL)]
LOOPS += [loop(rule, Schedule(3), net, every=LOOP) for rule in PLAIN for net in (MLP(2), GLU())]
LOOPS += [loop(titans, Schedule(3), GLU(), SquaredError())]
SHAPED = [
    loop(rule, s, **{name: shape})
    for rule in (decayed, nesterov)
    for s in (*CHUNKS, CAUSAL)
    for name in ("alpha", "eta")
    for shape in ("row", "column", "entry")
]
SHAPED += [loop(decayed, s, alpha="row", eta="column") for s in (*CHUNKS, CAUSAL)]
SHAPED += [loop(decayed, s, every=LOOP, alpha="entry", eta="row") for s in CHUNKS]
SHAPED += [loop(coupled, Schedule(2), alpha="column"), loop(clipped, Schedule(2), eta="row")]
SHAPED += [loop(muon, Schedule(2, "before_update"), alpha="row", eta="entry")]
SHAPED += [loop(decayed, Schedule(2), GLU(), alpha="row")]


def name_of(loop: InnerLoop) -> str:
    """Short, for a failing test."""
    shapes = [f"{n}:{c.shape}" for n, c in loop.coefficients.items() if c.shape != "scalar"]
    parts = (loop.update.code.__name__, loop.net, loop.loss, loop.schedule, *shapes)
    return " ".join(map(str, parts))


@cache
def inputs(loop: InnerLoop) -> Inputs:
    return random_inputs(loop, 1, sizes={"B": 2, "H": 2, "T": 10})


def ways(loop: InnerLoop):
    """The recurrence, and what runs in parallel: tiles of several sizes, in turn or by a scan."""
    yield forms.recurrent
    if torch_loop(loop).way == "tiles":
        yield from (stepwise, scanned)
    for tile, along in ((1, maps.fold), (4, maps.fold), (64, maps.fold), (4, maps.scanned)):

        def run(*given, tile=tile, along=along):
            return forms.parallel(loop)(*given, tile=tile, along=along)

        yield run


NETS = {
    Linear(): lambda x, w: x @ w["W"],
    MLP(2): lambda x, w: silu(x @ w["W1"]) @ w["W2"],
    GLU(): lambda x, w: silu(x @ w["W0"]) * (x @ w["W1"]),
}
LOSSES = {
    Frobenius(): lambda f, v: -(f * v).sum(-1),
    SquaredError(): lambda f, v: (f - v).square().sum(-1) / 2,
}


def real(loop: InnerLoop, x: Inputs) -> tuple[torch.Tensor, dict[str, dict[str, torch.Tensor]]]:
    """The rule's own function, with gradients by autograd: outputs, last weight and buffers."""
    net, loss, read = NETS[loop.net], LOSSES[loop.loss], loop.schedule.read
    q, k, v = (y.transpose(1, 2) for y in (x.q, x.k, x.v))  # [B, H, T, *]
    last = loop.net.last.name
    weights = {n: w.expand(len(q), *w.shape) for n, w in x.weights.items()}
    first = weights[last]
    held = [torch.zeros_like(first) for _ in loop.update.buffers]
    outputs = []

    def moved(here: slice, weight: torch.Tensor, held: list, given: dict) -> list:
        w = weight.detach().requires_grad_()
        made = net(k[:, :, here], weights | {last: w})
        (g,) = torch.autograd.grad(loss(made, v[:, :, here]).sum(), w)
        found = loop.update.code(weight, g, *held, **given)
        return [*found] if isinstance(found, tuple) else [found]

    for n, start in enumerate(range(0, q.shape[2], loop.schedule.chunk)):
        stop = min(start + loop.schedule.chunk, q.shape[2])
        given, before = {}, weights[last]
        for name, c in loop.coefficients.items():
            y = x.coefficients[name]
            y = y[:, n] if c.every == "step" else torch.as_tensor(y, dtype=q.dtype)
            rows, cols = c.shape in ("row", "entry"), c.shape in ("column", "entry")
            y = y if not y.ndim or rows else y.unsqueeze(-1 - cols)
            given[name] = y if not y.ndim or cols else y[..., None]
        if read == "causal":
            for t in range(start, stop):
                w = moved(slice(start, t + 1), before, held, given)[0]
                outputs.append(net(q[:, :, t : t + 1], weights | {last: w}))
        for _ in range(loop.schedule.steps):
            after, *held = moved(slice(start, stop), weights[last], held, given)
            weights = weights | {last: after}
        if read != "causal":
            seen = weights | ({last: before} if read == "before_update" else {})
            outputs.append(net(q[:, :, start:stop], seen))
    buffers = {n: {last: m} for n, m in zip(loop.update.buffers, held, strict=True)}
    return torch.cat(outputs, 2).transpose(1, 2), {"": weights} | buffers


@pytest.mark.parametrize("loop", [*LOOPS, *SHAPED], ids=name_of)
def test_every_form_is_the_function(loop):
    x = inputs(loop)
    expected, final = real(loop, x)
    for form in ways(loop):
        o, state = form(loop, *vars(x).values())
        assert torch.allclose(o, expected, rtol=1e-9, atol=1e-10)
        for found, wanted in zip((state, *state.buffers.values()), final.values(), strict=True):
            assert all(
                torch.allclose(found[n], y, rtol=1e-9, atol=1e-10) for n, y in wanted.items()
            )


def mixing(f, v):
    """Affine in f, and each column's gradient reads all of them."""
    return ((f * v).sum(-1) - 1) ** 2


def apart(f, v):
    """Affine in f, another slope for each column."""
    return ((f - v).square() + (f * v).square()).sum(-1) / 2


def quartic(f, v):
    return ((f - v) ** 4).sum(-1) / 4


def scaled(f, v):
    """In proportion to f: three times, and minus the product besides."""
    return 3 * (f - v).square().sum(-1) - (f * v).sum(-1)


@pytest.mark.parametrize("loss", [mixing, apart, quartic])
def test_values_that_are_no_multiple_of_the_outputs_run_step_by_step(loss):
    """They are refused by every parallel entry, and never taken for the delta rule."""
    of_code = loop(titans, Schedule(3), loss=loss)
    x = inputs(of_code)
    o, _ = forms.recurrent(of_code, **vars(x))
    LOSSES[of_code.loss] = loss
    assert torch.allclose(o, real(of_code, x)[0], rtol=1e-9, atol=1e-10)
    for form in (forms.chunked, forms.composed, lambda loop, **y: forms.parallel(loop)(loop, **y)):
        with pytest.raises(forms.NotParallelError, match=r"is required; .*Use \.recurrent"):
            form(of_code, **vars(x))


@pytest.mark.parametrize("schedule", [*CHUNKS, CAUSAL], ids=str)
def test_a_loss_in_proportion_to_the_outputs_runs_in_tiles(schedule):
    of_code = loop(titans, schedule, loss=scaled)
    LOSSES[of_code.loss] = scaled
    x = inputs(of_code)
    expected, _ = real(of_code, x)
    found = [form(of_code, *vars(x).values())[0] for form in ways(of_code)]
    assert len(found) > 2
    assert all(torch.allclose(o, expected, rtol=1e-9, atol=1e-10) for o in found)


@pytest.mark.parametrize("shape", ["row", "column", "entry"])
def test_values_of_the_state_with_numbers_for_entries_run_step_by_step(shape):
    delta = loop(decayed, Schedule(3), loss=SquaredError(), alpha=shape)
    x = inputs(delta)
    assert torch.allclose(forms.recurrent(delta, **vars(x))[0], real(delta, x)[0], rtol=1e-9)
    with pytest.raises(forms.NotParallelError, match=f"numbers for each {shape}"):
        forms.parallel(delta)
