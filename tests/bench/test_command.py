"""`ttt-proofs bench`: what it prints, what it writes, how it refuses."""

import json

import pytest

from ttt_proofs.bench import benchmark as parts
from ttt_proofs.bench import machine, plots, registry, result_tables, results
from ttt_proofs.bench.benchmark import Benchmark, Case
from ttt_proofs.bench.registry import BENCHMARKS
from ttt_proofs.cli import main


@pytest.fixture
def call(capsys, monkeypatch):
    """`call("--list")`: exit code, standard output, standard error."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["ttt-proofs", "bench", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    monkeypatch.setattr(machine, "cores", lambda: 1)
    return run


@pytest.fixture
def made_up(monkeypatch):
    """Put benchmarks with given rows in the place of all others."""

    def put(*rows, devices=("cpu",)):
        def cases(settings):
            return [Case({}, lambda: iter(rows))]

        made = Benchmark(
            "made_up",
            "Nothing.",
            devices,
            cases,
            (("form", "form"), ("median_ms", "ms")),
            parts.Plot("bars", ("form",), "form", (("median_ms", "ms"),)),
        )
        for module in (registry, result_tables, plots):
            monkeypatch.setattr(module, "BENCHMARKS", {"made_up": made})

    return put


TIMED = {"form": "a", "median_ms": 2.0, "spread_ms": 0.0, "repeats": 3}


def test_list_names_every_benchmark(call):
    code, out, _ = call("--list")
    assert code == 0
    assert [line.partition(" ")[0] for line in out.splitlines()] == list(BENCHMARKS)


def test_results_are_written_with_their_environment(call, made_up, tmp_path):
    made_up(TIMED)
    file = tmp_path / "new" / "cpu.json"
    code, out, _ = call("--json", str(file), "--quick")
    assert code == 0 and "MADE_UP" in out
    data = results.check(json.loads(file.read_text()), "file")
    assert data["benchmarks"] == [{"name": "made_up", "what": "Nothing.", "rows": [TIMED]}]
    about = data["environment"]
    assert about["threads"] == 1 and about["device"] == "cpu" and about["quick"] is True
    assert about["command"] == f"ttt-proofs bench --json {file} --quick"
    code, out, _ = call("--show", "--results", str(file))
    assert code == 0 and out.startswith("## Performance") and "dry run" in out


def test_a_wrong_result_is_told_and_ends_with_1(call, made_up, tmp_path):
    made_up(TIMED, {"form": "b", "median_ms": float("nan"), "spread_ms": 0.0, "repeats": 3})
    code, out, err = call("--json", str(tmp_path / "a.json"))
    assert code == 1 and "median_ms not finite" in out
    assert err.startswith("problem: made_up: median_ms not finite")
    (entry,) = json.loads((tmp_path / "a.json").read_text())["benchmarks"]
    assert [row.get("problem") for row in entry["rows"]] == [None, "median_ms not finite"]


def test_rows_are_in_the_file_before_the_benchmark_ends(call, made_up, tmp_path):
    seen, file = [], tmp_path / "a.json"

    class Rows:
        def __iter__(self):
            yield TIMED
            seen.extend(json.loads(file.read_text())["benchmarks"][0]["rows"])
            raise KeyboardInterrupt

    made_up()
    registry.BENCHMARKS["made_up"].__dict__["cases"] = lambda s: [Case({}, Rows)]
    call("--json", str(file))
    assert seen == [TIMED]


def test_forms_run_from_the_command(call, tmp_path):
    code, out, _ = call("cpu_forms", "--quick", "--json", str(tmp_path / "a.json"))
    assert code == 0 and "chunked" in out
    results.check(json.loads((tmp_path / "a.json").read_text()), "file")


def test_time_that_is_over_is_told(call):
    code, out, _ = call("cpu_forms", "ladder", "--quick", "--seconds", "1e-9")
    assert code == 0 and out.count("the time given was over") == 7


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cpu_form"], "a benchmark's name is required; got 'cpu_form'. Did you mean cpu_forms?"),
        (["xyz"], "Known are gpu_accuracy"),
        (["gpu_operators"], "`gpu_operators` must be run on cuda; got cpu. Use --device cuda, or"),
        (["--device", "tpu"], "`--device` must be cpu or cuda; got 'tpu'."),
        (["--seconds", "-1"], "`--seconds` must be 0 or more; got -1.0."),
        (["--seconds", "nan"], "`--seconds` must be 0 or more; got nan."),
        (["--show", "--format", "html"], "`--format` must be one of md, text; got 'html'."),
        (["--show", "cpu_forms"], "`--show` prints all results; got cpu_forms."),
        (["--show", "--results", "nowhere.json"], "there is no nowhere.json."),
        (["--results", "a.json"], "`--results` goes with --show; got a.json alone."),
        (["--json", "/dev/null/a.json"], "`--json` must be a file that can be written"),
    ],
)
def test_wrong_requests_are_one_sentence_and_2(call, words, told):
    code, out, err = call(*words)
    assert code == 2 and not out
    assert told in " ".join(err.split()) and err.startswith("ttt-proofs: ")


def test_committed_results_can_be_shown(call):
    code, out, _ = call("--show")
    assert code == 0 and out.startswith("## Performance")
    for file, data in results.read(results.HOME) if results.HOME.is_dir() else ():
        assert not data["environment"]["quick"], file
        assert data["environment"]["commit"], file


def test_outside_a_checkout_results_must_be_named(call, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "HOME", tmp_path / "no" / "results")
    code, _, err = call("--show")
    assert code == 2 and "needs a checkout" in err


def test_the_commit_is_the_checkouts(monkeypatch, tmp_path):
    if (machine.ROOT / ".git").exists():
        assert len(machine.commit().partition("+")[0]) == 40
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() is None


def test_threads_are_as_many_as_cores_only_meanwhile(monkeypatch):
    import os

    import torch

    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads()
    with machine.all_cores():
        assert torch.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"] == "1"
    assert torch.get_num_threads() == before and os.environ["OMP_NUM_THREADS"] == "7"
