"""Our notebooks are in order, and every fault that nbval or the lint should see is seen."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.notebook_lint import faults, main

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def code(source, *outputs, count=1, tags=()):
    """A code cell as it is stored."""
    return {
        "cell_type": "code",
        "execution_count": count,
        "metadata": {"tags": list(tags)},
        "outputs": list(outputs),
        "source": source,
    }


def shown(plain, **others):
    """The output of a cell that ends in an expression."""
    data = {"text/plain": plain} | {f"text/{kind}": text for kind, text in others.items()}
    return {"output_type": "execute_result", "execution_count": 1, "data": data, "metadata": {}}


def stream(text, name="stdout"):
    """The output of a cell that prints."""
    return {"output_type": "stream", "name": name, "text": text}


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}


def write(path, *cells):
    """Store a notebook of these cells."""
    notebook = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


SOUND = [
    code("1 + 1", shown("2")),
    code("%config InlineBackend.figure_formats = ['svg']"),
    code("# Ignoring is fine where nothing is claimed.\nprint(1)", stream("1\n")),
    code("# NBVAL_IGNORE_OUTPUT\nplot(matrix)", shown("<Figure size 640x480>")),
    code("# NBVAL_CHECK_OUTPUT\nprove(claim, steps)", shown("Theorem: proved")),
    code("\n".join(f"x{i} = {i}" for i in range(15))),
]

FAULTY = [
    ("not executed", code("1 + 1", count=None)),
    ("not executed", code("", count=None)),
    ("executed as number 7", code("1 + 1", count=7)),
    ("is marked `NBVAL_IGNORE_OUPUT", code("# NBVAL_IGNORE_OUPUT\n1")),
    ("is marked `NBVAL_SKIP", code("# NBVAL_SKIP\n1")),
    ("is marked `nbval_ignore_output", code("# nbval_ignore_output\n1")),
    ("is marked `NBVAL_IGNORE_OUTPUT: slow", code("#NBVAL_IGNORE_OUTPUT: slow\n1")),
    ("is marked `x = 1", code("x = 1  # NBVAL_IGNORE_OUTPUT")),
    ("is marked `NBVAL_RAISES_EXCEPTION", code("1", tags=["nbval-raises-exception"])),
    ("is marked `RAISES_EXCEPTION", code("1", tags=["raises-exception"])),
    ("gives a verdict", code("# NBVAL_IGNORE_OUTPUT\nreport", shown("momentum: proved"))),
    ("gives a verdict", code("# NBVAL_IGNORE_OUTPUT\nshow()", stream("Refutation at t = 2\n"))),
    ("gives a verdict", code("verify('momentum')", tags=["nbval-ignore-output"])),
    ("gives a verdict", code("# NBVAL_IGNORE_OUTPUT\nr = ttt_proofs.prove(claim, steps)")),
    ("16 lines", code("\n".join(f"x{i} = {i}" for i in range(16)))),
    ("defines f", code("def f():\n    pass")),
    ("defines g", code("if True:\n    async def g():\n        pass")),
    ("defines A", code("class A:\n    pass")),
    ("ends in an error", code("raise ValueError('no')", ERROR)),
    ("is not Python", code("x =")),
]


def test_our_notebooks_have_no_fault(capsys):
    assert main([str(NOTEBOOKS)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("cell", SOUND, ids=range(len(SOUND)))
def test_sound_cell_passes(cell, tmp_path):
    assert list(faults(write(tmp_path / "a.ipynb", cell))) == []


@pytest.mark.parametrize(("fault", "cell"), FAULTY)
def test_planted_fault_is_reported(fault, cell, tmp_path, capsys):
    write(tmp_path / "a.ipynb", cell)
    assert main([str(tmp_path)]) == 1
    line, summary = capsys.readouterr().out.splitlines()
    assert "a.ipynb: cell 1: " in line
    assert fault in line
    assert summary == "notebooks: 1, faults: 1"


def test_folder_without_notebooks_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "found none" in capsys.readouterr().out


def test_nbval_compares_plain_text_and_nothing_drawn(tmp_path):
    draw = "from IPython.display import Latex\nLatex('$x$')"
    cells = {
        "passes": [
            code(draw, shown("<IPython.core.display.Latex object>", latex="$y$", html="old")),
            code("print('took 0.31 s')", stream("took 12 s\n"), stream("noise", "stderr")),
            code("object()", shown("<object at 0x7f00>")),
        ],
        "verdict": [code("'proved'", shown("'refuted'"))],
        "printed": [code("print('proved')", stream("refuted\n"))],
        "silent": [code("verdict = 'proved'", shown("'proved'"))],
        "raises": [code("1 / 0", shown("1"))],
    }
    for name, notebook in cells.items():
        write(tmp_path / f"{name}.ipynb", *notebook)
    for name in ("conftest.py", "sanitize.cfg"):
        shutil.copy(NOTEBOOKS / name, tmp_path)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rA", "-q"]
    command += ["--nbval-sanitize-with", "sanitize.cfg", "-p", "no:cacheprovider", "--color=no"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = re.findall(r"^(PASSED|FAILED) (\w+)\.ipynb::Cell (\d)", run.stdout, re.MULTILINE)
    assert sorted(found) == [
        ("FAILED", "printed", "0"),
        ("FAILED", "raises", "0"),
        ("FAILED", "silent", "0"),
        ("FAILED", "verdict", "0"),
        ("PASSED", "passes", "0"),
        ("PASSED", "passes", "1"),
        ("PASSED", "passes", "2"),
    ], run.stdout
