"""Whole proofs: every step is there, formulas are well formed, nothing is concrete."""

import re

import pytest

from tests.render.conftest import LOOPS
from ttt_proofs import render
from ttt_proofs.checker.definitions import Equation
from ttt_proofs.checker.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Sequent,
    Step,
    Theorem,
)
from ttt_proofs.checker.terms import TIME, Atom, Var, ix
from ttt_proofs.render.latex import OUTLINE
from ttt_proofs.symbolic.assumptions import CHUNKS, assumptions

FORMATS = [render.proof_text, render.proof_markdown, render.proof_latex, render.proof_html]

MOMENTUM = """\
For every step t, l over L, c over D_v:
  o[t,l,c] = Σ_h φ[t+1,h](q[t,l,·])
      · (W_0[h,c] + Σ_{i=0}^{t} (Σ_{j=i}^{t} η · Π_{s=i+1}^{j} α[s]) · Σ_l′ φ[i,h](k[i,l′,·])
        · (−∂_{1,c} ℓ(c′ ↦ Σ_h′ φ[i,h′](k[i,l′,·]) · W[i,h′,c′], v[i,l′,·])))
Indices, primed or not: a over D_k, c over D_v, h over D_h, l over L.

Definitions
  G_W[t,h,c] is the gradient in X_W[h,c], at X_W[h,c] = W[t,h,c], of
    Σ_l ℓ(c′ ↦ Σ_h′ φ[t,h′](k[t,l,·]) · X_W[h′,c′], v[t,l,·])
  M_W[0,h,c] = 0
  M_W[t+1,h,c] = G_W[t,h,c] + α[t] · M_W[t,h,c]
  W[0,h,c] = W_0[h,c]
  W[t+1,h,c] = W[t,h,c] − η · M_W[t+1,h,c]
  o[t,l,c] = Σ_h φ[t+1,h](q[t,l,·]) · W[t+1,h,c]
"""


def formulas(theorem):
    """Every LaTeX formula of the proof, those within sentences as well."""
    entries = [e for section in OUTLINE.sections(theorem) for e in section.entries]
    return [f for e in entries for f in (e.formula, *re.findall(r"\$(.*?)\$", e.words)) if f]


def balanced(formula: str, left: str, right: str) -> bool:
    """Whether each opening sign has its closing one."""
    depth = 0
    for sign in re.findall(f"{re.escape(left)}|{re.escape(right)}", formula):
        depth += 1 if sign == left else -1
        if depth < 0:
            return False
    return depth == 0


def test_momentum_statement(theorems):
    theorem = theorems["momentum"]
    equation, definitions = theorem.statement.equation, theorem.proof.definitions
    assert render.statement_text(equation, definitions) == MOMENTUM
    typeset = render.statement_latex(equation, definitions)
    assert r"W^{0}_{hc} + \sum_{i=0}^{t} \Bigl(\sum_{j=i}^{t} \eta\,\prod_{s=i+1}^{j}" in typeset
    assert render.statement_text(equation).startswith("For every step t")
    assert "Definitions" not in render.statement_text(equation)


def listed(theorem) -> list[str]:
    """What the text says of each step; they must be numbered from 0."""
    shown = re.findall(r"^  \((\d+)\) +(.+)$", render.proof_text(theorem), re.M)
    assert [int(number) for number, _ in shown] == list(range(len(shown)))
    return [words for _, words in shown]


def spoken(rule) -> str:
    """The plain name of a rule."""
    if isinstance(rule, Definition):
        return "gradient: " if rule.entry else f"definition of {rule.name}"
    names = {Assume: "induction hypothesis, for a step t", Reflexivity: "start of a calculation"}
    return (
        names.get(type(rule)) or {Calculate: "calculation", Induction: "induction on t"}[type(rule)]
    )


def test_every_step_of_momentum_is_listed_with_its_rule(theorems):
    theorem = theorems["momentum"]
    shown, steps = listed(theorem), theorem.proof.steps
    assert len(shown) == len(steps) > 15
    assert {type(step.rule) for step in steps} == {
        Assume,
        Calculate,
        Definition,
        Induction,
        Reflexivity,
    }
    for words, step in zip(shown, steps, strict=True):
        assert words.startswith(spoken(step.rule))


