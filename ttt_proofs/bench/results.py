"""Results as JSON: written as they come, and read back only if they are what they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .machine import ROOT

SCHEMA = 1
HOME = ROOT / "benchmarks" / "results"
NEEDED = (
    "device",
    "device_name",
    "cores",
    "threads",
    "python",
    "platform",
    "torch",
    "triton",
    "commit",
    "date",
    "command",
    "quick",
)

Results = dict[str, Any]


class ResultsError(ValueError):
    """A file does not hold results; the message is one sentence."""


def check(data: object, where: str) -> Results:
    """The results; ResultsError unless they have what `--show` and others rely on.

    Each row was timed (`median_ms` with `spread_ms` and `repeats`, all positive but the spread,
    which may be 0; or both in seconds, `_s`), or checked (`error` or `new_entries`), or says
    `problem` or `not_run`.
    """

    def need(fine: bool, what: str) -> None:
        if not fine:
            raise ResultsError(
                f"{where} must hold results of `ttt-proofs bench --json`; {what}. Measure again."
            )

    need(isinstance(data, dict), "it is no object")
    results: Results = data  # type: ignore[assignment]
    need(results.get("schema") == SCHEMA, f"its schema is {results.get('schema')!r}, not {SCHEMA}")
    environment, entries = results.get("environment"), results.get("benchmarks")
    need(isinstance(environment, dict), "it has no environment")
    lacking = [key for key in NEEDED if key not in environment]  # type: ignore[operator]
    need(not lacking, f"its environment lacks {', '.join(lacking)}")
    need(isinstance(entries, list), "it has no list of benchmarks")
    for entry in entries:  # type: ignore[union-attr]
        need(
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("what"), str)
            and isinstance(entry.get("rows"), list),
            "a benchmark lacks its name, what it is or its rows",
        )
        for number, row in enumerate(entry["rows"]):
            need(
                isinstance(row, dict) and is_told(row),
                f"row {number} of {entry['name']} has "
                "neither a time, a check, a problem nor why it was not run",
            )
    return results


def is_told(row: dict[str, Any]) -> bool:
    """Whether a row says what was found; a time needs its spread and number of rounds."""
    if "problem" in row or "not_run" in row:
        return True
    if unit := next((x for x in ("ms", "s") if f"median_{x}" in row), None):
        times = [row[f"median_{unit}"], row.get("repeats"), row.get(f"spread_{unit}")]
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in times)
        return numbers and times[0] > 0 and times[1] >= 1 and times[2] >= 0
    return any(isinstance(row.get(key), int | float) for key in ("error", "new_entries"))


def text(data: Results) -> str:
    """The results as JSON; NaN is refused."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: Path) -> Iterator[tuple[Path, Results]]:
    """The results in a file, or in each JSON file of a directory in order; ResultsError if off."""
    if not path.exists():
        raise ResultsError(f"results must be a file or a directory; there is no {path}. Name one.")
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ResultsError(
                f"{file.name} must be JSON; it is not ({error}). Measure again."
            ) from error
        yield file, check(data, file.name)


def problems(data: Results) -> list[str]:
    """What was found wrong, a line for each row."""
    return [
        f"{entry['name']}: {row['problem']}"
        for entry in data["benchmarks"]
        for row in entry["rows"]
        if "problem" in row
    ]
