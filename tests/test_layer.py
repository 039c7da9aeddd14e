"""`TTTLayer`: one function in every mode, whole or in pieces, that can be trained."""

import copy
import math
import os
import pickle
import sys
from itertools import product

import pytest
import torch
from torch import distributed, nn

if "triton" not in sys.modules and not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from tests.loops.layers import LAYERS
from ttt_proofs import Recurrence, TTTLayer
from ttt_proofs.kernel_form import kernel_form
from ttt_proofs.layer import mode_for
from ttt_proofs.loops import (
    GLU,
    MLP,
    Abstract,
    Coefficient,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
    Update,
    lact,
    ladder,
    outer,
    zeros_like,
)
from ttt_proofs.reference import run_loop

EARLY = Schedule(4, "before_update")
MOMENTUM = GradientStep("per_step", "outside", "per_step")
LOOPS = {
    "additive": InnerLoop(SwiGLU(), Frobenius(), trained="last"),
    "momentum": InnerLoop(Linear(), Frobenius(), MOMENTUM),
    "delta rule": InnerLoop(Linear(), SquaredError(), GradientStep("per_token", "inside")),
    "causal chunks": InnerLoop(GLU(), Frobenius(), MOMENTUM, Schedule(3, "causal"), trained="last"),
    "after chunks": InnerLoop(SwiGLU(), SquaredError(), MOMENTUM, Schedule(3), trained="last"),
    "one rate": InnerLoop(Linear(), Frobenius(), GradientStep(momentum="constant")),
    "no rate": InnerLoop(Linear(), Frobenius(), GradientStep(None)),
    "images": InnerLoop(DepthwiseConv(3, 2, 2), Frobenius(), GradientStep(), Schedule(4)),
    "lact": lact(EARLY),
    "v2": ladder(EARLY)["v2"],
    "recurrence": LAYERS["matrix LSTM"][0],
    "matrices": LAYERS["gated delta"][0],
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
    assert modes(layer("recurrence")) == modes(layer("matrices")) == modes(layer("images"))


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


def test_a_recurrence_with_an_unknown_function_is_refused_at_once():
    phi = Abstract("phi")
    made = Recurrence(lambda S, q, k, v: (S + outer(phi(k), v), q @ S), {"S": ("K", "V")})
    with pytest.raises(ValueError, match="`phi` must be a concrete function for a loop to be run"):
        TTTLayer(made, 8)


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


def hessian_times_one(made: TTTLayer, run, x: torch.Tensor, n: int) -> torch.Tensor:
    """A second derivative in x or a parameter, which have another path to the total too."""
    x = x.clone().requires_grad_()
    asked = [x, *made.parameters()][n]
    total = run(x).square().sum() + asked.pow(4).sum()
    (slope,) = torch.autograd.grad(total, asked, create_graph=True)
    return torch.autograd.grad(slope.sum(), asked)[0]


def by_steps(made: TTTLayer, x: torch.Tensor) -> torch.Tensor:
    """The outputs, token by token."""
    found, state = [], None
    for t in range(x.shape[1]):
        y, state = made.step(x[:, t], state)
        found.append(y)
    return torch.stack(found, 1)


def in_two(made: TTTLayer, x: torch.Tensor) -> torch.Tensor:
    """The outputs in two pieces."""
    at = 2 * made.loop.schedule.chunk
    y, state = made.feed(x[:, :at])
    z, _ = made.feed(x[:, at:], state, last=True)
    return torch.cat([y, z], 1)


@pytest.mark.parametrize("name", LOOPS)
def test_second_derivatives_are_right_or_refused(name):
    """In x and each parameter; only kernels refuse, and they refuse in x, whatever hides it."""
    made, x = layer(name), tokens(8 if LOOPS[name].schedule.chunk > 1 else 4)
    every = range(1 + len([*made.parameters()]))
    some = [0, 5, every[-1]]  # x, `out.weight`, a number or a fast weight: the interpreter is slow
    made.mode = "recurrent"
    expected = [hessian_times_one(made, made, x, n) for n in every]
    runs = [(mode, run) for mode in modes(made) for run in (made, lambda x: in_two(made, x))]
    if name not in ("after chunks", "images"):
        runs.append(("auto", lambda x: by_steps(made, x)))
    for mode, run in runs:
        made.mode, refused = mode, set()
        for n in some if mode == "kernel" else every:
            try:
                found = hessian_times_one(made, run, x, n)
                assert torch.allclose(found, expected[n], rtol=1e-7, atol=1e-9), (mode, n)
            except RuntimeError as error:
                assert "must be differentiated once; got a second derivative" in str(error)
                refused.add(n)
        assert (0 in refused) == (mode == "kernel") and 5 not in refused, mode


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize(("batch", "count"), [(0, 8), (2, 0), (0, 0)])
def test_of_nothing_every_gradient_is_zero(name, batch, count):
    made = layer(name)
    x = torch.zeros(batch, count, 12, dtype=torch.float64, requires_grad=True)
    asked = [x, *made.parameters()]
    for mode in modes(made):
        made.mode = mode
        for run in (made, lambda x: made.feed(x, last=True)[0]):
            y = run(x)
            assert y.shape == x.shape
            slopes = torch.autograd.grad(y.sum(), asked, allow_unused=True)
            assert all(z is not None and not z.any() for z in slopes), mode


def test_a_piece_of_no_tokens_changes_nothing_and_keeps_the_graph():
    made, x = layer("causal chunks"), tokens(8)
    y, state = made.feed(x[:, :4])
    none, state = made.feed(x[:, :0], state)
    slopes = torch.autograd.grad(none.sum(), [*made.parameters()], allow_unused=True)
    assert all(z is not None and not z.any() for z in slopes)
    z, _ = made.feed(x[:, 4:], state)
    assert torch.allclose(torch.cat([y, z], 1), made(x), rtol=1e-9, atol=1e-11)


TAIL = {"rate": "per_step", "momentum": "per_step"}
SHORT = {name: LOOPS[name] for name in ("momentum", "delta rule", "after chunks", "lact", "v2")} | {
    "sum": InnerLoop(Linear(), Frobenius(), GradientStep("per_step")),
    "clip": InnerLoop(
        GLU(), Frobenius(), GradientStep(clip="column_norm", **TAIL), EARLY, trained="last"
    ),
    "clip all": InnerLoop(GLU(), Frobenius(), GradientStep(clip="column_norm"), EARLY),
    "norm": InnerLoop(
        SwiGLU(), Frobenius(), GradientStep(weight_norm="initial_norm", **TAIL), trained="last"
    ),
    "Muon": InnerLoop(Linear(), Frobenius(), GradientStep(orthogonal="muon", **TAIL), EARLY),
    "short Muon": InnerLoop(
        Linear(), Frobenius(), GradientStep(orthogonal="muon_bfloat16", **TAIL), EARLY
    ),
    "deep": InnerLoop(MLP(3), SquaredError(), GradientStep(), EARLY),
}


SIZES_OF_TOKENS = {
    "one of each": [1, 1, 1, 0, 1e-5, 1e-7, 1, 1e4, 1, 1, 0, 1],
    "zero": [0] * 12,
    "tiny": [1e-5] * 12,
    "huge": [1e4] * 12,
}


def trained(made: TTTLayer, x: torch.Tensor, dtype: torch.dtype, mixed: bool = False):
    """y and the parameters' gradients, in float64, of a layer run in a dtype."""
    made = made.to(torch.float32 if mixed else dtype)
    made.zero_grad()
    with torch.autocast("cpu", dtype if mixed else torch.bfloat16, enabled=mixed):
        y = made(x.to(made.out.weight.dtype))
    y.double().mean().backward()
    return [y.detach().double(), *(p.grad.double() for p in made.parameters())]


DIVERGES = ("deep", "huge")  # in every dtype


def sized(factors: list[float]) -> torch.Tensor:
    """Tokens of these sizes, in float16."""
    return (tokens() * torch.tensor(factors)[:, None]).half()


def steady(name: str) -> TTTLayer:
    """A layer whose outputs have two digits in float32: Muon makes much of what is next to nothing.

    Tokens are float16, and parameters have values that float16 has.
    """
    for seed in range(20):
        torch.manual_seed(seed)
        made = TTTLayer(SHORT[name], 12, heads=2, hidden_width=5, tile=6, mode="recurrent").half()
        every = [sized(factors) for n, factors in SIZES_OF_TOKENS.items() if (name, n) != DIVERGES]
        wide = [made.double()(x.double()) for x in every]
        near = [made.float()(x.float()) for x in every]
        if all(
            (y - z).abs().max() <= 0.02 * y.abs().max() for y, z in zip(wide, near, strict=True)
        ):
            return made
    raise AssertionError(f"no steady layer of {name}")


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("mixed", [False, True], ids=["half", "autocast"])
def test_float16_is_finite_and_near_whatever_the_tokens_are(name, mixed):
    """y, which is near that in float64, and all gradients."""
    made = steady(name).half()
    for sizes, factors in SIZES_OF_TOKENS.items():
        x = sized(factors)
        if (name, sizes) == DIVERGES:
            continue
        expected = trained(made.double(), x, torch.float64)
        for mode in modes(made) if sizes == "one of each" else ("recurrent", "auto"):
            made.mode = mode
            found = trained(made, x, torch.float16, mixed)
            assert all(torch.isfinite(z).all() for z in found), (sizes, mode)
            y, short = expected[0], found[0]
            assert (y - short).abs().max() <= 0.05 * y.abs().max() + 1e-3, (sizes, mode)


def test_a_token_of_zeros_has_gradients_of_ordinary_size():
    """Such as padding: its direction is none, and none is what it passes back to."""
    for name in ("momentum", "delta rule", "v2"):
        made = layer(name)
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            made = made.to(dtype)
            x = tokens().to(dtype)
            x[:, 4] = 0
            x.requires_grad_()
            made(x).sum().backward()
            assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_direction_of_a_query_does_not_hang_on_its_size(dtype):
    """Down to where no square is left; such a token writes nothing."""
    made, x = layer("momentum").to(dtype), tokens().to(dtype)
    found = []
    for size in (1e-6, 1e-15, 1e-30):
        x[:, 5] = tokens()[:, 5].to(dtype) * size
        found.append(made(x)[:, 5].detach().float())
    assert found[0].abs().max() > 0.1
    for other in found[1:]:
        assert torch.allclose(
            other, found[0], rtol=0.03, atol=0.03 if dtype != torch.float32 else 1e-4
        )


WIDTHS = (1, 16, 129, 256, 257)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def cases():
    """Loops of every kind, with sizes up to those that no kernel takes."""
    wide = ("additive", "momentum", "delta rule", "v2")
    for name, width in product(LOOPS, WIDTHS):
        if name not in wide and width > 16:
            continue
        yield name, TTTLayer(LOOPS[name], 2 * width, heads=2, hidden_width=width)
    for key, hidden in ((8, 300), (300, 8), (300, 300)):
        for name in ("additive", "v2", "causal chunks", "delta rule"):
            sizes = {"key_width": key, "value_width": 8, "hidden_width": hidden}
            yield name, TTTLayer(LOOPS[name], 16, **sizes)


def test_auto_names_a_form_that_runs():
    """Whatever device is asked about, and here run in the interpreter where it is a kernel."""
    seen = set()
    for name, made in cases():
        for dtype, device in product(DTYPES, ("cpu", "cuda", "mps")):
            mode = mode_for(made.loop, made.sizes, dtype, device)
            assert mode in ("recurrent", "parallel", "kernel")
            assert mode != "kernel" or device == "cuda"
            assert mode == mode_for(made.loop, made.sizes, dtype, device)  # nothing is kept
            seen.add((name, mode))
            made.mode = mode  # never refused
        largest = max(made.sizes.values()) > 128
        for dtype in DTYPES[1:2] if largest else DTYPES:
            kernel = mode_for(made.loop, made.sizes, dtype, "cuda") == "kernel"
            given = made.to(dtype).project(torch.randn(1, 4, made.width, dtype=dtype), 0)
            q, k, v, coefficients = given
            weights = made.initial(q.dtype)
            try:
                with torch.no_grad():
                    kernel_form(made.loop, q, k, v, weights, coefficients)
                assert kernel, (name, made.sizes, dtype)
            except ValueError:
                assert not kernel, (name, made.sizes, dtype)
    assert {("delta rule", "kernel"), ("delta rule", "parallel"), ("v2", "kernel")} <= seen
    assert {mode for name, mode in seen if name == "lact"} == {"recurrent"}


def test_a_kernel_is_refused_for_widths_that_it_does_not_take():
    with pytest.raises(ValueError, match="one block of a kernel, of at most 256"):
        TTTLayer(LOOPS["momentum"], 257, mode="kernel")


@pytest.mark.parametrize("name", LOOPS)
def test_copies_and_pickles_are_the_same_layer(name):
    made, x = layer(name), tokens(8)
    y = made(x)
    y.sum().backward()  # a layer in use
    shallow, deep, loaded = copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))
    for twin in (shallow, deep, loaded):
        assert str(twin) == str(made) and twin.mode == made.mode and twin.loop == made.loop
        assert torch.equal(twin(x), y)
    anew = layer(name, seed=1)
    assert not torch.equal(anew(x), y)
    anew.load_state_dict(made.state_dict())
    assert torch.equal(anew(x), y)
    with torch.no_grad():
        deep.out.weight.zero_()
    assert torch.equal(made(x), y)
    assert str(made.loop) in str(made) and f"mode='{made.mode}'" in str(made)


