"""The command line: what it prints, what it writes, and how it refuses."""

import json
import re
from pathlib import Path

import pytest

import tests.kernels.interpreter  # noqa: F401  # switches it on, before triton is imported
from ttt_proofs.cli import main
from ttt_proofs.cli.catalogue import RequestError, folder, load, names

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
import sympy as sp
from ttt_proofs.symbolic import Derivation, identity_part

def derive():
    i, t = sp.symbols("i t", integer=True)
    a = sp.IndexedBase("a")
    left = sp.Sum(a[i], (i, 0, t + 1))
    right = sp.Sum(a[i], (i, 0, t)) + {last}
    part = identity_part(left, right, (t,), peel=t + 1)
    return Derivation("{name}", "Last term", "none", (part,), expects="{expects}")
"""


def write(directory: Path, name: str, *, last: str = "a[t + 1]", expects: str = "holds") -> None:
    """A derivation in a file of its own: a sum and its last term."""
    (directory / f"{name}.py").write_text(GOOD.format(name=name, last=last, expects=expects))


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str):
    """Run the command line; exit code, standard output, standard error."""
    monkeypatch.setattr("sys.argv", ["ttt-proofs", *words])
    monkeypatch.delenv("COLUMNS", raising=False)  # where tests run in parallel it may be set
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


@pytest.fixture
def call(capsys, monkeypatch):
    """`call("verify", ...)`."""
    return lambda *words: run(capsys, monkeypatch, *words)


def test_list_names_every_derivation(call):
    code, out, _ = call("list")
    assert code == 0
    for file in (ROOT / "derivations").glob("[a-z]*.py"):
        assert file.stem in out


def test_list_as_json(call):
    code, out, _ = call("list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"name", "expects", "title", "source"} <= set(rows[0])
    assert {row["name"]: row["expects"] for row in rows}["momentum_rates_agree"] == "fails"


def test_show_momentum_prints_statement_assumptions_and_every_step(call):
    code, out, _ = call("show", "momentum")
    derivation = load(folder(None), "momentum")
    assert code == 0
    assert "For every step t, l over L, c over D_v:" in out
    assert "differentiable" in out
    for number in range(len(derivation.parts[0].proof.steps)):
        assert re.search(rf"^\s+\({number}\)\s+\w", out, re.MULTILINE)
    for rule in ("definition", "gradient", "induction hypothesis", "calculation", "induction on t"):
        assert rule in out


@pytest.mark.parametrize("form", ["text", "latex", "md", "html"])
def test_show_in_every_format(call, form):
    code, out, _ = call("show", "sum_order", "--format", form)
    assert code == 0
    assert "sum" in out


def test_show_of_a_false_claim_has_the_counterexample_and_what_holds(call):
    code, out, _ = call("show", "momentum_rates_agree")
    assert code == 0
    assert "false" in out
    assert "the left side is" in out
    assert "The checker refuses" in out
    assert "Instead" in out


def test_verify_one_and_its_json(call, tmp_path):
    report = tmp_path / "deep" / "report.json"
    code, out, _ = call("verify", "sum_order", "--json", str(report))
    data = json.loads(report.read_text())
    assert code == 0
    assert "1 of 1 as stated" in out
    assert data["schema"] == 1
    assert data["summary"]["as_stated"] == 1
    (entry,) = data["derivations"]
    assert entry["name"] == "sum_order"
    assert entry["outcome"] == entry["expects"] == "holds"
    assert entry["proof"]["status"] == "proved"
    assert len(entry["proof"]["digest"]) == 64
    assert entry["exact"]["error_bound_log2"] < -60
    assert entry["autograd"]["status"] == entry["kernel"]["status"] == "not_applicable"
    assert entry["mutants"]["total"] >= 12
    assert entry["mutants"]["killed_by_proof"] == entry["mutants"]["total"]
    assert entry["mutants"]["killed_by_exact"] == entry["mutants"]["total"]


def test_verify_a_false_claim_that_says_so(call):
    code, out, _ = call("verify", "momentum_rates_agree")
    assert code == 0
    assert "” fails. With " in out


def test_a_false_claim_that_says_it_holds_ends_with_1(call, tmp_path):
    write(tmp_path, "wrong", last="a[t]")
    code, out, _ = call("verify", "--derivations", str(tmp_path))
    assert code == 1
    assert "NOT as stated" in out


def test_a_true_claim_that_is_said_to_fail_ends_with_1(call, tmp_path):
    write(tmp_path, "right", expects="fails")
    code, _, _ = call("verify", "--derivations", str(tmp_path))
    assert code == 1


def test_two_processes_give_what_one_gives(call, tmp_path):
    for name in ("first", "second"):
        write(tmp_path, name)
    found = []
    for jobs in ("1", "2"):
        report = tmp_path / f"{jobs}.json"
        assert (
            call("verify", "--derivations", str(tmp_path), "--jobs", jobs, "--json", str(report))[0]
            == 0
        )
        entries = json.loads(report.read_text())["derivations"]
        found.append([{k: v for k, v in e.items() if k != "seconds"} for e in entries])
    assert found[0] == found[1]


def test_only_the_witnesses_asked_for_run(call, tmp_path):
    report = tmp_path / "report.json"
    code, _, _ = call("verify", "sum_order", "--witness", "exact", "--json", str(report))
    (entry,) = json.loads(report.read_text())["derivations"]
    assert code == 0
    assert entry["proof"]["status"] == entry["mutants"]["status"] == "skipped"
    assert entry["outcome"] == "undecided"  # agreement at random points proves nothing


def test_the_table_has_a_column_for_kernels(call, tmp_path):
    """Its entry is the error of the tensor nearest to its budget, or that there is none."""
    pytest.importorskip("triton")
    report = tmp_path / "report.json"
    code, out, _ = call(
        "verify",
        "momentum",
        "sum_order",
        "--witness",
        "kernel",
        "--jobs",
        "1",
        "--json",
        str(report),
    )
    entries = {e["name"]: e for e in json.loads(report.read_text())["derivations"]}
    head, _, kernel, none = (line.split() for line in out.splitlines()[1:6] if line.strip())
    assert head == ["derivation", "outcome", "steps", "exact", "autograd", "kernel", "mutants"]
    assert entries["momentum"]["kernel"]["status"] == "agrees"
    shown = f"{entries['momentum']['kernel']['max_relative_error']:.0e}"
    assert kernel == ["momentum", "undecided", "-", "-", "-", shown, "-", "as", "stated"]
    assert none == ["sum_order", "undecided", "-", "-", "-", "n/a", "-", "NOT", "as", "stated"]
    assert entries["sum_order"]["kernel"]["status"] == "not_applicable"
    assert code == 1  # nothing was asked that has anything to say of sum_order


def test_the_kernel_witness_works_alone(call):
    pytest.importorskip("triton")
    code, out, _ = call("verify", "momentum", "--witness", "kernel")
    assert code == 0
    assert "1 of 1 as stated" in out


def test_reduce_prints_form_class_and_evidence(call):
    code, out, _ = call("reduce", f"{ROOT / 'examples' / 'loops.py'}:delta")
    assert code == 0
    assert "parallel affine" in out
    assert "proved in" in out
    assert "autograd: agrees" in out


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["show", "nothing"], "'nothing'"),
        (["show", "momentum", "--format", "pdf"], "'pdf'"),
        (["verify", "nothing"], "'nothing'"),
        (["verify", "--witness", "magic"], "'magic'"),
        (["verify", "--witness", ""], "''"),
        (["verify", "--device", "tpu"], "'tpu'"),
        (["verify", "--jobs", "-1"], "-1"),
        (["verify", "--derivations", "no/such/place"], "no/such/place"),
        (["reduce", "nofile.py:loop"], "nofile.py:loop"),
        (["reduce", "loop"], "'loop'"),
    ],
)
def test_wrong_requests_are_one_sentence_and_exit_2(call, words, needle):
    code, out, err = call(*words)
    assert code == 2
    assert out == ""  # never half a report
    assert "Traceback" not in err
    assert needle in err


def test_no_derivations_is_a_wrong_request(call, tmp_path):
    code, _, err = call("verify", "--derivations", str(tmp_path))
    assert code == 2
    assert "at least one derivation" in err


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("raise OSError('broken on purpose')", "broken on purpose"),
        ("def derive(:", "SyntaxError"),
        ("derive = 3", "must define derive()"),
        ("def derive():\n    return 3", "must return a Derivation"),
        ("def derive():\n    return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_derivation_file_that_raises(call, tmp_path, text, needle):
    write(tmp_path, "good")
    (tmp_path / "broken.py").write_text(text)
    report = tmp_path / "report.json"
    for words in (["list"], ["show", "broken"], ["verify", "--jobs", "2", "--json", str(report)]):
        code, _, err = call(*words, "--derivations", str(tmp_path))
        assert code == 2, words
        assert needle in err
        assert "Traceback" not in err
    assert not report.exists()


def test_a_loop_outside_the_theorems_is_refused_by_name(call, tmp_path):
    (tmp_path / "loops.py").write_text(
        "from ttt_proofs import InnerLoop\n"
        "from ttt_proofs.loops import MLP, Frobenius\n"
        "biased = InnerLoop(MLP(bias=True), Frobenius())\n"
        "number = 3\n"
    )
    code, _, err = call("reduce", f"{tmp_path / 'loops.py'}:biased")
    assert code == 2
    assert "no bias" in err
    code, _, err = call("reduce", f"{tmp_path / 'loops.py'}:number")
    assert code == 2
    assert "must be an InnerLoop" in err


RECURRENCES = """
import torch
from ttt_proofs import Recurrence
from ttt_proofs.loops import outer
from ttt_proofs.program.operations import Abstract
phi = Abstract("phi")
def delta(S, q, k, v):
    S = S + outer(k, v - k @ S)
    return S, q @ S
