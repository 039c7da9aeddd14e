"""The command `verify`: every witness on every derivation, a report and an exit code."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .catalogue import folder, load, names, require_names
from .files import Target
from .requests import RequestError, blamed
from .show import Directory
from .tables import environment, print_table, summary
from .workers import answers


def verify(
    chosen: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    directory: Directory = None,
    witness: Annotated[str, typer.Option(help="Comma-separated.")] = "proof,exact,autograd,kernel",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes; 0 for one per core.")] = 0,
    report: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    every: Annotated[
        bool, typer.Option("--every-mutant", help="All corruptions of proofs, not twenty a kind.")
    ] = False,
) -> None:
    """Run every witness on every derivation (or on those named).

    Exit code 0: all as stated. 1: a claim fails or a mutant survives. 2: the request is wrong.
    """
    where, began = folder(directory), time.perf_counter()
    require_names(where, chosen or [])
    wanted = list(dict.fromkeys(chosen or names(where)))
    if not wanted:
        raise RequestError(f"at least one derivation is required; {where} has none. Add one.")
    if jobs < 0:
        raise RequestError(f"`--jobs` must be 0 or more; got {jobs}. Use 0 for one per core.")
    target = None if report is None else Target(report)
    asked = witnesses(witness)
    check_device(device)
    requests = [(name, where, asked, seed, device, every) for name in wanted]
    done = gathered(requests, jobs or os.cpu_count() or 1)
    done.sort(key=lambda entry: wanted.index(entry["name"]))
    seconds = round(time.perf_counter() - began, 1)
    data = {
        "schema": 1,
        "environment": environment(device, seed),
        "derivations": done,
        "summary": summary(done, seconds),
    }
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    print_table(done, seconds, to_error=target is not None and target.is_output)
    if target is not None:
        target.write(text + "\n")
    raise typer.Exit(0 if all(entry["as_stated"] for entry in done) else 1)


def witnesses(words: str) -> tuple[str, ...]:
    """The witnesses that are asked for."""
    from ..evidence.report import WITNESSES

    asked = tuple(w.strip() for w in words.split(",") if w.strip())
    if not asked or not set(asked) <= set(WITNESSES):
        raise RequestError(
            f"`--witness` must be among {', '.join(WITNESSES)}; got {words!r}. "
            "Separate several by commas."
        )
    return asked


def check_device(device: str) -> None:
    """Raise unless the device is there."""
    if device not in ("cpu", "cuda"):
        raise RequestError(f"`--device` must be cpu or cuda; got {device!r}. Choose one.")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise RequestError("`--device cuda` needs a CUDA GPU; PyTorch sees none. Use cpu.")


def gathered(requests: list[tuple[Any, ...]], jobs: int) -> list[dict[str, Any]]:
    """The entries of all requests, as they are done, with a bar on standard error."""
    columns = (
        TextColumn("verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}", markup=False),
    )
    done, console = [], Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with closing(entries(requests, jobs)) as found, bar as progress:
        task = progress.add_task("", total=len(requests), last="")
        for entry in found:
            done.append(entry)
            progress.update(task, advance=1, last=entry["name"])
    return done


def entries(requests: list[tuple[Any, ...]], jobs: int) -> Generator[dict[str, Any]]:
    """The entries, from this process if one is enough."""
    if jobs == 1 or len(requests) == 1:
        for request in requests:
            yield verify_one(*request)
    else:
        yield from answers(verify_one, requests, jobs)


def verify_one(
    name: str, directory: Path, witnesses: tuple[str, ...], seed: int, device: str, every: bool
) -> dict[str, Any]:
    """One derivation's entry of the report; may run in a process of its own."""
    gc.set_threshold(2000, 20, 100)  # terms are many and live long: looking at them all is slow
    derivation = load(directory, name)
    from ..evidence.report import verify as run  # slower to import than most files to refuse

    with blamed(f"{name}.py must hold a derivation that can be checked", directory):
        options: dict[str, Any] = {"seed": seed, "device": device, "every_mutant": every}
        return run(derivation, witnesses=witnesses, **options).json()
