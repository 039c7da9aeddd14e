"""What is meant for a GPU, run in Triton's interpreter or on stand-ins for CUDA's parts."""

import contextlib
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ttt_proofs.bench import gpu_checks, gpu_operators, operator_cases
from ttt_proofs.bench.benchmark import NotRunError, Settings, relative_error
from ttt_proofs.bench.differentiate import both
from ttt_proofs.bench.gpu_checks import accuracy, captured, compiled_as, grew
from ttt_proofs.bench.gpu_operators import TARGETS, Ceilings, Target, judged, measure, speeds
from ttt_proofs.bench.operator_cases import OPERATORS, Sizes
from ttt_proofs.bench.timing import Times, host_clock
from ttt_proofs.evidence.kernels import poisoned

QUICK = Settings(quick=True)
SMALL = Sizes(1, 1, 12, 16)


def interpreted() -> bool:
    """Whether kernels run here without a GPU."""
    try:
        operator_cases.require_device(QUICK)
    except NotRunError:
        return False
    return True


needs_interpreter = pytest.mark.skipif(not interpreted(), reason="needs Triton's interpreter")


def with_ours(monkeypatch, name, function):
    """Put a function in the place of a kernel's operator."""
    fake = SimpleNamespace(
        **{n: getattr(operator_cases.kernels(), n) for n in OPERATORS if n != name}
    )
    setattr(fake, name, function)
    monkeypatch.setattr(operator_cases, "kernels", lambda: fake)


@needs_interpreter
@pytest.mark.parametrize("name", OPERATORS)
def test_accuracy_holds_for_each_operator_and_gradient(name):
    rows = list(accuracy(OPERATORS[name], QUICK))
    assert [row["tensor"] for row in rows] == ["o", *(f"d{n}" for n in OPERATORS[name].names)]
    for row in rows:
        assert "problem" not in row, row
        assert row["ratio"] <= 2


@needs_interpreter
def test_a_kernel_that_leaves_its_output_unwritten_is_found(monkeypatch):
    def lazy(q, k, v):
        o = (torch.empty_like(v), None)
        return o[0] + 0 * (q.sum() + k.sum() + v.sum()), None

    with_ours(monkeypatch, "linear_attention", lazy)
    rows = list(accuracy(OPERATORS["linear_attention"], QUICK))
    assert "problem" in rows[0]


def test_memory_that_is_not_written_is_nan_only_inside():
    with poisoned():
        assert torch.empty(8).isnan().all()
        assert torch.empty_like(torch.ones(3)).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("name", OPERATORS)
def test_plain_forms_are_the_recurrence(name):
    operator = OPERATORS[name]
    x = operator.make(SMALL, torch.float64, "cpu", 0)
    assert relative_error(operator.plain(*x), operator.exact(*x)) < 1e-12
    again = operator.make(SMALL, torch.float64, "cpu", 0)
    other = operator.make(SMALL, torch.float64, "cpu", 1)
    assert all(map(torch.equal, x, again))
    assert not any(map(torch.equal, x, other))
    assert all((t != 0).all() for t in x)


@needs_interpreter
def test_operators_compute_what_their_plain_forms_do():
    for name in OPERATORS:
        x = OPERATORS[name].make(SMALL, torch.float32, "cpu", 3)
        assert relative_error(OPERATORS[name].ours()(*x), OPERATORS[name].plain(*x)) < 1e-5, name


def test_compulsory_bytes_are_counted_by_hand():
    sizes = Sizes(8, 16, 8192, 128)
    unit = 8 * 16 * 8192 * 128 * 2
    assert unit == 268435456
    numbers = 4 * 8 * 16 * 8192
    weight = 16 * 128 * 128 * 2
    expected = {
        "linear_attention": (4 * unit, 11 * unit),
        "momentum_attention": (4 * unit + 2 * numbers, 11 * unit + 6 * numbers),
        "delta_rule": (4 * unit + numbers, 11 * unit + 3 * numbers),
        "swiglu_attention": (4 * unit + 2 * weight, 11 * unit + 6 * weight),
        "swiglu_features": (2 * unit + 2 * weight, 5 * unit + 6 * weight),
    }
    for name, counts in expected.items():
        found = [OPERATORS[name].compulsory_bytes(sizes, which, 2) for which in ("forward", "both")]
        assert tuple(found) == counts, name


def test_speeds_are_shares_of_what_was_measured():
    target, sizes = Target("linear_attention", "forward", SMALL), Sizes(1, 1, 1000, 16)
    row = speeds(0.5, target, sizes, 10**9, Ceilings(copy=4e12, matmul=1e14))
    assert row == {"gb_per_s": 2000.0, "of_roofline": 0.5}
    row = speeds(1.0, replace(target, matmul=0.5), sizes, 10**9, Ceilings(None, 1e10))
    assert row["tflops"] == pytest.approx(4 * 1000 * 256 / 1e-3 / 1e12)
    assert row["of_matmul"] == pytest.approx(4 * 1000 * 256 / 1e-3 / 1e10)


