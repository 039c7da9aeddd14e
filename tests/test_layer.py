"""`TTTLayer`: one function in every mode, whole or in pieces, that can be trained."""

import copy
import os
import sys

import pytest
import torch

if "triton" not in sys.modules and not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from ttt_proofs import TTTLayer
from ttt_proofs.loops import (
    GLU,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
    lact,
    ladder,
)

EARLY = Schedule(4, "before_update")
MOMENTUM = GradientStep("per_step", "outside", "per_step", trained="last")
LOOPS = {
    "additive": InnerLoop(SwiGLU(), Frobenius(), GradientStep(trained="last")),
    "momentum": InnerLoop(Linear(), Frobenius(), MOMENTUM),
    "delta rule": InnerLoop(Linear(), SquaredError(), GradientStep("per_token", "inside")),
    "causal chunks": InnerLoop(GLU(), Frobenius(), MOMENTUM, Schedule(3, "causal")),
    "after chunks": InnerLoop(SwiGLU(), SquaredError(), MOMENTUM, Schedule(3)),
    "one rate": InnerLoop(Linear(), Frobenius(), GradientStep(momentum="constant")),
    "no rate": InnerLoop(Linear(), Frobenius(), GradientStep(None)),
    "images": InnerLoop(DepthwiseConv(3, 2, 2), Frobenius(), GradientStep(), Schedule(4)),
    "lact": lact(EARLY),
    "v2": ladder(EARLY)["v2"],
}


def layer(name: str, seed: int = 0) -> TTTLayer:
    """A small layer in float64."""
    torch.manual_seed(seed)
    return TTTLayer(LOOPS[name], 12, heads=2, hidden_width=5, tile=6).double()


def tokens(count: int = 12) -> torch.Tensor:
    """Two sequences."""
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, count, 12, generator=draw, dtype=torch.float64)


def modes(made: TTTLayer) -> list[str]:
    """Those that the loop has."""
    found = ["recurrent"]
    for mode in ("parallel", "kernel", "auto"):
        try:
            made.mode = mode
            found.append(mode)
        except ValueError:
            continue
    return found


def outputs(made: TTTLayer, mode: str, x: torch.Tensor) -> list[torch.Tensor]:
    """y, and the gradients of a weighted sum of it in x and each parameter."""
    made.mode = mode
    x = x.clone().requires_grad_()
    y = made(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *made.parameters()])]


@pytest.mark.parametrize("name", LOOPS)
def test_the_same_parameters_are_the_same_function_in_every_mode(name):
    made = layer(name)
    expected = outputs(made, "recurrent", tokens())
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in expected)
    for mode in modes(made):
        for one, other in zip(outputs(made, mode, tokens()), expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-11), mode


def test_the_modes_that_there_are():
    assert modes(layer("lact")) == ["recurrent", "auto"]
    assert modes(layer("momentum")) == ["recurrent", "parallel", "kernel", "auto"]
    assert modes(layer("after chunks")) == ["recurrent", "parallel", "kernel", "auto"]
    assert modes(layer("images")) == ["recurrent", "parallel", "auto"]
    assert modes(layer("v2")) == ["recurrent", "parallel", "kernel", "auto"]


@pytest.mark.parametrize("name", [n for n in LOOPS if n not in ("after chunks", "images")])
def test_token_by_token(name):
    made, x = layer(name), tokens(11)
    expected, state, found = made(x), None, []
    for t in range(x.shape[1]):
        y, state = made.step(x[:, t], state)
        found.append(y)
    assert torch.allclose(torch.stack(found, 1), expected, rtol=1e-9, atol=1e-11)
    assert state.waiting < LOOPS[name].schedule.chunk


@pytest.mark.parametrize("name", ["after chunks", "images", "momentum", "lact"])
def test_in_pieces(name):
    made, x = layer(name), tokens(12)
    expected, state, found, chunk = made(x), None, [], LOOPS[name].schedule.chunk
    for start, stop in ((0, 2 * chunk), (2 * chunk, 3 * chunk), (3 * chunk, 12)):
        y, state = made.feed(x[:, start:stop], state, last=stop == 12)
        found.append(y)
    assert torch.allclose(torch.cat(found, 1), expected, rtol=1e-9, atol=1e-11)


def test_a_chunk_that_is_read_after_its_update_cannot_be_stepped():
    with pytest.raises(ValueError, match=r"^a piece must end with a chunk of 3 tokens"):
        layer("after chunks").step(tokens()[:, 0])


@pytest.mark.parametrize("name", ["momentum", "delta rule", "v2"])
def test_lower_precision_is_near(name):
    made, x = layer(name), tokens()
    expected = made(x).detach()
    made = made.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(x.float())
    assert mixed.dtype == torch.float32
    short = made.bfloat16()(x.bfloat16())
    assert short.dtype == torch.bfloat16
    for y in (mixed, short):
        assert 1e-6 < float((y.detach() - expected).abs().max() / expected.abs().max()) < 0.2


def test_a_layer_can_be_copied_saved_and_trained():
    made = layer("momentum").float()
    twin = copy.deepcopy(made)
    twin.load_state_dict(made.state_dict())
    x = tokens().float()
    assert torch.equal(twin(x), made(x))
    target = torch.roll(x, 1, dims=1)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (made(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


WRONG = [
    ({"width": 0}, ValueError, "`width` must be a positive integer"),
    ({"heads": 5}, ValueError, "`width` must be a multiple of `heads` unless key_width"),
    ({"loop": LOOPS["images"], "key_width": 3}, ValueError, "`key_width` must be value_width"),
    ({"tile": 2.5}, ValueError, "`tile` must be a positive integer"),
    ({"mode": "fast"}, ValueError, "`mode` must be one of recurrent, parallel, kernel, auto"),
]


@pytest.mark.parametrize(("given", "error", "told"), WRONG, ids=str)
def test_wrong_requests_are_refused_in_a_sentence(given, error, told):
    with pytest.raises(error, match=told) as caught:
        TTTLayer(**{"loop": LOOPS["momentum"], "width": 12, **given})
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_wrong_tokens_and_modes_are_refused():
    made = layer("lact")
    for mode in ("parallel", "kernel"):
        with pytest.raises(ValueError, match="required; this loop"):
            made.mode = mode
    with pytest.raises(ValueError, match=r"`x` must be \[batch, time, 12\]; got shape \(2, 3\)"):
        made(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="`loop` must be an InnerLoop"):
        TTTLayer(None, 12)


def test_a_state_is_of_the_same_sequences():
    made = layer("momentum")
    _, state = made.step(tokens()[:, 0])
    with pytest.raises(ValueError, match=r"`initial_state..W..` must be \(1, 2, 6, 6\)"):
        made.step(tokens()[:1, 1], state)
    with pytest.raises(TypeError, match="`state` must be what step or feed has returned"):
        made.step(tokens()[:, 1], {"W": None})
