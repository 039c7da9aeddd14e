"""The command line `ttt-proofs`: list, show, verify, reduce, bench."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ..checker.terms import CheckerError
from .bench import bench
from .library import RequestError, folder, load, load_file, names, require_names
from .tables import environment, err, out, print_table, summary

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Test-time training with KV binding is linear attention, executable.",
)

Directory = Annotated[Path | None, typer.Option("--derivations", help="Where the files are.")]


@app.command("list")
def list_(
    directory: Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the derivations: name, what is expected, title."""
    where = folder(directory)
    found = [load(where, name) for name in names(where)]
    if as_json:
        rows = [
            {"name": d.name, "expects": d.expects, "title": d.title, "source": d.source}
            for d in found
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "expects", "title", "source"):
        table.add_column(column, no_wrap=column == "name")
    for d in found:
        table.add_row(d.name, d.expects, d.title, d.source)
    out.print(table)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A derivation.")] = None,
    directory: Directory = None,
    form: Annotated[str, typer.Option("--format", help="text, latex, md or html.")] = "text",
    table: Annotated[bool, typer.Option("--table", help="All claims of the paper.")] = False,
) -> None:
    """Show a derivation: statement, assumptions, every step with its rule. Or all claims."""
    from ..render import FORMATS, render_derivation
    from .claims import TABLES, rows

    formats = TABLES if table else FORMATS
    if form not in formats:
        raise RequestError(
            f"`--format` must be one of {', '.join(formats)}; got {form!r}. Choose one."
        )
    if table is (name is not None):
        raise RequestError(
            "`show` takes either the name of a derivation or --table; got "
            f"{'both' if table else 'neither'}. Give one of them."
        )
    if name is None:
        typer.echo(TABLES[form](rows(folder(directory))))
        return
    derivation, counterexample = load(folder(directory), name), ""
    if derivation.expects == "fails":
        from ..evidence.report import refute

        found = refute(derivation)
        counterexample = str(found or "No counterexample was found.")
    typer.echo(render_derivation(derivation, form, counterexample))


def verify_one(
    directory: Path, name: str, witnesses: tuple[str, ...], seed: int, device: str, every: bool
) -> dict[str, Any]:
    """One derivation's entry of the report; runs in a process of its own."""
    from ..evidence.report import verify as run

    gc.set_threshold(2000, 20, 100)  # terms are many and live long: looking at them all is slow
    options: dict[str, Any] = {"seed": seed, "device": device, "every_mutant": every}
    try:
        return run(load(directory, name), witnesses=witnesses, **options).json()
    except (ValueError, TypeError, CheckerError) as error:
        raise RequestError(
            f"{name}.py must hold a derivation that can be checked; it raised "
            f"{type(error).__name__}: {error}"
        ) from error


