"""LaCT and ViTTT as released, written out in plain PyTorch, do what the oracle does."""

import pytest
import torch
from torch.nn import functional

from tests.reference.samples import faulty, sample, sample_coefficients
from ttt_proofs.loops import (
    GLU,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SwiGLU,
)
from ttt_proofs.reduction import reduce
from ttt_proofs.reference import run_loop
from ttt_proofs.symbolic.torch_loop import torch_loop

BOUND = 1e-11  # of the largest number in a tensor, in float64


def newton_schulz(matrices):
    """LaCT's Muon on `[n, outputs, inputs]`, in the precision that it is given."""
    x = matrices
    if matrices.shape[1] > matrices.shape[2]:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for a, b, c in [
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ]:
        outer = torch.bmm(x, x.transpose(1, 2))
        x = a * x + torch.bmm(b * outer + torch.bmm(c * outer, outer), x)
    if matrices.shape[1] > matrices.shape[2]:
        x = x.transpose(1, 2)
    return x


def newton_schulz_bfloat16(matrices):
    """The same as released: in bfloat16."""
    return newton_schulz(matrices.to(torch.bfloat16)).to(matrices.dtype)


MUON = {None: None, "muon": newton_schulz, "muon_bfloat16": newton_schulz_bfloat16}


def silu_backward(above, x):
    """The gradient in x of silu, given the one in its output."""
    sigma = torch.sigmoid(x)
    return above * sigma * (1 + x * (1 - sigma))


def fold(x):
    """`[B, T, H, K]` as LaCT has it, heads folded into the batch: `[B H, T, K]`."""
    return x.transpose(1, 2).flatten(0, 1)


def lact(q, k, v, weights, rate, momentum, chunk, muon):
    """LaCT as released, with weights `[out, in]` and gradients by hand.

    Each chunk applies the weights as they were before it, then updates them. What is released
    does not update after the last chunk, which nothing reads; here it does.
    """
    batch, length, heads, _ = q.shape
    w0, w1, w2 = (weights[n].mT.repeat(batch, 1, 1) for n in ("W0", "W1", "W2"))
    norm0, norm1, norm2 = (w.square().sum(2, keepdim=True).sqrt() for w in (w0, w1, w2))
    q, k, v = fold(q), fold(k), fold(v)
    lr0, lr1, lr2 = (fold(rate[n][..., None]) for n in ("W0", "W1", "W2"))
    momentum = fold(momentum[..., None])
    m0, m1, m2 = (torch.zeros_like(w) for w in (w0, w1, w2))
    outputs = []
    for s in range(0, length, chunk):
        e = s + chunk
        qi, ki, vi = (x[:, s:e] for x in (q, k, v))
        asked = functional.silu(torch.bmm(w0, qi.mT)) * torch.bmm(w2, qi.mT)
        outputs.append(torch.bmm(w1, asked).mT)

        before_act = torch.bmm(w0, ki.mT)
        before_mul = torch.bmm(w2, ki.mT)
        hidden = functional.silu(before_act) * before_mul
        d_hidden = torch.bmm(w1.mT, vi.mT)
        d_before_mul = d_hidden * functional.silu(before_act)
        d_before_act = silu_backward(d_hidden * before_mul, before_act)
        d0 = torch.bmm(d_before_act, ki * lr0[:, s:e])
        d1 = torch.bmm(vi.mT, hidden.mT * lr1[:, s:e])
        d2 = torch.bmm(d_before_mul, ki * lr2[:, s:e])

        mean = momentum[:, s:e].mean(dim=1, keepdim=True)
        m0, m1, m2 = d0 + m0 * mean, d1 + m1 * mean, d2 + m2 * mean
        steps = [muon(m) if muon else m for m in (m0, m1, m2)]
        w0, w1, w2 = (w + step for w, step in zip((w0, w1, w2), steps, strict=True))
        w0 = w0 / (w0.square().sum(2, keepdim=True).sqrt() + 1e-5) * norm0
        w1 = w1 / (w1.square().sum(2, keepdim=True).sqrt() + 1e-5) * norm1
        w2 = w2 / (w2.square().sum(2, keepdim=True).sqrt() + 1e-5) * norm2
    o = torch.cat(outputs, dim=1).unflatten(0, (batch, heads)).transpose(1, 2)
    final = {"W0": w0, "W1": w1, "W2": w2}
    return o, {name: w.mT.unflatten(0, (batch, heads)) for name, w in final.items()}


