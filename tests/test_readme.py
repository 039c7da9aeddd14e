"""The README is true: its commands run, its code runs, its tables name what there is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ttt_proofs.cli.catalogue import folder, load, names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ").partition("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "console"
    for line in block.splitlines()
    if line.startswith("$ ")
]
TABLE = README.partition("```text\n")[2].partition("```")[0].splitlines()
ROWS = {line.split()[0]: line.split()[1:] for line in TABLE if line.endswith("as stated")}


def test_there_are_commands():
    assert any(command.startswith("make ") for command in COMMANDS)
    assert any(command.startswith("ttt-proofs ") for command in COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("ttt-proofs ")])
def test_each_command_runs(command):
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "ttt_proofs", *words],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_each_make_target_exists(command):
    target = command.split()[1]
    done = subprocess.run(
        ["make", "--dry-run", target],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_each_example_runs(block):
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout
    for said in re.findall(r"^#   (.+)$", block, re.MULTILINE):
        assert said in done.stdout


def test_what_reduce_is_said_to_print_is_what_it_prints():
    """The printed block follows from the first example."""
    example = next(block for kind, block in BLOCKS if kind == "python")
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    shown = [block for kind, block in BLOCKS if kind == "text" and block.startswith("o[t]")]
    assert shown == [done.stdout.removesuffix("True\n")]


def test_ci_calls_what_the_readme_calls():
    script = (ROOT / ".ci" / "run").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert command in script


@pytest.mark.parametrize("name", names(folder(None)))
def test_the_table_has_each_derivation_with_its_outcome_and_steps(name):
    derivation = load(folder(None), name)
    assert ROWS[name][0] == derivation.expects
    if derivation.expects == "holds":
        assert int(ROWS[name][1]) == sum(len(part.proof.steps) for part in derivation.parts)


def test_the_claims_are_those_of_the_command():
    """Counterexamples included: they are found anew."""
    words = [sys.executable, "-m", "ttt_proofs", "show", "--table", "--format", "md"]
    done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    shown = README.partition("<!-- claims -->\n")[2].partition("\n<!-- /claims -->")[0]
    assert shown == done.stdout.strip()
    for name in names(folder(None)):
        assert f"`{name}`" in shown


def test_the_table_names_nothing_else():
    assert set(ROWS) == set(names(folder(None)))


def test_the_performance_section_is_that_of_the_command():
    """Generated from the committed results, and from nothing else."""
    words = [sys.executable, "-m", "ttt_proofs", "bench", "--show", "--format", "md"]
    done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    shown = README.partition("<!-- performance -->\n")[2].partition("\n<!-- /performance -->")[0]
    assert shown == done.stdout.strip()
