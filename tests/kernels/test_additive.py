"""Additive and decayed attention against the float64 recurrence: values, states, gradients."""

import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from tests.kernels.faults import faulty
from tests.kernels.oracles import DEVICE, Case, error, failures, poisoned, run, with_gradients
from ttt_proofs import kernels
from ttt_proofs.kernels import linear_attention, requirements
from ttt_proofs.kernels.launches import segments_for, tiling

BF16, FP16, FP64 = torch.bfloat16, torch.float16, torch.float64

CASES = [
    Case("additive", 1, 8, 8),
    Case("additive", 63, 60, 8),
    Case("additive", 64, 8, 60, exclusive=True, initial=False),
    Case("additive", 65, 64, 128, BF16),
    Case("additive", 200, 1, 8, segments=3, H=1),
    Case("additive", 130, 8, 1, FP64, exclusive=True, segments=7, H=1),
    Case("additive", 65, 128, 64, FP16, exclusive=True, H=1),
    Case("additive", 65, 8, 260, segments=2, H=1),
    Case("decay", 1, 8, 8, exclusive=True),
    Case("decay", 2, 8, 60, BF16, initial=False, strided=True, B=4),
    Case("decay", 63, 8, 1, gates="mixed"),
    Case("decay", 64, 60, 8, gates="zero", exclusive=True),
    Case("decay", 65, 1, 60, gates="one", segments=2),
    Case("decay", 200, 8, 8, FP64, gates="mixed", exclusive=True, segments=3, strided=True),
    Case("decay", 130, 64, 8, BF16, segments=2, B=2, H=1),
    Case("decay", 65, 8, 64, FP16, gates="tiny", segments=2),
    Case("decay", 65, 128, 128, BF16, gates="mixed", H=1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_states_and_gradients(case):
    assert failures(kernels, case) == {}


FAULTS = [
    # the token itself is left out of what it reads
    ("gated", "rows >= columns if AXIS == 0", "rows > columns if AXIS == 0", "additive"),
    # the decay of a token is counted once more
    ("tiling", "tl.where(t > i, a[:, None], 1.0)", "tl.where(t >= i, a[:, None], 1.0)", "decay"),
    # a tile's boundary is off by one
    ("gated", "token, start + 1, start, stop", "token, start, start, stop", "decay"),
    # what enters a tile does not decay
    ("gated", "scaled_rows(v, after), whole * m)", "scaled_rows(v, after), m)", "decay"),
    ("gated", "read *= reach[:, None]", "read *= 1.0", "decay"),
    # the final state is not stored
    ("gated", "kept = last", "kept = column < 0", "additive"),
    # the last token's gate is dropped
    (
        "tiling",
        "kept = (rows >= begin) & (rows < end)",
        "kept = (rows >= begin) & (rows < end - 1)",
        "decay",
    ),
    # a gradient without the decay
    (
        "gated_backward",
        "scaled_rows(z, reach), whole * m)\n    else",
        "scaled_rows(z, reach), m)\n    else",
        "decay",
    ),
    (
        "gated_numbers",
        "tl.cumprod(tl.where(t > i + 1, before[:, None], 1.0), axis=0)",
        "1.0",
        "decay",
    ),
    ("gated_numbers", "outer = tl.sum(mask * reads[None, :], axis=1) +", "outer =", "decay"),
    # segments that forget their gates, or their initial state
    ("scan", "product[:, s] * m + moved[1]", "m + moved[1]", "decay"),
    (
        "scan",
        "torch.zeros_like(x[:, 0]) if y is None else y.flatten(0, 1)",
        "torch.zeros_like(x[:, 0])",
        "additive",
    ),
    # the first token of an exclusive reading
    ("gated", "tl.where(segment == 0, WIDTH, 0)", "tl.where(segment == 0, 0, 0)", "additive"),
    ("gated_backward", "m = add_first(", "m = m + 0.0 * add_first(", "additive"),
    ("gated_backward", "narrow(z_tile.to(ACC) * SCALE, z_tile.dtype)", "z_tile", "additive"),
]


@pytest.mark.parametrize(("module", "old", "new", "mode"), FAULTS)
def test_planted_fault_is_seen(module, old, new, mode, tmp_path):
    case = Case(mode, 130, 8, 8, exclusive="first" in old or "WIDTH" in old, segments=2, H=1)
    with faulty(tmp_path, module, old, new) as planted:
        assert failures(planted, case)


def test_copy_without_a_fault_passes(tmp_path):
    with faulty(tmp_path, "gated", "rows >= columns", "rows >= columns") as planted:
        assert planted.__name__ == "ttt_proofs.planted"
        assert failures(planted, Case("decay", 130, 8, 8, segments=2, H=1)) == {}


def test_memory_is_poisoned():
    with poisoned():
        assert torch.empty(3, device=DEVICE).isnan().all()
        assert torch.ones(3, device=DEVICE).new_empty(3).isnan().all()


def test_error_is_relative_and_sees_nan():
    exact = torch.tensor([4.0, 2.0], dtype=FP64)
    assert error(torch.tensor([4.0, 3.0]), exact) == 0.25
    assert error(torch.tensor([4.0, float("nan")]), exact) == float("inf")
    assert error(torch.tensor([4.0]), exact) == float("inf")


def test_long_sequence_with_gates_at_their_ends():
    """A running product underflows at once here; what is read is still exact."""
    case = Case("decay", 384, 8, 8, gates="mixed", H=1)
    x = case.inputs()
    x["alpha"] = torch.where(torch.arange(384, device=DEVICE) % 2 == 0, 1e-30, 1.0)
    x["alpha"] = x["alpha"][None, :, None].requires_grad_()
    got = with_gradients(lambda y: run(kernels, case, y), x)
    assert all(y.isfinite().all() for y in got.values())
    last = 0.25 * torch.einsum("k,tk,tv->v", x["q"][0, -1, 0], x["k"][0, -2:, 0], x["v"][0, -2:, 0])
    assert torch.allclose(got["o"][0, -1, 0], last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decayed", [False, True])
@pytest.mark.parametrize(("batch", "tokens"), [(2, 0), (0, 5)])
def test_nothing_to_do(batch, tokens, decayed):
    q, v = torch.randn(batch, tokens, 2, 4, device=DEVICE), torch.randn(batch, tokens, 2, 3)
    v = v.to(DEVICE).requires_grad_()
    state = torch.randn(batch, 2, 4, 3, device=DEVICE, requires_grad=True)
    decay = torch.rand(batch, tokens, 2, device=DEVICE) if decayed else None
    o, last = linear_attention(q, q, v, decay=decay, initial_state=state, output_final_state=True)
    assert o.shape == v.shape
    assert last is not None and torch.equal(last, state)
    grads = torch.autograd.grad([o, last], [v, state], [o, torch.ones_like(last)])
    assert [g.shape for g in grads] == [v.shape, state.shape]
    o, last = linear_attention(q, q, v)
    assert last is None


def test_only_asked_for_gradients_and_states():
    case = Case("decay", 70, 8, 8, H=1)
    everything = with_gradients(lambda y: run(kernels, case, y), case.inputs())
    for wanted in ("q", "k", "v", "alpha", "m"):
        x = {name: y.detach() for name, y in case.inputs().items()}
        x[wanted].requires_grad_()
        o, last = linear_attention(
            x["q"],
            x["k"],
            x["v"],
            decay=x["alpha"],
            scale=case.scale,
            initial_state=x["m"],
            output_final_state=True,
        )
        draw = torch.Generator().manual_seed(1)
        weights = [torch.randn(y.shape, generator=draw, dtype=FP64).to(y) for y in (last, o)]
        (got,) = torch.autograd.grad([last, o], [x[wanted]], weights)
        assert torch.equal(got, everything[f"d{wanted}"])


@pytest.mark.parametrize("name", ["q", "k", "v", "alpha", "m"])
def test_nan_reaches_the_outputs(name):
    case = Case("decay", 70, 8, 8, H=1)
    x = {n: y.detach() for n, y in case.inputs().items()}
    x[name].view(-1)[-1] = float("nan")
    got = run(kernels, case, x)
    assert got["o"].isnan().any() or got["m_last"].isnan().any()
    assert got["o"][:, -1].isnan().any()


def test_configurations_fit_the_segments():
    for mode in ("additive", "decay", "momentum"):
        for dtype in (torch.float32, BF16, FP16, FP64):
            for width in (16, 32, 64, 128, 256):
                for reverse in (False, True):
                    tiles = tiling(mode, dtype, width, width, reverse=reverse)
                    assert 64 % tiles.tokens == 0
                    assert tiles.columns & (tiles.columns - 1) == 0 and tiles.columns >= 16


def test_segments_fill_the_device(monkeypatch):
    from ttt_proofs.kernels import launches

    monkeypatch.setattr(launches, "multiprocessors", lambda device: 132)
    few, many = torch.empty(1, 16384, 2, 64, dtype=BF16), torch.empty(8, 16384, 32, 64, dtype=BF16)
    assert segments_for(many, many, "additive") == 1
    assert 8 < segments_for(few, few, "additive") <= 16
    assert segments_for(few[:, :100], few[:, :100], "additive") == 1


Q = torch.zeros(2, 5, 3, 4, device=DEVICE)
WRONG = [
    ({"q": 1}, TypeError, "`q` must be a floating-point tensor; got int. Convert it."),
    ({"q": Q.int()}, TypeError, "`q` must be a floating-point tensor; got torch.int32"),
    ({"k": Q.half()}, TypeError, "`k` must be torch.float32, as q is; got torch.float16"),
    ({"q": Q[0]}, ValueError, r"`q` must be \[batch, time, heads, width\]; got shape \(5, 3, 4\)"),
    ({"k": Q[..., :3]}, ValueError, r"`q` and `k` must have one shape; got \(2, 5, 3, 4\) and"),
    ({"v": Q[:, :4]}, ValueError, r"`v` must have k's batch, time and heads \(2, 5, 3\); got"),
    ({"v": Q[..., :0]}, ValueError, "`v` must have a width of at least 1; got 0"),
    (
        {"q": Q.new_zeros(2, 5, 3, 257), "k": Q.new_zeros(2, 5, 3, 257)},
        ValueError,
        "`k` must have a width of 1 to 256, which is one block of the kernel; got 257",
    ),
    ({"decay": 0.5}, TypeError, "`decay` must be a floating-point tensor; got float"),
    ({"decay": Q[..., 0, :]}, ValueError, r"`decay` must be \[batch, time, heads\] = \(2, 5, 3\)"),
    ({"initial_state": Q}, ValueError, r"must be \[batch, heads, K, V\] = \(2, 3, 4, 4\); got"),
    ({"scale": "1"}, TypeError, "`scale` must be a number; got str. Pass a float."),
    ({"scale": float("nan")}, ValueError, "`scale` must be finite; got nan. Pass 1.0 for none."),
    ({"segments": 0}, ValueError, "`segments` must be a positive integer; got 0. Leave it out"),
]


@pytest.mark.parametrize(("change", "kind", "words"), WRONG)
def test_wrong_inputs_are_refused(change, kind, words):
    given = {"q": Q, "k": Q, "v": Q} | change
    with pytest.raises(kind, match=words) as raised:
        linear_attention(given.pop("q"), given.pop("k"), given.pop("v"), **given)
    assert "\n" not in str(raised.value)


ALONE = """
import os, sys
os.environ.pop("TRITON_INTERPRET", None)
blocked = sys.argv[1] == "blocked"
if blocked:
    sys.modules["triton"] = None
    import importlib.machinery
    find = importlib.machinery.PathFinder.find_spec
    importlib.machinery.PathFinder.find_spec = (
        lambda name, *rest: None if name == "triton" else find(name, *rest))
    del sys.modules["triton"]
import ttt_proofs, torch
from ttt_proofs import kernels
print(dir(kernels), "triton" in sys.modules)
q, one = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1)
for name, given in (("linear_attention", (q, q, q)), ("momentum_attention", (q, q, q, one, one)),
                    ("delta_rule", (q, q, q, one)), ("swiglu_features", (q, one, one)),
                    ("swiglu_attention", (q, q, q, one, one))):
    try:
        getattr(kernels, name)(*given)
    except (ImportError, RuntimeError) as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("blocked", "needs Triton, which is not installed. Install it with"),
        (
            "there",
            "Pass CUDA tensors, or set TRITON_INTERPRET=1 before the first import of triton.",
        ),
    ],
)
def test_without_triton_or_device(way, words):
    done = subprocess.run([sys.executable, "-c", ALONE, way], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "linear_attention" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[0].endswith("False")
    assert done.stdout.count(words) == 5, done.stdout


VERSIONS = [
    ("3.6.0", "2.4.0", False),
    ("3.6.0+git1", "2.4.6", False),
    ("3.6.0", "3.0.1", False),
    ("3.6.0", "2.3.5", True),
    ("3.6.0", "1.26.4", True),
    ("3.7.0", "2.4.6", True),
    ("3.10.0", "2.10.0", True),
    ("4.0.0", "2.4.6", True),
]


@pytest.mark.parametrize(("of_triton", "of_numpy", "runs"), VERSIONS)
def test_an_interpreter_that_numpy_breaks_is_told_before_it_runs(
    of_triton, of_numpy, runs, monkeypatch
):
    monkeypatch.setattr(requirements.triton, "__version__", of_triton)
    monkeypatch.setattr(requirements.numpy, "__version__", of_numpy)
    monkeypatch.setattr(requirements, "INTERPRETED", True)
    x, weight = Q.new_ones(1, 2, 1, 4), Q.new_ones(1, 4, 4)
    calls = [
        lambda: linear_attention(x, x, x)[0],
        lambda: kernels.delta_rule(x, x, x, x[..., 0])[0],
        lambda: kernels.momentum_attention(x, x, x, x[..., 0], x[..., 0])[0],
        lambda: kernels.swiglu_features(x, weight, weight),
        lambda: kernels.swiglu_attention(x, x, x, weight, weight)[0],
    ]
    assert (requirements.interpreter_fault() is None) == runs
    for call in calls:
        if runs:
            assert call().isfinite().all()
            continue
        with pytest.raises(RuntimeError) as raised:
            call()
        for words in (f"Triton {of_triton} and NumPy {of_numpy}", "`triton>=3.7` or `numpy<2.4`"):
            assert words in str(raised.value)
    monkeypatch.setattr(requirements, "INTERPRETED", False)
    requirements.check_device("q", SimpleNamespace(is_cuda=True))  # compiled kernels do not care


def test_the_extra_for_the_interpreter_leaves_out_the_triton_that_numpy_breaks():
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    (compiled,), (interpreted,) = extras["triton"], extras["interpreter"]
    assert "3.6.0" in Requirement(compiled).specifier  # what images with a GPU have
    assert "3.6.0" not in Requirement(interpreted).specifier
    assert "3.7.0" in Requirement(interpreted).specifier
    assert "ttt-proofs[interpreter]" in extras["notebooks"]


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no `softmax`; it has delta_rule"):
        kernels.softmax  # noqa: B018


EVERY_MODULE = """
import os, pkgutil
from importlib import import_module
os.environ["TRITON_INTERPRET"] = "1"
from ttt_proofs import kernels
for module in pkgutil.iter_modules(kernels.__path__):
    import_module(f"{kernels.__name__}.{module.name}")
for name in kernels.__all__:
    operator = getattr(kernels, name)
    print(name, callable(operator), operator.__name__ == name)
"""


def test_an_operators_name_is_the_operator_whatever_was_imported_before():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} True True" for name in kernels.__all__]
