"""Results are read only if sound, and shown as they are."""

import json
from copy import deepcopy

import pytest

from ttt_proofs.bench import plots
from ttt_proofs.bench.registry import BENCHMARKS
from ttt_proofs.bench.result_tables import cell, results_text, section, table
from ttt_proofs.bench.results import ResultsError, check, problems, read, text

RESULTS = {
    "schema": 1,
    "environment": {
        "device": "cpu",
        "device_name": "Abacus 3",
        "cores": 2,
        "threads": 2,
        "python": "3.12.1",
        "platform": "Linux-6",
        "torch": "2.13.0",
        "triton": None,
        "commit": "c0ffee",
        "date": "2026-01-02T03:04:05+00:00",
        "command": "ttt-proofs bench",
        "quick": False,
    },
    "benchmarks": [
        {
            "name": "cpu_forms",
            "what": "Forms.",
            "rows": [
                {
                    "pass": "forward",
                    "form": "recurrent",
                    "T": 4096,
                    "H": 4,
                    "d": 64,
                    "median_ms": 1234.5,
                    "spread_ms": 0.5,
                    "repeats": 7,
                    "ratio": 1.0,
                    "error": 0.0,
                },
                {
                    "pass": "forward",
                    "form": "chunked",
                    "T": 4096,
                    "H": 4,
                    "d": 64,
                    "median_ms": 12.345,
                    "spread_ms": 0.25,
                    "repeats": 7,
                    "ratio": 99.4,
                    "error": 2.5e-7,
                },
                {
                    "pass": "forward",
                    "form": "scan",
                    "T": 4096,
                    "H": 4,
                    "d": 64,
                    "median_ms": 50.0,
                    "spread_ms": 1.0,
                    "repeats": 7,
                    "ratio": 25.0,
                    "error": None,
                    "problem": "error not finite",
                },
                {"pass": "both", "not_run": "the time given was over"},
            ],
        },
        {
            "name": "gpu_operators",
            "what": "Operators.",
            "rows": [
                {
                    "operator": "delta_rule",
                    "pass": "both",
                    "by": "ours",
                    "median_ms": 4.0,
                    "spread_ms": 0.1,
                    "repeats": 21,
                    "of_roofline": 0.251,
                    "target_ms": 3.6,
                    "met": False,
                    "missed": "3.6 ms",
                },
            ],
        },
    ],
}


def changed(*path, value):
    """The results with one thing in them replaced, or left out if the value is None."""
    data = deepcopy(RESULTS)
    *way, last = path
    found = data
    for key in way:
        found = found[key]
    if value is None:
        del found[last]
    else:
        found[last] = value
    return data


def test_sound_results_pass():
    assert check(RESULTS, "here") == RESULTS


ROW = ("benchmarks", 0, "rows", 0)


@pytest.mark.parametrize(
    "data",
    [
        [],
        changed("schema", value=2),
        changed("environment", value=None),
        changed("environment", "commit", value=None),
        changed("benchmarks", value={}),
        changed("benchmarks", 0, "what", value=None),
        changed(*ROW, value={"T": 3}),
        changed(*ROW, "median_ms", value=0.0),
        changed(*ROW, "median_ms", value="1 ms"),
        changed(*ROW, "spread_ms", value=None),
        changed(*ROW, "repeats", value=0),
    ],
)
def test_anything_else_is_refused_in_one_sentence(data):
    with pytest.raises(ResultsError, match=r"^here must hold results of .*\. Measure again\.$"):
        check(data, "here")


def test_files_are_read_as_written(tmp_path):
    (tmp_path / "b.json").write_text(text(RESULTS), encoding="utf-8")
    (tmp_path / "a.json").write_text(text(RESULTS), encoding="utf-8")
    assert [file.name for file, _ in read(tmp_path)] == ["a.json", "b.json"]
    assert [data for _, data in read(tmp_path / "a.json")] == [RESULTS]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]
    with pytest.raises(ValueError, match="JSON compliant"):
        text(changed(*ROW, "median_ms", value=float("nan")))
    assert json.loads((tmp_path / "a.json").read_text()) == RESULTS
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ResultsError, match=r"b\.json must be JSON"):
        list(read(tmp_path))
    with pytest.raises(ResultsError, match="there is no"):
        list(read(tmp_path / "c.json"))


