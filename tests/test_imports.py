"""Who imports whom: each contract of pyproject.toml sees the faults that are planted."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = re.findall(r'^name = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1:]
ORDER, CIRCLE, DERIVED, PUBLIC, TRITON, CHECKER, READ, REFERENCE, KERNELS, READERS = CONTRACTS

# The contract, a new module, and its import; by turns absolute, relative, and inside a function.
FAULTS = [
    (ORDER, "ttt_proofs/checker/a.py", "import ttt_proofs.loops"),
    (ORDER, "ttt_proofs/loops/a.py", "from ttt_proofs import symbolic"),
    (ORDER, "ttt_proofs/loops/b.py", "from .. import symbolic"),
    (ORDER, "ttt_proofs/loops/c.py", "from ..symbolic import gradients"),
    (ORDER, "ttt_proofs/evidence/a.py", "def f():\n    import ttt_proofs.cli"),
    (ORDER, "ttt_proofs/program/a.py", "import ttt_proofs.kernels"),
    (ORDER, "ttt_proofs/helpers.py", ""),
    (CIRCLE, "ttt_proofs/render/a.py", "from . import b"),
    (CIRCLE, "ttt_proofs/render/b.py", "def f():\n    from .a import g"),
    (DERIVED, "ttt_proofs/evidence/b.py", "import derivations.momentum"),
    (PUBLIC, "ttt_proofs/evidence/c.py", "from ttt_proofs import reduce"),
    (TRITON, "ttt_proofs/parallel/a.py", "import triton.language as tl"),
    (CHECKER, "ttt_proofs/checker/b.py", "import numpy as np"),
    (READ, "ttt_proofs/loops/d.py", "import torch.nn as nn"),
    (READ, "ttt_proofs/program/b.py", "def f():\n    from torch import nn"),
    (REFERENCE, "ttt_proofs/reference/a.py", "from ttt_proofs.symbolic import unroll"),
    (REFERENCE, "ttt_proofs/reference/b.py", "import numpy"),
    (KERNELS, "ttt_proofs/kernels/a.py", "from ..loops import InnerLoop"),
    (READERS, "derivations/a.py", "from ttt_proofs.checker import terms"),
    (READERS, "derivations/b.py", "from ttt_proofs import checker"),
    (READERS, "derivations/c.py", "import torch"),
]


def linted(root: Path) -> str:
    """The report on the tree, in one line."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    run = subprocess.run([*command, "--no-cache"], cwd=root, capture_output=True, text=True)
    return " ".join(run.stdout.split())


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    """On this tree with all the faults."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "pyproject.toml", root)
    for folder in ("ttt_proofs", "derivations"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for _, path, line in FAULTS:
        (root / path).write_text(f'"""Planted."""\n{line}\n', encoding="utf-8")
    return linted(root)


def test_this_tree_keeps_every_contract():
    report = linted(ROOT)
    assert all(f"{contract} KEPT" in report for contract in CONTRACTS)


@pytest.mark.parametrize(
    ("contract", "path", "line"), FAULTS, ids=[f"{path}-{line}" for _, path, line in FAULTS]
)
def test_a_planted_import_is_reported(report, contract, path, line):
    assert f"{contract} BROKEN" in report
    told = report.rpartition(f" {contract} ---")[2].partition(" ---")[0]
    *above, last = path.removesuffix(".py").split("/")
    assert f"{'.'.join(above)}.{last}" in told or re.search(rf" \.{last}\b", told)


def test_every_contract_has_a_planted_fault():
    assert {contract for contract, _, _ in FAULTS} == set(CONTRACTS)