TARGET = Target("linear_attention", "forward", SMALL, 0.5, {"fla": 2.0}, None, 0.75)


def judge(ours: float, rival: float | None, share: float, target: Target = TARGET):
    rounds = {"ours": [ours] * 3} | ({} if rival is None else {"fla": [rival] * 3})
    return judged({"median_ms": ours, "of_roofline": share}, target, Times(rounds))


def test_targets_are_met_only_if_each_one_is():
    assert judge(0.5, 1.0, 0.75)["met"] is True
    assert judge(0.51, 1.1, 0.75)["missed"] == "0.5 ms"
    assert judge(0.5, 0.9, 0.75)["missed"] == "2.0× fla"
    assert judge(0.5, 1.0, 0.74)["missed"] == "75% of roofline"
    assert judge(0.5, 1.0, float("nan"))["missed"] == "75% of roofline"
    assert judge(0.5, None, 0.75)["missed"] == "2.0× fla (not compared)"
    slow = judge(0.5, 1.0, 0.75, replace(TARGET, slower=1.25))
    assert slow["met"] is False and slow["missed"] == "≤ 1.25× additive"
    times = Times({"ours": [1.2], "fla": [2.4], "additive": [1.0]})
    fine = judged({"median_ms": 0.4, "of_roofline": 1.0}, replace(TARGET, slower=1.25), times)
    assert fine["met"] and fine["of_additive"] == 1.2


def test_the_targets_are_those_agreed():
    """The milliseconds, by operator, pass, width and length."""
    found = {(t.operator.split("_")[0], t.which, t.sizes.d, t.sizes.T): t.ms for t in TARGETS}
    assert found == {
        ("linear", "forward", 128, 8192): 0.48,
        ("linear", "forward", 64, 8192): 0.25,
        ("linear", "both", 128, 8192): 1.8,
        ("linear", "both", 64, 8192): 0.85,
        ("linear", "forward", 128, 16384): 0.33,
        ("momentum", "forward", 128, 8192): 0.60,
        ("momentum", "both", 128, 8192): 2.4,
        ("delta", "forward", 128, 8192): 1.1,
        ("delta", "both", 128, 8192): 3.6,
        ("swiglu", "forward", 128, 8192): 0.65,
        ("swiglu", "forward", 384, 32768): None,
    }


def rival(fault=lambda o: o):
    """flash-linear-attention's stand-in: the plain form, or a faulty one."""
    return lambda: lambda *x: fault(OPERATORS["linear_attention"].plain(*x))


@needs_interpreter
@pytest.mark.parametrize("which", ["forward", "both"])
def test_operators_are_timed_beside_their_rivals(monkeypatch, which):
    def broken():
        raise ImportError("no such name")

    def missing():
        raise NotRunError("not installed")

    rivals = {
        "fla": rival(),
        "wrong": rival(lambda o: o * 1.2),
        "nan": rival(lambda o: o / 0),
        "broken": broken,
        "missing": missing,
    }
    operator = replace(OPERATORS["linear_attention"], rivals=rivals)
    monkeypatch.setitem(gpu_operators.OPERATORS, "linear_attention", operator)
    target = Target("linear_attention", which, Sizes(1, 1, 20, 16), 1e-9, {"fla": 1.0}, 1.5)
    rows = {r["by"]: r for r in measure(target, QUICK, host_clock, Ceilings(1e12, 1e12))}
    assert set(rows) == {"ours", "additive", *rivals}
    assert rows["ours"]["met"] is False and "1e-09 ms" in rows["ours"]["missed"]
    assert "problem" not in rows["ours"] and "problem" not in rows["fla"]
    assert "problem" in rows["wrong"] and "problem" in rows["nan"]
    assert rows["missing"]["not_run"] == "not installed"
    assert rows["broken"]["not_run"] == "failed: ImportError"


@needs_interpreter
def test_a_kernel_that_makes_nan_is_a_problem_without_any_rival(monkeypatch):
    with_ours(monkeypatch, "linear_attention", lambda q, k, v: (v / 0 * 0, None))
    operator = replace(OPERATORS["linear_attention"], rivals={})
    monkeypatch.setitem(gpu_operators.OPERATORS, "linear_attention", operator)
    (row,) = measure(Target("linear_attention", "forward", SMALL), QUICK, host_clock, Ceilings())
    assert row["problem"] == "the output or a gradient is not finite"