def vittt_glu(q, k, v, weights, scale, tokens):
    """The gated half of ViTTT as released, once for every `tokens` tokens, gradients by hand."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    w1, w2 = weights["W1"][None], weights["W0"][None]  # content and gate
    outputs = []
    for s in range(0, q.shape[2], tokens):
        qi, ki, vi = (x[:, :, s : s + tokens] for x in (q, k, v))
        z1, z2 = ki @ w1, ki @ w2
        sigma = torch.sigmoid(z2)
        e = -vi / float(tokens) * scale
        g1 = ki.transpose(-2, -1) @ (e * (z2 * sigma))
        g2 = ki.transpose(-2, -1) @ (e * z1 * (sigma * (1.0 + z2 * (1.0 - sigma))))
        g1 = g1 / (g1.square().sum(-2, keepdim=True).sqrt() + 1.0)
        g2 = g2 / (g2.square().sum(-2, keepdim=True).sqrt() + 1.0)
        w1, w2 = w1 - g1, w2 - g2
        outputs.append((qi @ w1) * functional.silu(qi @ w2))
    return torch.cat(outputs, dim=2).transpose(1, 2), {"W0": w2, "W1": w1}


def vittt_conv(q, k, v, weights, scale, height, width):
    """The convolutional half of ViTTT as released, image after image, gradients by hand."""
    batch, length, heads, channels = q.shape
    images = length // (height * width)
    every = batch * heads * channels

    def planes(x):  # [images, B H C, height, width]
        x = x.unflatten(1, (images, height, width))
        return x.permute(1, 0, 4, 5, 2, 3).flatten(1, 3)

    q, k, v = map(planes, (q, k, v))
    w = weights["W"].mT.reshape(1, heads * channels, 3, 3).repeat(batch, 1, 1, 1)
    w = w.reshape(every, 1, 3, 3)
    outputs = []
    for qi, ki, vi in zip(q, k, v, strict=True):
        e = -vi / float(height * width) * scale
        around = functional.pad(ki, (1, 1, 1, 1))
        dots = [
            (around[:, y : y + height, x : x + width] * e).sum(dim=(-2, -1))
            for y in range(3)
            for x in range(3)
        ]
        g = torch.stack(dots, dim=-1).reshape(every, 1, 3, 3)
        g = g / (g.square().sum(dim=(-2, -1), keepdim=True).sqrt() + 1.0)
        w = w - g
        outputs.append(functional.conv2d(qi[None], w, padding=1, groups=every)[0])
    o = torch.stack(outputs).reshape(images, batch, heads, channels, height * width)
    o = o.permute(1, 0, 4, 2, 3).flatten(1, 2)
    return o, {"W": w.reshape(batch, heads, channels, 9).mT}


def lact_loop(chunk, muon="muon"):
    """LaCT as an inner loop."""
    update = GradientStep(
        "per_token", "inside", "per_token", orthogonal=muon, weight_norm="initial_norm"
    )
    return InnerLoop(SwiGLU(), Frobenius(), update, Schedule(chunk, "before_update"))


def vittt_loop(net, chunk):
    """Either half of ViTTT as an inner loop."""
    return InnerLoop(
        net, Frobenius(), GradientStep(place="inside", clip="column_norm"), Schedule(chunk)
    )


def results(run, leaves):
    """What a run gives: outputs, final weights, and the gradient of their mixture in each leaf."""
    o, final = run()
    generator = torch.Generator().manual_seed(3)
    tensors = {"o": o} | {name: final[name] for name in sorted(final)}
    mixture = torch.zeros((), dtype=torch.float64)
    for x in tensors.values():
        mixture = mixture + (x * torch.randn(x.shape, generator=generator).double()).sum()
    slopes = torch.autograd.grad(mixture, list(leaves.values()))
    return tensors | {f"gradient in {n}": g for n, g in zip(leaves, slopes, strict=True)}


def distance(ours, theirs):
    """The largest relative error of a tensor; NaN counts as infinite, as any error on zeros."""
    assert ours.keys() == theirs.keys()
    errors = [0.0]
    for name, x in theirs.items():
        assert x.shape == ours[name].shape
        if not torch.equal(ours[name], x):
            error = (ours[name] - x).abs().max() / x.abs().max()
            errors.append(error.nan_to_num(torch.inf).item())
    return max(errors)


def lact_distance(run, chunk, muon="muon", widths=(3, 5, 4)):
    """How far an oracle is from LaCT, on two sequences of seven tokens with two heads.

    Three tokens where Muon acts on chunks of one: such gradients have rank one, rounding in the
    other directions grows 500 times a step, and two sound runs of seven tokens can be 7e-11
    apart. The seed is one where three tokens are well conditioned.
    """
    loop = lact_loop(chunk, muon)
    key, hidden, value = widths
    length, seed = (3, 607) if muon and chunk == 1 else (7, 7)
    (q, k, v), weights = sample(loop, length=length, key=key, hidden=hidden, value=value, seed=seed)
    given = sample_coefficients(loop, length=length, seed=seed + 1)
    rate, momentum = {name: given[f"eta_{name}"] for name in weights}, given["alpha"]
    leaves = {"q": q, "k": k, "v": v, **weights, **given}
    for x in leaves.values():
        x.requires_grad_()
    ours = results(lambda: run(loop, q, k, v, weights=weights, coefficients=given), leaves)
    theirs = results(lambda: lact(q, k, v, weights, rate, momentum, chunk, MUON[muon]), leaves)
    return distance(ours, theirs)


def vittt_distance(run, net, chunk, length):
    """How far an oracle is from either half of ViTTT, two sequences, two heads."""
    loop = vittt_loop(net, chunk)
    (q, k, v), weights = sample(loop, length=length, key=4, value=4)
    scale = torch.tensor(9.0).double() ** -0.5
    leaves = {"q": q, "k": k, "v": v, "scale": scale, **weights}
    for x in leaves.values():
        x.requires_grad_()

    def released():
        if isinstance(net, DepthwiseConv):
            return vittt_conv(q, k, v, weights, scale, net.height, net.width)
        return vittt_glu(q, k, v, weights, scale, chunk)

    numbers = {"eta": scale / chunk}
    ours = results(lambda: run(loop, q, k, v, weights=weights, coefficients=numbers), leaves)
    return distance(ours, results(released, leaves))


WIDTHS = [(3, 5, 4), (5, 3, 2), (4, 4, 4)]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("muon", ["muon", None])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16])
def test_lact_as_released(chunk, muon, widths):
    assert lact_distance(run_loop, chunk, muon, widths) <= BOUND


def derived(loop, q, k, v, **others):
    """The recurrence with the code that was written from the proved expressions."""
    return reduce(loop).recurrent(q, k, v, **others)


SQUARE = [(4, 4, 4), (3, 3, 5), (5, 3, 3), (8, 8, 8)]


@pytest.mark.parametrize("run", [run_loop, derived])
@pytest.mark.parametrize("widths", WIDTHS + SQUARE)
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_lact_as_released_in_bfloat16(chunk, widths, run):
    """To the roundings of Muon, which depend on whether a matrix or its transpose is iterated."""
    assert lact_distance(run, chunk, "muon_bfloat16", widths) <= BOUND


SHAPES = [(1, 1), (2, 2), (3, 3), (16, 16), (65, 65), (1, 4), (4, 1), (3, 8), (8, 3), (64, 33)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_muon_in_bfloat16_is_bit_for_bit_that_of_the_layer_as_released(dtype, shape):
    """The derived code holds inputs by outputs what is released as outputs by inputs."""
    loop = InnerLoop(Linear(), Frobenius(), GradientStep(orthogonal="muon_bfloat16"))
    generator = torch.Generator().manual_seed(5)
    gradient = torch.randn((2, 3, *shape), generator=generator).to(dtype)
    released = newton_schulz_bfloat16(gradient.mT.contiguous().flatten(0, 1))
    (step,) = (step for step in torch_loop(loop).lines if step.kind == "operator")
    made = step.made.function(gradient)
    assert made.dtype == dtype
    assert torch.equal(made, released.mT.unflatten(0, (2, 3)))


@pytest.mark.parametrize(("chunk", "length"), [(6, 6), (1, 4), (3, 6)])
def test_vittt_gated_half_as_released(chunk, length):
    assert vittt_distance(run_loop, GLU(), chunk, length) <= BOUND


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (3, 2), (4, 4)])
def test_vittt_convolutional_half_as_released(height, width, images):
    net, pixels = DepthwiseConv(3, height, width), height * width
    assert vittt_distance(run_loop, net, pixels, images * pixels) <= BOUND


def test_lact_in_bfloat16_is_near_and_not_the_same():
    """Muon in bfloat16 changes the outputs by about its rounding, 2^-8."""
    loop, half = lact_loop(3), lact_loop(3, "muon_bfloat16")
    qkv, weights = sample(loop, length=7)
    given = sample_coefficients(loop, length=7)
    o, _ = run_loop(loop, *qkv, weights=weights, coefficients=given)
    rough, _ = run_loop(half, *qkv, weights=weights, coefficients=given)
    assert 1e-4 < (o - rough).abs().max() / o.abs().max() < 0.2


# Each a change to the oracle's source that LaCT or ViTTT must notice.
LACT = [
    ("library_update", "EPSILON = 1e-5", "EPSILON = 0.0"),
    ("library_update", "TINY = 1e-7", "TINY = 0.0"),
    ("library_update", "(2.8366, -3.0525, 1.2012),", ""),
    ("library_update", "dim=-2, keepdim=True", "dim=-1, keepdim=True"),
    ("library_update", "return x.mT if tall else x", "return x"),
    ("library_update", "x = x / (matrix_norm", "x = x / (1 + 0 * matrix_norm"),
    ("library_update", "way * step + alpha", "step + alpha"),
    ("library_update", "way * step + alpha * memory", "way * (1 - alpha) * step + alpha * memory"),
    ("library_update", "OPERATORS[orthogonal](step)", "(step)"),
    ("library_update", "(moved, norms[name])", "(moved, norms[name].detach())"),
    ("library_update", "(moved, norms[name])", "(moved, column_norms(state[name]))"),
    ("library", ".mean(1, keepdim=True)", ".sum(1, keepdim=True)"),
    ("library", ".mean(1, keepdim=True)", ".sum(1, keepdim=True) / chunk"),
    (
        "library",
        "torch.cat([each[:, :0], *means], dim=1)",
        "torch.cat([each[:, :0], *means], dim=1).detach()",
    ),
    ("library", "per_token * each[name] if", "per_token * each[name].detach() if"),
    ("library", "per_token * each[name] if", "per_token * next(iter(each.values())) if"),
    ("library", "create_graph=inner.outer", "create_graph=False"),
    ("library", 'schedule.read == "before_update"', 'schedule.read == "after_update"'),
]
HALF = [
    ("library_update", "shape[-2] >= matrix", "shape[-2] > matrix"),
    ("library_update", "matrix.mT if tall else matrix", "matrix"),
    ("library_update", "matrix.to(torch.bfloat16)", "matrix.to(torch.float16)"),
]
VITTT = [
    ("library_update", "(column_norms(step) + 1)", "column_norms(step)"),
    ("library_update", "(column_norms(step) + 1)", "(column_norms(step).detach() + 1)"),
    ("library_update", "dim=-2, keepdim=True", "dim=-1, keepdim=True"),
    ("library_update", "dim=-2, keepdim=True", "dim=(-2, -1), keepdim=True"),
    ("library_update", "return step / (column_norms(step) + 1)", "return step"),
    ("library_update", 'place == "inside"', 'place == "outside"'),
    ("written_nets", "windows[:, :, down, right]", "windows[:, :, right, down]"),
    ("written_nets", "windows[:, :, down, right]", "windows[:, :, -1 - down, -1 - right]"),
    ("written_nets", "net.height, net.width, channels", "net.width, net.height, channels"),
    ("written_nets", "margin, margin, margin)", 'margin, margin, margin), mode="replicate"'),
    ("library", 'schedule.read == "after_update"', 'schedule.read == "before_update"'),
]


def breaks(distances):
    """Whether an oracle is away from what is released, or breaks down."""
    try:
        return max(distances()) > BOUND
    except (RuntimeError, ValueError, IndexError, AttributeError):
        return True


def lact_distances(run):
    """A ragged last chunk and weights of both proportions."""
    return [lact_distance(run, 3, widths=widths) for widths in WIDTHS]


def vittt_distances(run):
    """Both halves; the image is not square."""
    conv = DepthwiseConv(3, 3, 2)
    return [vittt_distance(run, GLU(), 3, 6), vittt_distance(run, conv, 6, 12)]


@pytest.mark.parametrize(("module", "sound", "fault"), LACT)
def test_lact_notices_a_planted_fault(module, sound, fault, tmp_path):
    with faulty(tmp_path, module, sound, fault) as run:
        assert breaks(lambda: lact_distances(run))


@pytest.mark.parametrize(("module", "sound", "fault"), HALF)
def test_lact_in_bfloat16_notices_a_planted_fault(module, sound, fault, tmp_path):
    with faulty(tmp_path, module, sound, fault) as run:
        assert breaks(lambda: [lact_distance(run, 3, "muon_bfloat16", w) for w in SQUARE])


@pytest.mark.parametrize(("module", "sound", "fault"), VITTT)
def test_vittt_notices_a_planted_fault(module, sound, fault, tmp_path):
    with faulty(tmp_path, module, sound, fault) as run:
        assert breaks(lambda: vittt_distances(run))


def test_a_sound_copy_is_not_suspected(tmp_path):
    with faulty(tmp_path, "library_update", "TINY = 1e-7", "TINY = 1.0e-7") as run:
        assert not breaks(lambda: lact_distances(run) + vittt_distances(run))
