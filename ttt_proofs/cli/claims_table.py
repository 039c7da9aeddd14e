"""The table of the source's claims: what holds, what holds with a correction, what is refuted."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ..symbolic.claims import Claim
from ..symbolic.derivation import Derivation
from .catalogue import RequestError, load, load_file, package_of
from .terminal import paragraphs

COLUMNS = ("the paper says", "where", "verdict", "what holds", "by", "counterexample")
Row = tuple[str, str, str, str, str, str]


def claims(directory: Path) -> tuple[Claim, ...]:
    """The claims that the directory lists, in its file `_claims.py`."""
    file = directory / "_claims.py"
    if not file.is_file():
        raise RequestError(
            f"`--table` needs a list of claims; {directory} has no _claims.py. Write one."
        )
    found = getattr(load_file(file, package_of(directory)), "CLAIMS", None)
    if not isinstance(found, tuple) or not all(isinstance(c, Claim) for c in found):
        raise RequestError("_claims.py must define CLAIMS, a tuple of Claim; it does not. Add it.")
    return found


def decided(directory: Path, found: tuple[Claim, ...]) -> dict[str, Derivation]:
    """The derivations that the claims rest on, each loaded once, if they can bear them.

    A claim that is refuted must rest on a derivation that fails, and one that is corrected on
    one that holds.
    """
    used = dict.fromkeys(name for claim in found for name in claim.by)
    loaded = {name: load(directory, name) for name in used}
    for claim in found:
        expected = {loaded[name].expects for name in claim.by}
        needed = {"refuted": "fails", "holds, corrected": "holds"}.get(claim.verdict)
        if needed is not None and needed not in expected:
            raise RequestError(
                f"a claim that is {claim.verdict!r} must rest on a derivation that "
                f"{needed}; got {', '.join(claim.by)}. Name one."
            )
    return loaded


def rows(directory: Path) -> list[Row]:
    """The table's rows; counterexamples are looked for anew."""
    from ..evidence.report import refute

    listed = claims(directory)
    loaded = decided(directory, listed)
    found = []
    for claim in listed:
        failing = [loaded[name] for name in claim.by if loaded[name].expects == "fails"]
        shown = []
        for derivation in failing:
            refutation = refute(derivation)
            told = str(refutation or "None was found.")
            shown.append(f"{derivation.name}: {told}" if len(failing) > 1 else told)
        found.append(
            (claim.says, claim.where, claim.verdict, claim.so, ", ".join(claim.by), " ".join(shown))
        )
    return found


def text(table: list[Row]) -> str:
    """Each claim as a paragraph of labelled lines."""
    return paragraphs(COLUMNS, table)


def markdown(table: list[Row]) -> str:
    """A table as GitHub has it; names of derivations in backquotes."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for *start, by, shown in table:
        names_ = ", ".join(f"`{name}`" for name in by.split(", ") if name)
        cells = [
            cell.replace("|", r"\|").replace("*", r"\*").replace("_", r"\_")
            for cell in (*start, shown)
        ]
        lines.append("| " + " | ".join((*cells[:-1], names_, cells[-1])) + " |")
    return "\n".join(lines)


def html(table: list[Row]) -> str:
    """A table element."""
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in table
    )
    return f"<table>\n<tr>{head}</tr>\n{body}</table>"


TABLES = {"text": text, "md": markdown, "html": html}
