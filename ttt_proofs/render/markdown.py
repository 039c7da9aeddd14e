"""Proofs as Markdown, with formulas that KaTeX or MathJax typesets."""

from __future__ import annotations

from collections.abc import Iterable

from ..checker.definitions import Block, Equation
from ..checker.proof import Theorem
from .latex import OUTLINE, PAGE_COLUMNS, displayed
from .outline import Entry, Section


def statement_markdown(equation: Equation, definitions: tuple[Block, ...] = ()) -> str:
    """The statement and its definitions as Markdown."""
    return document(OUTLINE.statement(equation, definitions))


def proof_markdown(theorem: Theorem) -> str:
    """The theorem as Markdown: headings, and each step with its number, rule and formula."""
    return document(OUTLINE.sections(theorem))


def document(sections: Iterable[Section]) -> str:
    """Headings, and what belongs to them."""
    return "\n\n".join(f"### {s.heading or 'Claim'}\n\n{body(s.entries)}" for s in sections) + "\n"


def body(entries: Iterable[Entry]) -> str:
    """Sentences and displayed formulas, one paragraph each."""
    found = []
    for entry in entries:
        label = f"**{entry.label}** " if entry.label else ""
        tag = rf" \tag{{{entry.mark}}}" if entry.mark and not entry.words else ""
        found += [label + entry.words] if entry.words else []
        found += [f"$$\n{displayed(entry.formula, PAGE_COLUMNS)}{tag}\n$$"] if entry.formula else []
    return "\n\n".join(found)
