"""Proofs as Markdown, with formulas that KaTeX or MathJax typesets."""

from __future__ import annotations

from collections.abc import Iterable

from ..kernel.definitions import Block, Equation
from ..kernel.proof import Theorem
from .latex import OUTLINE
from .outline import Entry


def statement_markdown(equation: Equation, definitions: tuple[Block, ...] = ()) -> str:
    """The statement and its definitions as Markdown."""
    sections = OUTLINE.statement(equation, definitions)
    return "\n\n".join(f"### {s.heading or 'Claim'}\n\n{body(s.entries)}" for s in sections) + "\n"


def proof_markdown(theorem: Theorem) -> str:
    """The theorem as Markdown: headings, and each step with its number, rule and formula."""
    sections = OUTLINE.sections(theorem)
    return "\n\n".join(f"### {s.heading}\n\n{body(s.entries)}" for s in sections) + "\n"


def body(entries: Iterable[Entry]) -> str:
    """Sentences and displayed formulas, one paragraph each."""
    found = []
    for entry in entries:
        label = "" if entry.number is None else f"**({entry.number})** "
        found += [label + entry.words] if entry.words else []
        found += [f"$$\n{entry.formula}\n$$"] if entry.formula else []
    return "\n\n".join(found)