def test_tables_say_what_was_measured_and_what_went_wrong():
    shown = results_text(RESULTS, "md")
    assert shown.startswith(
        "Measured on Abacus 3, CPU only (2 cores, 2 threads), with PyTorch 2.13.0, Python 3.12.1, "
        "Linux-6; commit c0ffee, 2026-01-02T03:04:05+00:00, by `ttt-proofs bench`."
    )
    assert "In all rows: pass forward, T 4096, heads 4, d 64, repeats 7." in shown
    assert "| form | ms | IQR ms | × recurrence | error | problem |" in shown
    assert "| recurrent | 1,234 | 0.5 | 1 | 0 | – |" in shown
    assert "| chunked | 12.3 | 0.25 | 99.4 | 2.5e-07 | – |" in shown
    assert "| scan | 50 | 1 | 25 | – | error not finite |" in shown
    assert "* pass both: the time given was over" in shown
    assert "| delta_rule | both | ours | 4 | 0.1 | 25% | 3.6 | no | 3.6 ms |" in shown
    assert problems(RESULTS) == ["cpu_forms: error not finite"]


def test_the_section_lists_what_nobody_has_measured(tmp_path):
    shown = section([(tmp_path / "a.json", RESULTS)], "md")
    assert shown.startswith("## Performance\n")
    missing = shown.partition("### Not measured yet")[2]
    assert "* cpu_forms on" not in missing
    # On a CPU the operators do not count as measured.
    assert "* gpu_operators on a GPU" in missing
    assert "* ladder on a CPU" in missing and "* ladder on a GPU" in missing
    everything = section([], "text")
    assert all(f"* {name} on" in everything for name in BENCHMARKS)


def test_a_dry_run_is_said_to_be_one_and_counts_for_nothing(tmp_path):
    dry = changed("environment", "quick", value=True)
    shown = section([(tmp_path / "a.json", dry)], "md")
    assert "A dry run at small sizes: its times say nothing." in shown
    assert "* cpu_forms on a CPU" in shown.partition("### Not measured yet")[2]


def test_on_a_gpu_the_device_is_named():
    gpu = changed("environment", "device", value="cuda")
    gpu["environment"] |= {"multiprocessors": 132, "cuda": "13.0", "triton": "3.6.0"}
    shown = results_text(gpu, "text")
    assert "Measured on one Abacus 3 (132 multiprocessors, CUDA 13.0), with PyTorch 2.13.0, " in (
        shown
    )
    assert "Triton 3.6.0" in shown


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("met", True, "yes"),
        ("met", False, "no"),
        ("x", None, "–"),
        ("of_matmul", 0.554, "55%"),
        ("of_additive", 1.25, "1.25"),
        ("plain_error", 0.00123, "1.2e-03"),
        ("T", 8192, "8192"),
        ("ms", 12345.6, "12,346"),
        ("ms", 0.4567, "0.457"),
    ],
)
def test_cells(key, value, text):
    assert cell(key, value) == text


def test_bars_in_cells_do_not_break_a_table():
    assert table((("a", "a"),), [{"a": "x|y"}], "md").splitlines()[-1] == r"| x\|y |"


def test_plots_are_drawn_next_to_the_results_and_shown(tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "cpu.json"
    drawn = plots.draw(RESULTS, file)
    assert [p.name for p in drawn] == ["cpu-cpu_forms.svg"]  # an operator's row lacks its sizes
    text = drawn[0].read_text()
    assert "Abacus 3" in text and "milliseconds" in text and "chunked" in text
    assert "![cpu_forms](" in results_text(RESULTS, "md", file)
    plots.draw(RESULTS, file)
    assert drawn[0].read_text() == text


def test_every_plot_draws_the_keys_of_its_table():
    for benchmark in BENCHMARKS.values():
        if benchmark.plot:
            keys = {key for key, _ in benchmark.columns}
            assert {*benchmark.plot.x, benchmark.plot.series} <= keys
            assert {key for key, _ in benchmark.plot.panels} <= keys
