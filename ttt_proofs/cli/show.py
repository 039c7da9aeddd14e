"""The commands `list` and `show`: what there is, and how it is proved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import terminal
from .catalogue import folder, load, names, require_names
from .headings import Heading, heading
from .requests import RequestError

Directory = Annotated[Path | None, typer.Option("--derivations", help="Where the files are.")]


def list_(
    directory: Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the derivations: name, what is expected, title."""
    where = folder(directory)
    found = [heading(where, name) for name in names(where)]
    if as_json:
        print(json.dumps([row._asdict() for row in found], indent=2))
    else:
        terminal.table(Heading._fields, found, whole=("name", "expects"))


def show(
    name: Annotated[str | None, typer.Argument(help="A derivation.")] = None,
    directory: Directory = None,
    part: Annotated[int | None, typer.Option(help="Only this part; the first is 1.")] = None,
    form: Annotated[str, typer.Option("--format", help="text, latex, md, html or json.")] = "text",
    table: Annotated[bool, typer.Option("--table", help="All claims of the paper.")] = False,
) -> None:
    """Show a derivation: statement, assumptions, every step with its rule. Or all claims."""
    if table is (name is not None):
        raise RequestError(
            "`show` takes either the name of a derivation or --table; got "
            f"{'both' if table else 'neither'}. Give one of them."
        )
    where = folder(directory)
    if name is None:
        from .claims_table import TABLES, rows

        if part is not None:
            raise RequestError(f"`--part` goes with a name; got {part} with --table. Leave it out.")
        require_form(form, TABLES)
        shown = TABLES[form](rows(where))
    else:
        require_names(where, [name])
        from ..render import FORMATS

        require_form(form, (*FORMATS, "json"))
        shown = shown_derivation(load(where, name), form, part)
    if form == "html" and not terminal.is_unicode():  # references say the same in any encoding
        shown = shown.encode("ascii", "xmlcharrefreplace").decode()
    print(shown)


def require_form(form: str, forms: Any) -> None:
    """Raise unless the format is one of those."""
    if form not in forms:
        raise RequestError(
            f"`--format` must be one of {', '.join(forms)}; got {form!r}. Choose one."
        )


def shown_derivation(derivation: Any, form: str, part: int | None) -> str:
    """The derivation, or one part of it, in a format."""
    from ..render import render_derivation
    from ..symbolic.records import dumps_derivation

    if part is not None:
        try:
            derivation.part(part)
        except IndexError as error:
            raise RequestError(str(error)) from error
    if form == "json":
        return dumps_derivation(derivation, part)
    counterexample = ""
    if derivation.expects == "fails":
        from ..evidence.report import refute

        counterexample = str(refute(derivation) or "No counterexample was found.")
    return render_derivation(
        derivation, form, counterexample, part=part, columns=terminal.columns()
    )