def titans(W, g, M, *, alpha, eta, theta):
    M = eta * M - theta * g
    return (1 - alpha) * W + M, M


def averaged(W, g, M, *, beta, eta):
    M = (1 - beta) * M + beta * g
    return W - eta * M, M


RANGES = {"alpha": (0.0, 0.1), "eta": (None, 1.0), "theta": (0.0, None)}
OWN = {
    "titans": (titans, {n: Coefficient("step", range=r) for n, r in RANGES.items()}),
    "rows": (
        titans,
        {
            "alpha": Coefficient("step", "row"),
            "eta": Coefficient("loop", "column", range=(-1.0, 1.0)),
            "theta": Coefficient("loop", "entry", range=(None, None)),
        },
    ),
    "averaged": (averaged, {"beta": Coefficient(), "eta": Coefficient()}),
}


def own(name: str, schedule: Schedule) -> InnerLoop:
    """A linear net with a rule of one's own."""
    rule, given = OWN[name]
    update = Update(rule, {"M": zeros_like})
    return InnerLoop(Linear(), Frobenius(), update, schedule, coefficients=given)


@pytest.mark.parametrize("schedule", [EARLY, Schedule(3), Schedule(3, "causal")], ids=str)
@pytest.mark.parametrize("name", OWN)
def test_a_rule_of_ones_own_in_every_mode(name, schedule):
    loop = own(name, schedule)
    torch.manual_seed(0)
    made = TTTLayer(loop, 12, heads=2, value_width=5, key_width=6, tile=6).double()
    for p in made.coefficients.parameters():
        torch.nn.init.normal_(p, std=0.3)
    assert list(made.coefficients) == list(loop.coefficients)
    found = modes(made)
    assert "parallel" in found
    expected = outputs(made, "recurrent", tokens())
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in expected)
    for mode in found:
        for one, other in zip(outputs(made, mode, tokens()), expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-11), mode


