"""Standard output and error as they are: any encoding, any width, a reader that leaves early."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDE = 120  # a pipe or a log has no width of its own; the tables need this much
ROOM = 12  # columns that a cell of several lines needs
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}

# What a character is written as where the encoding lacks it. Letters are named by Unicode.
SPELLED = {
    "Σ": "Sum",
    "Π": "Prod",
    "ℓ": "ell",
    "∂": "d",
    "√": "sqrt",
    "∎": "QED",
    "·": "*",
    "×": "x",
    "⊙": "(*)",
    "−": "-",
    "–": "-",
    "—": "--",
    "‖": "||",
    "′": "'",
    "↦": "|->",
    "←": "<-",
    "→": "->",
    "≠": "!=",
    "≤": "<=",
    "≥": ">=",
    "…": "...",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "‹": "<",
    "›": ">",
    "\u0302": "_hat",
    "λ": "lambda",  # Unicode spells it "lamda"
    "Λ": "Lambda",
}
ERRORS = "ttt_proofs.spelled"


def spelled(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: Greek letters, signs and exponents spelled out, others as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = (spell(error, at) for at in range(error.start, error.end))
    return "".join(written), error.end


def spell(error: UnicodeEncodeError, at: int) -> str:
    """One character in ASCII.

    An exponent that the encoding has in part is escaped: half of it spelled were another number.
    """
    sign = error.object[at]
    if sign in SPELLED:
        return SPELLED[sign]
    raised = superscript(sign)
    if raised:
        start, end = at, at + 1
        while start and superscript(error.object[start - 1]):
            start -= 1
        while end < len(error.object) and superscript(error.object[end]):
            end += 1
        if error.start <= start and end <= error.end:
            return raised if at > start else f"^{raised}"
    name = unicodedata.name(sign, "").split(" ")
    if len(name) == 4 and name[0] == "GREEK" and name[2] == "LETTER":
        return name[3].capitalize() if name[1] == "CAPITAL" else name[3].lower()
    return sign.encode("ascii", "backslashreplace").decode()


def superscript(sign: str) -> str:
    """The ASCII character of which this is the superscript; empty if it is none."""
    kind, *codes = unicodedata.decomposition(sign).split()[:3] or [""]
    if kind != "<super>" or len(codes) != 1:
        return ""
    code = chr(int(codes[0], 16))
    return "-" if code == "−" else code if code.isascii() else ""


class Output(io.FileIO):
    """A stream's file. What its reader no longer takes is dropped; any other fault is kept."""

    fault: OSError | None = None

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        """Write what can be written."""
        try:
            return super().write(data)
        except BrokenPipeError:
            pass
        except OSError as error:
            self.fault = self.fault or error
        return memoryview(data).nbytes


@contextmanager
def streams() -> Iterator[None]:
    """Let standard output and error take every character, and outlive their readers.

    Raises the `OSError` of what could not be written to standard output, as on a full disk.
    """
    codecs.register_error(ERRORS, spelled)
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = patient(sys.stdout), patient(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = kept


def patient(stream: TextIO | None) -> TextIO:
    """The same stream over an `Output`; a stream that is no open file stays what it is."""
    if stream is None:  # closed by whoever started the command
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if type(raw) is not io.FileIO or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    output = Output(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        cast(Any, output if raw is buffer else io.BufferedWriter(output)),
        encoding=stream.encoding,
        errors=ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def output_fault() -> OSError | None:
    """Why not all of standard output could be written; None if it was, or its reader left."""
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    return getattr(getattr(buffer, "raw", buffer), "fault", None)


def is_unicode() -> bool:
    """Whether standard output takes every character."""
    return (sys.stdout.encoding or "utf-8").lower().replace("_", "-").startswith("utf")


def columns() -> int:
    """The width of standard output: COLUMNS, else the terminal's, else that of a log."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size((WIDE, 24)).columns
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and int(told) else WIDE


def complain(message: str) -> None:
    """One line on standard error."""
    Console(stderr=True).print(message, **PLAIN)


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    whole: Sequence[str],
    colour: dict[str, str] | None = None,
    to_error: bool = False,
) -> None:
    """Print a table; where it does not fit, each row as a paragraph of labelled lines.

    Cells of the columns `whole` are never broken. `colour` is by a cell's text.
    """
    rows = [[as_written(cell) for cell in row] for row in rows]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for k, head in enumerate(heads):
        longest = max(cell_len(cell) for cell in (head, *(row[k] for row in rows)))
        drawn.add_column(
            head, no_wrap=head in whole, min_width=longest if head in whole else min(longest, ROOM)
        )
    for row in rows:
        drawn.add_row(*(Text(cell, (colour or {}).get(cell, "")) for cell in row))
    console = Console(width=columns(), stderr=to_error)
    if Measurement.get(console, console.options.update(width=10**4), drawn).minimum > columns():
        console.print(paragraphs(heads, rows), **PLAIN)
    else:
        console.print(drawn)


def as_written(text: str) -> str:
    """The text with the characters that standard output will show, so that columns align."""
    codecs.register_error(ERRORS, spelled)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, ERRORS).decode(encoding, "replace")


def paragraphs(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Each row as its first cell, and its others below it as labelled lines."""
    width = max(map(len, heads[1:])) + 2
    return "\n\n".join(
        "\n".join(
            [
                first,
                *(
                    f"  {head:<{width}}{cell}"
                    for head, cell in zip(heads[1:], rest, strict=True)
                    if cell
                ),
            ]
        )
        for first, *rest in rows
    )
