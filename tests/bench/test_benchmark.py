"""Cases become rows, whatever happens in them; wrong results are told."""

import time

import pytest
import torch

from ttt_proofs.bench.benchmark import (
    Benchmark,
    Case,
    NotRunError,
    Settings,
    checked,
    error_row,
    relative_error,
)


def benchmark(*measures) -> Benchmark:
    """One with a case for each function."""
    cases = [Case({"n": n}, measure) for n, measure in enumerate(measures)]
    return Benchmark("made_up", "Nothing.", ("cpu",), lambda settings: cases, (("n", "n"),))


def fails():
    yield {"error": 0.5}
    raise ValueError("shapes do not fit")


def unavailable():
    raise NotRunError("not installed")
    yield


def test_a_case_that_fails_keeps_its_rows_and_the_next_one_runs():
    rows = list(benchmark(fails, unavailable, lambda: [{"error": 0.0}]).run(Settings()))
    assert rows == [
        {"n": 0, "error": 0.5},
        {"n": 0, "problem": "ValueError: shapes do not fit"},
        {"n": 1, "not_run": "not installed"},
        {"n": 2, "error": 0.0},
    ]


def test_after_the_deadline_nothing_starts_and_all_is_told():
    def forbidden():
        raise AssertionError("was started")

    rows = list(benchmark(forbidden, forbidden).run(Settings(deadline=time.monotonic() - 1)))
    assert rows == [{"n": n, "not_run": "the time given was over"} for n in range(2)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_problems(bad):
    found = checked({"median_ms": 1.0, "ratio": bad, "problem": "slow"})
    assert found == {"median_ms": 1.0, "ratio": None, "problem": "slow; ratio not finite"}
    assert checked({"ratio": 1.0}) == {"ratio": 1.0}


def test_errors_over_the_limit_and_nan_are_problems():
    x = torch.ones(4)
    spoiled = x.clone()
    spoiled[1] = float("nan")
    assert "problem" not in error_row(relative_error(x, x), torch.float32)
    assert "problem" in error_row(relative_error(1.01 * x, x), torch.float32)
    assert "problem" in error_row(relative_error(spoiled, x), torch.float32)
    assert "problem" not in error_row(relative_error(1.01 * x, x), torch.bfloat16)
