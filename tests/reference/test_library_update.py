"""What the update rule, the schedule and the nets can do, by hand and by a second formulation."""

import math
from fractions import Fraction as F
from functools import partial

import pytest
import torch

from tests.reference.samples import faulty, numbers, play, sample, sample_coefficients
from ttt_proofs.loops import (
    GLU,
    MLP,
    AbstractLoss,
    AnyNet,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.reference import run_loop

HALF, QUARTER = F(1, 2), F(1, 4)
QKV = ((1, 1, 2), (1, 2, 3), (2, 1, -1))  # the gradients of Frobenius are -k v = -2, -2, 3
RATES = (HALF, QUARTER, 1)
EPSILON, TINY = 1e-5, 1e-7
NEWTON_SCHULZ = [
    [4.0848, -6.8946, 2.9270],
    [3.9505, -6.3029, 2.6377],
    [3.7418, -5.5913, 2.3037],
    [2.8769, -3.1427, 1.2046],
    [2.8366, -3.0525, 1.2012],
]


def linear(loss=Frobenius, rate="constant", schedule=None, **update):
    """A loop over a linear net."""
    return InnerLoop(Linear(), loss(), GradientStep(rate, **update), schedule or Schedule())


def muon(x):
    """What Muon makes of one number."""
    x = x / (abs(x) + TINY)
    for a, b, c in NEWTON_SCHULZ:
        x = a * x + b * x**3 + c * x**5
    return x


def restored(w, initial=1.0):
    """A weight of one number with the norm it had."""
    return w * initial / (abs(w) + EPSILON)


def clipped(g):
    """A gradient of one number, over its norm plus 1."""
    return g / (abs(g) + 1)


# Momenta per token, in chunks of 2, 2 and 1: gradients -3, -7, -5, means of the momenta 3/8, 1/2.
FIVE = ((1, 1, 2, 2, 1), (1,) * 5, (1, 2, 3, 4, 5))
AVERAGED = [F(1), 1 + F(3), 4 + (7 + F(3, 8) * 3), F(97, 8) + (5 + HALF * F(65, 8))]

# Muon with momentum 1/2 and rate 1/4: the accumulator holds 2, 2 + 1, -3 + 3/2, or minus that.
MUON = [1.0]
for accumulated in (2.0, 3.0, -1.5):
    MUON.append(MUON[-1] + 0.25 * muon(accumulated))
CLIMB = [2 - w for w in MUON]
SIGNS = [1, 1 + muon(2), 1 + 2 * muon(2), 1 + 2 * muon(2) - muon(3)]

# Clipped inside, with rate 1/2, 1/4, 1: steps of 1/2, 1/3, -3/4. Outside: rates times 2/3 and 3/4.
INSIDE = [1, F(3, 2), F(11, 6), F(11, 6) - F(3, 4)]
OUTSIDE = [1, 1 + HALF * F(2, 3), F(4, 3) + QUARTER * F(2, 3), F(3, 2) - F(3, 4)]

# Weight norm from W = 1 with no rate; from W = -3 it ends at -3 or 3, which keeps the norm 3.
NORM = [1.0]
for step in (2, 2, -3):
    NORM.append(restored(NORM[-1] + step))
THREE = [-3.0]
for step in (2, 2, -3):
    THREE.append(restored(THREE[-1] + step, 3.0))

# All at once, on squared error: rate inside, clip, momentum 1/2, Muon, weight norm, two steps.
ALL, memory = [1.0], 0.0
for k, v, rate in zip(QKV[1], QKV[2], (0.5, 0.25, 1.0), strict=True):
    w = ALL[-1]
    for _ in range(2):
        memory = -clipped(rate * k * (k * w - v)) + 0.5 * memory
        w = restored(w + muon(memory))
    ALL.append(w)
EVERYTHING = linear(
    SquaredError,
    "per_step",
    place="inside",
    momentum="constant",
    clip="column_norm",
    orthogonal="muon",
    weight_norm="initial_norm",
    schedule=Schedule(steps=2),
)


def reads(weights, asked=QKV[0]):
    """What a linear net with these weights makes of the queries."""
    return [a * b for a, b in zip(asked, weights, strict=True)]


def chunks(chunk, read="causal", **schedule):
    """A schedule."""
    return Schedule(chunk, read, **schedule)


def per_token(net=None, chunk=2):
    """A loop with a rate for each token and weight."""
    update = GradientStep("per_token", place="inside")
    return InnerLoop(net or Linear(), Frobenius(), update, Schedule(chunk))


W1 = {"W": 1}
# (name, loop, (q, k, v), weights, rate, momentum, outputs, final weights), each of one number.
EXAMPLES = [
    ("no rate", linear(rate=None), QKV, W1, None, None, reads([3, 5, 2]), {"W": 2}),
    (
        "rate per token",
        per_token(),
        QKV,
        W1,
        {"W": RATES},
        None,
        reads([F(5, 2), F(5, 2), -HALF]),
        {"W": -HALF},
    ),
    (
        "rate per token, chunk 1",
        per_token(chunk=1),
        QKV,
        W1,
        {"W": RATES},
        None,
        reads([2, F(5, 2), -HALF]),
        {"W": -HALF},
    ),
    # f = relu(k W0) (k W1): gradients -2, -4 in W0 = 2 and -4, -8 in W1 = 1.
    (
        "another rate for each weight",
        per_token(GLU("relu")),
        ((1, 1), (1, 2), (2, 1)),
        {"W0": 2, "W1": 1},
        {"W0": (HALF, QUARTER), "W1": (QUARTER, HALF)},
        None,
        [24, 24],
        {"W0": 4, "W1": 6},
    ),
    (
        "momentum per token",
        linear(rate=None, momentum="per_token", schedule=Schedule(2)),
        FIVE,
        W1,
        None,
        (HALF, 1, HALF, QUARTER, HALF),
        reads([AVERAGED[n] for n in (1, 1, 2, 2, 3)], FIVE[0]),
        {"W": AVERAGED[3]},
    ),
    (
        "Muon",
        linear(momentum="constant", orthogonal="muon"),
        QKV,
        W1,
        QUARTER,
        HALF,
        reads(MUON[1:]),
        {"W": MUON[3]},
    ),
    (
        "Muon, ascent",
        linear(momentum="constant", orthogonal="muon", ascent=True),
        QKV,
        W1,
        QUARTER,
        HALF,
        reads(CLIMB[1:]),
        {"W": CLIMB[3]},
    ),
    (
        "Muon, no momentum",
        linear(rate=None, orthogonal="muon"),
        QKV,
        W1,
        None,
        None,
        reads(SIGNS[1:]),
        {"W": SIGNS[3]},
    ),
    (
        "Muon of nothing",
        linear(rate=None, orthogonal="muon"),
        (*QKV[:2], (0, 0, 0)),
        W1,
        None,
        None,
        reads([1, 1, 1]),
        {"W": 1},
    ),
    (
        "clip inside",
        linear(rate="per_step", place="inside", clip="column_norm"),
        QKV,
        W1,
        RATES,
        None,
        reads(INSIDE[1:]),
        {"W": INSIDE[3]},
    ),
    (
        "clip outside",
        linear(rate="per_step", clip="column_norm"),
        QKV,
        W1,
        RATES,
        None,
        reads(OUTSIDE[1:]),
        {"W": OUTSIDE[3]},
    ),
    (
        "weight norm",
        linear(rate=None, weight_norm="initial_norm"),
        QKV,
        W1,
        None,
        None,
        reads(NORM[1:]),
        {"W": NORM[3]},
    ),
    (
        "weight norm of 3",
        linear(rate=None, weight_norm="initial_norm"),
        QKV,
        {"W": -3},
        None,
        None,
        reads(THREE[1:]),
        {"W": THREE[3]},
    ),
    ("everything", EVERYTHING, QKV, W1, RATES, HALF, reads(ALL[1:]), {"W": ALL[3]}),
    # Squared error: the gradient is k (k W - v); with momentum 1/2 M is -1, -1, 11/2, -9/4.
    (
        "two steps",
        linear(SquaredError, schedule=Schedule(steps=2)),
        ((1,), (1,), (2,)),
        W1,
        HALF,
        None,
        [F(7, 4)],
        {"W": F(7, 4)},
    ),
    (
        "two steps, momentum",
        linear(SquaredError, momentum="constant", schedule=Schedule(steps=2)),
        ((1, 1), (1, 2), (2, 1)),
        W1,
        HALF,
        HALF,
        [2, F(3, 8)],
        {"W": F(3, 8)},
    ),
    (
        "two steps, exclusive",
        linear(SquaredError, momentum="constant", schedule=chunks(1, "before_update", steps=2)),
        ((1, 1), (1, 2), (2, 1)),
        W1,
        HALF,
        HALF,
        [1, 2],
        {"W": F(3, 8)},
    ),
    # Causal: the gradients at W = 1 are -1 and 2; at W = 1/2 they are 15/2 and 1/2.
    (
        "causal",
        linear(SquaredError, schedule=chunks(2)),
        QKV,
        W1,
        HALF,
        None,
        reads([F(3, 2), HALF, F(-13, 4)]),
        {"W": F(-13, 4)},
    ),
    (
        "causal, momentum",
        linear(SquaredError, momentum="constant", schedule=chunks(2)),
        ((1, 1, 2, 1), (1, 2, 3, 1), (2, 1, -1, 0)),
        W1,
        HALF,
        HALF,
        [F(3, 2), HALF, -7, F(-15, 4)],
        {"W": F(-15, 4)},
    ),
    (
        "causal is inclusive for one token",
        linear(SquaredError, schedule=chunks(1)),
        QKV,
        W1,
        HALF,
        None,
        reads([F(3, 2), -HALF, QUARTER]),
        {"W": QUARTER},
    ),
    (
        "read with keys",
        linear(schedule=Schedule(read_with="key")),
        QKV,
        W1,
        HALF,
        None,
        reads([2, 3, F(3, 2)], QKV[1]),
        {"W": F(3, 2)},
    ),
    (
        "causal, with keys",
        linear(schedule=chunks(3, read_with="key")),
        QKV,
        W1,
        HALF,
        None,
        reads([2, 3, F(3, 2)], QKV[1]),
        {"W": F(3, 2)},
    ),
    (
        "values negated",
        linear(lambda: NegatedValues(Frobenius())),
        QKV,
        W1,
        HALF,
        None,
        reads([0, -1, HALF]),
        {"W": HALF},
    ),
    (
        "squared error, values negated",
        linear(lambda: NegatedValues(SquaredError())),
        ((1,), (1,), (2,)),
        W1,
        HALF,
        None,
        [-HALF],
        {"W": -HALF},
    ),
]


def agrees(run, loop, qkv, weights, rate, momentum, outputs, final):
    """Whether the oracle gives what was computed by hand, up to rounding."""
    o, w = play(run, loop, qkv, weights, rate, momentum)
    close = partial(pytest.approx, rel=1e-14, abs=1e-14)
    return o == close([float(x) for x in outputs]) and w == close(
        {name: float(x) for name, x in final.items()}
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0])
def test_by_hand(example):
    assert agrees(run_loop, *example[1:])


