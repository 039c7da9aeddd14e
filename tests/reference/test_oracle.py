"""The oracle does by autograd what the update rule says by hand."""

import inspect
import math
from fractions import Fraction as F
from pathlib import Path

import pytest
import torch

from tests.reference.samples import faulty, play, sample, sample_coefficients
from ttt_proofs import reference
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
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

HALF, QUARTER = F(1, 2), F(1, 4)
BEFORE = "before_update"

# Every example has one batch entry, one head and widths of 1, so that its numbers are plain
# numbers: (name, loop, (q, k, v), weights, rate, momentum, outputs, final weights).
QKV = ((1, 1, 2), (1, 2, 3), (2, 1, -1))
RATES, MOMENTA = (HALF, QUARTER, 1), (HALF, HALF, QUARTER)


def linear(loss=None, read="after_update", chunk=1, **update):
    """A loop over a linear net."""
    return InnerLoop(Linear(), loss or Frobenius(), GradientStep(**update), Schedule(chunk, read))


def per_step(place, read="after_update"):
    """A linear loop with rate and momentum per step."""
    return linear(read=read, rate="per_step", momentum="per_step", place=place)


# Frobenius, f = k W: the gradient is -k v = -2, -2, 3.
W = [F(1)]
W += [W[0] + HALF * 2]
W += [W[1] + HALF * 2]
W += [W[2] - HALF * 3]
assert tuple(W) == (1, 2, 3, F(3, 2))

# Constant momentum 1/2, rate 1/2 outside: M = -2, then -2 - 1, then 3 - 3/2.
MO = [F(1), 1 + HALF * 2, 2 + HALF * 3, F(7, 2) - HALF * F(3, 2)]

# Per step. Outside: M = -2, -2 + 1/2 (-2), 3 + 1/4 (-3). Inside: M = 1/2 (-2),
# 1/4 (-2) + 1/2 (-1), 1 (3) + 1/4 (-1).
OUT = [F(1), 1 + HALF * 2, 2 + QUARTER * 3, F(11, 4) - 1 * F(9, 4)]
IN = [F(1), F(1) + 1, F(2) + 1, F(3) - F(11, 4)]

# Squared error: the gradient is k (k W - v).
SQ = [F(1)]
SQ += [SQ[0] - HALF * 1 * (1 * SQ[0] - 2)]
SQ += [SQ[1] - HALF * 2 * (2 * SQ[1] - 1)]
SQ += [SQ[2] - HALF * 3 * (3 * SQ[2] + 1)]
assert tuple(SQ) == (1, F(3, 2), -HALF, QUARTER)

# The same in chunks of two tokens, of which the last has one: both tokens see W = 1.
CH = [F(1), 1 - HALF * (1 * (1 - 2) + 2 * (2 - 1))]
CH += [CH[1] - HALF * 3 * (3 * CH[1] + 1)]
assert tuple(CH) == (1, HALF, F(-13, 4))


def reads(q, weights):
    """What a linear net with these weights makes of the queries."""
    return [a * b for a, b in zip(q, weights, strict=True)]


Q = QKV[0]
LINEAR = [
    ("plain", linear(), HALF, None, reads(Q, W[1:]), W[3]),
    ("exclusive", linear(read=BEFORE), HALF, None, reads(Q, W[:3]), W[3]),
    ("inside, no momentum", linear(place="inside"), HALF, None, reads(Q, W[1:]), W[3]),
    ("ascent", linear(ascent=True), HALF, None, reads(Q, [0, -1, HALF]), HALF),
    ("momentum", linear(momentum="constant"), HALF, HALF, reads(Q, MO[1:]), MO[3]),
    ("no memory", linear(momentum="constant"), HALF, 0, reads(Q, W[1:]), W[3]),
    ("outside", per_step("outside"), RATES, MOMENTA, reads(Q, OUT[1:]), OUT[3]),
    ("outside, exclusive", per_step("outside", BEFORE), RATES, MOMENTA, reads(Q, OUT[:3]), OUT[3]),
    ("inside", per_step("inside"), RATES, MOMENTA, reads(Q, IN[1:]), IN[3]),
    ("inside, exclusive", per_step("inside", BEFORE), RATES, MOMENTA, reads(Q, IN[:3]), IN[3]),
    ("squared error", linear(SquaredError()), HALF, None, reads(Q, SQ[1:]), SQ[3]),
    ("chunks", linear(SquaredError(), chunk=2), HALF, None, [HALF, HALF, F(-13, 2)], CH[2]),
    ("chunks, exclusive", linear(SquaredError(), BEFORE, 2), HALF, None, [1, 1, 2 * HALF], CH[2]),
    ("chunk beyond the end", linear(chunk=8), QUARTER, None, reads(Q, [F(5, 4)] * 3), F(5, 4)),
]
EXAMPLES = [
    (name, loop, QKV, {"W": 1}, *rest[:-1], {"W": rest[-1]}) for name, loop, *rest in LINEAR
]


