"""Formulas, statements and proofs as LaTeX that KaTeX and MathJax read as well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from ..checker.definitions import Block, Equation
from ..checker.proof import Theorem
from ..checker.terms import App, Term
from .breaking import LATEX, Line, broken
from .formula import Piece, Writer
from .notation import FUNCTIONS, GREEK, PRIME
from .outline import Entry, Outline, Section

COLUMNS, PAGE_COLUMNS = 60, 88  # letters, as `breaking` counts them: of an article, on a page

# LaTeX has its own names for the letters; only these differ from ours.
VARIANTS = {"phi": "varphi", "epsilon": "varepsilon"}
KNOWN = {
    "sigmoid": r"\sigma",
    "tanh": r"\tanh",
}
SIZES = ("", r"\Big", r"\bigg", r"\Bigg")  # of parentheses
COMPARED = {"=": "=", "≤": r"\le"}
MEANINGS = {
    "root": r"\lVert x \rVert = \sqrt{\textstyle\sum x^{2}}",
    "inverse": "1/x",
    "sigmoid": r"\sigma(x) = 1/(1 + e^{-x})",
    "silu": r"\operatorname{silu}(x) = x/(1 + e^{-x})",
    "relu": r"\operatorname{relu}(x) = \max(x, 0)",
    "tanh": r"\tanh(x) = (e^{2x} - 1)/(e^{2x} + 1)",
}


class LatexWriter(Writer):
    """Formulas in math mode: `\\sum_{i=0}^{t} \\eta\\,G^{W}_{i,hc}`."""

    PLUS, MINUS, SIGN = " + ", " - ", "-"

    def variable(self, name: str) -> str:
        """An index variable: `h'`, `d_{1}`, `d_{y}`."""
        stem = name.rstrip(PRIME)
        match = re.fullmatch(r"([a-z])(\d+)", stem) or re.fullmatch(r"(d)([a-z])", stem)
        shown = f"{match[1]}_{{{match[2]}}}" if match else word(stem)
        return shown + "'" * (len(name) - len(stem))

    def width(self, name: str) -> str:
        """A width: `D_{k}`."""
        return f"{name[:2]}{{{name[2:]}}}" if re.fullmatch(r"D_[a-z0-9]+", name) else word(name)

    def dot(self) -> str:
        """An index left open."""
        return r"\cdot"

    def listed(self, indices: Iterable[tuple[str, bool]]) -> str:
        """Commas between indices, none between plain letters of widths: `t,hc`."""
        written, before = "", False
        for index, width in indices:
            short = width and re.fullmatch(r"[a-z]'*|\\cdot", index) is not None
            between = " " if written.endswith(r"\cdot") else ""  # a letter would be part of it
            written += ("" if not written else between if short and before else ",") + index
            before = short
        return written

    def number(self, value: Fraction) -> str:
        """`3` or a fraction."""
        top, bottom = value.numerator, value.denominator
        return str(top) if bottom == 1 else rf"\tfrac{{{top}}}{{{bottom}}}"

    def symbol(self, name: str, indices: str) -> str:
        """The letter, the rest of the name as superscripts, the indices below."""
        return named(name) + (f"_{{{indices}}}" if indices else "")

    def function(
        self, name: str, indices: str, slots: Sequence[Sequence[str]], arguments: Sequence[str]
    ) -> str:
        """`\\varphi_{t,h}(x)`, with `\\partial_{1,c}` for partial derivatives."""
        plain = not any(slots)
        partial = "" if plain else "".join(rf"\partial_{{{','.join(s)}}}\," for s in slots)
        head = partial + called(name) + ("'" * len(slots) if plain else "")
        head += f"_{{{indices}}}" if indices else ""
        return head + self.group(", ".join(arguments)) if arguments else head

    def entry(self, matrix: str, indices: str) -> str:
        """`\\operatorname{muon}(M)_{hc}`."""
        return f"{matrix}_{{{indices}}}"

    def bare(self, factor: Term) -> bool:
        """Functions only: after a symbol, a superscript would be part of its name."""
        return isinstance(factor, App) and bool(factor.args) and super().bare(factor)

    def power(self, base: str, count: int) -> str:
        """`(x_{h})^{2}`."""
        return f"{base}^{{{count}}}"

    def fraction(self, top: str, bottom: Piece) -> str:
        """A fraction."""
        return rf"\frac{{{top}}}{{{bottom.text}}}"

    def root(self, text: str) -> str:
        """A square root."""
        return rf"\sqrt{{{text}}}"

    def norm(self, text: str) -> str:
        """`\\lVert W_{\\cdot c} \\rVert`."""
        return rf"\lVert {text} \rVert"

    def bracket(self, left: str, mark: str, right: str) -> str:
        """`[i = t]`."""
        return f"[{left} {COMPARED[mark]} {right}]"

    def group(self, text: str) -> str:
        """Parentheses, larger around sums and around large ones."""
        inner = max((k for k, size in enumerate(SIZES) if size and size in text), default=0)
        if not inner and not any(tall in text for tall in (r"\sum", r"\prod", r"\frac")):
            return f"({text})"
        size = SIZES[min(inner + 1, len(SIZES) - 1)]
        return rf"{size}l({text}{size}r)"

    def times(self, factors: Sequence[str]) -> str:
        """Thin spaces; a dot where parentheses would look like a function's."""
        written = factors[0]
        for factor in factors[1:]:
            written += r" \cdot " if re.match(r"(\\[bB]igg?l)?\(", factor) else r"\,"
            written += factor
        return written

    def big(self, mark: str, var: str, bounds: tuple[str, str] | None, body: str) -> str:
        """`\\sum_{h} body`, `\\prod_{s=i+1}^{j} body`."""
        name = {"Σ": r"\sum", "Π": r"\prod"}[mark]
        limits = f"_{{{var}={bounds[0]}}}^{{{bounds[1]}}}" if bounds else f"_{{{var}}}"
        return f"{name}{limits} {body}"

    def mapping(self, variables: Sequence[str], body: str) -> str:
        """`c \\mapsto body`."""
        bound = variables[0] if len(variables) == 1 else f"({', '.join(variables)})"
        return rf"{bound} \mapsto {body}"

    def meaning(self, name: str) -> str:
        """What a known function is."""
        return MEANINGS[name]


