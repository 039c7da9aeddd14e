"""Ctrl-C, SIGTERM and SIGKILL: one line, and no worker is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.running import ROOT, environment, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Two that do not end: in Python, and in one long call that holds the interpreter.
BUSY = {"busy": "while True: pass", "held": "sum(range(10**13))"}


@pytest.fixture
def started(tmp_path):
    """`started(names, jobs)`: a `verify` that has begun each of these derivations."""
    processes = []

    def start(names: list[str], jobs: int) -> subprocess.Popen:
        for name in names:
            marks = f"import os; open({str(tmp_path / name)!r}, 'w').write(str(os.getpid()))"
            text = f"def derive():\n    {marks}\n    {BUSY[name]}\n"
            (tmp_path / f"{name}.py").write_text(text)
        words = ["--derivations", tmp_path, "--jobs", str(jobs), "--json", tmp_path / "r.json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "ttt_proofs", "verify", *words],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        wait_for(lambda: all(pid(tmp_path / name) for name in names), 60)
        return process

    yield start
    for process in processes:
        for each in alive(process.pid):
            os.kill(each, signal.SIGKILL)
        process.wait()


def pid(mark: Path) -> int:
    """The process that left the mark; 0 if none has."""
    return int(mark.read_text() or 0) if mark.exists() else 0


def wait_for(fact, seconds: float) -> float:
    """Wait until it is so; how long that took."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < seconds, "it did not come to be"
        time.sleep(0.02)
    return time.monotonic() - began


def alive(session: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("number", "word", "whole_group"),
    [
        (signal.SIGINT, "interrupted", True),  # as a terminal sends it
        (signal.SIGTERM, "terminated", False),
    ],
)
def test_a_signal_ends_all_with_one_line(started, tmp_path, number, word, whole_group):
    process = started(["busy", "held"], 2)
    workers = [pid(tmp_path / name) for name in BUSY]
    assert process.pid not in workers
    (os.killpg if whole_group else os.kill)(process.pid, number)
    took = wait_for(lambda: not set(workers) & set(alive(process.pid)), 10)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, "", f"ttt-proofs: {word}\n")
    assert took < 2
    assert not (tmp_path / "r.json").exists()
    wait_for(lambda: not alive(process.pid), 10)  # multiprocessing's own tracker ends last


def test_one_process_is_interrupted_as_well(started):
    process = started(["busy"], 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "ttt-proofs: interrupted\n")


def test_no_worker_outlives_a_parent_that_is_killed(started, tmp_path):
    process = started(["busy", "held"], 2)
    workers = {pid(tmp_path / name) for name in BUSY}
    assert workers < set(alive(process.pid))
    process.kill()
    process.wait()
    wait_for(lambda: not alive(process.pid), 2)


def test_a_worker_that_ends_is_named(tmp_path):
    """However it ends, and with others at work."""
    for name in ("fine", "fine_too"):
        write(tmp_path, name)
    (tmp_path / "gone.py").write_text("import os\ndef derive():\n    os._exit(0)\n")
    done = subprocess.run(
        [sys.executable, "-m", "ttt_proofs", "verify", "--derivations", tmp_path, "--jobs", "2"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "'gone' ended it" in done.stderr and done.stderr.count("\n") == 1
