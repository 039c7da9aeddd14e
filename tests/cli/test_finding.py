"""Whose code runs: the package's derivations, a user's folder, a loop's file and its neighbours."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import ROOT, command, environment, write
from ttt_proofs.cli import main
from ttt_proofs.cli.catalogue import folder, load, names

TRAP = "import sys\nsys.stderr.write('the user file ran\\n')\nraise SystemExit(3)\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The packages as a wheel would lay them out, apart from the checkout."""
    site = tmp_path_factory.mktemp("site")
    for package in ("ttt_proofs", "derivations"):
        shutil.copytree(
            ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return site


@pytest.fixture
def trapped(tmp_path) -> Path:
    """A folder with a package `derivations` of the user's own, also as a module."""
    package = tmp_path / "trapped" / "derivations"
    package.mkdir(parents=True)
    for name in ("__init__", "_ladder", "_claims", "sum_order", "mine"):
        (package / f"{name}.py").write_text(TRAP)
    return package.parent


@pytest.mark.parametrize("place", ["checkout", "installed"])
@pytest.mark.parametrize("how", ["working directory", "PYTHONPATH first", "PYTHONPATH last"])
def test_a_users_package_is_not_taken_for_ours(installed, trapped, tmp_path, place, how):
    home = ROOT if place == "checkout" else installed
    path = {
        "working directory": str(home),
        "PYTHONPATH first": f"{trapped}:{home}",
        "PYTHONPATH last": f"{home}:{trapped}",
    }[how]
    cwd = trapped if how == "working directory" else tmp_path
    done = command("list", "--json", cwd=cwd, PYTHONPATH=path)
    assert done.returncode == 0 and not done.stderr
    assert [row["name"] for row in json.loads(done.stdout)] == names(folder(None))
    done = command("show", "ladder_v5", "--part", "1", cwd=cwd, PYTHONPATH=path)
    assert done.returncode == 0 and not done.stderr


def test_workers_find_them_too(installed, trapped, tmp_path):
    """With siblings to import, in processes of their own, from an installation."""
    report = tmp_path / "report.json"
    words = ("verify", "ladder_v6", "sum_order", "--witness", "proof", "--jobs", "2")
    done = command(*words, "--json", str(report), cwd=trapped, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    entries = json.loads(report.read_text("utf-8"))["derivations"]
    assert [(e["name"], e["proof"]["status"]) for e in entries] == [
        ("ladder_v6", "proved"),
        ("sum_order", "proved"),
    ]


def test_the_main_script_is_not_run_again_by_workers(tmp_path):
    """It need not guard its call of `main`."""
    script = tmp_path / "script.py"
    script.write_text("from ttt_proofs.cli import main\nprint('once')\nmain()\n")
    for name in ("one", "two"):
        write(tmp_path, name)
    script.rename(tmp_path / "script.txt")  # no derivation
    words = ["verify", "--derivations", str(tmp_path), "--witness", "proof", "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, tmp_path / "script.txt", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1


@pytest.mark.parametrize("line", ["from ._shared import LAST", "from _shared import LAST"])
def test_a_users_folder_has_shared_modules(tmp_path, line):
    (tmp_path / "_shared.py").write_text("LAST = 1\n")
    file = write(tmp_path, "one", last="LAST * a[t + 1]")
    file.write_text(f"{line}\n{file.read_text()}")
    write(tmp_path, "two")
    words = ("verify", "--derivations", str(tmp_path), "--witness", "proof", "--jobs", "2")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("__pycache__"))  # nothing is left there


def test_results_may_be_called_like_modules(tmp_path):
    """Of the standard library, of packages that the witnesses import, and with any signs."""
    known = ("statistics", "numbers", "random", "torch", "sympy", "derivations", "a-b", "c.d")
    for name in known:
        write(tmp_path, name)
    assert names(tmp_path) == sorted(known)
    words = ("verify", "--derivations", str(tmp_path), "--witness", "proof,autograd", "--jobs", "2")
    done = command(*words)
    assert done.returncode == 0, done.stderr


def test_a_file_is_loaded_anew(tmp_path):
    write(tmp_path, "one", title="First")
    assert load(tmp_path, "one").title == "First"
    write(tmp_path, "one", title="Other")
    assert load(tmp_path, "one").title == "Other"


LOOPS = """
from settings import RATE
import helpers.more
from ttt_proofs.loops import *
mine = InnerLoop(Linear(), Frobenius(), GradientStep(RATE))
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A file of loops that imports its neighbours, in a folder with a space in its name."""
    home = tmp_path / "my project"
    (home / "helpers").mkdir(parents=True)
    (home / "helpers" / "more.py").touch()
    (home / "settings.py").write_text("RATE = 'per_step'\n")
    (home / "my loops.py").write_text(LOOPS)
    return home


@pytest.mark.parametrize(
    ("cwd", "path"),
    [
        ("my project/helpers", "../my loops.py"),
        (".", "~/my project/my loops.py"),
        (".", "{home}/my project/my loops.py"),
    ],
)
def test_a_loop_sees_its_neighbours(project, cwd, path):
    home = project.parent
    words = ("reduce", path.format(home=home) + ":mine")
    done = command(*words, cwd=home / cwd, HOME=str(home))
    assert done.returncode == 0 and b"autograd: agrees" in done.stdout, done.stderr


@pytest.fixture
def refused(capsys, monkeypatch):
    """`refused("reduce", ...)`: the one sentence with which a request is refused."""

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["ttt-proofs", *words])
        monkeypatch.setattr("sys.path", [*sys.path])
        monkeypatch.delitem(sys.modules, "helper", raising=False)
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert (stopped.value.code, out, err.count("\n")) == (2, "", 1)
        return err

    return run


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\nraise ValueError('no\\nluck')", "ValueError: no luck (FILE, line 2)"),
        ("import settings_of_nobody", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError: invalid syntax (FILE, line 1)"),
        ("\n\nimport helper\nhelper.f()", "ZeroDivisionError: division by zero (NEAR, line 2)"),
        ("import json\njson.loads('{')", "(FILE, line 2)"),
        ("raise SystemExit(0)", "SystemExit: 0 (FILE, line 1)"),
        ("raise BaseException('deep')", "BaseException: deep (FILE, line 1)"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded (FILE, line 1)"),
        ("x = '\\0'".replace("\\0", "\0"), "null bytes"),
        (
            "class E(Exception):\n  def __str__(self): return 1 / 0\nraise E",
            "E: its message cannot",
        ),
        ("from ttt_proofs.loops import *\nx = InnerLoop(3, 4)", "`net` must be a Net; got 3"),
    ],
)
def test_what_a_file_raises_is_one_sentence_with_its_line(refused, tmp_path, text, told):
    file, near = tmp_path / "loops.py", tmp_path / "helper.py"
    file.write_text(text)
    near.write_text("def f():\n    return 1 / 0\n")
    told = told.replace("FILE", str(file)).replace("NEAR", str(near))
    assert told in refused("reduce", f"{file}:x")


def test_what_a_loop_raises_later_is_one_sentence_too(refused, tmp_path):
    file = tmp_path / "loops.py"
    file.write_text(
        "from ttt_proofs.loops import *\n"
        "class Lost(InnerLoop):\n"
        "    @property\n"
        "    def rule(self): raise KeyError('lost')\n"
        "a = object.__new__(Lost)\n"
        "a.__dict__.update(vars(InnerLoop(Linear(), Frobenius())))\n"
    )
    assert f"KeyError: 'lost' ({file}, line 4)" in refused("reduce", f"{file}:a")


def test_a_class_derived_from_a_net_is_refused_where_it_stands(refused, tmp_path):
    file = tmp_path / "loops.py"
    file.write_text(
        "from ttt_proofs.loops import *\n"
        "class Other(Linear): pass\n"
        "loop = InnerLoop(Other(), Frobenius())\n"
    )
    told = refused("reduce", f"{file}:loop")
    assert "got Other(), of a class derived from the library's" in told and "line 3" in told
