"""Proofs as HTML for a notebook, which typesets what stands between dollar signs."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ..kernel.definitions import Block, Equation
from ..kernel.proof import Theorem
from .latex import OUTLINE
from .outline import Entry

LONG = 400  # characters of LaTeX; longer formulas are folded


def proof_html(theorem: Theorem) -> str:
    """The theorem as an HTML fragment; the proof is folded, and so are long formulas in it."""
    written = []
    for section in OUTLINE.sections(theorem):
        inner, heading = body(section.entries), escape(section.heading)
        if section.heading == "Proof":
            count = sum(entry.number is not None for entry in section.entries)
            summary = f"<summary><b>{heading}</b>, {count} steps</summary>"
            written.append(f"<details>{summary}\n{inner}</details>\n")
        else:
            written.append(f"<p><b>{heading}</b></p>\n{inner}")
    return f'<div class="ttt-proof">\n{"".join(written)}</div>\n'


def statement_html(equation: Equation, definitions: tuple[Block, ...] = ()) -> str:
    """The statement and its definitions as an HTML fragment."""
    sections = OUTLINE.statement(equation, definitions)
    inner = "".join(f"<p><b>{escape(s.heading)}</b></p>\n{body(s.entries)}" for s in sections)
    return f'<div class="ttt-proof">\n{inner}</div>\n'


def body(entries: Iterable[Entry]) -> str:
    """A block for each sentence, with its formula."""
    return "".join(block(entry) for entry in entries)


def block(entry: Entry) -> str:
    """One sentence and its formula; a step's long formula is folded."""
    label = "" if entry.number is None else f"<b>({entry.number})</b> "
    words = label + escape(entry.words, quote=False)
    formula = rf"$\displaystyle {escape(entry.formula, quote=False)}$" if entry.formula else ""
    if entry.number is not None and len(formula) > LONG:
        return f"<details><summary>{words}</summary>\n<div>{formula}</div></details>\n"
    return f"<div>{words}</div>\n" + (f"<div>{formula}</div>\n" if formula else "")