def deep(net, trained="all"):
    """A Frobenius loop over a net with hidden layers."""
    return InnerLoop(net, Frobenius(), trained=trained)


# f = relu(k W1) W2 with W1 = 2, W2 = 1. Features of the keys: 2, 4, 0 while W1 stays. If W1
# moves too: z = 2 and W2 + 2/2, W1 + 1/2 · 1 · 1; then z = 5 and W2 + 5/2, W1 + 1/2 · 2 · 2.
RELU = ((1, 1, 1), (1, 2, -1), (1, 1, 1))
EXAMPLES += [
    (
        "last only",
        deep(MLP(2, "relu"), "last"),
        RELU,
        {"W1": 2, "W2": 1},
        HALF,
        None,
        [2 * 2, 2 * 4, 2 * 4],
        {"W1": 2, "W2": 4},
    ),
    (
        "all",
        deep(MLP(2, "relu")),
        RELU,
        {"W1": 2, "W2": 1},
        HALF,
        None,
        [F(5, 2) * 2, F(9, 2) * F(9, 2), F(9, 2) * F(9, 2)],
        {"W1": F(9, 2), "W2": F(9, 2)},
    ),
    # f = relu(x W0) (x W2) W1 with W0, W2, W1 = 1, 2, 1. First token: gradients -2, -1, -2;
    # the gate of the second is shut; third: gate 2, content 5/2, gradients 5, 4, 5.
    (
        "gated",
        deep(SwiGLU("relu")),
        ((1, 1, -1), (1, -1, 1), (1, 1, -1)),
        {"W0": 1, "W2": 2, "W1": 1},
        HALF,
        None,
        [2 * F(5, 2) * 2, 10, HALF * -HALF * -HALF],
        {"W0": -HALF, "W2": HALF, "W1": -HALF},
    ),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0])
def test_three_tokens_by_hand(example):
    _, *arguments, outputs, final = example
    o, weights = play(run_loop, *arguments)
    assert o == [float(x) for x in outputs]
    assert weights == {name: float(w) for name, w in final.items()}


# Each a change to the oracle's source that some example above must notice.
PLANTED = [
    ("library_update", "way * (outside * step)", "outside * step"),
    ("library_update", "1 if ascent else -1", "-1"),
    ("library_update", "1 if ascent else -1", "-1 if ascent else 1"),
    (
        "library_update",
        "moved = state[name] + way * (outside * step)",
        "moved = state[name] + way * step",
    ),
    ("library_update", "step = inside * slope", "step = slope"),
    (
        "library_update",
        "memory[name] = step + alpha * memory[name]",
        "memory[name] = step + memory[name]",
    ),
    ("library_update", "= step + alpha * memory[name]", "= alpha * (step + memory[name])"),
    ("library_update", "= step + alpha * memory[name]", "= step - alpha * memory[name]"),
    ("library_update", "if momentum:", "if False:"),
    ("library_update", 'place == "inside"', 'place == "outside"'),
    ("library", 'schedule.read == "before_update"', "True"),
    ("library", 'schedule.read == "after_update"', 'schedule.read == "before_update"'),
    ("library", "rates[:, :, chunk, ", "rates[:, :, chunk - 1, "),
    ("library", "momenta[:, :, chunk, ", "momenta[:, :, chunk - 1, "),
    ("library", "slice(start, start + schedule.chunk)", "slice(start, start + schedule.chunk - 1)"),
    ("library", "range(0, asked.shape[2], schedule", "range(0, asked.shape[2] - 1, schedule"),
    ("arguments", "-(-length // loop.schedule.chunk)", "length // loop.schedule.chunk"),
    ("written_nets", "return -(f * v).sum(-1)", "return (f * v).sum(-1)"),
    ("written_nets", "((f - v) ** 2).sum(-1) / 2", "((f - v) ** 2).sum(-1)"),
    ("written_nets", "((f - v) ** 2).sum(-1) / 2", "((f + v) ** 2).sum(-1) / 2"),
    ("library", "weighed[:, :, :count].sum()", "weighed[:, :, :count].mean()"),
    ("library", "in inner.loop.fast_weights", "in inner.loop.net.weights"),
    ("library", "in inner.loop.fast_weights", "in inner.loop.net.weights[-1:]"),
    ("library", "inner.k[:, :, here], inner.v", "inner.k[:, :, here].abs(), inner.v"),
    ("written_nets", '* (x @ w["W2"])', '+ (x @ w["W2"])'),
    (
        "written_nets",
        '(ENTRYWISE[net.activation](x @ w["W0"]) * (x @ w["W2"]))',
        '((x @ w["W0"]) * (x @ w["W2"]))',
    ),
    ("written_nets", 'ENTRYWISE[net.activation](x @ w[f"W{layer}"])', 'x @ w[f"W{layer}"]'),
]