def squashed(S, q, k, v):
    S = torch.tanh(S) + outer(k, v)
    return S, q @ S
def unknown(S, q, k, v):
    S = S + outer(phi(k), v)
    return S, q @ S
delta, squashed, unknown = (
    Recurrence(step, {"S": ("K", "V")}) for step in (delta, squashed, unknown)
)
"""


def test_reduce_takes_recurrences(call, tmp_path):
    code, out, _ = call("reduce", f"{ROOT / 'examples' / 'loops.py'}:gla")
    assert code == 0
    assert "o[t] = Σ_a q[t,a] · ((Π_{s=0}^{t} α[s,a]) · S_0[a,c]" in out
    assert "code, called token by token: exact" in out
    (tmp_path / "mine.py").write_text(RECURRENCES)
    code, out, _ = call("reduce", f"{tmp_path / 'mine.py'}:delta")
    assert code == 0 and "S_key[i,t+1,a] · v[i,c]" in out and "+ [i = t] · k[t,a]" in out
    code, out, err = call("reduce", f"{tmp_path / 'mine.py'}:squashed")
    assert (code, out) == (2, "")
    assert "S is made of `tanh` of a state in line" in err
    code, out, _ = call("reduce", f"{tmp_path / 'mine.py'}:unknown")
    assert code == 0 and "φ(k[i,a])" in out and "has unknown functions" in out


def test_names_are_sorted_and_private_files_left_out(tmp_path):
    for name in ("b", "a", "_hidden", "__init__"):
        write(tmp_path, name)
    assert names(tmp_path) == ["a", "b"]
    with pytest.raises(RequestError, match="Known are a, b"):
        load(tmp_path, "c")


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("text", ["raise SystemExit(0)", "def derive():\n    raise SystemExit(0)"])
def test_a_file_that_exits_does_not_end_the_run_quietly(call, tmp_path, text, jobs):
    write(tmp_path, "good")
    (tmp_path / "quiet.py").write_text(text)
    code, _, err = call("verify", "--derivations", str(tmp_path), "--jobs", jobs)
    assert code == 2
    assert "SystemExit" in err


def test_a_name_that_is_not_the_files_is_refused(call, tmp_path):
    write(tmp_path, "one")
    (tmp_path / "one.py").rename(tmp_path / "other.py")
    code, _, err = call("verify", "--derivations", str(tmp_path))
    assert code == 2
    assert "'other'" in err
    assert "'one'" in err


def test_a_derivation_without_statements_is_refused(call, tmp_path):
    (tmp_path / "empty.py").write_text(
        "from ttt_proofs.symbolic import Derivation\n"
        "def derive():\n    return Derivation('empty', 'Nothing', 'none', ())\n"
    )
    code, _, err = call("verify", "--derivations", str(tmp_path))
    assert code == 2
    assert "at least one statement" in err


def test_a_loop_outside_the_theorems_in_a_derivation_is_one_sentence(call, tmp_path):
    write(tmp_path, "outside")
    file = tmp_path / "outside.py"
    text = file.read_text().replace(", expects=", ", loops=(biased,), expects=")
    file.write_text(
        "from ttt_proofs.loops import MLP, Frobenius, InnerLoop\n"
        "biased = InnerLoop(MLP(bias=True), Frobenius())\n" + text
    )
    code, _, err = call("verify", "--derivations", str(tmp_path))
    assert code == 2
    assert "no bias" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("witness", ["kernel", "autograd", "kernel,autograd"])
def test_where_no_witness_has_anything_to_say_nothing_is_as_stated(call, witness):
    assert call("verify", "sum_order", "--witness", witness)[0] == 1


def test_that_no_proof_is_found_does_not_make_a_claim_false(call, tmp_path):
    """A true claim, its last step without the split that it needs, said to fail."""
    write(tmp_path, "unproved", expects="fails")
    file = tmp_path / "unproved.py"
    file.write_text(file.read_text().replace(", peel=t + 1", ""))
    assert call("verify", "--derivations", str(tmp_path), "--witness", "proof")[0] == 1
    assert call("verify", "--derivations", str(tmp_path))[0] == 1


def test_a_report_that_cannot_be_written_is_refused_before_the_run(call, tmp_path):
    code, out, err = call("verify", "sum_order", "--json", str(tmp_path))
    assert code == 2
    assert out == ""
    assert "can be written" in err


def test_a_near_miss_is_told(call):
    assert "Did you mean momentum?" in call("show", "momentun")[2]


@pytest.mark.parametrize("words", [["bogus"], ["verify", "--jobs", "x"]])
def test_wrong_words_are_one_line(call, words):
    code, out, err = call(*words)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "ttt-proofs --help" in err


@pytest.mark.parametrize("words", [["show"], ["show", "momentum", "--table"]])
def test_show_takes_a_name_or_the_table(call, words):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert "either the name of a derivation or --table" in err


def test_the_table_has_its_own_formats(call):
    assert "must be one of text, md, html" in call("show", "--table", "--format", "latex")[2]


def test_a_file_with_dataclasses_loads(call, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from ttt_proofs.loops import Frobenius, InnerLoop, Linear\n"
        "@dataclass\nclass Settings:\n    width: int = 3\n"
        "loop = InnerLoop(Linear(), Frobenius())\n"
    )
    assert call("reduce", f"{tmp_path / 'mine.py'}:loop")[0] == 0
    assert "Loops there: loop" in call("reduce", f"{tmp_path / 'mine.py'}:Settings")[2]