@needs_interpreter
def test_every_target_has_a_dry_run(monkeypatch):
    """One row of each operator, without the passes that the interpreter is slow at."""
    quick = [t for t in TARGETS if (t.which == "forward" and t.sizes.d == 128) or t.matmul]
    monkeypatch.setattr(gpu_operators, "TARGETS", quick)
    rows = list(gpu_operators.GPU_OPERATORS.run(QUICK))
    assert [r["operator"] for r in rows[:2]] == ["copy", "bfloat16 matmul"]
    assert {r["operator"] for r in rows[2:]} == set(OPERATORS)
    for row in rows:
        assert "problem" not in row, row


def test_without_a_gpu_a_full_run_is_said_not_to_be():
    with pytest.raises(NotRunError):
        operator_cases.require_device(Settings("cpu"))
    rows = list(gpu_checks.GPU_GRAPHS.run(Settings("cpu")))
    assert len(rows) == 3 * len(OPERATORS) and all("not_run" in row for row in rows)


def test_an_interpreter_that_cannot_run_is_said_to_be_why(monkeypatch):
    from ttt_proofs.kernels import requirements

    monkeypatch.setattr(requirements, "INTERPRETED", True)
    monkeypatch.setattr(requirements.triton, "__version__", "3.6.0")
    monkeypatch.setattr(requirements.numpy, "__version__", "2.4.0")
    with pytest.raises(NotRunError, match=r"got Triton 3\.6\.0 and NumPy 2\.4\.0"):
        operator_cases.require_device(QUICK)


def test_compiled_functions_are_compared_with_gradients():
    operator = OPERATORS["swiglu_features"]
    (row,) = compiled_as(operator.plain, operator, SMALL, "cpu", backend="eager")
    assert row["check"] == "torch.compile" and row["equal"] is True and "problem" not in row


def test_a_function_that_compiles_to_another_one_is_a_problem():
    operator = OPERATORS["swiglu_features"]

    def changing(*x):
        return operator.plain(*x) * (2 if torch.compiler.is_compiling() else 1)

    (row,) = compiled_as(changing, operator, SMALL, "cpu", backend="eager")
    assert row["equal"] is False and "problem" in row


class Graph:
    """A CUDA graph's stand-in: replay runs the last call again, into the same results."""

    calls: list = []  # noqa: RUF012
    replays = True

    def replay(self):
        if self.replays:
            function, args, do, kept = self.calls[-1]
            for result, new in zip(kept, both(function, args, do), strict=True):
                result.detach().copy_(new)


def stand_in(monkeypatch):
    """Stand-ins for the parts of CUDA that capturing needs."""

    def recorded(function, args, do):
        found = both(function, args, do)
        Graph.calls.append((function, args, do, found))
        return found

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(gpu_checks, "both", recorded)
    monkeypatch.setattr(gpu_checks, "require_device", lambda settings: None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda g: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    real = OPERATORS["swiglu_features"]

    def make(sizes, dtype, device, seed):
        return real.make(SMALL, dtype, "cpu", seed)

    return SimpleNamespace(ours=lambda: real.plain, make=make)


@pytest.mark.parametrize("replays", [True, False], ids=["replays", "does nothing"])
def test_a_captured_graph_must_write_its_results_again(monkeypatch, replays):
    operator = stand_in(monkeypatch)
    monkeypatch.setattr(Graph, "replays", replays)
    (row,) = captured(operator, Settings("cuda"))
    assert row["check"] == "CUDA graph" and row["equal"] is replays
    assert ("problem" in row) is not replays


def test_more_kernels_for_other_lengths_are_a_problem(monkeypatch):
    assert grew([3, 5, 5, 5]) == {"entries": 5, "new_entries": 0}
    assert "problem" in grew([3, 5, 5, 6])

    module = ModuleType("ttt_proofs.kernels.made_up")
    kernel = SimpleNamespace(device_caches={0: ({"a": 1, "b": 2}, {})})
    module.kernel, module.tuned, module.other = kernel, SimpleNamespace(fn=kernel), 3
    monkeypatch.setitem(sys.modules, module.__name__, module)
    before = gpu_checks.cache_entries()
    kernel.device_caches[0][0]["c"] = 3
    assert gpu_checks.cache_entries() == before + 1

    counts = iter([2, 4, 4, 5, 5, 5, 5])
    monkeypatch.setattr(gpu_checks, "cache_entries", lambda: next(counts))
    monkeypatch.setattr(gpu_checks, "require_device", lambda settings: None)
    operator = SimpleNamespace(
        ours=lambda: OPERATORS["linear_attention"].plain, make=OPERATORS["linear_attention"].make
    )
    (row,) = gpu_checks.recompiled(operator, QUICK)
    assert row["new_entries"] == 0 and row["lengths"] == "20, 21, 1"
