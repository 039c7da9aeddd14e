"""SwiGLU features and their linear attention against a float64 recurrence, and planted faults."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("triton")

from tests.kernels.oracles import DEVICE, FLOOR, error, poisoned
from ttt_proofs.kernels import swiglu, swiglu_attention, swiglu_features, swiglu_kernels

LOW = (torch.bfloat16, torch.float16)
NAMES = ("q", "k", "v", "gate", "up", "initial")
KERNELS = ("attend_kernel", "gated_kernel", "gated_gradient_kernel")


@pytest.fixture(autouse=True)
def poison():
    """Memory that nothing was written to holds NaN, in all tests."""
    with poisoned():
        yield


def test_memory_is_poisoned():
    assert torch.empty(3, device=DEVICE).isnan().all()


class Case(NamedTuple):
    """A problem's sizes and options."""

    T: int
    K: int
    D: int
    V: int
    dtype: torch.dtype = torch.float32
    exclusive: bool = False
    initial: bool = True
    segments: int | None = None
    B: int = 1
    H: int = 2
    scale: float = 0.7


def tensors(case: Case) -> dict[str, torch.Tensor]:
    """Inputs of a case, in its dtype; the state in the accumulators'."""
    B, T, H, K, D, V = case.B, case.T, case.H, case.K, case.D, case.V
    generator = torch.Generator().manual_seed(T * 1000 + K + D + V)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE)

    made = {
        "q": normal(B, T, H, K),
        "k": normal(B, T, H, K),
        "v": normal(B, T, H, V),
        "gate": normal(H, K, D) / K**0.5,
        "up": normal(H, K, D) / K**0.5,
    }
    made = {name: x.to(case.dtype) for name, x in made.items()}
    if case.initial:
        wide = torch.promote_types(case.dtype, torch.float32)
        made["initial"] = normal(B, H, D, V).to(wide)
    return made


def features(x, gate, up):
    """The definition, in the inputs' dtype."""
    a, b = (torch.einsum("bthk,hkd->bthd", x, weight) for weight in (gate, up))
    return torch.nn.functional.silu(a) * b


def recurrence(case, q, k, v, gate, up, initial=None):
    """Token by token, as it is defined."""
    queries, keys, outputs = features(q, gate, up), features(k, gate, up), []
    state = v.new_zeros(case.B, case.H, case.D, case.V) if initial is None else initial
    for t in range(case.T):
        after = state + keys[:, t, :, :, None] * v[:, t, :, None, :]
        seen = state if case.exclusive else after
        outputs.append(case.scale * (queries[:, t, :, None] @ seen)[:, :, 0])
        state = after
    return torch.stack(outputs, dim=1), state


def plain(case, q, k, v, gate, up, initial=None):
    """What PyTorch makes of it in the inputs' dtype: scores of all pairs, masked."""
    queries, keys = features(q, gate, up), features(k, gate, up)
    scores = torch.einsum("bthd,bihd->bhti", queries, keys).tril(-1 if case.exclusive else 0)
    o = torch.einsum("bhti,bihv->bthv", scores, v)
    state = torch.einsum("bihd,bihv->bhdv", keys, v)
    if initial is not None:
        o = o + torch.einsum("bthd,bhdv->bthv", queries, initial.to(q.dtype))
        state = state + initial
    return case.scale * o, state


def fused(case, q, k, v, gate, up, initial=None):
    """The operator."""
    return swiglu_attention(
        q,
        k,
        v,
        gate,
        up,
        scale=case.scale,
        initial_state=initial,
        output_final_state=True,
        exclusive=case.exclusive,
        segments=case.segments,
    )


def only_features(case, q, k, v, gate, up, initial=None):
    """The features' operator, once on q and once on k."""
    return swiglu_features(q, gate, up), swiglu_features(k, gate, up)


def only_features_defined(case, q, k, v, gate, up, initial=None):
    """The same by its definition."""
    return features(q, gate, up), features(k, gate, up)


