"""The delta rule's kernels against the recurrence, token by token, in float64.

In float64 they agree to rounding. In float32, bfloat16 and float16 the error, max |a - b| over
max |b|, is at most twice that of the recurrence run by PyTorch in that dtype, states included,
plus one unit in the last place, since the recurrence of one token may round by luck to nothing.
Scratch and outputs are filled with NaN first: what is not written shows.
"""

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from ttt_proofs.kernels import delta_rule

MODULE = importlib.import_module("ttt_proofs.kernels.delta")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("o", "final", "dq", "dk", "dv", "dbeta", "dinitial")


def recurrence(q, k, v, beta, initial=None, scale=1.0, exclusive=False):
    """`S_t = S_{t-1} + k_t^T beta_t (v_t - k_t S_{t-1})`, read by `scale q_t`, in q's dtype."""
    B, T, H, K = q.shape
    S = q.new_zeros(B, H, K, v.shape[3]) if initial is None else initial
    o = []
    for t in range(T):
        error = v[:, t] - (k[:, t, :, None] @ S)[..., 0, :]
        after = S + k[:, t, :, :, None] @ (beta[:, t, :, None] * error)[..., None, :]
        o.append(scale * (q[:, t, :, None] @ (S if exclusive else after))[..., 0, :])
        S = after
    return torch.stack(o, 1), S


def drawn(B, T, H, K, V, betas, dtype, seed=0, reach=1.0):
    """q, k, v, beta, initial state and the two outer gradients: float64, exact in the dtype."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    k = torch.nn.functional.normalize(normal(B, T, H, K), dim=-1) * reach**0.5
    beta = torch.rand(B, T, H, generator=g, dtype=torch.float64)
    if betas == "mixed":  # also exactly 0 and 1, and negative
        beta = torch.where(normal(B, T, H) > 1, beta.round(), beta * 1.2 - 0.1)
    elif betas != "random":
        beta = torch.full_like(beta, float(betas))
    x = (
        normal(B, T, H, K),
        k,
        normal(B, T, H, V),
        beta,
        normal(B, H, K, V),
        normal(B, T, H, V),
        normal(B, H, K, V),
    )
    return [y.to(DEVICE, dtype).double() for y in x]


def run(form, x, dtype, numbers, **options):
    """Outputs and all gradients of a form, float64; beta and states in the dtype of `numbers`."""
    dtypes = (*[dtype] * 3, *[numbers] * 2)
    leaves = [y.to(d).requires_grad_() for y, d in zip(x, dtypes, strict=False)]
    o, final = form(*leaves, **options)
    outer = [x[5].to(o.dtype), x[6].to(final.dtype)]
    return [y.double() for y in (o, final, *torch.autograd.grad([o, final], leaves, outer))]


def kernels(q, k, v, beta, initial, **options):
    """The operator, called as `recurrence` is."""
    return delta_rule(q, k, v, beta, initial_state=initial, output_final_state=True, **options)


def errors(found, true):
    """The error of each output and gradient; NaN where there is one, huge where b is zero."""
    return {
        name: ((a - b).abs().max() / b.abs().max().clamp(min=1e-300)).item()
        for name, a, b in zip(NAMES, found, true, strict=True)
    }


def too_wrong(found, true, bounds):
    """The names whose error is not within its bound."""
    return {name: e for name, e in errors(found, true).items() if not e <= bounds[name]}


EXACT = dict.fromkeys(NAMES, 1e-12)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that is asked for comes filled with NaN."""
    for home, name in ((torch, "empty_like"), (torch.Tensor, "new_empty")):
        make = getattr(home, name)

        def poisoned(*args, make=make, **options):
            made = make(*args, **options)
            return made.fill_(torch.nan) if made.is_floating_point() else made

        monkeypatch.setattr(home, name, poisoned)


def force_tokens(monkeypatch, tokens):
    """Tiles of so many tokens, whatever the widths and the dtype."""
    plan = MODULE.plan

    def forced(*widths):
        *cuts, apart = plan(*widths)
        return MODULE.Plan(*(cut._replace(tokens=tokens) for cut in cuts), apart)

    monkeypatch.setattr(MODULE, "plan", forced)


