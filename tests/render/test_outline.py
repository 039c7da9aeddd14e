"""What a proof is about: what is given, definitions in order, and what parts share."""

import re
from dataclasses import replace

import pytest

from tests.checker.build import at
from tests.render.conftest import CUSTOM, LACT, LOOPS, PER_STEP
from ttt_proofs.checker.definitions import Define, DefineGradient
from ttt_proofs.checker.proof import Proof, Theorem
from ttt_proofs.checker.terms import TIME, Add, Atom, Lam, Mul, Var, ix
from ttt_proofs.loops import Frobenius, InnerLoop, Linear, Schedule, SwiGLU
from ttt_proofs.render import FORMATS, outline, proof_text, render_derivation
from ttt_proofs.render.order import in_order
from ttt_proofs.render.outline import APART, Outline
from ttt_proofs.render.text import OUTLINE
from ttt_proofs.symbolic import Derivation, Part, attention_part, gradient_part

READS = ("after_update", "before_update")
T, J, K, H = Var("t", TIME), Var("j", TIME), Var("K", TIME), Var("h", "D_h")


def section(theorem, heading: str) -> str:
    """One section of the proof as text, on one line."""
    found = re.search(rf"^{heading}\n(.*?)^(?=\S)", proof_text(theorem), re.M | re.S)
    return " ".join(found[1].split()) if found else ""


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "lact",
            [
                "q[t], k[t], each a matrix of shape L × D_k.",
                "η_W0[t], η_W2[t], η_W1[t], each a vector of shape L.",
                "muon, any function that takes a matrix of shape D_k × D_h or D_h × D_v to one "
                "of the same shape; five Newton–Schulz steps where the loop runs.",
                "‖x‖ is √(Σ x²), summed over what dots stand for; the proof holds for any",
                "1 / x, the reciprocal; the proof holds for any",
            ],
        ),
        (
            "conv",
            [
                "q[t], k[t], each an array of shape (Y + D_y) × (X + D_x) × D_v.",
                "v[t], an array of shape Y × X × D_v.",
                "zeros around an image are one case",
            ],
        ),
        ("causal", ["visible, a matrix of shape L × L; where the loop runs, 1 for a token"]),
        (
            "custom",
            [
                "shape, any function that takes a matrix of shape D_k × D_v to one of the same",
                "unit_W[c], any function of a vector of shape D_k, one for every c over D_v.",
                "cut, any function of a vector of shape D_k.",
            ],
        ),
        ("momentum", ["φ[t,h], any function of a vector of shape D_k, one for every step t, h"]),
    ],
)
def test_everything_given_is_said_with_its_shape(name, facts, theorems):
    given = section(theorems[name], "Given")
    for fact in facts:
        assert fact in given
    assert ("Newton" in given) == (name == "lact")


def test_definitions_stand_in_the_order_of_a_step(theorems):
    names = re.findall(r"(\w+)\[[^]]*\] (?:=|is)", section(theorems["custom"], "Definitions"))
    assert [*dict.fromkeys(names)] == ["G_W", "X_W", "R_W", "M_W", "U_W", "N_W", "W", "o"]


@pytest.mark.parametrize("name", LOOPS)
def test_each_definition_comes_after_what_it_uses_and_none_is_lost(name, theorems):
    for block in theorems[name].proof.definitions:
        ordered = in_order(block)
        assert {*ordered} == {*block}
        assert len(ordered) == len(block)
        place = {d.name: k for k, d in enumerate(ordered)}
        for weight in (n for n in place if f"G_{n}" in place):
            updates = [n for n in (f"{x}_{weight}" for x in "GRMUN") if n in place]
            assert [place[n] for n in [*updates, weight]] == sorted(
                place[n] for n in [*updates, weight]
            )


def test_definitions_over_two_times():
    start = Atom("W", (ix(T), ix(H)))
    moved = Add((Atom("W_in", (ix(T), ix(J), ix(H))), Atom("G", (ix(T), ix(J), ix(H)))))
    block = (
        Define("W", (T, H), Atom("W_in", (ix(T), at(3), ix(H))), Atom("W_0", (ix(H),))),
        Define("W_in", (T, J, H), moved, start),
        DefineGradient(
            "G",
            (T, J),
            "X_W",
            Mul((Atom("X_W", (ix(H),)),)),
            Lam((H,), Atom("W_in", (ix(T), ix(J), ix(H)))),
        ),
    )
    assert [d.name for d in in_order(block)] == ["G", "W_in", "W"]
    shown = [entry.formula for entry in OUTLINE.definitions((block,))]
    assert shown[1:] == [
        "W_in[t,0,h] = W[t,h]",
        "W_in[t,j+1,h] = W_in[t,j,h] + G[t,j,h]",
        "W[0,h] = W_0[h]",
        "W[t+1,h] = W_in[t,3,h]",
    ]
    assert OUTLINE.given.every((T, K, H), {T: "t", K: "K", H: "h"}) == (
        "step t, number K, h over D_h"
    )


def derivation(*parts: Part) -> Derivation:
    """Parts together."""
    return Derivation("several", "Several at once", "Section 5", parts)


