"""The CPU's benchmarks, at small sizes."""

from functools import partial

import pytest
import torch

from ttt_proofs.bench import cpu_forms, peak
from ttt_proofs.bench.benchmark import NotRunError, Settings
from ttt_proofs.bench.cpu_forms import FORMS, GROWTH, forms_cases, forms_of, gated_loop, grown
from ttt_proofs.bench.timing import Times
from ttt_proofs.reduction import reduce

QUICK = Settings(quick=True)


def test_forms_are_compared_in_both_passes():
    rows = list(FORMS.run(QUICK))
    assert [(r["pass"], r["form"]) for r in rows] == [
        (which, form) for which in ("forward", "both") for form in ("recurrent", "chunked", "scan")
    ]
    for row in rows:
        assert "problem" not in row
        assert row["median_ms"] > 0 and row["repeats"] == 2 and row["error"] < 1e-5
    assert rows[0]["ratio"] == 1.0


def test_full_sizes_are_those_that_are_claimed():
    (first, _), (second, _) = forms_cases(Settings())
    assert {"T": 4096, "H": 4, "d": 64, "tile": 64, "dtype": "float32"}.items() <= first.items()
    assert (first["pass"], second["pass"]) == ("forward", "both")


@pytest.mark.parametrize(
    "fault", [lambda o: o * float("nan"), lambda o: 1.01 * o, lambda o: o.roll(1, dims=1)]
)
def test_a_form_that_is_wrong_is_a_problem(fault):
    functions = forms_of(reduce(gated_loop()))
    right = functions["chunked"]
    functions["chunked"] = lambda *x: fault(right(*x))
    rows = [row for case in forms_cases(QUICK, functions) for row in case.measure()]
    assert [("problem" in row, row["form"]) for row in rows] == 2 * [
        (False, "recurrent"),
        (True, "chunked"),
        (False, "scan"),
    ]


def test_a_wrong_gradient_is_a_problem():
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, dx):
            return dx / 2

    functions = forms_of(reduce(gated_loop()))
    right = functions["scan"]
    functions["scan"] = lambda q, *x: right(Halved.apply(q), *x)
    rows = [row for case in forms_cases(QUICK, functions) for row in case.measure()]
    assert [row["form"] for row in rows if "problem" in row] == ["scan"]


def test_growth_compares_each_length_with_half():
    times = Times({"64": [1.0, 2.0], "128": [2.0, 8.0], "256": [4.0, 8.0]})
    memory = {64: 2**20, 128: 3 * 2**20, 256: 7 * 2**20}
    rows = list(grown(times, (64, 128, 256), memory.__getitem__))
    assert [row.get("ratio") for row in rows] == [None, 3.0, 1.5]
    assert [row["peak_mib"] for row in rows] == [0.0, 2.0, 6.0]
    assert [row.get("memory_ratio") for row in rows] == [None, None, 3.0]


def test_growth_runs_every_length(monkeypatch):
    asked = []

    def fake(which, heads, width, tokens):
        asked.append((which, tokens))
        return 2**20 * tokens

    cases = partial(cpu_forms.growth_cases, peak=fake)
    rows = [{**case.common, **row} for case in cases(QUICK) for row in case.measure()]
    assert [(r["pass"], r["T"]) for r in rows] == [
        ("forward", 128),
        ("forward", 256),
        ("both", 128),
        ("both", 256),
    ]
    assert rows[1]["memory_ratio"] == pytest.approx(192 / 64)
    assert set(asked) == {(w, n) for w in ("forward", "both") for n in (64, 128, 256)}
    lengths = [case.measure.args[1] for case in cases(Settings())]
    assert lengths == [[4096, 8192, 16384, 32768, 65536], [4096, 8192, 16384]]
    assert GROWTH.cases is cpu_forms.growth_cases


@pytest.mark.skipif(not peak.STATUS.exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_the_childs_own():
    """Not what this process has held, which `ru_maxrss` of a child begins with."""
    ballast = torch.ones(2**28, dtype=torch.float16)  # 0.5 GiB
    found = peak.peak_bytes("forward", 1, 4, 64)
    assert 2**25 < found < ballast.nbytes
    assert peak.resident_peak() > ballast.nbytes


def test_without_proc_memory_is_said_not_to_be_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "STATUS", tmp_path / "status")
    with pytest.raises(NotRunError):
        peak.resident_peak()