@pytest.mark.parametrize(
    ("tokens", "B", "T", "H", "K", "V", "betas", "exclusive"),
    [
        (16, 1, 1, 2, 1, 1, "random", False),
        (16, 2, 18, 2, 5, 17, "mixed", True),
        (16, 1, 35, 1, 3, 20, "0", False),
        (32, 1, 63, 1, 8, 3, "mixed", False),
        (64, 1, 63, 1, 4, 2, "mixed", True),
        (64, 1, 64, 1, 16, 33, "1", False),
        (64, 1, 65, 1, 17, 5, "1", True),
        (64, 1, 130, 1, 6, 18, "mixed", False),
        (64, 1, 64, 1, 6, 8, "1e-6", True),
    ],
)
def test_equals_the_recurrence_in_float64(monkeypatch, tokens, B, T, H, K, V, betas, exclusive):
    force_tokens(monkeypatch, tokens)
    x = drawn(B, T, H, K, V, betas, torch.float64)
    options = {"scale": 0.37, "exclusive": exclusive}
    true = run(recurrence, x, torch.float64, torch.float64, **options)
    assert not too_wrong(run(kernels, x, torch.float64, torch.float64, **options), true, EXACT)


@pytest.mark.parametrize(
    ("dtype", "B", "T", "H", "K", "V", "betas", "reach"),
    [
        (torch.float32, 2, 1, 2, 60, 64, "random", 1.0),
        (torch.float32, 1, 2, 3, 128, 1, "1", 1.0),
        (torch.float32, 1, 200, 1, 60, 8, "mixed", 1.0),
        (torch.float32, 1, 65, 1, 8, 60, "random", 1.0),
        (torch.float32, 1, 65, 1, 60, 8, "1e-6", 1.0),
        (torch.float32, 1, 64, 1, 1, 8, "random", 1.0),
        (torch.float32, 1, 63, 1, 128, 64, "1", 3.0),
        (torch.bfloat16, 2, 1, 2, 64, 60, "random", 1.0),
        (torch.bfloat16, 1, 65, 1, 8, 8, "mixed", 1.0),
        (torch.bfloat16, 2, 65, 1, 60, 1, "1", 1.0),
        (torch.bfloat16, 1, 64, 1, 1, 60, "random", 1.0),
        (torch.bfloat16, 1, 200, 1, 128, 128, "random", 1.0),
        (torch.bfloat16, 1, 65, 1, 200, 40, "random", 1.0),
        (torch.float16, 1, 130, 1, 64, 64, "mixed", 1.0),
        (torch.float16, 1, 63, 1, 16, 64, "1e-6", 1.0),
        (torch.float16, 1, 2, 1, 1, 1, "0", 1.0),
    ],
)
def test_error_is_at_most_twice_that_of_the_recurrence(dtype, B, T, H, K, V, betas, reach):
    x = drawn(B, T, H, K, V, betas, dtype, reach=reach)
    true = run(recurrence, x, torch.float64, torch.float64, scale=0.5)
    plain = errors(run(recurrence, x, dtype, dtype, scale=0.5), true)
    floor = torch.finfo(dtype).eps
    found = run(kernels, x, dtype, torch.float32, scale=0.5)
    assert not too_wrong(found, true, {name: 2 * plain[name] + floor for name in NAMES})


def test_dtypes_and_what_is_returned():
    q, k, v, beta, initial, *_ = drawn(1, 5, 2, 9, 4, "random", torch.bfloat16)
    low = [y.bfloat16() for y in (q, k, v, beta)]
    o, final = delta_rule(*low, output_final_state=True)
    assert o.dtype == torch.bfloat16 and o.shape == v.shape
    assert final.dtype == torch.float32 and final.shape == initial.shape
    assert delta_rule(*low)[1] is None
    o, final = delta_rule(*(y[..., :3] for y in low[:3]), low[3], output_final_state=True)
    assert (o.dtype, final.dtype) == (torch.bfloat16, torch.float32)  # the wider dtype stays inside


def test_no_initial_state_is_zero_and_three_tokens_by_hand():
    one, v = torch.ones(1, 3, 1, 1, device=DEVICE), torch.full((1, 3, 1, 1), 4.0, device=DEVICE)
    beta = one[..., 0] / 2
    assert delta_rule(one, one, v, beta)[0].flatten().tolist() == [2, 3, 3.5]
    o, final = delta_rule(one, one, v, beta, exclusive=True, output_final_state=True)
    assert o.flatten().tolist() == [0, 2, 3]
    assert final.item() == 3.5


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("only", range(5))
def test_one_gradient_alone_is_the_same(monkeypatch, only, apart):
    plan = MODULE.plan
    monkeypatch.setattr(MODULE, "plan", lambda *widths: plan(*widths)._replace(apart=apart))
    x = drawn(1, 20, 2, 6, 5, "mixed", torch.float64)
    true = run(recurrence, x, torch.float64, torch.float64)[2 + only]
    leaves = [y.requires_grad_(n == only) for n, y in enumerate(x[:5])]
    o, final = kernels(*leaves)
    (found,) = torch.autograd.grad([o, final], leaves[only : only + 1], x[5:])
    assert torch.allclose(found, true, rtol=1e-11, atol=1e-12)