def escaped(name: str) -> str:
    """A name with its underscores as LaTeX wants them."""
    return name.replace("_", r"\_")


def word(name: str) -> str:
    """A letter, a Greek letter, or upright letters."""
    if name in GREEK:
        return "\\" + VARIANTS.get(name, name)
    return name if len(name) == 1 else rf"\mathrm{{{escaped(name)}}}"


def named(name: str) -> str:
    """A symbol: `W1` has a superscript `(1)`, `M_W` one `W`."""
    match = re.fullmatch(r"([A-Za-z]+)(\d*)((?:_[A-Za-z\d]+)*)", name)
    if not match:
        return word(name)
    parts = [f"({match[2]})"] if match[2] else []
    for part in match[3].split("_")[1:]:
        inner = re.fullmatch(r"([A-Za-z])(\d+)", part)
        parts.append(
            f"{inner[1]}^{{({inner[2]})}}" if inner else part if part.isdigit() else word(part)
        )
    return word(match[1]) + (f"^{{{','.join(parts)}}}" if parts else "")


def called(name: str) -> str:
    """A function's name."""
    if name in KNOWN:
        return KNOWN[name]
    if f"${name}" in KNOWN:  # not x σ(x), but a function that a loop calls so
        return rf"\operatorname{{{name}}}^{{\ast}}"
    if name in FUNCTIONS or len(name) == 1:
        return word(name)
    stem, _, weight = name.rpartition("_")
    if stem and re.fullmatch(r"[A-Z]\d*", weight):  # one function for each weight
        return f"{called(stem)}^{{{named(weight)}}}"
    return rf"\operatorname{{{name.replace('_', '-')}}}"


WRITER = LatexWriter()
OUTLINE = Outline(WRITER, lambda formula: f"${formula}$")


def latex(term: Term) -> str:
    """The term in LaTeX's math mode, without dollar signs; see `text.text` for what may differ.

    A symbol `M_W[t,h,c]` is `M^{W}_{t,hc}`: its superscripts are part of the name. Powers stand
    after parentheses or functions.
    """
    return WRITER.term(term)


def statement_latex(equation: Equation, definitions: tuple[Block, ...] = ()) -> str:
    """The statement and its definitions, as paragraphs with displayed formulas."""
    return document(OUTLINE.statement(equation, definitions))


def proof_latex(theorem: Theorem) -> str:
    """The theorem as a part of a LaTeX document that loads `amsmath` and `amssymb`."""
    return document(OUTLINE.sections(theorem))


def document(sections: Iterable[Section]) -> str:
    """A paragraph for each heading."""
    found = []
    for section in sections:
        found += [rf"\paragraph{{{section.heading}.}}"] if section.heading else []
        found += map(paragraph, section.entries)
    return "\n".join(found)


def displayed(formula: str, columns: int) -> str:
    """The formula, over several lines if it is long."""
    lines = broken(formula, columns, LATEX)
    if len(lines) == 1:
        return formula
    rows = ["& " + r"\quad " * (line.depth + 1) + continued(line) for line in lines]
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def continued(line: Line) -> str:
    """A line that begins with a sign, for multiplication as well."""
    signed = line.text.startswith(("+", "-", r"\cdot"))
    mark = r"\cdot " if line.gap == r"\," else ""
    return f"{{}} {mark}{line.text}" if mark or (signed and line.gap) else line.text


def paragraph(entry: Entry) -> str:
    """A sentence and a displayed formula."""
    label = f"{entry.label} " if entry.label and entry.words else ""
    tag = rf" \tag{{{entry.label[1:-1]}}}" if entry.label and not entry.words else ""
    words = label + entry.words.replace("∎", r"$\blacksquare$").replace("×", r"$\times$")
    formula = rf"\[ {displayed(entry.formula, COLUMNS)}{tag} \]" if entry.formula else ""
    return "\n".join(part for part in (words, formula) if part) + "\n"