# An image of one row, k = 1, 2, 3, which the window's middle row (2, 1, -1) turns into
# 1·1 - 2, 2·1 + 2 - 3, 2·2 + 3; the gradient with v = 1, 0, 2 is -(v_p k_{p+d} summed): 4, 7, 2.
ROW = InnerLoop(DepthwiseConv(3, 1, 3), Frobenius(), GradientStep(), Schedule(3, "before_update"))
WINDOW = torch.tensor([9.0, 9, 9, 2, 1, -1, 9, 9, 9], dtype=torch.float64).view(1, 9, 1)


def row(run):
    """The outputs and how the window moves."""
    k, v = numbers((1, 2, 3)), numbers((1, 0, 2))
    o, final = run(ROW, k, k, v, weights={"W": WINDOW}, coefficients={"eta": 1.0})
    return o.flatten().tolist(), (final["W"][0] - WINDOW).flatten().tolist()


def test_convolution_by_hand():
    assert row(run_loop) == ([-1, 1, 7], [0, 0, 0, 4, 7, 2, 0, 0, 0])


# k = 1, 2, 2 and v = 1, 5: the gradient's columns have norms 3 and 15. W's columns have norms
# 3 and 2, and W + r k v is W + k/4, W + 5 k/16.
BOTH_COLUMNS = linear(rate=None, clip="column_norm", weight_norm="initial_norm")


