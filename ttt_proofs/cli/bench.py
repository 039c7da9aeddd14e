"""The command `bench`: measure, write what was found, show what has been committed."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .files import Target
from .requests import RequestError, nearest
from .tables import environment
from .terminal import complain
from .verify import check_device

if TYPE_CHECKING:
    from ..bench.benchmark import Benchmark, Settings


def bench(
    chosen: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    report: Annotated[Path | None, typer.Option("--json", help="Write the results here.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Which benchmarks there are.")] = False,
    quick: Annotated[bool, typer.Option(help="A dry run at small sizes.")] = False,
    seconds: Annotated[float, typer.Option(help="Start nothing later; 0 for no limit.")] = 0,
    commit: Annotated[str, typer.Option(help="The commit, if there is no checkout.")] = "",
    show: Annotated[bool, typer.Option(help="Print results that are there.")] = False,
    results: Annotated[Path | None, typer.Option(help="With --show: file or directory.")] = None,
    form: Annotated[str, typer.Option("--format", help="With --show: md or text.")] = "md",
) -> None:
    """Measure the forms and kernels (or the benchmarks named), or show what was measured.

    Exit code 0: done. 1: a result was wrong or a part failed. 2: the request is wrong.
    """
    if listed:
        from ..bench.registry import BENCHMARKS

        for each in BENCHMARKS.values():
            print(f"{each.name} ({', '.join(each.devices)}): {each.what}")
        return
    if show:
        print(shown(results, form, chosen))
        return
    if results is not None:
        raise RequestError(f"`--results` goes with --show; got {results} alone. Add --show.")
    raise typer.Exit(measure(chosen or [], device, report, quick, seconds, commit))


def shown(path: Path | None, form: str, chosen: list[str] | None) -> str:
    """The performance section, of committed results or of those at a path."""
    from ..bench.result_tables import FORMATS, section
    from ..bench.results import HOME, ResultsError, read

    if form not in FORMATS:
        raise RequestError(
            f"`--format` must be one of {', '.join(FORMATS)}; got {form!r}. Choose one."
        )
    if chosen:
        raise RequestError(
            f"`--show` prints all results; got {', '.join(chosen)}. Use --results "
            "for the file to print."
        )
    if path is None and not HOME.parent.is_dir():
        raise RequestError(
            "`--show` without --results needs a checkout with benchmarks/results; "
            "there is none. Name a file."
        )
    try:
        found = [] if path is None and not HOME.is_dir() else list(read(path or HOME))
    except ResultsError as error:
        raise RequestError(str(error)) from error
    return section(found, form)


def wanted(chosen: list[str], device: str, quick: bool) -> list[Benchmark]:
    """The benchmarks named, or all that suit the device."""
    from ..bench.registry import BENCHMARKS, suiting

    for name in chosen:
        if name not in BENCHMARKS:
            hint = nearest(name, BENCHMARKS, "ttt-proofs bench --list")
            raise RequestError(f"a benchmark's name is required; got {name!r}. {hint}")
        fits = BENCHMARKS[name].devices
        if device not in fits and not (quick and device == "cpu"):
            raise RequestError(
                f"`{name}` must be run on {' or '.join(fits)}; got {device}. Use "
                f"--device {fits[0]}" + (", or --quick for a dry run." if device == "cpu" else ".")
            )
    return [BENCHMARKS[name] for name in dict.fromkeys(chosen)] or list(suiting(device))


def measure(
    chosen: list[str], device: str, report: Path | None, quick: bool, seconds: float, commit: str
) -> int:
    """Run, print and write; the exit code."""
    check_device(device)
    if not seconds >= 0:
        raise RequestError(f"`--seconds` must be 0 or more; got {seconds}. Use 0 for no limit.")
    target = None if report is None else Target(report)
    if quick and device == "cpu" and "triton" not in sys.modules:
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton
    from ..bench.benchmark import Settings
    from ..bench.machine import all_cores, machine
    from ..bench.results import SCHEMA, problems
    from ..bench.results import text as results_text

    found = wanted(chosen, device, quick)
    settings = Settings(device, quick, time.monotonic() + seconds if seconds else None)
    with all_cores():
        about = environment(device, 0) | machine(device)
        about |= {
            "quick": quick,
            "commit": about["commit"] or commit or None,
            "command": shlex.join(["ttt-proofs", *sys.argv[1:]]),
        }
        data: dict[str, Any] = {"schema": SCHEMA, "environment": about, "benchmarks": []}
        for each in found:
            collect(each, settings, data, target)
    if target is not None:
        target.write(results_text(data))
        pictures(data, target)
    wrong = problems(data)
    for line in wrong:
        complain(f"problem: {line}")
    return 1 if wrong else 0


def collect(
    each: Benchmark, settings: Settings, data: dict[str, Any], target: Target | None
) -> None:
    """Run one benchmark; a file is written anew after each row, so that no row is lost.

    What is not a file, such as a pipe, takes the results once, at the end.
    """
    from ..bench.result_tables import entry_text
    from ..bench.results import text

    entry: dict[str, Any] = {"name": each.name, "what": each.what, "rows": []}
    data["benchmarks"].append(entry)
    for row in each.run(settings):
        entry["rows"].append(row)
        if target is not None and target.is_file:
            target.write(text(data))
    print(entry_text(entry, "text") + "\n")


def pictures(data: dict[str, Any], target: Target) -> None:
    """Draw what can be drawn, next to the results if they are in a file."""
    from ..bench.plots import available, draw

    if not target.is_file:
        return
    if not available():
        complain("no plots were drawn: they need matplotlib")
        return
    try:
        draw(data, target.path)
    except OSError as error:
        raise target.refusal(error) from error