def results(form, case, made, dtype=None, gradients=True):
    """Outputs of a form and its gradients for fixed random ones of the outputs, by name."""
    inputs = {n: x.detach().to(dtype or x.dtype).requires_grad_() for n, x in made.items()}
    outputs = form(case, **inputs)
    if not gradients:
        return {n: y.detach().double() for n, y in zip(("o", "final"), outputs, strict=True)}
    generator = torch.Generator().manual_seed(1)
    outer = [
        torch.randn(y.shape, generator=generator, dtype=torch.float64)
        .to(case.dtype)
        .to(y.device, y.dtype)
        for y in outputs
    ]
    grads = torch.autograd.grad(outputs, list(inputs.values()), outer, allow_unused=True)
    found = dict(zip(("o", "final"), outputs, strict=True))
    found |= {f"d{n}": g for n, g in zip(inputs, grads, strict=True) if g is not None}
    return {name: x.detach().double() for name, x in found.items()}


def distance(case, x, exact):
    """The largest error over the largest number; in bfloat16 and float16 the norms instead.

    There the largest of a few thousand roundings is luck, for plain PyTorch as for a kernel: it
    differs threefold from seed to seed, the norm by a tenth.
    """
    if case.dtype not in LOW or error(x, exact) == float("inf"):
        return error(x, exact)
    return float((x - exact).norm() / exact.norm().clamp(min=1e-300))


@lru_cache
def expected(case, exactly, simply):
    """Exact results of a case, and the error that each may have."""
    made = tensors(case)
    exact, theirs = results(exactly, case, made, torch.float64), results(simply, case, made)
    floor = FLOOR if case.dtype != torch.float64 else 4 * torch.finfo(case.dtype).eps
    return exact, {n: 2 * distance(case, theirs[n], x) + floor for n, x in exact.items()}


def wrong(case, form=fused, exactly=recurrence, simply=plain, gradients=True):
    """Names of outputs and gradients whose error is over the budget.

    That is twice the error of plain PyTorch in the same dtype and, where this happens to be
    almost none, four units in the last place of float32 (float64) of the largest number.
    """
    exact, allowed = expected(case, exactly, simply)
    ours = results(form, case, tensors(case), gradients=gradients)
    assert ours.keys() == (exact.keys() if gradients else {"o", "final"})
    return [n for n in ours if not distance(case, ours[n], exact[n]) <= allowed[n]]


