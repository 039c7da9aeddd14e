"""Two loops side by side: names kept apart, equal outputs proved, and different ones refused."""

from dataclasses import replace

import pytest

from ttt_proofs.checker.definitions import Define, DefineGradient, Equation
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import App, Atom, CheckerError, Var, inside, ix, symbols
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    AnyNet,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
    ladder,
)
from ttt_proofs.symbolic import same_outputs_part, textbook_part, theory
from ttt_proofs.symbolic.equality import joined, renamed_symbols, tagged, textbook

HELD = GradientStep("per_step", momentum="per_step")
LOOP = InnerLoop(MLP(2), SquaredError(), replace(HELD, weight_norm="n"))


def proved(part) -> bool:
    """Whether the checker accepts the part."""
    try:
        theorem = Theorem(part.proof)
    except CheckerError:
        return False
    return theorem.statement.equation == part.statement and not theorem.statement.hypotheses


def names_of(definitions) -> set[str]:
    """What is defined, parameters of losses included."""
    found = [d for block in definitions for d in block]
    return {d.name for d in found} | {d.param for d in found if isinstance(d, DefineGradient)}


def test_tagged_names_are_apart_and_inputs_are_shared():
    plain, other = theory.definitions(LOOP), tagged(theory.definitions(LOOP), "_b")
    assert names_of(other) == {f"{name}_b" for name in names_of(plain)}
    assert names_of(plain).isdisjoint(names_of(other))
    inputs = symbols(plain) - names_of(plain)
    assert {"q", "k", "v", "eta", "alpha", "W1_0", "W2_0"} <= inputs
    assert symbols(other) - names_of(other) == inputs
    assert [type(d) for block in plain for d in block] == [type(d) for b in other for d in b]
    assert len(joined(plain, other)) == len(plain) + len(other)


def test_functions_are_shared():
    """Both loops have the same φ and the same gates."""
    loop = InnerLoop(Features(), AbstractLoss(), GradientStep(weight_norm="n", clip="r"))
    plain, other = theory.definitions(loop), tagged(theory.definitions(loop), "_b")
    names = [{app.fn for app in inside(blocks, App)} for blocks in (plain, other)]
    assert names[0] == names[1] == {"phi", "ell", "n_W", "r"}


def test_renaming_reaches_everything_and_nothing_else():
    a = Atom("a", (ix(Var("t", "time")),))
    define = Define("a", (Var("t", "time"),), App("a", (), ()), a)
    found = renamed_symbols(define, {"a": "z"})
    assert (found.name, found.term, found.start) == ("z", App("a", (), ()), replace(a, name="z"))
    assert renamed_symbols((define, 3, "a"), {"b": "c"}) == (define, 3, "a")


def negated(loop: InnerLoop, ascent: bool = False, **fields) -> InnerLoop:
    """The loop on negated values, in the direction asked for."""
    return replace(
        loop,
        update=replace(loop.update, ascent=ascent, **fields),
        loss=NegatedValues(loop.loss),
    )


UP = {
    "any net": InnerLoop(AnyNet(), Frobenius(), replace(HELD, ascent=True)),
    "two layers": InnerLoop(MLP(2, "act"), Frobenius(), GradientStep(ascent=True)),
    "normalised": InnerLoop(SwiGLU(), Frobenius(), replace(HELD, ascent=True, weight_norm="n")),
    "muon": InnerLoop(
        Linear(),
        Frobenius(),
        replace(HELD, ascent=True, orthogonal="muon"),
        Schedule(2, "before_update"),
    ),
}


@pytest.mark.parametrize("name", UP)
def test_ascent_is_descent_on_negated_values(name):
    part = same_outputs_part(UP[name], negated(UP[name]), name)
    assert part.label == name and proved(part)
    assert (symbols(part.statement.left), symbols(part.statement.right)) == ({"o"}, {"o_b"})


@pytest.mark.parametrize("name", UP)
def test_each_loop_is_itself(name):
    assert proved(same_outputs_part(UP[name], UP[name]))


DIFFERENT = {
    "the same direction": lambda loop: negated(loop, ascent=True),
    "values as they are": lambda loop: replace(loop, update=replace(loop.update, ascent=False)),
    "another rate": lambda loop: negated(loop, rate=None),
    "another reading": lambda loop: replace(
        negated(loop), schedule=replace(negated(loop).schedule, read_with="key")
    ),
    "another loss": lambda loop: replace(negated(loop), loss=SquaredError()),
}


@pytest.mark.parametrize("fault", DIFFERENT)
@pytest.mark.parametrize("name", ["any net", "muon"])
def test_loops_that_differ_are_refused(name, fault):
    assert not proved(same_outputs_part(UP[name], DIFFERENT[fault](UP[name])))


def test_clipped_gradients_need_an_even_gate():
    """An unknown clip may tell a column from its negative: then nothing follows."""
    loop = InnerLoop(Linear(), Frobenius(), GradientStep(ascent=True, clip="r"))
    assert not proved(same_outputs_part(loop, negated(loop)))


def test_squared_error_is_refused():
    loop = InnerLoop(Linear(), SquaredError(), GradientStep(ascent=True))
    assert not proved(same_outputs_part(loop, negated(loop)))


LAST = ladder(Schedule())["v6"]


def test_the_last_simplification_is_the_textbook():
    part = textbook_part(LAST, "label")
    assert part.label == "label" and proved(part)


@pytest.mark.parametrize(
    "change",
    [
        {"update": GradientStep()},
        {"update": GradientStep(None, ascent=True)},
        {"update": GradientStep(None, momentum="constant")},
        {"update": GradientStep(None, orthogonal="muon")},
        {"loss": SquaredError()},
        {"schedule": Schedule(1, "before_update")},
        {"schedule": Schedule(read_with="key")},
        {"loss": NegatedValues(Frobenius())},
    ],
    ids=str,
)
def test_other_loops_are_not_the_textbook(change):
    try:
        part = textbook_part(replace(LAST, **change))
    except CheckerError:
        return
    assert not proved(part)


def test_the_textbook_says_what_it_should():
    """`S[t + 1] = S[t] + Σ kᵀ v` from W_0, and `o_b[t] = q S[t + 1]`."""
    (state,), (read,) = textbook(LAST)
    assert isinstance(state, Define) and isinstance(read, Define)
    assert symbols(state.term) == {"S", "k", "v"} and symbols(state.start) == {"W_0"}
    assert symbols(read.term) == {"q", "S"} and read.start is None
    (held,) = [a for a in inside(read.term, Atom) if a.name == "S"]
    assert held.ix[0].shift == 1
    assert isinstance(textbook_part(LAST).statement, Equation)