@pytest.mark.parametrize("name", OWN)
def test_coefficients_are_within_their_ranges(name):
    """Over the chunk's length for the one that scales the gradient."""
    loop = own(name, EARLY)
    made = TTTLayer(loop, 12, heads=2, value_width=5, key_width=6).double()
    for p in made.coefficients.parameters():
        torch.nn.init.normal_(p, std=30)
    *_, found = made.project(tokens(), waiting=0)
    scaling = {"averaged": "eta"}.get(name, "theta")
    for n, c in loop.coefficients.items():
        share = 4 if n == scaling else 1
        low = -math.inf if c.range[0] is None else c.range[0]
        high = math.inf if c.range[1] is None else c.range[1]
        values = found[n] * share
        assert values.min() >= low and values.max() <= high
        if c.every == "step" and math.isfinite(low) and math.isfinite(high):
            assert values.min() < low + 0.1 * (high - low)
            assert values.max() > high - 0.1 * (high - low)
        sides = {"row": (6,), "column": (5,), "entry": (6, 5)}.get(c.shape, ())
        times = (2, 3) if c.every == "step" else ()
        assert values.shape == (*times, *((2,) if times or sides else ()), *sides)


def test_a_loop_that_no_theorem_covers_runs_step_by_step():
    """And says so; other modes are refused with the cause."""
    for net, told in ((MLP(2, bias=True), "no bias"), (MLP(2, output_activation="tanh"), "linear")):
        loop = InnerLoop(net, SquaredError(), schedule=Schedule(3))
        made = TTTLayer(loop, 12, heads=2).double()
        assert told in str(made) and "not covered, so recurrent" in str(made)
        assert modes(made) == ["recurrent", "auto"]
        assert mode_for(loop, made.sizes, torch.float32, "cuda") == "recurrent"
        x = tokens(6)
        q, k, v, coefficients = made.project(x, waiting=0)
        weights = made.initial(torch.float64)
        o, _ = run_loop(loop, q, k, v, weights=weights, coefficients=coefficients)
        assert torch.allclose(made(x), made.read(o, x), rtol=1e-9, atol=1e-11)
        with pytest.raises(ValueError, match=rf"for mode 'parallel'; .*{told}.*mode='auto'"):
            made.mode = "parallel"