def columns(run):
    """The final weight and what it should be."""
    k = torch.tensor([1.0, 2, 2], dtype=torch.float64)
    w = torch.tensor([[2.0, 0], [2, 2], [1, 0]], dtype=torch.float64)
    v = torch.tensor([1.0, 5], dtype=torch.float64).view(1, 1, 1, 2)
    _, final = run(BOTH_COLUMNS, *[k.view(1, 1, 1, 3)] * 2, v, weights={"W": w[None]})
    first = [2 + 1 / 4, 2 + 2 / 4, 1 + 2 / 4]
    second = [5 / 16, 2 + 10 / 16, 10 / 16]
    wanted = []
    for column, norm in ((first, 3), (second, 2)):
        length = math.sqrt(sum(x * x for x in column)) + EPSILON
        wanted.append([x * norm / length for x in column])
    return final["W"][0, 0].mT.tolist(), wanted


def test_columns_are_clipped_and_restored_by_hand():
    ours, wanted = columns(run_loop)
    for column, by_hand in zip(ours, wanted, strict=True):
        assert column == pytest.approx(by_hand, rel=1e-14)


def orthogonal_step(run, rows, cols, name="muon"):
    """A gradient -K Vᵀ of this shape, with full rank, and the step that the rule makes of it."""
    loop = linear(rate=None, orthogonal=name, schedule=Schedule(6))
    (q, k, v), weights = sample(loop, length=6, key=rows, value=cols)
    start = {"W": torch.zeros_like(weights["W"])}
    direction = torch.einsum("bthk,bthv->bhkv", k, v)
    return direction, run(loop, q, k, v, weights=start)[1]["W"]