def test_gradient_of_the_final_state_or_the_outputs_alone():
    x = drawn(1, 20, 1, 6, 5, "mixed", torch.float64)
    for n, nothing in ((0, 6), (1, 5)):
        y = [*x]
        y[nothing] = torch.zeros_like(x[nothing])
        true = run(recurrence, y, torch.float64, torch.float64)[2:]
        leaves = [z.clone().requires_grad_() for z in x[:5]]
        found = torch.autograd.grad(kernels(*leaves)[n], leaves, x[5 + n])
        for a, b in zip(found, true, strict=True):
            assert torch.allclose(a, b, rtol=1e-11, atol=1e-12)


def test_strided_inputs_and_gradients():
    x = drawn(2, 18, 3, 6, 5, "mixed", torch.float64)
    x[5] = torch.ones_like(x[5][:1, :1]).expand_as(x[5])
    true = run(recurrence, x, torch.float64, torch.float64)
    x = [y if n == 5 else y.transpose(1, 2).contiguous().transpose(1, 2) for n, y in enumerate(x)]
    assert not x[0].is_contiguous() and not x[5].is_contiguous()
    assert not too_wrong(run(kernels, x, torch.float64, torch.float64), true, EXACT)


@pytest.mark.parametrize(("B", "T", "H"), [(2, 0, 3), (0, 4, 1), (1, 4, 0)])
def test_nothing_to_do(B, T, H):
    x = drawn(B, T, H, 4, 5, "random", torch.float32)
    q, k, v, beta, initial = (y.float().requires_grad_() for y in x[:5])
    o, final = delta_rule(q, k, v, beta, initial_state=initial, output_final_state=True)
    assert o.shape == v.shape
    assert torch.equal(final, initial)
    (o.sum() + final.sum()).backward()
    assert torch.equal(initial.grad, torch.ones_like(initial))
    assert q.grad.shape == q.shape
    assert not delta_rule(q, k, v, beta, output_final_state=True)[1].any()


