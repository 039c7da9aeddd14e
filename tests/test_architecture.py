"""The tree keeps the design's layers and budgets, and each check can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import architecture
from tools.architecture import CHECKS

ROOT = Path(__file__).resolve().parents[1]

# A smallest tree without fault. Each case below overlays it with one planted fault.
SOUND = {
    "ttt_proofs/__init__.py": '"""Doc."""\n__all__ = ["reduce"]\n',
    "ttt_proofs/checker/__init__.py": '"""Doc."""\nfrom fractions import Fraction\n',
    "ttt_proofs/loops/__init__.py": '"""Doc."""\nimport sympy\nfrom ..checker import terms\n',
    "ttt_proofs/reference/__init__.py": '"""Doc."""\nimport torch\nimport ttt_proofs.loops\n',
    "ttt_proofs/evidence/exact.py": '"""Doc."""\nimport flint\nfrom ttt_proofs import loops\n',
    "ttt_proofs/cli.py": '"""Doc."""\nimport typer\nimport derivations\nimport ttt_proofs\n',
    "derivations/one.py": '"""Doc."""\nfrom ttt_proofs import loops, reduce\nimport sympy\n',
}

HEAD = '"""Doc."""\n'
LONG = "    x = 1\n" * 60

FAULTS = [
    # below the theorem too, the program says what a loop does
    ("programs", "ttt_proofs/parallel/a.py", "x = loop.update.momentum"),
    ("programs", "ttt_proofs/layer.py", "x = rule.weight_norm"),
    ("programs", "ttt_proofs/evidence/a.py", "x = isinstance(loop.net, (Linear, MLP))"),
    ("programs", "ttt_proofs/kernels/a.py", "x = type(loop.loss) is loops.Frobenius"),
    # the public surface
    ("public_surface", "ttt_proofs/__init__.py", f"__all__ = {[f'n{i}' for i in range(21)]}"),
    ("public_surface", "ttt_proofs/__init__.py", ""),
    ("public_surface", "derivations/one.py", "from ttt_proofs import _secret"),
    # sizes
    ("sizes", "ttt_proofs/loops/a.py", "x = 1\n" * 500),
    ("sizes", "ttt_proofs/loops/a.py", "def f():\n" + LONG),
    ("sizes", "derivations/one.py", "class A:\n  async def f(self):\n" + LONG),
    ("checker_budget", "ttt_proofs/checker/a.py", "x = 1  # counts\n" * 651),
    ("checker_budget", "ttt_proofs/checker/__init__.py", "# nothing but a comment"),
    # the checker's habits
    ("checker_habits", "ttt_proofs/checker/a.py", "assert True"),
    ("checker_habits", "ttt_proofs/checker/a.py", "run = eval"),
    ("checker_habits", "ttt_proofs/checker/a.py", "exec('x = 1')"),
    ("checker_habits", "ttt_proofs/checker/a.py", "from pickle import loads"),
    # docstrings
    ("docstrings", "ttt_proofs/loops/a.py", "def f():\n    pass"),
    ("docstrings", "ttt_proofs/loops/a.py", "class A:\n    pass"),
    ("docstrings", "ttt_proofs/loops/a.py", "class A:\n    'Doc.'\n    def f(self):\n        pass"),
    # paths of the machine, spelled in two so that this file holds none
    ("machine_paths", "README.md", "see /" + "root/notes"),
    ("machine_paths", "notebooks/a.ipynb", '"File /' + 'tmp/ipykernel_12/3.py"'),
    ("machine_paths", "Makefile", "PYTHON = /" + "home/me/bin/python"),
]


def plant(root: Path, files: dict[str, str]) -> None:
    """Write the files into a new repository."""
    subprocess.run(["git", "init", "--quiet", root], check=True)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


@pytest.mark.all_cases
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_this_tree_has_no_fault(check):
    faults = list(check(ROOT))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_sound_tree_passes(check, tmp_path):
    plant(tmp_path, SOUND)
    assert list(check(tmp_path)) == []


@pytest.mark.parametrize(
    ("check", "path", "source"),
    FAULTS,
    ids=[f"{check}-{path}-{source[:40].strip()}" for check, path, source in FAULTS],
)
def test_planted_fault_is_reported(check, path, source, tmp_path):
    plant(tmp_path, SOUND | {path: HEAD + source + "\n"})
    faults = list(getattr(architecture, check)(tmp_path))
    expected = path.replace("checker/a.py", "checker/")
    assert any(fault.startswith(expected) for fault in faults), faults


def test_every_check_has_a_planted_fault():
    assert {name for name, _, _ in FAULTS} == {check.__name__ for check in CHECKS}


def test_comments_blanks_and_docstrings_are_not_code(tmp_path):
    text = '"""Doc\n\nstring."""\n\n# comment\nx = 1\ndef f():\n    """Doc."""\n    return x\n'
    plant(tmp_path, {"ttt_proofs/checker/a.py": text})
    (module,) = architecture.modules(tmp_path, "ttt_proofs")
    assert architecture.code_lines(module) == 3


IMPORT_KERNEL = """
import pkgutil, sys

class OnlyStandardLibrary:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top != "ttt_proofs" and top not in sys.stdlib_module_names:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, OnlyStandardLibrary())
import ttt_proofs.checker as checker
for module in pkgutil.walk_packages(checker.__path__, "ttt_proofs.checker."):
    __import__(module.name)
"""


def import_checker(root: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Import all of the checker in a fresh Python that has nothing but its standard library."""
    command = [sys.executable, "-S", *flags, "-c", IMPORT_KERNEL]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["plain", "optimised"])
def test_checker_needs_only_the_standard_library(flags):
    run = import_checker(ROOT, *flags)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["sympy", "numpy", "torch", "flint"])
@pytest.mark.parametrize("path", ["ttt_proofs/__init__.py", "ttt_proofs/checker/a.py"])
def test_checker_that_pulls_in_a_library_is_caught(name, path, tmp_path):
    plant(tmp_path, SOUND | {path: f"import {name}\n"})
    run = import_checker(tmp_path)
    assert run.returncode != 0
    assert f"{name} is blocked" in run.stderr
