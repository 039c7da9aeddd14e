"""Long formulas over several lines, broken where they are least nested."""

from __future__ import annotations

import re
from typing import NamedTuple

DEEPEST = 5  # further nesting does not indent further
NESTING = 0.25  # of a line may stay empty for a break that is nested one level less


class Style(NamedTuple):
    """How one format is read: its tokens, where lines may end, and how wide things are.

    `width` is of a token, within braces or not. `opens` and `closes` match tokens that nest.
    """

    tokens: re.Pattern[str]
    breaks: re.Pattern[str]
    opens: re.Pattern[str]
    closes: re.Pattern[str]
    braces: bool
    size: dict[str, float]
    small: float
    indent: float

    def width(self, token: str, raised: bool) -> float:
        """How wide a token is, in letters."""
        known = self.size.get(token, 0 if re.fullmatch(r"\\(Big|bigg|Bigg)[lr]", token) else 1)
        return known * (self.small if raised else 1)


TEXT = Style(
    re.compile("."),
    re.compile(r" (?=[+−·/] )"),
    re.compile(r"[\[({]"),
    re.compile(r"[\])}]"),
    False,
    {},
    1,
    2,
)
LATEX = Style(
    tokens=re.compile(r"\\[A-Za-z]+|\\.|."),
    breaks=re.compile(r" (?=[+-] |\\cdot )|\\,(?=\\(sum|prod|operatorname|partial|lVert))"),
    opens=re.compile(r"\(|\\lVert"),
    closes=re.compile(r"\)|\\rVert"),
    braces=True,
    size={
        r"\,": 0.3,
        " ": 0.2,
        "{": 0,
        "}": 0,
        "_": 0,
        "^": 0,
        r"\operatorname": 0,
        "+": 1.8,
        "-": 1.8,
        "=": 1.8,
        r"\mathrm": 0,
        r"\frac": 0,
        r"\sqrt": 1,
        r"\sum": 2,
        r"\prod": 2,
        r"\textstyle": 0,
        r"\mapsto": 2,
        "'": 0.5,
        ",": 0.6,
        "(": 0.8,
        ")": 0.8,
    },
    small=0.7,
    indent=1.8,
)


class Line(NamedTuple):
    """A line of a broken formula, how deep in parentheses it begins, the space left out there.

    The first line has depth -1.
    """

    depth: int
    text: str
    gap: str = ""


def scanned(formula: str, style: Style) -> tuple[list[float], dict[int, tuple[int, int]]]:
    """The width up to each position; and the possible breaks: where each ends, and its depth."""
    widths, places = [0.0], {}
    depth = braces = 0
    allowed = {match.start(): match.end() for match in style.breaks.finditer(formula)}
    for match in style.tokens.finditer(formula):
        token = match[0]
        if match.start() in allowed and not braces:
            places[match.start()] = (allowed[match.start()], depth)
        widths += [widths[-1]] * (len(token) - 1)
        widths.append(widths[-1] + style.width(token, braces > 0))
        if style.braces and token in "{}":
            braces += 1 if token == "{" else -1
        elif not braces:
            depth += bool(style.opens.fullmatch(token)) - bool(style.closes.fullmatch(token))
    return widths, places


def broken(formula: str, limit: float, style: Style) -> list[Line]:
    """The formula in lines of at most `limit` letters, as far as it can be broken so.

    Joined, the lines are the formula, but for the space at each break.
    """
    widths, places = scanned(formula, style)
    lines, start, depth, gap = [], 0, -1, ""
    while True:
        room = limit - style.indent * (depth + 1)
        ahead = [p for p in places if p > start]
        fitting = [p for p in ahead if widths[p] - widths[start] <= room] or ahead[:1]
        if widths[-1] - widths[start] <= room or not fitting:
            return [*lines, Line(depth, formula[start:], gap)]
        empty = {p: 1 - (widths[p] - widths[start]) / room for p in fitting}
        end = min(fitting, key=lambda p: (NESTING * places[p][1] + empty[p], -p))
        lines.append(Line(depth, formula[start:end], gap))
        start, depth = places[end][0], min(places[end][1], DEEPEST)
        gap = formula[end:start]
