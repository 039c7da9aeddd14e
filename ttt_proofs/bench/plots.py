"""Pictures of results, one for each benchmark that has one, next to the JSON. Need matplotlib."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .benchmark import Column, Plot
from .registry import BENCHMARKS
from .results import Results
from .timing import Row


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot_file(results: Path, name: str) -> Path:
    """Where the picture of a benchmark of that file is."""
    return results.with_name(f"{results.stem}-{name}.svg")


def draw(data: Results, results: Path) -> list[Path]:
    """Write a picture for each benchmark whose rows have what its plot shows; their files."""
    import matplotlib

    written = []
    for entry in data["benchmarks"]:
        known = BENCHMARKS.get(entry["name"])
        if known is None or known.plot is None:
            continue
        figure = drawn(known.plot, entry["rows"])
        if figure is None:
            continue
        figure.suptitle(f"{entry['name']}, {data['environment']['device_name']}")
        file = plot_file(results, entry["name"])
        with matplotlib.rc_context({"svg.hashsalt": "ttt-proofs", "svg.fonttype": "none"}):
            figure.savefig(file, metadata={"Date": None})  # the same for the same results
        written.append(file)
    return written


def drawn(plot: Plot, rows: list[Row]) -> Any:
    """The figure; None if no row has a number to draw."""
    from matplotlib.figure import Figure

    keys = (*plot.x, plot.series)
    rows = [row for row in rows if all(key in row for key in keys)]
    panels = [p for p in plot.panels if any(isinstance(r.get(p[0]), int | float) for r in rows)]
    if not panels:
        return None
    groups = len({at(plot, row) for row in rows}) if plot.kind == "bars" else 0
    width = max(6.4, 1.3 * groups)  # inches; room for each group's name
    figure = Figure(figsize=(width * len(panels), 4.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        (bars if plot.kind == "bars" else lines)(axes, plot, panel, rows)
    return figure


def at(plot: Plot, row: Row) -> str:
    """Where on the axis of a bar chart a row is."""
    return "\n".join(
        str(row[key]) if isinstance(row[key], str) else f"{key} {row[key]}" for key in plot.x
    )


def bars(axes: Any, plot: Plot, panel: Column, rows: list[Row]) -> None:
    """Groups of bars, one for each series that has the number."""
    key, label = panel
    rows = [row for row in rows if row.get(key) is not None]
    places = list(dict.fromkeys(at(plot, row) for row in rows))
    series = list(dict.fromkeys(str(row[plot.series]) for row in rows))
    width = 0.8 / len(series)
    for n, name in enumerate(series):
        mine = [row for row in rows if str(row[plot.series]) == name]
        x = [places.index(at(plot, row)) + (n - (len(series) - 1) / 2) * width for row in mine]
        drawn = axes.bar(x, [row[key] for row in mine], width, label=name)
        axes.bar_label(
            drawn, fmt=lambda x: f"{x:,.0f}" if x >= 100 else f"{x:.3g}", fontsize="x-small"
        )
    axes.set_xticks(range(len(places)), places, fontsize="small")
    axes.margins(y=0.1)
    axes.set_ylabel(label)
    axes.legend()


def lines(axes: Any, plot: Plot, panel: Column, rows: list[Row]) -> None:
    """A line for each series, both axes logarithmic."""
    key, label = panel
    (along,) = plot.x
    for name in dict.fromkeys(str(row[plot.series]) for row in rows):
        mine = [row for row in rows if str(row[plot.series]) == name and row.get(key)]
        axes.plot([row[along] for row in mine], [row[key] for row in mine], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel(along)
    axes.set_ylabel(label)
    axes.legend()
