"""The command line as users run it: in a process of its own, or here with a given output."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ttt_proofs.cli import main

ROOT = Path(__file__).resolve().parents[2]

DERIVATION = """
import sympy as sp
from ttt_proofs.symbolic import Derivation, identity_part

def derive():
    i, t = sp.symbols("i t", integer=True)
    a = sp.IndexedBase("a")
    left = sp.Sum(a[i], (i, 0, t + 1))
    right = sp.Sum(a[i], (i, 0, t)) + {last}
    part = identity_part(left, right, (t,), peel=t + 1)
    return Derivation("{name}", {title!r}, "none", (part,), expects="{expects}")
"""


def write(
    folder: Path,
    name: str,
    *,
    last: str = "a[t + 1]",
    expects: str = "holds",
    title: str = "Last term",
) -> Path:
    """A derivation in a file of its own: a sum and its last term."""
    file = folder / f"{name}.py"
    file.write_text(
        DERIVATION.format(name=name, last=last, expects=expects, title=title), encoding="utf-8"
    )
    return file


def command(*words: str, cwd: Path = ROOT, python: tuple[str, ...] = (), **settings: str | None):
    """Run `python -m ttt_proofs` and wait; `settings` change the environment."""
    return subprocess.run(
        [sys.executable, *python, "-m", "ttt_proofs", *words],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        timeout=120,
        check=False,
    )


def environment(**settings: str | None) -> dict[str, str]:
    """This process's environment, in which the tree is found, with settings changed."""
    changed = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | settings
    return {key: value for key, value in changed.items() if value is not None}


def printed(
    monkeypatch: pytest.MonkeyPatch, file: Path, encoding: str, *words: str
) -> tuple[int, str]:
    """Exit code and output of the command line, run here, with a strict output so encoded."""
    stream = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(file, "w")), encoding=encoding, errors="strict"
    )
    with monkeypatch.context() as here, pytest.raises(SystemExit) as stopped:
        here.setattr("sys.stdout", stream)
        here.setattr("sys.argv", ["ttt-proofs", *words])
        main()
    stream.close()
    return int(stopped.value.code or 0), file.read_bytes().decode(encoding)