def by_singular_values(matrix):
    """Muon as it acts on singular values: `U p(Σ/‖G‖) Vᵀ`, p the five polynomials in a row."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / (values.square().sum(-1, keepdim=True).sqrt() + TINY)
    for a, b, c in NEWTON_SCHULZ:
        values = a * values + b * values**3 + c * values**5
    return (left * values[..., None, :]) @ right


SHAPES = [(3, 3), (2, 5), (5, 2), (1, 4), (4, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_muon_acts_on_singular_values(shape):
    direction, ours = orthogonal_step(run_loop, *shape)
    torch.testing.assert_close(ours, by_singular_values(direction), rtol=1e-11, atol=1e-12)
    values = torch.linalg.svdvals(ours)
    assert values.min() > 0.5 and values.max() < 1.3  # near 1, as orthogonal matrices have them


def rounded(x):
    """The nearest bfloat16 numbers, in float64."""
    return x.to(torch.bfloat16).to(torch.float64)


def in_bfloat16(matrix):
    """Muon on one matrix, every operation in float64 and then rounded to bfloat16."""
    tall = len(matrix) >= len(matrix[0])
    x = rounded(matrix.T if tall else matrix)
    x = rounded(x / rounded(rounded(x.square().sum().sqrt()) + TINY))
    for a, b, c in NEWTON_SCHULZ:
        gram = rounded(x @ x.T)
        square = rounded(rounded(c * gram) @ gram)
        mixed = rounded(rounded(b * gram) + square)
        x = rounded(rounded(a * x) + rounded(mixed @ x))
    return x.T if tall else x


@pytest.mark.parametrize("shape", SHAPES)
def test_muon_in_bfloat16_rounds_at_every_operation(shape):
    direction, ours = orthogonal_step(run_loop, *shape, name="muon_bfloat16")
    _, exact = orthogonal_step(run_loop, *shape)
    assert torch.equal(ours, rounded(ours))
    wanted = torch.stack([in_bfloat16(x) for x in direction.flatten(0, 1)]).view_as(ours)
    # Sums in another order may round to a neighbour, 2^-8 away; those of float64 are further.
    near, far = ((ours - x).abs().max().item() for x in (wanted, exact))
    assert near <= 2**-7 < 2**-6 < far < 0.1


@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolution_is_that_of_torch(size):
    loop = InnerLoop(DepthwiseConv(size, 2, 4), Frobenius(), GradientStep(), Schedule(8))
    (q, k, v), weights = sample(loop, batch=3, length=8, heads=2, value=3)
    o, _ = run_loop(loop, q, k, v, weights=weights, coefficients={"eta": 0.0})
    images = q.permute(0, 2, 3, 1).reshape(3, 6, 2, 4)
    windows = weights["W"].mT.reshape(6, 1, size, size)
    wanted = torch.conv2d(images, windows, padding=size // 2, groups=6)
    torch.testing.assert_close(o, wanted.view(3, 2, 3, 8).permute(0, 3, 1, 2))


# Each a change to the oracle's source that something above must notice.
PLANTED = [
    ("library_update", "TINY = 1e-7", "TINY = 0.0"),
    ("library_update", "EPSILON = 1e-5", "EPSILON = 0.0"),
    ("library_update", "EPSILON = 1e-5", "EPSILON = 1e-6"),
    ("library_update", "3.9505, -6.3029", "3.9505, -6.3092"),
    ("library_update", "dim=-2, keepdim=True", "dim=-1, keepdim=True"),
    ("library_update", "dim=-2, keepdim=True", "dim=(-2, -1), keepdim=True"),
    ("library_update", "matrix_norm(x, keepdim=True)", "matrix_norm(x, 2, keepdim=True)"),
    ("library_update", "return x.mT if tall else x", "return x"),
    ("library_update", "(column_norms(step) + 1)", "column_norms(step)"),
    ("library_update", "return step / (column_norms(step) + 1)", "return step"),
    ("library_update", "way * step + alpha", "step + alpha"),
    ("library_update", "way * step + alpha", "-way * step + alpha"),
    ("library_update", "way * step + alpha * memory[name]", "way * step"),
    ("library_update", "state[name] + outside * OPERATORS", "state[name] + OPERATORS"),
    ("library_update", "state[name] + outside * OPERATORS", "state[name] - outside * OPERATORS"),
    ("library_update", "(moved, norms[name])", "(moved, column_norms(state[name]))"),
    ("library_update", "matrix.to(torch.bfloat16)", "matrix.to(torch.float32)"),
    ("library_update", "_muon(matrix.to(torch.bfloat16))", "_muon(matrix).to(torch.bfloat16)"),
    ("library", ".mean(1, keepdim=True)", ".sum(1, keepdim=True)"),
    ("library", ".mean(1, keepdim=True)", ".sum(1, keepdim=True) / chunk"),
    ("library", ".mean(1, keepdim=True)", "[:, :1]"),
    ("library", "rate[:, :, here] for", "rate[:, :, : here.stop - here.start] for"),
    ("library", "per_token * each[name] if name in each else per_token", "per_token"),
    ("library", "per_token * each[name] if", "per_token * next(iter(each.values())) if"),
    ("library", "memory, token + 1)", "memory, token)"),
    ("library", "memory, token + 1)", "memory, token + 2)"),
    ("library", "token : token + 1]", "-1:]"),
    ("library", "seen, _ = _step", "seen, memory = _step"),
    ("library", "seen, _ = _step(inner", "seen, state = _step(inner"),
    ("library", "range(schedule.steps)", "range(1)"),
    ("library", "inner.k if schedule.read_with", "inner.q if schedule.read_with"),
    ("written_nets", "sign * v", "v"),
    ("written_nets", '(x @ w["W1"])\n', '(x @ w["W0"])\n'),
    ("written_nets", "moved * windows", "wide[:, :, : net.height, : net.width] * windows"),
    ("written_nets", "windows[:, :, down, right]", "windows[:, :, -1 - down, -1 - right]"),
    ("written_nets", "windows[:, :, down, right]", "windows[:, :, right, down]"),
    ("written_nets", "margin, margin, margin)", 'margin, margin, margin), mode="replicate"'),
]


def all_agree(run):
    """Whether an oracle passes everything above; one that breaks down does not."""
    try:
        return compare(run)
    except (RuntimeError, IndexError):
        return False


def compare(run):
    """The comparisons themselves."""
    if not all(agrees(run, *rest) for _, *rest in EXAMPLES) or row(run) != row(run_loop):
        return False
    ours, wanted = columns(run)
    pairs = [(torch.tensor(ours), torch.tensor(wanted))]
    for shape in SHAPES:
        direction, step = orthogonal_step(run, *shape)
        pairs.append((step, by_singular_values(direction)))
        halves = [orthogonal_step(f, *shape, "muon_bfloat16")[1] for f in (run, run_loop)]
        pairs.append((halves[0], halves[1]))
    return all(torch.allclose(a, b, rtol=1e-11, atol=1e-12) for a, b in pairs)


def test_the_sound_oracle_is_not_suspected(tmp_path):
    with faulty(tmp_path, "library_update", "TINY = 1e-7", "TINY = 1.0e-7") as run:
        assert all_agree(run)


@pytest.mark.parametrize(("module", "sound", "fault"), PLANTED)
def test_planted_fault_is_noticed(module, sound, fault, tmp_path):
    with faulty(tmp_path, module, sound, fault) as run:
        assert not all_agree(run)


def rule(rate="constant", place="outside", schedule=None, net=None, loss=Frobenius, **rest):
    """A loop with its rule spelled in short."""
    trained = rest.pop("trained", "all")
    step = GradientStep(rate, place, **rest)
    return InnerLoop(net or MLP(2, "tanh"), loss(), step, schedule or Schedule(2), trained=trained)


TOKENS = partial(rule, "per_token", "inside")
LOOPS = {
    "no rate": rule(None, momentum="per_token", net=GLU()),
    "per token": TOKENS(momentum="per_token", net=SwiGLU(), schedule=Schedule(2, "before_update")),
    "last only": TOKENS(trained="last", loss=SquaredError),
    "clip": rule("per_step", "inside", clip="column_norm", momentum="per_token"),
    "weight norm": rule("per_step", weight_norm="initial_norm", ascent=True),
    "muon": TOKENS(
        momentum="per_token",
        orthogonal="muon",
        weight_norm="initial_norm",
        net=SwiGLU(),
        schedule=Schedule(2, "before_update"),
    ),
    "steps": rule(momentum="constant", loss=SquaredError, schedule=Schedule(2, steps=3)),
    "causal": rule(
        "per_token",
        "inside",
        momentum="per_token",
        net=Linear(),
        loss=SquaredError,
        schedule=chunks(3),
    ),
    "causal gate": rule("per_step", net=GLU(), trained="last", schedule=chunks(3, read_with="key")),
    "image": rule(
        net=DepthwiseConv(3, 1, 3),
        clip="column_norm",
        loss=lambda: NegatedValues(SquaredError()),
        schedule=chunks(3, "after_update"),
    ),
    "causal image": rule(net=DepthwiseConv(3, 3, 1), schedule=chunks(3)),
}


def given(loop, **sizes):
    """Everything that `run_loop` takes for a loop, as one dict."""
    (q, k, v), weights = sample(loop, **sizes)
    sizes = {name: sizes[name] for name in ("batch", "length", "heads") if name in sizes}
    numbers = sample_coefficients(loop, **sizes)
    return {"q": q, "k": k, "v": v, "weights": weights, "coefficients": numbers}


def flat(arguments):
    """The tensors among the arguments, those in dicts too."""
    return [
        x
        for value in arguments.values()
        for x in (value.values() if isinstance(value, dict) else [value])
    ]


def refill(arguments, tensors):
    """The arguments with other tensors, in the order of `flat`."""
    rest = iter(tensors)
    return {
        name: {key: next(rest) for key in value} if isinstance(value, dict) else next(rest)
        for name, value in arguments.items()
    }


@pytest.mark.parametrize("name", list(LOOPS))
def test_outer_gradients_match_differences(name):
    loop = LOOPS[name]
    arguments = given(loop, batch=1, length=3, heads=1, key=2, value=2, hidden=2)

    def function(*tensors):
        o, final = run_loop(loop, **refill(arguments, tensors))
        return o, *(final[weight.name] for weight in loop.net.weights)

    leaves = [x.requires_grad_() for x in flat(arguments)]
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("name", [*LOOPS, "bfloat16"])
def test_gradients_flow_to_every_argument(name):
    half = rule("per_token", "inside", momentum="per_token", orthogonal="muon_bfloat16")
    loop = half if name == "bfloat16" else LOOPS[name]
    arguments = given(loop, length=6)
    leaves = [x.requires_grad_() for x in flat(arguments)]
    o, final = run_loop(loop, **arguments)
    total = o.square().sum() + sum(w.square().sum() for w in final.values())
    unread = [arguments["q"]] if loop.schedule.read_with == "key" else []
    for leaf, slope in zip(
        leaves, torch.autograd.grad(total, leaves, allow_unused=True), strict=True
    ):
        if any(leaf is x for x in unread):
            assert slope is None
        else:
            assert slope.isfinite().all() and slope.abs().sum() > 0


@pytest.mark.parametrize("name", list(LOOPS))
def test_nothing_requires_gradients_where_none_are_taken(name):
    arguments = given(LOOPS[name], length=6)
    o, final = run_loop(LOOPS[name], **arguments)
    for x in flat(arguments):
        x.requires_grad_()
    with torch.no_grad():
        quiet, last = run_loop(LOOPS[name], **arguments)
    assert torch.equal(o, quiet)
    assert not any(x.requires_grad for x in (o, quiet, *final.values(), *last.values()))


@pytest.mark.parametrize("operator", ["muon", "muon_bfloat16", None])
def test_nothing_to_learn_leaves_weights_and_finite_gradients(operator):
    loop = rule(
        "per_step",
        "inside",
        net=Linear(),
        clip="column_norm",
        orthogonal=operator,
        weight_norm="initial_norm",
    )
    arguments = given(loop)
    arguments["v"].zero_()
    arguments["weights"]["W"][..., 0] = 0  # a column of norm 0
    leaves = [x.requires_grad_() for x in flat(arguments)]
    o, final = run_loop(loop, **arguments)
    assert torch.allclose(final["W"], arguments["weights"]["W"].expand_as(final["W"]), rtol=1e-3)
    assert all(x.isfinite().all() for x in torch.autograd.grad(o.sum(), leaves))


@pytest.mark.parametrize("name", list(LOOPS))
def test_heads_and_sequences_are_alone_and_nothing_is_changed(name):
    loop = LOOPS[name]
    arguments = given(loop, batch=2, length=6, heads=2)
    before = [x.clone() for x in flat(arguments)]
    o, final = run_loop(loop, **arguments)
    assert all(map(torch.equal, before, flat(arguments)))
    for b, h in ((0, 1), (1, 0)):

        def part(x, b=b, h=h):
            return x if x.ndim == 0 else x[b : b + 1, :, h : h + 1]

        alone = {key: part(arguments[key]) for key in "qkv"}
        alone["weights"] = {key: w[h : h + 1] for key, w in arguments["weights"].items()}
        alone["coefficients"] = {n: part(x) for n, x in arguments["coefficients"].items()}
        one, last = run_loop(loop, **alone)
        torch.testing.assert_close(one, part(o))
        for key, w in last.items():
            torch.testing.assert_close(w[0, 0], final[key][b, h])


@pytest.mark.parametrize("name", list(LOOPS))
@pytest.mark.parametrize(("batch", "length"), [(2, 0), (0, 6), (0, 0)])
def test_nothing_in_nothing_out(name, batch, length):
    arguments = given(LOOPS[name], batch=batch, length=length)
    arguments["v"].requires_grad_()
    o, final = run_loop(LOOPS[name], **arguments)
    assert o.shape == arguments["v"].shape
    for key, weight in arguments["weights"].items():
        assert torch.equal(final[key], weight.expand(batch, *weight.shape))


def test_a_causal_reading_of_one_chunk_sees_no_later_token():
    loop = linear(SquaredError, schedule=chunks(5))
    arguments = given(loop, length=5)
    o, _ = run_loop(loop, **arguments)
    for name in ("k", "v"):
        arguments[name][:, 3:] += 1
    changed, _ = run_loop(loop, **arguments)
    assert torch.equal(o[:, :3], changed[:, :3]) and not torch.equal(o[:, 3:], changed[:, 3:])


IMAGE = LOOPS["image"]
TOKEN_LOOP = LOOPS["per token"]
REFUSED = [
    (rule(net=AnyNet()), {}, "`f` must be a concrete function .*; got an abstract one.*Put"),
    (rule(net=Features()), {}, "`phi` must be a concrete function .*; got an abstract one.*Put"),
    (rule(loss=AbstractLoss), {}, "`ell` must be a concrete function .*; got an abstract one.*Put"),
    (rule(net=GLU("psi")), {}, "`psi` must be a concrete function .*; got an abstract one.*Put"),
    (rule(clip="shrink"), {}, "`shrink` must be a concrete function .*; got an abstract one.*Put"),
    (
        rule(orthogonal="shampoo"),
        {},
        "`shampoo` must be a concrete function .*; got an abstract one.*Put",
    ),
    (
        rule(weight_norm="unit"),
        {},
        "`unit` must be a concrete function .*; got an abstract one.*Put",
    ),
    (rule(None), {"coefficients": {"eta": 0.1}}, "must be a dict of nothing.*a dict of eta.*Give"),
    (rule(), {"coefficients": {}}, "must be a dict of eta, .* got a dict of nothing.*Give"),
    (rule(), {"coefficients": {"eta_W1": 0.1}}, "must be a dict of eta, .* dict of eta_W1.*Give"),
    (
        rule(None, momentum="per_token"),
        {"coefficients": {"alpha": torch.ones(2, 3, 2)}},
        r"\['alpha'\]` must be a tensor \[B, T, H\] = \[2, 6, 2\].*got \[2, 3, 2\].*Reshape",
    ),
    (TOKEN_LOOP, {"coefficients": {"eta": 0.1}}, "of alpha, eta_W0, eta_W2, eta_W1, .*Give"),
    (LOOPS["last only"], {"coefficients": {"eta_W1": 0.1}}, "of eta_W2, .*dict of eta_W1.*Give"),
    (
        LOOPS["last only"],
        {"coefficients": {"eta_W2": 0.1}},
        r"must be a tensor \[B, T, H\] = \[2, 6, 2\].*got 0.1.*Reshape",
    ),
    (
        IMAGE,
        {name: torch.ones(2, 7, 2, 2) for name in "qkv"},
        "must hold whole images, T a multiple of 3; got T = 7.*Pad",
    ),
    (IMAGE, {"v": torch.ones(2, 6, 2, 1)}, r"the same width .*\[2, 6, 2, 1\].*Reshape"),
    (IMAGE, {"weights": {"W": torch.ones(2, 8, 2)}}, r"= \[2, 9, 2\] .*got \[2, 8, 2\].*Reshape"),
    (
        rule(net=GLU()),
        {"weights": {"W0": torch.ones(2, 3, 1), "W1": torch.ones(2, 3, 2)}},
        r"`weights\['W0'\]` must be .*= \[2, 3, 2\].*got \[2, 3, 1\].*Reshape",
    ),
]


@pytest.mark.parametrize(("loop", "change", "message"), REFUSED, ids=[m for *_, m in REFUSED])
def test_refusals_are_one_sentence(loop, change, message):
    arguments = given(loop, length=6) | change
    with pytest.raises(ValueError, match=message + r"[^\n]*\.$"):
        run_loop(loop, **arguments)
