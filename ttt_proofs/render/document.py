"""A whole derivation in each format: its title, its source, and every part's proof."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from html import escape
from typing import NamedTuple

from ..checker.proof import Proof, Theorem
from ..checker.terms import CheckerError
from ..symbolic.derivation import Derivation, Part
from .html import document as html_document
from .latex import OUTLINE as TYPESET
from .latex import document as latex_document
from .markdown import document as markdown_document
from .outline import APART, Outline, Section, Shared
from .text import COLUMNS, NARROWEST
from .text import OUTLINE as PLAIN
from .text import document as text_document


class Format(NamedTuple):
    """How one format writes a title, a part's heading, a paragraph, and sections of a proof."""

    title: Callable[[str], str]
    heading: Callable[[str], str]
    paragraph: Callable[[str], str]
    document: Callable[[Iterable[Section]], str]
    outline: Outline


def special(words: str) -> str:
    """Words with LaTeX's special characters escaped."""
    for mark in "&%$#_{}":
        words = words.replace(mark, rf"\{mark}")
    return words


FORMATS: dict[str, Format] = {
    "text": Format(
        lambda s: f"{s}\n{'=' * len(s)}\n",
        lambda s: f"{s}\n{'-' * len(s)}\n",
        lambda s: f"{s}\n",
        text_document,
        PLAIN,
    ),
    "latex": Format(
        lambda s: rf"\section*{{{special(s)}}}" + "\n",
        lambda s: rf"\subsection*{{{special(s)}}}" + "\n",
        lambda s: f"{special(s)}\n",
        latex_document,
        TYPESET,
    ),
    "md": Format(
        lambda s: f"# {s}\n", lambda s: f"## {s}\n", lambda s: f"{s}\n", markdown_document, TYPESET
    ),
    "html": Format(
        lambda s: f"<h1>{escape(s)}</h1>\n",
        lambda s: f"<h2>{escape(s)}</h2>\n",
        lambda s: f"<p>{escape(s)}</p>\n",
        html_document,
        TYPESET,
    ),
}


# MathJax typesets the formulas where a browser can fetch it; without it they stay readable.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<script>window.MathJax = {{tex: {{inlineMath: [["$", "$"]]}}}};</script>
<script async src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-chtml.js"></script>
<body style="max-width: 60em; margin: 2em auto; font-family: sans-serif; line-height: 1.6">
{body}
</body>
</html>
"""


def render_derivation(
    derivation: Derivation,
    form: str,
    counterexample: str = "",
    *,
    part: int | None = None,
    columns: int = COLUMNS,
) -> str:
    """The derivation in the format `form`, one of `FORMATS`.

    A claim that fails is shown with its counterexample and the steps up to the one that the
    checker refuses. part: the number, from 1, of the one part that is shown; None for all.
    columns: the width of text, at most that of a page. Raises `ValueError` for another format,
    and `IndexError` for a part that is not there.
    """
    if form not in FORMATS:
        raise ValueError(f"`form` must be one of {', '.join(FORMATS)}; got {form!r}. Choose one.")
    style = FORMATS[form]
    if form == "text":
        width = max(NARROWEST, min(columns, COLUMNS))
        style = style._replace(document=partial(text_document, columns=width))
    pieces = [
        style.title(f"{derivation.name}: {derivation.title}"),
        style.paragraph(f"Source: {derivation.source}."),
    ]
    if counterexample:
        pieces.append(style.paragraph(f"This is claimed, and false. {counterexample}"))
    if derivation.instead:
        pieces.append(style.paragraph(f"Instead: {derivation.instead}"))
    if part is None:
        pieces += parts_text(derivation.parts, style)
    else:
        chosen = derivation.part(part)
        pieces += one_part(chosen, part, len(derivation.parts), style, APART)
    whole = "\n".join(pieces)
    return PAGE.format(title=escape(derivation.name), body=whole) if form == "html" else whole


def parts_text(parts: tuple[Part, ...], style: Format) -> list[str]:
    """All parts. Several say first, and once, what they share."""
    if len(parts) == 1:
        return one_part(parts[0], 1, 1, style, APART)
    proofs = [part.proof for part in parts]
    shared = style.outline.shared(proofs)
    pieces = [style.document(style.outline.common(proofs, shared))]
    for number, part in enumerate(parts, start=1):
        pieces += one_part(part, number, len(parts), style, shared)
    return pieces


def one_part(part: Part, number: int, count: int, style: Format, shared: Shared) -> list[str]:
    """One part under its heading, which tells its number if there are others."""
    name = f"Part {number} of {count}" if count > 1 else "Part"
    heading = f"{name}: {part.label}." if part.label else f"{name}." if count > 1 else ""
    return [*([style.heading(heading)] if heading else []), part_text(part, style, shared)]


def part_text(part: Part, style: Format, shared: Shared) -> str:
    """A part's proof; for a claim that does not follow, the claim and how far the steps lead."""
    write, outline = style.document, style.outline
    try:
        return write(outline.sections(Theorem(part.proof), shared))
    except CheckerError as error:
        reached = Theorem(Proof(part.proof.definitions, part.proof.steps[:-1]))
        return "\n".join(
            [
                style.paragraph("The claim, which is not proved:"),
                write(outline.statement(part.statement, part.proof.definitions)),
                style.paragraph(f"The checker refuses: {error} What the steps do prove:"),
                write(outline.sections(reached, shared)),
            ]
        )
