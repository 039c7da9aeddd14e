"""Sequences in shards, by `torchrun` on the CPU: equal to one process, and no hang."""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(what: str, *, limit: float, ranks: int = 4) -> tuple[int, str, float]:
    """Exit status, output and seconds of some ranks; stopped at the limit."""
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(ranks),
            "-m",
            "tests.parallel.shards",
            what,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def test_shards_are_the_whole_on_one_to_four_ranks():
    status, told, _ = torchrun("agree", limit=300)
    assert status == 0, told[-2000:]
    (found,) = re.findall(r"largest difference (\S+)", told)
    assert 0 < float(found) <= 1e-12
    (alone,) = re.findall(r"without exchange (\S+)", told)
    assert float(alone) > 0.01


def test_a_rank_that_dies_ends_the_job():
    status, told, _ = torchrun("die", limit=120)
    assert status != 0 and "exitcode" in told.replace(" ", "").lower()


def test_a_rank_that_hangs_ends_the_job_at_the_time_out():
    status, told, seconds = torchrun("hang", limit=150)
    assert status != 0 and seconds < 120, told[-2000:]


def test_ranks_that_differ_are_all_refused():
    """Weights, numbers, loops, sizes, dtypes, states: one sentence on each rank, at once."""
    status, told, seconds = torchrun("refuse", limit=120, ranks=3)
    assert status == 0 and seconds < 60, told[-2000:]
    assert not re.findall("was (?:not )?told.*", told)
    assert len(re.findall("refused by [012]", told)) == 3


def test_second_derivatives_are_refused_and_nothing_has_zeros():
    status, told, _ = torchrun("limits", limit=120, ranks=2)
    assert status == 0, told[-2000:]
    assert len(re.findall("limits kept by [01]", told)) == 2, told[-2000:]
