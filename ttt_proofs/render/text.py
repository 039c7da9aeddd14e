"""Formulas, statements and proofs as plain Unicode text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from fractions import Fraction

from ..checker.definitions import Block, Equation
from ..checker.proof import Theorem
from ..checker.terms import Term
from .breaking import TEXT, broken
from .formula import FACTOR, Piece, Writer
from .notation import FUNCTIONS, GREEK, MEANINGS, PRIME, sign
from .outline import Entry, Outline, Section

COLUMNS = 100
NARROWEST = 40  # columns, for which nested formulas still have room
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class TextWriter(Writer):
    """Formulas on one line: `Σ_{i=0}^{t} η · G_W[i,h,c]`."""

    def variable(self, name: str) -> str:
        """An index variable."""
        return sign(name, GREEK)

    def width(self, name: str) -> str:
        """A width."""
        return name

    def dot(self) -> str:
        """An index left open."""
        return "·"

    def listed(self, indices: Iterable[tuple[str, bool]]) -> str:
        """Indices with commas between."""
        return ",".join(index for index, _ in indices)

    def number(self, value: Fraction) -> str:
        """`3` or `1/2`."""
        return str(value)

    def symbol(self, name: str, indices: str) -> str:
        """`name[indices]`."""
        return sign(name, GREEK) + (f"[{indices}]" if indices else "")

    def function(
        self, name: str, indices: str, slots: Sequence[Sequence[str]], arguments: Sequence[str]
    ) -> str:
        """`φ[t,h](x)`, `∂_{1,c} ℓ(x, y)` for partial derivatives, `act′(x)` for others."""
        plain = not any(slots)
        partial = "" if plain else "".join(f"∂_{subscript(slot)} " for slot in slots)
        head = partial + sign(name, FUNCTIONS) + (PRIME * len(slots) if plain else "")
        head += f"[{indices}]" if indices else ""
        return f"{head}({', '.join(arguments)})" if arguments else head

    def entry(self, matrix: str, indices: str) -> str:
        """`muon(M)[h,c]`."""
        return f"{matrix}[{indices}]"

    def power(self, base: str, count: int) -> str:
        """`x²`."""
        return base + str(count).translate(RAISED)

    def fraction(self, top: str, bottom: Piece) -> str:
        """`a · b / (c + d)`."""
        tight = bottom.level == FACTOR and not bottom.open
        return f"{top} / {bottom.text if tight else self.group(bottom.text)}"

    def root(self, text: str) -> str:
        """`√(x)`."""
        return f"√({text})"

    def norm(self, text: str) -> str:
        """`‖W[·,c]‖`."""
        return f"‖{text}‖"

    def bracket(self, left: str, mark: str, right: str) -> str:
        """`[i = t]`."""
        return f"[{left} {mark} {right}]"

    def group(self, text: str) -> str:
        """Parentheses."""
        return f"({text})"

    def times(self, factors: Sequence[str]) -> str:
        """Dots between the factors."""
        return " · ".join(factors)

    def big(self, mark: str, var: str, bounds: tuple[str, str] | None, body: str) -> str:
        """`Σ_h body`, `Σ_{i=0}^{t} body`."""
        limits = f"{{{var}={bounds[0]}}}^{{{bounds[1]}}}" if bounds else var
        return f"{mark}_{limits} {body}"

    def mapping(self, variables: Sequence[str], body: str) -> str:
        """`c ↦ body`."""
        bound = variables[0] if len(variables) == 1 else f"({', '.join(variables)})"
        return f"{bound} ↦ {body}"

    def meaning(self, name: str) -> str:
        """What a known function is."""
        return MEANINGS[name]


def subscript(parts: Sequence[str]) -> str:
    """`c`, or `{1,c}`."""
    return parts[0] if len(parts) == 1 and len(parts[0]) == 1 else f"{{{','.join(parts)}}}"


WRITER = TextWriter()
OUTLINE = Outline(WRITER, str)


def text(term: Term) -> str:
    """The term on one line of Unicode.

    Only signs, numbers and the order of factors and terms may differ from the term; a repeated
    factor is shown as a power, `root(Σ_h W[h,c] · W[h,c])` as `‖W[·,c]‖`, `inverse(x)` as `1 / x`.
    Bound indices are named by their width, with primes where one is taken. A dot is an index left
    open: `k[t,l,·]` is a row.
    """
    return WRITER.term(term)


def statement_text(equation: Equation, definitions: tuple[Block, ...] = ()) -> str:
    """`For every ...: left = right`, and the definitions that it rests on."""
    return document(OUTLINE.statement(equation, definitions))


def proof_text(theorem: Theorem) -> str:
    """The theorem: statement, what is given, definitions, assumptions, every step by its rule.

    Steps have the numbers that they have in the record, from 0.
    """
    return document(OUTLINE.sections(theorem))


def document(sections: Iterable[Section], columns: int = COLUMNS) -> str:
    """Headings, and what belongs to them indented."""
    return "\n".join(
        f"{s.heading}\n{textwrap.indent(lines(s.entries, columns), '  ')}"
        if s.heading
        else lines(s.entries, columns)
        for s in sections
    )


def lines(entries: Iterable[Entry], columns: int) -> str:
    """Each entry's sentence, and its formula below."""
    found = []
    for entry in entries:
        label = entry.label.ljust(5) + " " if entry.label else ""
        indent = " " * len(label) if label else "  " if entry.words else ""
        if entry.words:
            found.append(
                textwrap.fill(
                    label + entry.words,
                    columns - 2,
                    break_long_words=False,
                    subsequent_indent=indent or "  ",
                    break_on_hyphens=False,
                )
            )
        if entry.formula:
            first = indent if entry.words else label
            found.append(laid_out(entry.formula, first, columns))
    return "".join(f"{line}\n" for line in found)


def laid_out(formula: str, first: str, columns: int) -> str:
    """The formula after `first`; later lines are indented by how deep they begin."""
    later = " " * len(first) + "    "
    parts = broken(formula, columns - len(later), TEXT)
    return "\n".join(
        first + line.text if k == 0 else later + "  " * line.depth + line.text
        for k, line in enumerate(parts)
    )
