"""The command `reduce`: the form of a user's loop, its proof, and the real loop beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .catalogue import expanded, load_file
from .requests import RequestError, blamed


def reduce(
    target: Annotated[str, typer.Argument(metavar="FILE.py:OBJECT")],
    seed: Annotated[int, typer.Option(help="Seed of the check.")] = 0,
) -> None:
    """Reduce an InnerLoop or a Recurrence to linear attention: form, parallel class, evidence."""
    path, _, name = target.rpartition(":")
    if not path:
        raise RequestError(f"FILE.py:OBJECT is required; got {target!r}. Add a colon and a loop.")
    file = expanded(Path(path))
    if not file.is_file():
        raise RequestError(
            f"FILE.py:OBJECT is required; got {target!r}, and there is no file {path}. Name one."
        )
    loop = found_loop(file, name)
    with blamed(f"`{name}` in {path} must be a loop that can be checked", file.parent):
        lines, agrees = reduced(loop, seed)
    print("\n".join(lines))
    raise typer.Exit(0 if agrees else 1)


def found_loop(file: Path, name: str) -> Any:
    """The loop of that name in the file, which sees its neighbours as under `python FILE.py`."""
    from ..evidence import autograd  # noqa: F401  # before a neighbour may be taken for its imports
    from ..loops import InnerLoop, Recurrence

    kinds = (InnerLoop, Recurrence)
    sys.path.insert(0, str(file.parent.absolute()))
    found = vars(load_file(file))
    loop = found.get(name)
    if not isinstance(loop, kinds):
        loops = [key for key, value in found.items() if isinstance(value, kinds)]
        got = type(loop).__name__ if name in found else "nothing of that name"
        raise RequestError(
            f"`{name}` in {file} must be an InnerLoop or a Recurrence; got {got}. "
            f"Loops there: {', '.join(loops) or 'none'}."
        )
    return loop


def reduced(loop: Any, seed: int) -> tuple[list[str], bool]:
    """The lines to print, and whether autograd agrees or has nothing to say."""
    from ..loops import Recurrence
    from ..reduction import NotCoveredError
    from ..reduction import reduce as run

    try:
        reduction = run(loop)
    except NotCoveredError as error:
        raise RequestError(str(error)) from error
    lines = [str(reduction)]
    if isinstance(loop, Recurrence):
        told, agrees = beside_code(loop, seed)
        return [*lines, told], agrees
    if reduction.parallel == "sequential" and loop.schedule.steps == 1:
        lines.append(not_affine(loop, seed))
    if any_abstract(loop):
        return [*lines, "autograd: not applicable, the loop has abstract parts"], True
    from ..evidence.autograd import autograd_witness

    seen = autograd_witness(reduction, seed=seed)
    lines.append(
        f"autograd: {'agrees' if seen.agrees else 'DISAGREES'}, largest relative error "
        f"{seen.max_relative_error:.1e} over {seen.trials} random inputs"
    )
    return lines, seen.agrees


def beside_code(layer: Any, seed: int) -> tuple[str, bool]:
    """Whether what was read off a recurrence's code computes what the code does."""
    from ..evidence.check import check
    from ..parallel.recurrences import recurrent
    from ..program.operations import Abstract

    if any(isinstance(x.does, Abstract) for x in layer.traced.operations):
        return "code: not applicable, the step has unknown functions", True

    def run(q: Any, k: Any, v: Any, coefficients: Any) -> Any:
        return recurrent(layer, q, k, v, coefficients=coefficients)

    verdict = check(run, layer, seed=seed)
    return f"code, called token by token: {verdict}", bool(verdict)


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
    from ..symbolic.torch_loop import torch_loop

    try:
        torch_loop(loop)
    except ValueError:
        return True
    return False
