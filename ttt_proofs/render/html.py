"""Proofs as HTML for a notebook, which typesets what stands between dollar signs."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ..checker.definitions import Block, Equation
from ..checker.proof import Theorem
from .latex import OUTLINE, PAGE_COLUMNS, displayed
from .outline import Entry, Section

LONG = 400  # characters of LaTeX; longer formulas are folded


def proof_html(theorem: Theorem) -> str:
    """The theorem as an HTML fragment; the proof is folded, and so are long formulas in it."""
    return document(OUTLINE.sections(theorem))


def statement_html(equation: Equation, definitions: tuple[Block, ...] = ()) -> str:
    """The statement and its definitions as an HTML fragment."""
    return document(OUTLINE.statement(equation, definitions))


def document(sections: Iterable[Section]) -> str:
    """Headings, and what belongs to them; a proof is folded."""
    written = []
    for section in sections:
        inner, heading = body(section.entries), escape(section.heading)
        if section.heading == "Proof":
            count = sum(entry.number is not None for entry in section.entries)
            summary = f"<summary><b>{heading}</b>, {count} steps</summary>"
            written.append(f"<details>{summary}\n{inner}</details>\n")
        else:
            written.append(f"<p><b>{heading}</b></p>\n{inner}")
    return f'<div class="ttt-proof">\n{"".join(written)}</div>\n'


def body(entries: Iterable[Entry]) -> str:
    """A block for each sentence, with its formula."""
    return "".join(block(entry) for entry in entries)


def block(entry: Entry) -> str:
    """One sentence and its formula; a step's long formula is folded."""
    label = f"<b>{entry.label}</b> " if entry.label else ""
    words = label + escape(entry.words, quote=False)
    formula = escape(displayed(entry.formula, PAGE_COLUMNS), quote=False) if entry.formula else ""
    formula = rf"$\displaystyle {formula}$" if formula else ""
    if entry.number is not None and len(formula) > LONG:
        return f"<details><summary>{words}</summary>\n<div>{formula}</div></details>\n"
    if not entry.words:
        return f"<div>{label}{formula}</div>\n"
    return f"<div>{words}</div>\n" + (f"<div>{formula}</div>\n" if formula else "")