def entries(directory: Path, chosen: list[str], jobs: int, *rest: Any) -> Iterator[dict[str, Any]]:
    """The entries of all chosen derivations, as they are done."""
    if jobs == 1 or len(chosen) == 1:
        for name in chosen:
            yield verify_one(directory, name, *rest)
        return
    with ProcessPoolExecutor(min(jobs, len(chosen)), get_context("spawn")) as pool:
        futures = [pool.submit(verify_one, directory, name, *rest) for name in chosen]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RequestError(
                "each derivation must leave its process running; one ended it. "
                "Use --jobs 1 to find it."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@app.command()
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
    from ..evidence.report import WITNESSES

    asked = tuple(w.strip() for w in witness.split(",") if w.strip())
    if not asked or not set(asked) <= set(WITNESSES):
        raise RequestError(
            f"`--witness` must be among {', '.join(WITNESSES)}; got {witness!r}. "
            "Separate several by commas."
        )
    check_device(device)
    if jobs < 0:
        raise RequestError(f"`--jobs` must be 0 or more; got {jobs}. Use 0 for one per core.")
    where, began = folder(directory), time.perf_counter()
    require_names(where, chosen or [])
    wanted = list(dict.fromkeys(chosen or names(where)))
    if not wanted:
        raise RequestError(f"at least one derivation is required; {where} has none. Add one.")
    if report is not None:
        check_writable(report)
    done = []
    columns = (
        TextColumn("verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("", total=len(wanted), last="")
        options = (asked, seed, device, every)
        for entry in entries(where, wanted, jobs or os.cpu_count() or 1, *options):
            done.append(entry)
            progress.update(task, advance=1, last=entry["name"])
    done.sort(key=lambda entry: wanted.index(entry["name"]))
    seconds = round(time.perf_counter() - began, 1)
    data = {
        "schema": 1,
        "environment": environment(device, seed),
        "derivations": done,
        "summary": summary(done, seconds),
    }
    if report is not None:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        report.write_text(text + "\n", encoding="utf-8")
    print_table(done, seconds)
    raise typer.Exit(0 if all(entry["as_stated"] for entry in done) else 1)


def check_writable(report: Path) -> None:
    """Raise unless a file can be written there; its directory is made."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        with report.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise RequestError(
            f"`--json` must be a file that can be written; got {report} "
            f"({error.strerror}). Name another."
        ) from error
    if not report.stat().st_size:
        report.unlink()  # nothing is left behind if the run does not end


def check_device(device: str) -> None:
    """Raise unless the device is there."""
    if device not in ("cpu", "cuda"):
        raise RequestError(f"`--device` must be cpu or cuda; got {device!r}. Choose one.")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise RequestError("`--device cuda` needs a CUDA GPU; PyTorch sees none. Use cpu.")


@app.command()
def reduce(
    target: Annotated[str, typer.Argument(metavar="FILE.py:OBJECT")],
    seed: Annotated[int, typer.Option(help="Seed of the check.")] = 0,
) -> None:
    """Reduce an InnerLoop to linear attention: form, parallel class, evidence."""
    from ..loops import InnerLoop
    from ..reduction import NotCoveredError
    from ..reduction import reduce as run

    path, _, name = target.rpartition(":")
    if not path:
        raise RequestError(f"FILE.py:OBJECT is required; got {target!r}. Add a colon and a loop.")
    if not Path(path).is_file():
        raise RequestError(
            f"FILE.py:OBJECT is required; got {target!r}, and there is no file {path}. Name one."
        )
    found = vars(load_file(Path(path)))
    loops = [key for key, value in found.items() if isinstance(value, InnerLoop)]
    loop = found.get(name)
    if not isinstance(loop, InnerLoop):
        got = type(loop).__name__ if name in found else "nothing of that name"
        raise RequestError(
            f"`{name}` in {path} must be an InnerLoop; got {got}. "
            f"Loops there: {', '.join(loops) or 'none'}."
        )
    try:
        reduction = run(loop)
    except (NotCoveredError, CheckerError) as error:
        raise RequestError(str(error)) from error
    typer.echo(str(reduction))
    if reduction.parallel == "sequential" and loop.schedule.steps == 1:
        typer.echo(not_affine(loop, seed))
    if any_abstract(loop):
        typer.echo("autograd: not applicable, the loop has abstract parts")
        return
    from ..evidence.autograd import autograd_witness

    seen = autograd_witness(reduction, seed=seed)
    typer.echo(
        f"autograd: {'agrees' if seen.agrees else 'DISAGREES'}, largest relative error "
        f"{seen.max_relative_error:.1e} over {seen.trials} random inputs"
    )
    raise typer.Exit(0 if seen.agrees else 1)


app.command()(bench)


def not_affine(loop: Any, seed: int) -> str:
    """Numbers at which a step of a sequential loop is not affine, so that no such scan runs it."""
    from ..evidence.exact import refute
    from ..symbolic.parts import affine_part

    part = affine_part(loop)
    found = refute(part.statement, part.proof.definitions, seed=seed)
    if found is None:
        return "affine: no counterexample was found, which proves nothing"
    return (
        "not affine: F(S + A + B) + F(S) = F(S + A) + F(S + B) fails, F one step's "
        f"{loop.net.last.name}. {found}"
    )


def any_abstract(loop: Any) -> bool:
    """Whether the loop cannot run, having abstract parts."""
    from ..symbolic.torch_code import torch_loop

    try:
        torch_loop(loop)
    except ValueError:
        return True
    return False


def main() -> None:
    """Run the command line; a wrong request is one sentence and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except RequestError as error:
        message = str(error)
    except Exception as error:
        told = getattr(error, "format_message", None)  # Typer's own errors have it
        if told is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(told())
            sys.exit(2)
        message = f"{told().rstrip('.')}. See ttt-proofs --help."
    err.print(f"ttt-proofs: {message}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