def test_momentum_steps_name_their_premises_and_what_they_do(theorems):
    theorem = theorems["momentum"]
    assumed = [k for k, s in enumerate(theorem.proof.steps) if isinstance(s.rule, Assume)]
    for words, step in zip(listed(theorem), theorem.proof.steps, strict=True):
        rule, under = step.rule, step.conclusion.hypotheses
        assert all(f"({premise})" in words for premise in step.premises)
        peeled = isinstance(rule, Calculate) and rule.peel is not None
        assert ("splitting off the last step at t" in words) == peeled
        assert ("at the start" in words) == (isinstance(rule, Definition) and rule.start)
        assert (", under (" in words) == (bool(under) and not isinstance(rule, Assume))
        if isinstance(rule, Induction):
            assert f"discharging ({assumed[0]}), ({assumed[1]})" in words


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_every_part(form, theorems):
    for name, theorem in theorems.items():
        shown = form(theorem)
        for heading in ("Theorem", "Given", "Definitions", "Assumptions", "Proof"):
            assert heading in shown, (name, heading)
        for number in range(len(theorem.proof.steps)):
            assert f"({number})" in shown
        assert shown.count("∎") + shown.count(r"\blacksquare") == 1


def test_formulas_are_balanced_and_signs_single(theorems):
    for theorem in theorems.values():
        for formula in formulas(theorem):
            assert balanced(formula, "{", "}"), formula
            assert balanced(re.sub(r"\\[bB]igg?[lr]", "", formula), "(", ")")
            for size in (r"\Big", r"\bigg", r"\Bigg"):
                assert balanced(formula, f"{size}l(", f"{size}r)")
            assert not re.search(r"\+ *-|- *-|-1\\,|[<&%#~]", formula), formula
        plain = render.proof_text(theorem)
        assert not re.search(r"\+\s*−|−\s*−|−1 ·|_{2}|\$", plain)
        assert balanced(plain, "(", ")")
        assert balanced(plain, "[", "]")


def test_nothing_has_a_concrete_length_or_width(theorems):
    for name, theorem in theorems.items():
        plain = re.sub(r"\(\d+\)", "", render.proof_text(theorem))  # numbers of steps
        plain = re.sub(r"[A-Za-z_]+\d+(_0)?|W_0|∂_\{\d", "", plain)  # names, slots
        assert set(re.findall(r"\d+", plain)) <= {"0", "1", "2"}, name  # 2 in 1/2, exp(2x)
        assert not re.search(r"\b(L|D_\w+|T)\s*=", plain), name


@pytest.mark.parametrize("name", LOOPS)
def test_katex_has_no_unknown_commands(name, theorems):
    known = {
        *("sum", "prod", "Bigl", "Bigr", "cdot", "partial", "mapsto", "tfrac", "mathrm", "text"),
        *("operatorname", "alpha", "eta", "varphi", "ell", "sigma", "tanh", "max", "times"),
        *("biggl", "biggr", "Biggl", "Biggr", "frac", "sqrt", "lVert", "rVert", "textstyle"),
        *("varepsilon", "Theta"),
    }
    for formula in formulas(theorems[name]):
        assert set(re.findall(r"\\([A-Za-z]+)", formula)) <= known


def test_mathtext_typesets_every_formula(theorems):
    mathtext = pytest.importorskip("matplotlib.mathtext")
    parser = mathtext.MathTextParser("path")
    for formula in formulas(theorems["momentum"]):
        for mark, size in ((r"\\[bB]igg?l", r"\\left"), (r"\\[bB]igg?r", r"\\right")):
            formula = re.sub(mark, size, formula)
        parser.parse(f"${formula}$".replace(r"\mapsto", r"\to").replace(r"\tfrac", r"\frac"))


def test_html_is_escaped_and_folds_the_proof(theorems):
    shown = render.proof_html(theorems["mlp"])
    count = len(theorems["mlp"].proof.steps)
    assert f"<summary><b>Proof</b>, {count} steps</summary>" in shown
    assert shown.count("<details>") == shown.count("</details>") > 1
    assert not re.search(r"<(?!/?(div|details|summary|b|p)\b)", shown)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("momentum", [CHUNKS, "`ell` is differentiable in its first argument."]),
        ("mlp", [CHUNKS, "`act` is differentiable."]),
        ("gelu", [CHUNKS]),
        ("swiglu", [CHUNKS]),
        ("linear", [CHUNKS]),
        (
            "relu",
            [
                CHUNKS,
                "The derivative of `relu` at 0 is taken as 0, as PyTorch does.",
            ],
        ),
        ("relu W2", []),
    ],
)
def test_assumptions(name, expected, theorems):
    assert list(assumptions(theorems[name].proof)) == expected


def test_an_open_hypothesis_is_an_assumption():
    t = Var("t", TIME)
    equation = Equation((t,), Atom("x", (ix(t),)), Atom("alpha", ()))
    theorem = Theorem(Proof((), (Step(Assume(equation), (), Sequent((equation,), equation)),)))
    assert assumptions(theorem.proof) == ("Step 0 is assumed: an equation for `x`.",)
    assert "(0)   hypothesis\n        x[t] = α" in render.proof_text(theorem)
