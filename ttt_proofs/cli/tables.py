"""What the command line reports: the environment, the counts, the table."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console

from .terminal import PLAIN, table

GOOD, BAD = "as stated", "NOT as stated"


def environment(device: str, seed: int) -> dict[str, Any]:
    """What the report was made with."""
    packages = {}
    for package in ("ttt-proofs", "torch", "sympy", "python-flint", "numpy"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": packages,
        "device": device,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def summary(done: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Counts over all derivations."""
    return {
        "derivations": len(done),
        "as_stated": sum(entry["as_stated"] for entry in done),
        "hold": sum(entry["outcome"] == "holds" for entry in done),
        "fail": sum(entry["outcome"] == "fails" for entry in done),
        "mutants": sum(entry["mutants"]["total"] for entry in done),
        "survivors": sum(len(entry["mutants"]["survivors"]) for entry in done),
        "seconds": seconds,
    }


def print_table(done: list[dict[str, Any]], seconds: float, *, to_error: bool = False) -> None:
    """The table at the end, and the counterexamples below it."""
    heads = ("derivation", "outcome", "steps", "exact", "autograd", "kernel", "mutants", "")
    rows = [cells(entry) for entry in done]
    table(heads, rows, whole=heads, colour={GOOD: "green", BAD: "red"}, to_error=to_error)
    console = Console(stderr=to_error)
    for e in done:
        if e["counterexample_text"]:
            told = f"{e['name']}: the claim “{e['title']}” fails. {e['counterexample_text']}"
            console.print(told, **PLAIN)
        for name in e["mutants"]["survivors"]:
            console.print(f"{e['name']}: mutant survives: {name}", **PLAIN)
    as_stated = sum(e["as_stated"] for e in done)
    console.print(f"{as_stated} of {len(done)} as stated, in {seconds} s.", **PLAIN)


def cells(e: dict[str, Any]) -> tuple[str, ...]:
    """One derivation's row."""
    bound, steps = e["exact"].get("error_bound_log2"), e["proof"]["steps"]
    error, m, kernel = e["autograd"].get("max_relative_error"), e["mutants"], e["kernel"]
    killed = min(m["killed_by_proof"], m["killed_by_exact"])
    return (
        e["name"],
        e["outcome"],
        f"{steps}" if e["proof"]["status"] == "proved" else short(e["proof"]["status"]),
        f"2^{bound:.0f}" if bound is not None else short(e["exact"]["status"]),
        f"{error:.0e}" if e["autograd"]["status"] == "agrees" else short(e["autograd"]["status"]),
        f"{kernel['max_relative_error']:.0e}"
        if kernel["status"] == "agrees"
        else short(kernel["status"]),
        f"{killed}/{m['total']}{equivalent(m)}" if m["total"] else short(m["status"]),
        GOOD if e["as_stated"] else BAD,
    )


def equivalent(mutants: dict[str, Any]) -> str:
    """How many mutants say the same as the statement, and are not counted."""
    count = len(mutants["equivalent"])
    return f" (+{count})" if count else ""


def short(status: str) -> str:
    """A status for a narrow column."""
    return {"not_applicable": "n/a", "skipped": "-"}.get(status, status)
