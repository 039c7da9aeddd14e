"""Results as text or Markdown: tables, what they were measured on, and what has not been run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .benchmark import Column
from .machine import ROOT
from .plots import plot_file
from .registry import BENCHMARKS
from .results import Results
from .timing import Row

FORMATS = ("md", "text")


def cell(key: str, value: object) -> str:
    """A value for a table: shares as percentages, errors with an exponent, three digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if key.startswith("of_") and key != "of_additive":
            return f"{100 * value:.0f}%"
        if key.endswith("error"):
            return f"{value:.1e}" if value else "0"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def table(columns: Sequence[Column], rows: Sequence[Row], form: str) -> str:
    """The rows below their headings; columns in which no row has anything are left out."""
    used = [(key, head) for key, head in columns if any(row.get(key) is not None for row in rows)]
    lines = [[head for _, head in used]]
    lines += [[cell(key, row.get(key)) for key, _ in used] for row in rows]
    if form == "md":
        escaped = [[text.replace("|", r"\|") for text in line] for line in lines]
        escaped.insert(1, ["---"] * len(used))
        return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(n) for text, n in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def split(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[str, tuple[Column, ...]]:
    """What all of several rows have in common, in one line, and the columns that are left."""
    shared = [
        (key, head)
        for key, head in columns[:-1]
        if len(rows) > 1
        and all(key in row and row[key] == rows[0][key] for row in rows)
        and not isinstance(rows[0][key], float | bool | None)
    ]
    told = ", ".join(f"{head} {cell(key, rows[0][key])}" for key, head in shared)
    return told, tuple(column for column in columns if column not in shared)


def entry_text(entry: Row, form: str) -> str:
    """One benchmark: what it is, its table, its problems, and which rows were not run."""
    known = BENCHMARKS.get(entry["name"])
    rows = [row for row in entry["rows"] if "not_run" not in row]
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = known.columns if known else tuple((key, key) for key in keys if key != "problem")
    parts = [f"### {entry['name']}" if form == "md" else entry["name"].upper(), entry["what"]]
    if rows:
        shared, left = split(columns, rows)
        parts += [f"In all rows: {shared}."] if shared else []
        parts.append(table((*left, ("problem", "problem")), rows, form))
    lines = dict.fromkeys(not_run(row, columns) for row in entry["rows"] if "not_run" in row)
    if lines:
        parts.append("Not run:\n\n" + "\n".join(f"* {line}" for line in lines))
    return "\n\n".join(parts)


def not_run(row: Row, columns: Sequence[Column]) -> str:
    """Which row it is, and why it was not run."""
    which = ", ".join(f"{head} {cell(key, row[key])}" for key, head in columns if key in row)
    return f"{which or 'all'}: {row['not_run']}"


def hardware(environment: Row) -> str:
    """What was measured on, in one sentence."""
    e = environment
    if e["device"] == "cuda":
        on = (
            f"one {e['device_name']} ({e.get('multiprocessors')} multiprocessors, "
            f"CUDA {e.get('cuda')})"
        )
    else:
        on = f"{e['device_name']}, CPU only ({e['cores']} cores, {e['threads']} threads)"
    triton = f", Triton {e['triton']}" if e["triton"] else ""
    dry = ". A dry run at small sizes: its times say nothing" if e["quick"] else ""
    return (
        f"Measured on {on}, with PyTorch {e['torch']}{triton}, Python {e['python']}, "
        f"{e['platform']}; commit {e['commit'] or 'unknown'}, {e['date']}, by "
        f"`{e['command']}`{dry}."
    )


def results_text(data: Results, form: str, file: Path | None = None) -> str:
    """All of one file: the hardware, then each benchmark, with its plot if that is there."""
    parts = [hardware(data["environment"])]
    for entry in data["benchmarks"]:
        parts.append(entry_text(entry, form))
        plot = plot_file(file, entry["name"]) if file else None
        if form == "md" and plot is not None and plot.exists():
            resolved = plot.resolve()
            shown = resolved.relative_to(ROOT) if resolved.is_relative_to(ROOT) else plot
            parts.append(f"![{entry['name']}]({shown.as_posix()})")
    return "\n\n".join(parts)


def section(found: Sequence[tuple[Path, Results]], form: str) -> str:
    """The performance section: every file, and the benchmarks that none of them has."""
    title = "## Performance" if form == "md" else "PERFORMANCE"
    parts = [title] + [results_text(data, form, file) for file, data in found]
    devices = {
        name: {
            data["environment"]["device"]
            for _, data in found
            if not data["environment"]["quick"]
            for entry in data["benchmarks"]
            if entry["name"] == name and any("not_run" not in row for row in entry["rows"])
        }
        for name in BENCHMARKS
    }
    missing = [
        f"* {name} on {'a GPU' if device == 'cuda' else 'a CPU'}: {benchmark.what}"
        for name, benchmark in BENCHMARKS.items()
        for device in benchmark.devices
        if device not in devices[name]
    ]
    if missing:
        title = "### Not measured yet" if form == "md" else "NOT MEASURED YET"
        parts.append("\n".join([title, "", *missing]))
    return "\n\n".join(parts)