CASES = [
    Case(1, 1, 8, 1, B=2),
    Case(2, 8, 1, 60, exclusive=True, B=2),
    Case(63, 60, 64, 8, initial=False),
    Case(40, 8, 12, 20, torch.bfloat16, B=2, H=3),
    Case(64, 8, 60, 64, torch.bfloat16),
    Case(65, 64, 8, 128, torch.float16, exclusive=True),
    Case(65, 128, 128, 64, torch.bfloat16),
    Case(65, 64, 64, 200, torch.bfloat16, exclusive=True, H=1),
    Case(130, 64, 60, 64, H=1),
    Case(150, 8, 24, 16, segments=2, H=1),
    Case(150, 8, 24, 16, torch.bfloat16, exclusive=True, segments=3, H=1),
    Case(200, 8, 24, 16, torch.bfloat16),
    Case(150, 8, 24, 16, initial=False, exclusive=True, segments=7, H=1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_and_its_gradients(case):
    assert not wrong(case)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("segments", [1, 3])
def test_attention_in_float64(segments, exclusive):
    assert not wrong(Case(131, 20, 24, 16, torch.float64, exclusive, segments=segments, H=1))


FEATURES = [
    Case(1, 1, 1, 1),
    Case(65, 60, 200, 1),
    Case(64, 96, 384, 1, torch.bfloat16),
    Case(63, 8, 130, 1, torch.float16),
    Case(5, 300, 7, 1, torch.float64),
]


@pytest.mark.parametrize("case", [c._replace(initial=False) for c in FEATURES], ids=str)
def test_features_and_their_gradients(case):
    assert not wrong(case, only_features, only_features_defined, only_features_defined)


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
def test_both_paths_agree(dtype, monkeypatch):
    case = Case(70, 20, 40, 24, dtype)
    made = tensors(case)
    ours = results(fused, case, made)
    monkeypatch.setattr(swiglu, "fuses", lambda q: False)
    monkeypatch.setattr(swiglu, "attend_kernel", None)
    assert not wrong(case)
    other = results(fused, case, made)
    apart = {name: error(x, other[name]) for name, x in ours.items()}
    # One rounds the two products that features are made of, the other does not.
    assert max(apart.values()) <= 8 * torch.finfo(dtype).eps, apart
    # Both backward passes are the same operators on the same numbers.
    assert all(apart[f"d{name}"] == 0 for name in NAMES), apart


@pytest.mark.parametrize("wanted", [*((name,) for name in NAMES), ("q", "gate"), ("k", "initial")])
def test_only_the_gradients_asked_for(wanted):
    case = Case(40, 8, 12, 20)
    made = tensors(case)
    exact = results(fused, case, made)
    inputs = {n: x.requires_grad_() if n in wanted else x for n, x in made.items()}
    o, final = fused(case, **inputs)
    generator = torch.Generator().manual_seed(1)
    outer = [
        torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.device, y.dtype)
        for y in (o, final)
    ]
    torch.autograd.backward((o, final), outer)
    for name, x in inputs.items():
        assert (x.grad is not None) == (name in wanted)
        if name in wanted:
            assert error(x.grad.double(), exact[f"d{name}"]) <= 1e-6


def test_gradient_of_the_final_state_alone_leaves_q_without():
    made = {n: x.requires_grad_() for n, x in tensors(Case(40, 8, 12, 20)).items()}
    _, final = fused(Case(40, 8, 12, 20), **made)
    final.sum().backward()
    assert made["q"].grad is None or not made["q"].grad.any()
    assert made["k"].grad.any() and made["gate"].grad.any()


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("initial", [False, True])
def test_no_token_leaves_the_state(T, initial):
    case = Case(T, 8, 12, 20, initial=initial, B=1 + T)
    made = {n: x.requires_grad_() for n, x in tensors(case).items()}
    o, final = fused(case, **made)
    assert o.shape == (case.B, T, 2, 20) and final.shape == (case.B, 2, 12, 20)
    if T == 0:
        assert torch.equal(final, made["initial"] if initial else torch.zeros_like(final))
        assert swiglu_features(made["q"], made["gate"], made["up"]).shape == (1, 0, 2, 12)
    (o.sum() + final.sum()).backward()
    assert made["gate"].grad is not None and bool(made["gate"].grad.any()) == (T > 0)


def test_final_state_is_returned_only_if_asked_for():
    made = tensors(Case(5, 8, 12, 20))
    made.pop("initial")
    assert swiglu_attention(**made)[1] is None


def test_strided_inputs_are_read_where_they_lie_and_not_changed():
    case = Case(40, 20, 12, 24, B=2)
    made = tensors(case)
    strided = {
        n: torch.stack((x, x), dim=-1)[..., 0].transpose(0, 1).contiguous().transpose(0, 1)
        for n, x in made.items()
    }
    strided = {n: torch.stack((x, -x), dim=-1)[..., 0] for n, x in strided.items()}
    before = {n: x.clone() for n, x in strided.items()}
    assert not any(x.is_contiguous() for x in strided.values())
    ours, theirs = results(fused, case, strided), results(fused, case, made)
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    assert all(torch.equal(strided[n], before[n]) for n in before)


@pytest.mark.parametrize("name", NAMES)
def test_nan_reaches_the_outputs_of_its_head_from_its_token_on(name):
    case = Case(100, 8, 12, 20, torch.bfloat16, B=2)
    made = tensors(case)
    at = (0, 40, 1) if name in "qkv" else (1,) if name in ("gate", "up") else (0, 1)
    made[name][at] = float("nan")
    o, final = fused(case, **made)
    assert o[0, 40, 1].isnan().all()
    assert o[0, 41:, 1].isnan().all() == (name != "q")
    assert final[0, 1].isnan().any() == (name != "q")
    assert not o[:, :, 0].isnan().any() and not final[:, 0].isnan().any()
    assert o[1].isnan().any() == (name in ("gate", "up"))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # the interpreter's NumPy
@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_large_projections_saturate(size):
    x = torch.tensor([size, -size], device=DEVICE).view(1, 2, 1, 1).requires_grad_()
    one = torch.ones(1, 1, 1, device=DEVICE)
    found = swiglu_features(x, one, one)
    assert found.isfinite().all() and found[0, 0, 0, 0] == size * size
    assert abs(found[0, 1, 0, 0]) <= 1e-9
    (slope,) = torch.autograd.grad(found.sum(), x)
    assert slope.isfinite().all() and slope[0, 0, 0, 0] == 2 * size


def changed(name, edit):
    """Inputs with one of them edited."""
    made = tensors(Case(5, 8, 12, 20, B=2))
    made["initial_state"] = made.pop("initial")
    return made | {name: edit(made.get(name))}


REFUSED = [
    ("gate", lambda x: x[:1], ValueError, "`gate` must be [heads, K, D] = [2, 8, D]"),
    ("up", lambda x: x[:, :4], ValueError, "`up` must be [heads, K, D] = [2, 8, D]"),
    ("up", lambda x: x[..., :4], ValueError, "`gate` and `up` must have one shape"),
    ("gate", lambda x: x[..., :0], ValueError, "D at least 1; got shape (2, 8, 0)"),
    ("gate", lambda x: x.half(), TypeError, "`gate` must be torch.float32 on"),
    ("up", lambda x: x.long(), TypeError, "`up` must be a floating-point tensor"),
    ("gate", lambda x: None, TypeError, "`gate` must be a floating-point tensor; got NoneType"),
    ("gate", lambda x: x.new_empty(2, 8, 129), ValueError, "`gate` and `up` must have one shape"),
    ("q", lambda x: x[0], ValueError, "`q` must be [batch, time, heads, width]"),
    ("q", lambda x: x[..., :4], ValueError, "`q` and `k` must have one shape"),
    ("initial_state", lambda x: x[:, :, :8], ValueError, "[batch, heads, K, V] = (2, 2, 12, 20)"),
    ("scale", lambda x: float("nan"), ValueError, "`scale` must be finite"),
    ("segments", lambda x: 0, ValueError, "`segments` must be a positive integer"),
]


@pytest.mark.parametrize(("name", "edit", "kind", "text"), REFUSED)
def test_wrong_inputs_are_refused(name, edit, kind, text):
    with pytest.raises(kind) as refusal:
        swiglu_attention(**changed(name, edit))
    assert text in str(refusal.value)


@pytest.mark.parametrize(
    ("K", "D", "text"),
    [(129, 8, "K of at most 128; got 129"), (8, 129, "D of at most 128; got 129")],
)
def test_what_is_too_wide_is_sent_to_the_two_operators(K, D, text):
    made = tensors(Case(3, K, D, 8, initial=False))
    with pytest.raises(ValueError, match=text) as refusal:
        swiglu_attention(**made)
    assert "Use linear_attention of swiglu_features." in str(refusal.value)


@pytest.mark.parametrize(
    ("x", "kind", "text"),
    [
        (3.0, TypeError, "`x` must be a floating-point tensor; got float"),
        (
            torch.ones(2, 5, 2, 8).to(torch.float8_e4m3fn),
            TypeError,
            "`x` must be float32, bfloat16",
        ),
        (torch.ones(5, 2, 8), ValueError, "`x` must be [batch, time, heads, width]"),
        (torch.ones(2, 5, 2, 7), ValueError, "[heads, K, D] = [2, 7, D]"),
        (torch.ones(2, 5, 2, 8, dtype=torch.half), TypeError, "must be torch.float16 on"),
    ],
)
def test_wrong_inputs_of_features_are_refused(x, kind, text):
    made = tensors(Case(5, 8, 12, 20, B=2))
    with pytest.raises(kind) as refusal:
        swiglu_features(x, made["gate"], made["up"])
    assert text in str(refusal.value)


def load(tmp_path, text):
    """The kernels' module from other source."""
    path = tmp_path / "swiglu_kernels_edited.py"
    path.write_text(text, encoding="utf-8")
    name = "ttt_proofs.kernels.swiglu_kernels_edited"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAULTS = [
    ("t > i if EXCLUSIVE else t >= i", "t >= i", {"o"}),
    ("t > i if EXCLUSIVE else t >= i", "t > i", {"o"}),
    ("scores = tl.where(t > i if EXCLUSIVE else t >= i, scores, 0.0)", "scores = scores", {"o"}),
    (
        "state = dot(values, phi_k, state)",
        "state = dot(values, phi_k, 0.0 * state)",
        {"o", "final"},
    ),
    (
        "end = tl.minimum(T, begin + length)",
        "end = tl.minimum(T - 1, begin + length)",
        {"o", "final"},
    ),
    (
        "end = tl.minimum(T, begin + length)",
        "end = tl.minimum(T, begin + length - 1)",
        {"o", "final"},
    ),
    ("initial + slot * D * V", "initial + head * D * V", {"o", "final"}),
    ("elif segment == S - 1", "elif segment == 0", {"final"}),
    ("store_state(final + slot * D * V", "store_state(final + head * D * V", {"o", "final"}),
    ("weights = head % H * K * D", "weights = 0", {"o", "final"}),
    ("keys.dtype), read) * scale", "keys.dtype), read)", {"o"}),
    ("narrow(state, keys.dtype), phi_q", "narrow(0.0 * state, keys.dtype), phi_q", {"o"}),
]
FAULTS_OF_FEATURES = [
    ("return bounded(gate) * tl.sigmoid(gate) * up", "return gate * up", {"o", "final"}),
    ("load_rows(projected + D, first", "load_rows(projected, first", {"o", "final", "dq", "dgate"}),
    ("(1.0 + gate * (1.0 - s))", "1.0", {"dq", "dk", "dgate"}),
    ("outer * gate * s, first", "outer * gate, first", {"dq", "dk", "dup"}),
    (
        "store_rows(features, gated(gate, up), first, N,",
        "store_rows(features, gated(gate, up), first, N - 1,",
        {"o", "final"},
    ),
    (
        "store_rows(dprojected, dgate, first, N,",
        "store_rows(dprojected, dgate, first, N - 1,",
        {"dq", "dk", "dgate"},
    ),
    ("column = tl.program_id(0) % blocks * COLUMNS", "column = 0", {"o", "final", "dq", "dk"}),
]
FAULTY_CASE = Case(150, 8, 80, 12, exclusive=True, segments=2)


def run_edited(monkeypatch, tmp_path, old, new):
    """Run the operators on kernels with other source; elementwise tiles narrower than a row."""
    text = Path(swiglu_kernels.__file__).read_text(encoding="utf-8")
    assert old in text
    module = load(tmp_path, text.replace(old, new))
    for name in KERNELS:
        monkeypatch.setattr(swiglu, name, getattr(module, name))
    tiling = swiglu.Tiling(16, 64, num_warps=4, num_stages=1)
    monkeypatch.setattr(swiglu, "elementwise_tiling", lambda width: tiling)


def wrong_features(case):
    """`wrong` for the features alone."""
    case = case._replace(T=40, initial=False)  # several tiles of each program's 16 rows
    return wrong(case, only_features, only_features_defined, only_features_defined)


def test_copy_without_fault_passes(monkeypatch, tmp_path):
    run_edited(monkeypatch, tmp_path, "dot", "dot")
    assert not wrong(FAULTY_CASE, gradients=False) and not wrong_features(FAULTY_CASE)


@pytest.mark.parametrize(("old", "new", "names"), FAULTS)
def test_planted_fault_is_caught(old, new, names, monkeypatch, tmp_path):
    run_edited(monkeypatch, tmp_path, old, new)
    case = FAULTY_CASE._replace(exclusive=new != "t > i")
    caught = set(wrong(case, gradients=False))
    assert names <= caught, caught


@pytest.mark.parametrize(("old", "new", "names"), FAULTS_OF_FEATURES)
def test_planted_fault_in_features_is_caught(old, new, names, monkeypatch, tmp_path):
    run_edited(monkeypatch, tmp_path, old, new)
    caught = set(wrong_features(FAULTY_CASE))
    assert names <= caught, caught


FORGETFUL = {
    "all before the last": lambda local, initial: local.roll(1, 1).clone(),
    "the initial state": lambda local, initial: STARTS(local, None),
    "one more than the ones before": lambda local, initial: STARTS(local, initial) + local,
}
STARTS = swiglu.starting_states


@pytest.mark.parametrize("forgotten", FORGETFUL)
def test_segments_that_start_wrongly_are_caught(forgotten, monkeypatch):
    case = FAULTY_CASE._replace(segments=3)
    assert not wrong(case, gradients=False)
    monkeypatch.setattr(swiglu, "starting_states", FORGETFUL[forgotten])
    assert "o" in wrong(case, gradients=False)