@pytest.mark.parametrize(
    ("loop", "count"),
    [
        (InnerLoop(Linear(), Frobenius(), GradientStep(), Schedule(read_with="key")), 8),
        (InnerLoop(Linear(), Frobenius(), MOMENTUM, Schedule(16, "before_update")), 8),
        (InnerLoop(GLU(), SquaredError(), GradientStep("per_token", "inside"), EARLY), 3),
    ],
    ids=["keys", "before the first update", "a short chunk"],
)
def test_every_parameter_takes_part_in_every_call(loop, count):
    """As distributed training asks: one that is not read has a gradient of zero."""
    made = TTTLayer(loop, 12, heads=2)
    for run in (made, lambda x: made.feed(x, last=True)[0]):
        y = run(tokens(count).float())
        slopes = torch.autograd.grad(y.square().sum(), [*made.parameters()])
        assert any(not z.any() for z in slopes) and any(z.any() for z in slopes)


@pytest.mark.parametrize(
    ("name", "most"), [("momentum", 1), ("delta rule", 1), ("recurrence", 2), ("matrices", 2)]
)
def test_the_layer_compiles_to_one_graph_whatever_the_length(name, most):
    """Scans have another where a token is missing in the last tile, for torch then knows a 1."""
    made, graphs = TTTLayer(LOOPS[name], 12, heads=2, mode="parallel", tile=4).double(), []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    run = torch.compile(made, backend=backend, fullgraph=True, dynamic=True)
    for count in (5, 6, 7):
        assert torch.allclose(run(tokens(count)), made(tokens(count)), rtol=1e-9, atol=1e-11)
    assert 1 <= len(graphs) <= most


@pytest.mark.parametrize(
    "schedule", [Schedule(read_with="key"), Schedule(16, "before_update")], ids=str
)
def test_data_parallel_training_finds_no_parameter_unused(schedule):
    """Of queries, or of rates when no chunk is read after an update, nothing is in the output."""
    loop = InnerLoop(Linear(), Frobenius(), GradientStep("per_step"), schedule)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        made = nn.parallel.DistributedDataParallel(TTTLayer(loop, 12, heads=2))
        for _ in range(2):  # the second call looks for gradients that the first left out
            made(torch.randn(2, 8, 12)).square().sum().backward()
    finally:
        distributed.destroy_process_group()
    assert all(p.grad is not None for p in made.parameters())
