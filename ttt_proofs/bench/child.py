"""A module of the package run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .benchmark import NotRunError


def printed(module: str, *words: object, limit: float | None = None) -> str:
    """What `python -m module words` prints.

    limit: the seconds after which it is stopped and `NotRunError` raised. Raises `RuntimeError`
    with its last line where it fails.
    """
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": paths},
            timeout=limit,
        )
    except subprocess.TimeoutExpired as error:
        raise NotRunError(f"it took more than {limit:g} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{module} ended with code {done.returncode}: {last}")
    return done.stdout
