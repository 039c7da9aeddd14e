"""Medians, spreads and ratios follow from the times; failures stay in sight."""

import pytest
import torch

from ttt_proofs.bench import timing
from ttt_proofs.bench.timing import Times, host_clock, interleaved, spread


def test_rows_are_medians_and_interquartile_ranges():
    times = Times({"a": [1.0, 2.0, 3.0, 4.0, 100.0]})
    assert times.row("a") == {"median_ms": 3.0, "spread_ms": 2.0, "repeats": 5}
    assert spread([7.0]) == 0.0


def test_a_ratio_is_the_median_of_each_rounds_quotient():
    """Not the quotient of medians, which a round that was slow for both would change."""
    times = Times({"slow": [2.0, 20.0, 6.0], "fast": [1.0, 10.0, 2.0]})
    assert times.ratio("slow", "fast") == 2.0
    assert times.ratio("fast", "slow") == 0.5
    assert times.row("slow")["median_ms"] / times.row("fast")["median_ms"] == 3.0


def test_ways_take_turns_and_each_is_first_in_its_turn():
    called = []
    ways = {name: (lambda name=name: called.append(name)) for name in "abc"}
    found = interleaved(ways, 3, lambda way: way() or 1.0, warmup=1)
    assert "".join(called) == "abc" + "abc" + "bca" + "cab"
    assert [len(found.rounds[name]) for name in "abc"] == [3, 3, 3]


def test_what_is_short_is_run_again_and_its_mean_counts(monkeypatch):
    """The first run, after something else, does not count; what is long enough is run once."""
    now, lengths = [0.0], iter([0.1, 0.02, 0.02, 0.02, 0.02, 0.2])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def way():
        now[0] += next(lengths)

    monkeypatch.setattr(timing, "SHORT", 150.0)
    assert host_clock(way) == pytest.approx(20.0)
    assert next(lengths) == 0.02  # of the four, two were needed
    assert next(lengths) == 0.02
    assert host_clock(way) == pytest.approx(200.0)


def test_warm_up_is_not_counted():
    taken = iter([1000.0, 1000.0, 1.0, 2.0, 3.0])
    found = interleaved({"a": lambda: None}, 3, lambda way: next(taken), warmup=2)
    assert found.rounds["a"] == [1.0, 2.0, 3.0]


def test_a_way_that_fails_is_told_and_the_others_are_timed():
    def broken():
        raise RuntimeError("no such kernel\nwith a long trace")

    found = interleaved({"good": lambda: None, "bad": broken}, 2, lambda way: way() or 1.0)
    assert found.row("bad") == {"problem": "RuntimeError: no such kernel"}
    assert found.row("good")["repeats"] == 2
    assert found.ratio("good", "bad") is None


class Event:
    """A CUDA event on a clock of its own, which only the timed work moves."""

    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = Event.now

    def elapsed_time(self, end):
        return end.at - self.at


def test_the_device_clock_flushes_the_cache_and_waits(monkeypatch):
    done, empty = [], torch.empty
    monkeypatch.setattr(timing, "FLUSH", 64)
    monkeypatch.setattr(torch, "empty", lambda n, dtype, device: empty(n, dtype=dtype).fill_(7))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("waited"))

    def work():
        done.append("worked")
        Event.now += 2.5

    clock = timing.clock_of("cuda")
    (scratch,) = [cell.cell_contents for cell in clock.__closure__]
    assert clock(work) == pytest.approx(2.5)
    assert done == ["worked", "waited"]
    assert len(scratch) == 16 and not scratch.any()