@pytest.fixture(scope="module")
def combined() -> Derivation:
    """One part for each combination of a few options."""
    rules = [(replace(LACT, momentum=m), t) for m in (None, "per_token") for t in ("all", "last")]
    return derivation(
        *(
            attention_part(
                InnerLoop(SwiGLU(), Frobenius(), rule, Schedule(read=read), trained=trained),
                f"momentum {rule.momentum}, {trained}, {read}",
            )
            for rule, trained in rules
            for read in READS
        )
    )


@pytest.fixture(scope="module")
def shown(combined) -> str:
    """The same as text."""
    return render_derivation(combined, "text")


def expanded(words: str) -> list[int]:
    """The numbers that `(D1) to (D3), (D5)` stands for."""
    found: list[int] = []
    for run in words.split(", "):
        ends = [int(n) for n in re.findall(r"\(D(\d+)\)", run)]
        found += range(ends[0], ends[-1] + 1)
    return found


def test_each_part_has_exactly_its_own_definitions(combined, shown):
    top, *parts = re.split(r"^Part \d+ of 8: .*\n-+\n", shown, flags=re.M)
    marks = [int(n) for n in re.findall(r"^  \(D(\d+)\)", top, re.M)]
    assert marks == [*range(1, len(marks) + 1)]
    proofs = [part.proof for part in combined.parts]
    shared = [*OUTLINE.shared(proofs).definitions]
    for part, text in zip(combined.parts, parts, strict=True):
        (named,) = re.findall(r"^  As above: ((?:.|\n   )*)\.$", text, re.M)
        entries = [shared[k - 1] for k in expanded(" ".join(named.split()))]
        entries += [e for e in OUTLINE.definitions(part.proof.definitions) if e not in shared]
        assert {*entries} == {*OUTLINE.definitions(part.proof.definitions)}
        assert all(entry.formula[:40] in (top if entry in shared else text) for entry in entries)


def test_what_parts_share_is_said_once(shown):
    for line in (
        "M_W0[0,a,h] = 0",
        "U_W1[t,h,c] = muon(M_W1[t,·,·])[h,c]",
        "v[t], a matrix of shape L × D_v.",
    ):
        said = re.findall(rf"^(?:  | +\(D\d+\) *){re.escape(line)}$", shown, re.M)
        assert len(said) == 1, line
    assert shown.count("Lengths and widths are arbitrary.") == 1
    assert shown.count("Indices, primed or not:") == 1


@pytest.mark.parametrize("fault", ["one too far", "nothing shared"])
def test_a_fault_in_what_is_shared_shows(fault, combined, shown, monkeypatch):
    if fault == "one too far":
        right = outline.spans
        monkeypatch.setattr(outline, "spans", lambda places: right(k + 1 for k in places))
        with pytest.raises((AssertionError, IndexError)):
            test_each_part_has_exactly_its_own_definitions(
                combined, render_derivation(combined, "text")
            )
    else:
        monkeypatch.setattr(Outline, "shared", lambda self, proofs: APART)
        with pytest.raises(AssertionError):
            test_what_parts_share_is_said_once(render_derivation(combined, "text"))


def test_what_a_part_alone_is_given_is_said_there(shown):
    *_, last = shown.split("Part 8 of 8")
    given = last.split("\nGiven\n")[1].split("\nDefinitions\n")[0]
    assert "W0, W2, each a matrix of shape D_k × D_h." in given
    assert "W0_0" not in given


def test_parts_without_anything_in_common_are_as_if_alone():
    loop = LOOPS["swiglu"]
    parts = tuple(gradient_part(loop, weight) for weight in loop.fast_weights)
    shown = render_derivation(derivation(*parts), "text")
    assert "(D1)" not in shown
    assert "Definitions that parts share" not in shown
    assert shown.count("is the gradient in") == len(parts)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_shows_marks_and_parts(form, combined):
    shown = render_derivation(combined, form)
    for part in combined.parts:
        assert part.label.replace("_", r"\_" if form == "latex" else "_") in shown
    assert "D1" in shown
    assert "As above: (D" in shown
    if form in ("latex", "md"):
        assert r"\tag{D" in shown


def test_one_part_shares_nothing():
    loop = InnerLoop(Linear(), Frobenius(), PER_STEP)
    shown = render_derivation(derivation(attention_part(loop, "alone")), "text")
    assert "Part: alone." in shown
    assert "As above" not in shown
    assert proof_text(Theorem(attention_part(loop).proof)) in shown


def test_a_part_that_does_not_follow_is_told_apart():
    loop = InnerLoop(Linear(), Frobenius(), replace(CUSTOM, weight_norm=None))
    good = attention_part(loop, "good")
    steps = good.proof.steps
    wrong = replace(steps[-1].conclusion.equation, right=Atom("zero", ()))
    last = replace(steps[-1], conclusion=replace(steps[-1].conclusion, equation=wrong))
    bad = Part("bad", wrong, Proof(good.proof.definitions, (*steps[:-1], last)))
    shown = render_derivation(derivation(good, bad), "text")
    assert shown.count("The checker refuses") == 1
    assert shown.index("Part 2 of 2: bad") < shown.index("The checker refuses")