@pytest.mark.parametrize(("module", "sound", "fault"), PLANTED)
def test_planted_fault_is_noticed(module, sound, fault, tmp_path):
    with faulty(tmp_path, module, sound, fault) as run:
        assert any(differs(run, *rest) for _, *rest in EXAMPLES)


def differs(run, loop, qkv, weights, rate, momentum, outputs, final):
    """Whether a faulty oracle fails on the example, or does something else."""
    try:
        o, w = play(run, loop, qkv, weights, rate, momentum)
    except (RuntimeError, ValueError, IndexError):
        return True
    return o != [float(x) for x in outputs] or w != {name: float(x) for name, x in final.items()}


def sigma(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-x))


def gelu(x):
    """GELU in its tanh form."""
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x):
    """Its derivative."""
    inner = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return (1 + inner) / 2 + x / 2 * (1 - inner**2) * slope


WRITTEN = {
    "identity": (lambda x: x, lambda x: 1.0),
    "relu": (lambda x: max(x, 0.0), lambda x: float(x > 0)),
    "sigmoid": (sigma, lambda x: sigma(x) * (1 - sigma(x))),
    "silu": (lambda x: x * sigma(x), lambda x: sigma(x) * (1 + x * (1 - sigma(x)))),
    "tanh": (math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "gelu_tanh": (gelu, gelu_slope),
}


@pytest.mark.parametrize("place", ["hidden", "gate", "output"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", list(WRITTEN))
def test_each_activation_and_its_slope(name, sign, place):
    function, slope = WRITTEN[name]
    k, v, a, b, c, eta = 0.7 * sign, 0.3, 1.1, -0.4, 0.9, 0.25
    z = k * a
    if place == "hidden":  # f = act(k W1) W2
        net, start = MLP(2, name), {"W1": a, "W2": b}
        final = {"W1": a + eta * k * slope(z) * b * v, "W2": b + eta * function(z) * v}
        read = function(k * final["W1"]) * final["W2"]
    elif place == "gate":  # f = act(k W0) (k W2) W1
        net, start = SwiGLU(name), {"W0": a, "W2": b, "W1": c}
        final = {
            "W0": a + eta * k * slope(z) * (k * b) * c * v,
            "W2": b + eta * k * function(z) * c * v,
            "W1": c + eta * function(z) * (k * b) * v,
        }
        read = function(k * final["W0"]) * (k * final["W2"]) * final["W1"]
    else:  # f = act(k W1), a last layer that is not linear
        net, start = MLP(1, "identity", output_activation=name), {"W1": a}
        final = {"W1": a + eta * k * slope(z) * v}
        read = function(k * final["W1"])
    o, weights = play(run_loop, deep(net), ((k,), (k,), (v,)), start, eta, None)
    assert o == pytest.approx([read], rel=1e-14, abs=0)
    assert weights == pytest.approx(final, rel=1e-14, abs=0)


def test_matrices_by_their_formula():
    """Frobenius over a linear net: S_t = W + η Σ k_iᵀ v_i, each batch entry and head alone."""
    (q, k, v), weights = sample(linear())
    o, final = run_loop(linear(), q, k, v, weights=weights, coefficients={"eta": 0.5})
    state = weights["W"] + 0.5 * torch.einsum(
        "bihk,bihv,ti->bthkv", k, v, torch.ones(5, 5).tril().double()
    )
    torch.testing.assert_close(o, torch.einsum("bthk,bthkv->bthv", q, state))
    torch.testing.assert_close(final["W"], state[:, -1])


LOOPS = {
    "linear": linear(SquaredError(), chunk=2),
    "momentum": per_step("inside"),
    "outside": InnerLoop(
        MLP(3, "tanh"), SquaredError(), GradientStep("per_step", momentum="per_step"), Schedule(2)
    ),
    "gated": InnerLoop(SwiGLU(), Frobenius(), GradientStep("per_step", ascent=True), Schedule(1)),
    "last": InnerLoop(
        MLP(2, "gelu_tanh"), SquaredError(), schedule=Schedule(2, BEFORE), trained="last"
    ),
}


@pytest.mark.parametrize("name", list(LOOPS))
def test_outer_gradients_match_differences(name):
    loop = LOOPS[name]
    qkv, weights = sample(loop, batch=2, length=3, heads=1, key=2, value=2, hidden=2)
    given = sample_coefficients(loop, batch=2, length=3, heads=1)

    def function(q, k, v, *rest):
        coefficients = dict(zip(given, rest, strict=False))
        named = dict(zip(weights, rest[len(given) :], strict=True))
        o, final = run_loop(loop, q, k, v, weights=named, coefficients=coefficients)
        return o, *final.values()

    leaves = [x.requires_grad_() for x in (*qkv, *given.values(), *weights.values())]
    assert torch.autograd.gradcheck(function, leaves)
    o, final = function(*leaves)[:2]
    for x in given.values():
        slope = torch.autograd.grad(o.sum() + final.sum(), x, retain_graph=True)[0]
        assert slope.abs().sum() > 0


@pytest.mark.parametrize("leaf", ["q", "k", "v", "weight", "rate", "none"])
def test_results_need_gradients_only_if_some_argument_does(leaf):
    (q, k, v), weights = sample(linear())
    rate = torch.tensor(0.1)
    named = {"q": q, "k": k, "v": v, "weight": weights["W"], "rate": rate}
    if leaf in named:
        named[leaf].requires_grad_()
    o, _ = run_loop(linear(), q, k, v, weights=weights, coefficients={"eta": rate})
    assert o.requires_grad is (leaf != "none")
    with torch.no_grad():
        quiet, final = run_loop(linear(), q, k, v, weights=weights, coefficients={"eta": rate})
    assert not quiet.requires_grad and not final["W"].requires_grad
    assert torch.equal(o, quiet)


def test_arguments_are_left_alone_and_results_are_new():
    loop = LOOPS["last"]
    qkv, weights = sample(loop)
    tensors = [*qkv, *weights.values()]
    before = [x.clone() for x in tensors]
    o, final = run_loop(loop, *qkv, weights=weights, coefficients={"eta": 0.1})
    for x in (o, *final.values()):
        x.fill_(torch.nan)
    assert all(map(torch.equal, tensors, before))
    assert not any(x.requires_grad for x in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_precision_is_computed_in_float64(dtype):
    qkv, weights = sample(linear(), dtype=dtype)
    o, final = run_loop(linear(), *qkv, weights=weights, coefficients={"eta": 0.5})
    wide = {name: w.double() for name, w in weights.items()}
    expected, _ = run_loop(
        linear(), *(x.double() for x in qkv), weights=wide, coefficients={"eta": 0.5}
    )
    assert o.dtype == final["W"].dtype == torch.float64
    assert torch.equal(o, expected)


def test_nan_stays():
    (q, k, v), weights = sample(linear())
    k[0, 2, 0, 0] = torch.nan
    o, _ = run_loop(linear(), q, k, v, weights=weights, coefficients={"eta": 0.5})
    assert o[0, 2:, 0].isnan().all()
    assert not o[0, :2].isnan().any() and not o[1].isnan().any() and not o[:, :, 1].isnan().any()


@pytest.mark.parametrize("name", list(LOOPS))
@pytest.mark.parametrize(("batch", "length"), [(2, 0), (0, 5), (0, 0)])
def test_nothing_in_nothing_out(name, batch, length):
    loop = LOOPS[name]
    (q, k, v), weights = sample(loop, batch, length)
    given = sample_coefficients(loop, batch, length)
    o, final = run_loop(loop, q.requires_grad_(), k, v, weights=weights, coefficients=given)
    assert o.shape == v.shape and o.dtype == torch.float64
    for key, weight in weights.items():
        assert final[key].shape == (batch, *weight.shape)
        assert torch.equal(final[key], weight.expand(batch, *weight.shape))


@pytest.mark.parametrize(
    ("net", "loss", "arrived"),
    [
        (Features(), Frobenius(), "`phi` must be a concrete function .*; got an abstract one"),
        (Linear(), AbstractLoss(), "`ell` must be a concrete function .*; got an abstract one"),
        (MLP(2, "psi"), Frobenius(), "`psi` must be a concrete function .*; got an abstract one"),
        (SwiGLU("psi"), Frobenius(), "`psi` must be a concrete .*; got an abstract one"),
        (MLP(output_activation="psi"), Frobenius(), "`psi` must be a .*; got an abstract one"),
    ],
)
@pytest.mark.parametrize("length", [0, 5])
def test_what_cannot_be_run_is_refused(net, loss, arrived, length):
    loop = InnerLoop(net, loss)
    qkv, weights = sample(loop, length=length)
    with pytest.raises(ValueError, match=arrived + r".*\. (Put|Drop) .*\.$"):
        run_loop(loop, *qkv, weights=weights, coefficients={"eta": 0.1})


STEPS = InnerLoop(Linear(), Frobenius(), GradientStep("per_step", momentum="per_step"), Schedule(2))
ONES = torch.ones(2, 3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.ones(2, 5, 2)}, r"`q`, `k`, `v` must be .* got \[2, 5, 2\]"),
        ({"k": torch.ones(2, 4, 2, 3)}, r"got .*\[2, 4, 2, 3\]"),
        ({"v": torch.ones(2, 5, 1, 2)}, r"got .*\[2, 5, 1, 2\]"),
        ({"q": [[1.0]]}, r"`q`, `k`, `v` must be .* got \[\[1.0\]\]"),
        ({"weights": {}}, "`weights` must be named W; got none"),
        ({"weights": {"w": torch.ones(2, 3, 2)}}, "must be named W; got w"),
        ({"weights": {"W": torch.ones(1, 3, 2)}}, r"= \[2, 3, 2\] .* got \[1, 3, 2\]"),
        ({"weights": {"W": torch.ones(2, 3, 1)}}, r"= \[2, 3, 2\] .* got \[2, 3, 1\]"),
        ({"weights": {"W": torch.ones(2, 2, 3, 2)}}, r"got \[2, 2, 3, 2\]"),
        ({"coefficients": {"eta": 0.1, "alpha": ONES}}, r"\['eta'\]` must be a tensor \[B, N, H\]"),
        (
            {"coefficients": {"eta": ONES, "alpha": 0.1}},
            r"= \[2, 3, 2\], one for each step; got 0.1",
        ),
        ({"coefficients": {"eta": torch.ones(2, 5, 2), "alpha": ONES}}, r"got \[2, 5, 2\]"),
        ({"coefficients": {"eta": ONES, "alpha": torch.ones(2, 3, 1)}}, r"got \[2, 3, 1\]"),
        ({"coefficients": {"eta": ONES, "alpha": True}}, r"\['alpha'\]` must .* got True"),
        ({"coefficients": {"eta": ONES}}, "must be a dict of eta, alpha, .*got a dict of eta"),
        ({"coefficients": {"eta": ONES, "Alpha": ONES}}, "got a dict of eta, Alpha"),
        ({"coefficients": None}, "must be a dict of eta, alpha, .*got a dict of nothing"),
        ({"coefficients": 0.1}, "must be a dict of eta, alpha, .*got 0.1"),
        ({"loop": linear()}, "`coefficients` must be a dict of eta, which .*got a dict of eta, al"),
        ({"loop": linear(), "coefficients": {"eta": "a"}}, "must be one number.* got 'a'"),
        ({"loop": linear(), "coefficients": {"eta": ONES}}, r"one number.* got \[2, 3, 2\]"),
        ({"loop": linear(rate=None)}, "must be a dict of nothing, .*got a dict of eta, alpha"),
    ],
)
def test_what_does_not_match_is_refused(change, message):
    (q, k, v), weights = sample(STEPS)
    given = {"loop": STEPS, "q": q, "k": k, "v": v, "weights": weights}
    given |= {"coefficients": {"eta": ONES, "alpha": ONES}} | change
    with pytest.raises(ValueError, match=message):
        run_loop(**given)


@pytest.mark.parametrize("name", ["W0", "W2", "W1"])
def test_a_hidden_width_that_would_broadcast_is_refused(name):
    qkv, weights = sample(deep(SwiGLU()))
    weights[name] = weights[name][..., :1]
    with pytest.raises(ValueError, match=r"must be \[H, rows, cols\]"):
        run_loop(deep(SwiGLU()), *qkv, weights=weights, coefficients={"eta": 0.1})


def test_the_oracle_uses_nothing_that_it_checks():
    derived = (
        ".traced",
        ".assignments",
        ".gradient",
        ".expression",
        ".features",
        ".outputs",
        ".gate",
        "loops.",
        "ACTIVATIONS",
        "loop.rule",
        "update.rule",
        "symbolic",
        "parallel",
    )
    files = list(Path(inspect.getfile(reference)).parent.glob("*.py"))
    assert len(files) > 1
    for file in files:
        source = file.read_text(encoding="utf-8").replace("ttt_proofs.loops import", "")
        assert not [name for name in derived if name in source]
        runs_code = file.stem in ("by_autograd", "token_by_token")  # what users wrote, and no more
        assert runs_code or ".function" not in source
