"""`list` reads headings off the files; what it cannot read there it derives."""

import json
import subprocess
import sys

import pytest

from tests.cli.running import ROOT, environment, write
from ttt_proofs.cli.catalogue import folder, names
from ttt_proofs.cli.headings import heading, written

LIGHT = """
import sys, time
began = time.process_time()
from ttt_proofs.cli import main
sys.argv = ["ttt-proofs", *sys.argv[1:]]
try:
    main()
except SystemExit as stopped:
    heavy = sorted({"torch", "sympy", "numpy", "flint", "triton"} & set(sys.modules))
    print(stopped.code or 0, time.process_time() - began, *heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [("list",), ("list", "--json"), ("--version",), ("--help",), ("show", "nothing")]
)
def test_what_derives_nothing_is_quick(words):
    """It imports nothing heavy, and takes less than a second."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    _, seconds, *heavy = done.stderr.splitlines()[-1].split()
    assert not heavy
    assert float(seconds) < 1


def test_importing_the_package_is_light():
    code = "import sys; import ttt_proofs; print(len(set(sys.modules) & {'torch', 'sympy'}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "0\n"


@pytest.mark.parametrize("name", names(folder(None)))
def test_each_of_ours_states_its_heading(name):
    """That it is the one that `derive()` returns, tests/test_derivations.py asks."""
    assert written(folder(None) / f"{name}.py") is not None


COMPUTED = [
    ("Derivation(", "(lambda *a, **k: Derivation(a[0], 'Other', *a[2:], **k))("),
    ("return Derivation", "found = Derivation"),
    ("'Last term'", "'Other' if t else 'Last term'"),
    ("'Last term'", "f'{1}'"),
    ("'Last term', \"none\"", "*('Other', 'none')"),
    ('expects="holds"', "**{'expects': 'holds'}"),
    ("    i, t =", "    if 1: return other()\n    i, t ="),
    ("def derive():", "def derive(): return other()\ndef derived():"),
    ("def derive():", "@lambda f: lambda: other()\ndef derive():"),
    ("import sympy as sp", "import sympy as sp\nfrom ttt_proofs import symbolic"),
]
OTHER = """
def other():
    from dataclasses import replace
    i, t = sp.symbols("i t", integer=True)
    part = identity_part(sp.Integer(0), sp.Integer(0), (t,))
    return Derivation("one", "Other", "none", (part,))
"""


@pytest.mark.parametrize(("old", "new"), COMPUTED)
def test_a_heading_is_what_derive_returns(tmp_path, old, new):
    """However it is written: what is read off the file is never another than what is derived."""
    from ttt_proofs.cli.catalogue import load

    file = write(tmp_path, "one")
    text = file.read_text()
    assert old in text
    text = text.replace(old, new) + OTHER
    if "found =" in text:
        text = text.replace("\ndef other", "    return found\n\ndef other", 1)
    file.write_text(text)
    derivation = load(tmp_path, "one")
    assert heading(tmp_path, "one") == (
        derivation.name,
        derivation.expects,
        derivation.title,
        derivation.source,
    )


@pytest.mark.parametrize(
    "ending",
    [
        "\nderive = other\n",
        "\nfrom functools import partial\nDerivation = partial(Derivation)\n",
        "\nimport sys\nsys.modules[__name__].derive = other\n",
    ],
)
def test_a_derive_that_is_replaced_is_run(tmp_path, ending):
    file = write(tmp_path, "one")
    file.write_text(file.read_text() + OTHER + ending)
    if "sys.modules" in ending:
        assert written(file) is not None  # the limit of reading: what is changed at run time
    else:
        assert written(file) is None


def test_a_file_that_lies_about_its_name_is_told(tmp_path):
    from ttt_proofs.cli.requests import RequestError

    write(tmp_path, "one").rename(tmp_path / "other.py")
    with pytest.raises(RequestError, match="must return the derivation 'other'; got 'one'"):
        heading(tmp_path, "other")


def test_json_has_what_the_table_has(tmp_path):
    from tests.cli.running import command

    done = command("list", "--json")
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == names(folder(None))
    assert set(rows[0]) == {"name", "expects", "title", "source"}
    assert done.stdout.isascii()
