"""A whole derivation in each format: its title, its source, and every part's proof."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import NamedTuple

from ..kernel.definitions import Block, Equation
from ..kernel.proof import Proof, Theorem
from ..kernel.terms import KernelError
from ..symbolic.derivation import Derivation, Part
from .html import proof_html, statement_html
from .latex import proof_latex, statement_latex
from .markdown import proof_markdown, statement_markdown
from .text import proof_text, statement_text


class Format(NamedTuple):
    """How one format writes a title, a paragraph, a statement and a theorem with its proof."""

    title: Callable[[str], str]
    paragraph: Callable[[str], str]
    statement: Callable[[Equation, tuple[Block, ...]], str]
    proof: Callable[[Theorem], str]


def special(words: str) -> str:
    """Words with LaTeX's special characters escaped."""
    for mark in "&%$#_{}":
        words = words.replace(mark, rf"\{mark}")
    return words


FORMATS: dict[str, Format] = {
    "text": Format(lambda s: f"{s}\n{'=' * len(s)}\n", lambda s: f"{s}\n",
                   statement_text, proof_text),
    "latex": Format(lambda s: rf"\section*{{{special(s)}}}" + "\n", lambda s: f"{special(s)}\n",
                    statement_latex, proof_latex),
    "md": Format(lambda s: f"# {s}\n", lambda s: f"{s}\n", statement_markdown, proof_markdown),
    "html": Format(lambda s: f"<h1>{escape(s)}</h1>\n", lambda s: f"<p>{escape(s)}</p>\n",
                   statement_html, proof_html),
}  # fmt: skip


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


def render_derivation(derivation: Derivation, form: str, counterexample: str = "") -> str:
    """The derivation in the format `form`, one of `FORMATS`.

    A claim that fails is shown with its counterexample and the steps up to the one that the
    kernel refuses. Raises `ValueError` for another format.
    """
    if form not in FORMATS:
        raise ValueError(f"`form` must be one of {', '.join(FORMATS)}; got {form!r}. Choose one.")
    style = FORMATS[form]
    pieces = [style.title(f"{derivation.name}: {derivation.title}"),
              style.paragraph(f"Source: {derivation.source}.")]  # fmt: skip
    if counterexample:
        pieces.append(style.paragraph(f"This is claimed, and false. {counterexample}"))
    if derivation.instead:
        pieces.append(style.paragraph(f"Instead: {derivation.instead}"))
    for part in derivation.parts:
        if part.label:
            pieces.append(style.paragraph(f"Part: {part.label}."))
        pieces.append(part_text(part, style))
    text = "\n".join(pieces)
    return PAGE.format(title=escape(derivation.name), body=text) if form == "html" else text


def part_text(part: Part, style: Format) -> str:
    """A part's proof; for a claim that does not follow, the claim and how far the steps lead."""
    try:
        return style.proof(Theorem(part.proof))
    except KernelError as error:
        reached = Theorem(Proof(part.proof.definitions, part.proof.steps[:-1]))
        return "\n".join([
            style.paragraph("The claim, which is not proved:"),
            style.statement(part.statement, part.proof.definitions),
            style.paragraph(f"The kernel refuses: {error} What the steps do prove:"),
            style.proof(reached),
        ])  # fmt: skip
