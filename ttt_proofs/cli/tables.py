"""What the command line reports: the environment, the counts, the table."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.table import Table

out, err = Console(), Console(stderr=True)


def environment(device: str, seed: int) -> dict[str, Any]:
    """What the report was made with."""
    packages = {}
    for package in ("ttt-proofs", "torch", "sympy", "python-flint", "numpy"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {"python": platform.python_version(), "platform": platform.platform(),
            "cores": os.cpu_count(), "packages": packages, "device": device, "seed": seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip


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


def print_table(done: list[dict[str, Any]], seconds: float) -> None:
    """The table at the end, and the counterexamples below it."""
    table = Table("derivation", "outcome", "proof", "exact", "autograd", "kernel", "mutants", "")
    for e in done:
        bound, steps = e["exact"].get("error_bound_log2"), e["proof"]["steps"]
        error, m = e["autograd"].get("max_relative_error"), e["mutants"]
        killed = min(m["killed_by_proof"], m["killed_by_exact"])
        table.add_row(
            e["name"],
            e["outcome"],
            f"{e['proof']['status']}, {steps} steps" if steps else e["proof"]["status"],
            f"error < 2^{bound:.0f}" if bound is not None else e["exact"]["status"],
            f"{error:.1e}" if error is not None else short(e["autograd"]["status"]),
            short(e["kernel"]["status"]),
            f"{killed}/{m['total']}" if m["total"] else short(m["status"]),
            "[green]as stated[/]" if e["as_stated"] else "[red]NOT as stated[/]",
        )
    out.print(table)
    for e in done:
        if e["counterexample"]:
            found = e["counterexample"]
            values = ", ".join(f"{name} = {value}" for name, value in found["values"])
            out.print(f"{e['name']} fails: at {values} the left side is {found['left']}, the "
                      f"right side {found['right']}.", highlight=False, markup=False)  # fmt: skip
        for name in e["mutants"]["survivors"]:
            out.print(f"{e['name']}: mutant survives: {name}", highlight=False, markup=False)
    as_stated = sum(e["as_stated"] for e in done)
    out.print(f"{as_stated} of {len(done)} as stated, in {seconds} s.", highlight=False)


def short(status: str) -> str:
    """A status for a narrow column."""
    return {"not_applicable": "n/a", "skipped": "-"}.get(status, status)