@pytest.mark.parametrize("where", range(5))
def test_nan_reaches_all_that_is_read_later(monkeypatch, where):
    force_tokens(monkeypatch, 16)
    x = [y.float() for y in drawn(1, 50, 1, 8, 3, "random", torch.float32)[:5]]
    x[where].view(-1)[x[where].numel() * 2 // 5] = torch.nan  # token 20, of the second tile
    o, final = kernels(*x)
    bad = o.isnan().flatten(2).any(-1)[0]
    if where == 0:
        assert bad.nonzero().flatten().tolist() == [20]
    elif where == 4:
        assert bad.all() and final.isnan().any()
    else:
        assert bad[20:].all() and final.isnan().any() and not bad[:16].any()


def test_without_gradients_nothing_is_kept():
    x = [y.float().requires_grad_() for y in drawn(1, 3, 1, 8, 3, "random", torch.float32)[:5]]
    with torch.no_grad():
        assert kernels(*x)[0].grad_fn is None


def test_wrong_inputs_are_told_in_one_sentence():
    q, k, v, beta, initial, *_ = drawn(1, 3, 2, 4, 5, "random", torch.float32)
    wide = torch.zeros(1, 3, 2, 257, device=DEVICE)
    for call, kind, start in (
        (lambda: delta_rule(q, k[:, :2], v, beta), ValueError, "`q` and `k` must have one shape"),
        (lambda: delta_rule(q, k, v.float(), beta), TypeError, "`v` must be torch.float64"),
        (lambda: delta_rule(q, k, v, beta[:, :2]), ValueError, "`beta` must be [batch, time"),
        (lambda: delta_rule(q, k, v, 0.5), TypeError, "`beta` must be a floating-point tensor"),
        (lambda: delta_rule(q, k, v, beta, initial_state=initial.mT), ValueError, "`initial_st"),
        (lambda: delta_rule(wide, wide, v.float(), beta), ValueError, "`k` must have a width"),
        (lambda: delta_rule(q, k, v, beta, scale=torch.nan), ValueError, "`scale` must be fin"),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert str(caught.value).startswith(start)


FAULTS = {
    "forward": [
        ("rows > columns, overlaps", "rows >= columns, overlaps"),
        ("range(BLOCK - 1)", "range(BLOCK - 2)"),
        ("numbers[:, None] * found, 0.0", "found, 0.0"),
        ("numbers[:, None] * earlier, sides", "earlier, sides"),
        (
            "c30 = passed(a31, b1, c10, passed(a30, b0, c00, a30))",
            "c30 = passed(a30, b0, c00, a30)",
        ),
        ("put(out, c20, 2, 0, TOKENS)", "put(out, c21, 2, 0, TOKENS)"),
        ("put(out, none, 1, 3, TOKENS)", "pass"),
        ("t > i if EXCLUSIVE else t >= i", "t >= i"),
        ("t > i if EXCLUSIVE else t >= i", "t > i"),
        (
            "load_numbers(beta, at, 0, T, H, 0.0, TOKENS)",
            "load_numbers(beta, at, 0, T - 1, H, 0.0, TOKENS)",
        ),
        ("error = values - dot(", "error = values + dot("),
        ("narrow(numbers * error, keys.dtype), error)", "narrow(error, keys.dtype), error)"),
        (
            "S = dot(tl.trans(keys), update, S)",
            "S = S if tile + 1 == tiles else dot(tl.trans(keys), update, S)",
        ),
        ("if initial is not None", "if False"),
        ("SCALE * read", "read"),
        ("states + (head * tiles + tile)", "states + (head * tiles + tiles - 1 - tile)"),
        ("head % H\n    q, k", "(head + 1) % H\n    q, k"),
    ],
    "backward": [
        ("-dS, column", "dS, column"),
        ("if dfinal is not None", "if False"),
        ("tile = tiles - 1 - step", "tile = step"),
        ("t > i if EXCLUSIVE else t >= i", "t >= i"),
        ("tl.trans(within)", "within"),
        ("narrow(numbers * gradient, keys.dtype)", "narrow(gradient, keys.dtype)"),
        ("gradient = numbers * gradient", "pass"),
        ("dS += SCALE * dot", "dS += dot"),
        ("narrow(-gradient,", "narrow(gradient,"),
        ("row > other if EXCLUSIVE else row >= other", "row >= other"),
        ("other > row if EXCLUSIVE else other >= row", "other >= row"),
        ("scores * numbers[None, :]", "scores * numbers[:, None]"),
        ("shared * numbers[None, :]", "shared * numbers[:, None]"),
        ("tl.where(other < row, earlier, 0.0)", "0.0"),
        ("other > row, later", "other > row, earlier"),
        ("row == other, earlier", "row >= other, earlier"),
        ("dkeys *= -numbers[:, None]", "dkeys *= -1"),
        ("(dbeta + start, own, at, T,", "(dbeta + start, own, at, T - 1,"),
    ],
}


@pytest.mark.skipif(DEVICE == "cuda", reason="faults are planted in what the interpreter runs")
@pytest.mark.parametrize(
    ("part", "number"), [(part, n) for part in FAULTS for n in range(len(FAULTS[part]))]
)
def test_planted_fault_is_seen(monkeypatch, tmp_path, part, number):
    sound, fault = FAULTS[part][number]
    text = Path(MODULE.__file__).with_name(f"delta_rule_{part}.py").read_text()
    assert sound in text
    path = tmp_path / "planted.py"
    path.write_text(text.replace(sound, fault))
    spec = importlib.util.spec_from_file_location("ttt_proofs.kernels.planted", path)
    planted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(planted)
    for name in ("couple_tiles", "delta_rule_forward", "delta_rule_reverse", "delta_rule_inputs"):
        if hasattr(planted, name):
            monkeypatch.setattr(MODULE, name, getattr(planted, name))
    # Coupling needs the four blocks of one tile; all else two tiles and two blocks of values.
    couples = part == "forward" and text.index(sound) < text.index("def delta_rule_forward")
    force_tokens(monkeypatch, 64 if couples else 16)
    x = drawn(1, 64 if couples else 19, 1 + ("% H" in sound), 3, 18, "random", torch.float64)
    options = {"scale": 0.37, "exclusive": "EXCLUSIVE" in sound and ">=" in fault}
    true = run(recurrence, x, torch.float64, torch.float64, **options)
    found = run(kernels, x, torch.float64, torch.float64, **options)
    assert too_wrong(found, true, dict.fromkeys(NAMES, 1e-6))
