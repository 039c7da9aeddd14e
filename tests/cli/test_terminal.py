"""Terminals as they are: encodings without Greek, few columns, readers that leave early."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from derivations._claims import CLAIMS
from tests.cli.running import ROOT, command, environment, printed, write
from ttt_proofs.cli import terminal

NARROW = ("ascii", "cp1252", "latin-1", "cp437", "koi8-r", "shift_jis")


@pytest.mark.parametrize("encoding", [*NARROW, "utf-8", "utf-16"])
@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("list", "--json"),
        ("show", "momentum"),
        ("show", "vittt_depthwise_conv", "--part", "1"),
        ("show", "sum_order", "--format", "html"),
        ("show", "sum_order", "--format", "md"),
        ("show", "sum_order", "--format", "latex"),
        ("show", "sum_order", "--format", "json"),
        ("verify", "sum_order", "--witness", "proof"),
        ("--help",),
    ],
)
def test_every_encoding_is_spoken(monkeypatch, tmp_path, encoding, words):
    code, out = printed(monkeypatch, tmp_path / "out", encoding, *words)
    assert code == 0 and out
    if encoding == "ascii":
        assert out.isascii()


def test_the_claims_have_no_escapes_in_ascii():
    terminal.as_written("")  # registers the handler
    shown = "".join(claim.says + claim.so for claim in CLAIMS).encode("ascii", terminal.ERRORS)
    assert b"o = phi(q) (W_0 + Sum_i M(phi_i(k_i)^T m_i))" in shown and b"\\" not in shown


def test_a_reduction_in_ascii(monkeypatch, tmp_path):
    loop = f"{ROOT / 'examples' / 'loops.py'}:linear"
    code, out = printed(monkeypatch, tmp_path / "out", "ascii", "reduce", loop)
    assert code == 0 and "Sum_{i=0}^{t}" in out and "\\u" not in out


@pytest.mark.parametrize("name", ["momentum", "lact_weight_norm", "vittt_glu"])
def test_what_is_shown_has_no_escapes(monkeypatch, tmp_path, name):
    """Each character that the renderer uses is spelled."""
    _, out = printed(monkeypatch, tmp_path / "out", "ascii", "show", name)
    assert not re.search(r"\\[ux]|\?", out)


def test_html_says_the_same_in_any_encoding(monkeypatch, tmp_path):
    import html

    words = ("show", "vittt_glu", "--format", "html")
    plain = printed(monkeypatch, tmp_path / "out", "ascii", *words)[1]
    unicode = printed(monkeypatch, tmp_path / "out", "utf-8", *words)[1]
    assert plain != unicode and html.unescape(plain) == html.unescape(unicode)


@pytest.mark.parametrize(
    ("encoding", "text", "spelled"),
    [
        ("ascii", "Σ_{i=0}^{t} η · φ(k)ᵀ", "Sum_{i=0}^{t} eta * phi(k)^T"),
        ("cp1252", "Σ η · ×", "Sum eta · ×"),
        ("ascii", "x² y¹² z⁻¹", "x^2 y^12 z^-1"),
        ("cp1252", "x² y¹²", "x² y¹²"),
        ("cp1252", "x⁴ x²⁴ x⁴² ", "x^4 x²\\u2074 x\\u2074² "),  # never (x²)^4
        ("ascii", "v̂ λ Λ ‖W‖ ≤ ∎", "v_hat lambda Lambda ||W|| <= QED"),
        ("ascii", "é 日 \U0001d54f ℠ \udcff", "\\xe9 \\u65e5 \\U0001d54f \\u2120 \\udcff"),
        ("utf-8", "é \udcff", "é \\udcff"),
    ],
)
def test_characters_are_spelled_out(encoding, text, spelled):
    terminal.as_written("")  # registers the handler
    assert text.encode(encoding, terminal.ERRORS).decode(encoding) == spelled


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii:strict", "PYTHONUNBUFFERED": "1"},
    ],
)
def test_a_real_terminal_without_greek(settings):
    done = command("show", "momentum", "--part", "2", **settings)
    assert done.returncode == 0 and b"Sum_{i=0}^{t" in done.stdout and not done.stderr


def values(text: str) -> set[str]:
    """The words of a table, apart from its lines, the time and the head over the names."""
    words = re.sub(r", in [\d.]+ s\.", "", text).replace("derivation", "").split()
    return {word for word in words if not set(word) <= set("─-+|")}


@pytest.mark.parametrize("columns", [1, 40, 60, 80, 100])
def test_no_width_loses_anything(monkeypatch, tmp_path, columns):
    words = ("verify", "sum_order", "lact_muon_on_momentum", "--witness", "proof", "--jobs", "1")
    monkeypatch.setenv("COLUMNS", "300")
    wide = printed(monkeypatch, tmp_path / "out", "utf-8", *words)[1]
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out = printed(monkeypatch, tmp_path / "out", "utf-8", *words)
    assert code == 0 and values(out) == values(wide)


@pytest.mark.parametrize("columns", [1, 30, 60, 80])
def test_text_is_laid_out_for_the_terminal(monkeypatch, tmp_path, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out = printed(monkeypatch, tmp_path / "out", "utf-8", "show", "sum_order")
    assert code == 0
    body = out.partition("Theorem")[2].splitlines()
    assert max(map(len, body)) <= max(columns, 40)
    rows = printed(monkeypatch, tmp_path / "out", "utf-8", "list")[1]
    assert "momentum_rate_inside" in rows and "…" not in rows


@pytest.mark.parametrize("title", ["[/x]", "[bold]a[/bold]", "two\nlines", "日本語", "", " "])
def test_titles_are_words_and_no_markup(monkeypatch, tmp_path, title):
    write(tmp_path, "one", title=title)
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        words = ("list", "--derivations", str(tmp_path))
        code, out = printed(monkeypatch, tmp_path / "out", "utf-8", *words)
        assert code == 0
        assert all(line.strip() in out for line in title.splitlines())


def unread(*words: str) -> subprocess.CompletedProcess:
    """The command with an output that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "ttt_proofs", *words],
            cwd=ROOT,
            env=environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("words", [("list",), ("show", "sum_order"), ("--help",), ("--version",)])
def test_a_reader_that_leaves_ends_nothing(words):
    done = unread(*words)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_does_not_change_the_verdict(tmp_path):
    write(tmp_path, "wrong", last="a[t]")
    report = tmp_path / "report.json"
    done = unread("verify", "--derivations", str(tmp_path), "--json", str(report))
    assert (done.returncode, done.stderr) == (1, b"")
    assert report.stat().st_size


def test_a_full_disk_is_told():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ttt_proofs", "list"],
            cwd=ROOT,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"standard output must take" in done.stderr


def test_closed_outputs_are_no_fault():
    script = f"{sys.executable} -m ttt_proofs list >&- 2>&-"
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, env=environment(), timeout=120)
    assert done.returncode == 0


def test_streams_are_given_back():
    kept = sys.stdout, sys.stderr
    with terminal.streams():
        pass
    assert (sys.stdout, sys.stderr) == kept
    text = io.StringIO()  # as in a notebook: no file at all
    assert terminal.patient(text) is text
