"""Long formulas over several lines: nothing lost, nothing too long, breaks where they belong."""

import re

import pytest

from ttt_proofs.render import proof_latex, proof_text
from ttt_proofs.render.breaking import LATEX, TEXT, broken, scanned
from ttt_proofs.render.latex import COLUMNS, displayed
from ttt_proofs.render.latex import OUTLINE as TYPESET
from ttt_proofs.render.text import OUTLINE as PLAIN

WRITTEN = {"text": (PLAIN, TEXT, 96), "latex": (TYPESET, LATEX, COLUMNS)}


def formulas(theorem, outline) -> list[str]:
    """Every displayed formula of a proof."""
    entries = [e for section in outline.sections(theorem) for e in section.entries]
    return [entry.formula for entry in entries if entry.formula]


@pytest.mark.parametrize("form", WRITTEN)
def test_lines_together_are_the_formula_and_none_is_too_long(form, theorems):
    outline, style, limit = WRITTEN[form]
    several = 0
    for theorem in theorems.values():
        for formula in formulas(theorem, outline):
            lines = broken(formula, limit, style)
            several += len(lines) > 1
            assert "".join(line.gap + line.text for line in lines) == formula
            for line in lines:
                wide = scanned(line.text, style)[0][-1] + style.indent * (line.depth + 1)
                assert wide <= limit + 1e-6, line
                assert line.text.count("{") == line.text.count("}")
    assert several > 50


def test_a_line_ends_where_the_formula_is_least_nested():
    lines = broken("o = aaaa · (bbbb + cccc) + dddd", 28, TEXT)
    assert [line.text for line in lines] == ["o = aaaa · (bbbb + cccc)", "+ dddd"]
    lines = broken("o = aa · (bbbb + cccc · (dddd + eeee))", 24, TEXT)
    assert [(line.depth, line.text) for line in lines] == [
        (-1, "o = aa · (bbbb + cccc"),
        (1, "· (dddd + eeee))"),
    ]


def test_what_cannot_be_broken_stays():
    assert [line.text for line in broken("x" * 50, 20, TEXT)] == ["x" * 50]
    inside = r"\frac{aaaaaaaaaa + bbbbbbbbbb}{cccccccccc + dddddddddd}"
    assert [line.text for line in broken(inside, 5, LATEX)] == [inside]


def test_a_broken_product_says_so():
    formula = r"aaaaaaaaaa\,\sum_{h} bbbbbbbbbb - cccccccccc"
    assert displayed(formula, 60) == formula
    assert displayed(formula, 20) == (
        "\\begin{aligned}\n"
        r"& aaaaaaaaaa \\" + "\n"
        r"& \quad {} \cdot \sum_{h} bbbbbbbbbb \\" + "\n"
        r"& \quad {} - cccccccccc" + "\n"
        r"\end{aligned}"
    )


def test_proofs_fit_their_page(theorems):
    for theorem in theorems.values():
        assert max(map(len, proof_text(theorem).splitlines())) <= 100
        shown = proof_latex(theorem)
        assert shown.count(r"\begin{aligned}") == shown.count(r"\end{aligned}")
    assert r"\begin{aligned}" in proof_latex(theorems["lact"])
    assert not re.search(r"\\cdot[a-z]", proof_latex(theorems["lact"]))
