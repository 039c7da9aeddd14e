"""Closed forms against the recurrence itself, iterated with exact fractions."""

import random
from fractions import Fraction
from itertools import product

import pytest
import sympy as sp

from ttt_proofs.loops import GradientStep
from ttt_proofs.program.coefficients import t
from ttt_proofs.program.rules import G, Line, Rule, W, following, operator
from ttt_proofs.symbolic.closed_forms import Closed, NotCoveredError, solve

M, U = sp.symbols("M U")
NEXT_M = following(M)
STEPS = 5
NAMES = ("eta", "alpha", "lam", "g")


def draw(seed: int) -> dict[str, list[Fraction]]:
    """A fraction for each name and step; constants are those of step 0."""
    rng = random.Random(seed)
    return {
        n: [Fraction(rng.randint(-9, 9), rng.randint(1, 7)) for _ in range(STEPS)]
        for n in (*NAMES, "start")
    }


def exact(expression: sp.Expr, given: dict[str, list[Fraction]]) -> Fraction:
    """The value of a closed form at concrete times."""
    e = sp.sympify(expression).doit()
    values = {sp.Symbol(name): given[name][0] for name in NAMES}
    values |= {sp.IndexedBase(name)[n]: given[name][n] for name in NAMES for n in range(STEPS)}
    e = sp.sympify(
        e.xreplace({k: sp.Rational(v.numerator, v.denominator) for k, v in values.items()})
    )
    assert e.is_Rational, f"{expression} became {e}"
    return Fraction(int(e.p), int(e.q))


def predicted(closed: Closed, step: int, start: Fraction, given) -> Fraction:
    """The state after `step`, by the closed form."""
    last = sp.Integer(step)
    past = [
        exact(closed.weight(sp.Integer(i), last), given) * given["g"][i] for i in range(step + 1)
    ]
    return exact(closed.decay(last), given) * start + sum(past)


def iterated(update: GradientStep, given) -> list[tuple[Fraction, Fraction]]:
    """(M, W) after each step, by the rule as the paper writes it."""
    m, w, states = Fraction(0), given["start"][0], []
    for n in range(STEPS):
        rate = given["eta"][n if update.rate == "per_step" else 0]
        alpha = given["alpha"][n if update.momentum == "per_step" else 0]
        sign = 1 if update.ascent else -1
        if update.momentum is None:
            w += sign * rate * given["g"][n]
        elif update.place == "inside":
            m = rate * given["g"][n] + alpha * m
            w += sign * m
        else:
            m = given["g"][n] + alpha * m
            w += sign * rate * m
        states.append((m, w))
    return states


KINDS = ("constant", "per_step")
UPDATES = [
    GradientStep(*choice)
    for choice in product(KINDS, ("inside", "outside"), (None, *KINDS), (False, True))
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("update", UPDATES, ids=str)
def test_closed_forms_are_what_iterating_gives(update, seed):
    given, solved = draw(seed), solve(update.rule)
    assert set(solved) == ({W} if update.momentum is None else {M, W})
    for n, (m, w) in enumerate(iterated(update, given)):
        assert predicted(solved[W], n, given["start"][0], given) == w
        if M in solved:
            assert predicted(solved[M], n, Fraction(0), given) == m


@pytest.mark.parametrize("update", UPDATES, ids=str)
def test_another_rule_is_told_apart(update):
    """The comparison above can fail: each choice, changed alone, gives other numbers."""
    given, solved = draw(0), solve(update.rule)
    mine = [predicted(solved[W], n, given["start"][0], given) for n in range(STEPS)]
    for other in UPDATES:
        same_rule = other.rule == update.rule
        theirs = [w for _, w in iterated(other, given)]
        same = other.rate == update.rate == "constant" and other == GradientStep(
            update.rate, other.place, update.momentum, update.ascent
        )  # a constant rate may stand on either side of the accumulator
        assert (mine == theirs) is (same_rule or same), other


def test_forms_are_written_as_in_the_paper():
    eta, alpha = sp.IndexedBase("eta"), sp.IndexedBase("alpha")
    i, j, s, u = sp.symbols("i j s u", integer=True)
    beta = sp.Product(alpha[s], (s, i + 1, j))
    outside = solve(GradientStep("per_step", "outside", "per_step").rule)[W]
    inside = solve(GradientStep("per_step", "inside", "per_step").rule)[W]
    assert outside.weight(i, u).dummy_eq(sp.Sum(-eta[j] * beta, (j, i, u)))
    assert inside.weight(i, u).dummy_eq(sp.Sum(-eta[i] * beta, (j, i, u)))
    assert outside.decay(u) == inside.decay(u) == 1


def written(lines: dict[sp.Symbol, sp.Expr]) -> Rule:
    """The rule with these lines."""
    return Rule(tuple(Line(target, e) for target, e in lines.items()), tuple(lines)[:-1])


lam, eta, alpha = (sp.IndexedBase(name)[t] for name in ("lam", "eta", "alpha"))
constant = sp.Symbol("lam")


A = sp.Symbol("A")


def stepped_two(m, w, x, n, *, late: bool):
    """Two accumulators, the second of the first, by their new values or their old ones."""
    first, second = m or (0, 0)
    new = x["alpha"][n] * first + x["g"][n]
    after = x["lam"][n] * second + (first if late else new)
    moved = x["lam"][n] * w - x["eta"][n] * (second if late else after)
    return (new, after), moved


DECAYS = {
    "constant decay": (
        {W: constant * W - eta * G},
        lambda m, w, x, n: (m, x["lam"][0] * w - x["eta"][n] * x["g"][n]),
    ),
    "decay per step": (
        {W: lam * W - eta * G},
        lambda m, w, x, n: (m, x["lam"][n] * w - x["eta"][n] * x["g"][n]),
    ),
    "coupled to the rate": (
        {W: (1 - eta) * W + eta * G},
        lambda m, w, x, n: (m, (1 - x["eta"][n]) * w + x["eta"][n] * x["g"][n]),
    ),
    "decay and momentum": (
        {M: G + alpha * M, W: lam * W - eta * NEXT_M},
        lambda m, w, x, n: (
            x["alpha"][n] * m + x["g"][n],
            x["lam"][n] * w - x["eta"][n] * (x["alpha"][n] * m + x["g"][n]),
        ),
    ),
    "Nesterov": (
        {M: G + alpha * M, W: W - eta * (G + alpha * NEXT_M)},
        lambda m, w, x, n: (
            x["alpha"][n] * m + x["g"][n],
            w - x["eta"][n] * (x["g"][n] + x["alpha"][n] * (x["alpha"][n] * m + x["g"][n])),
        ),
    ),
    "forgets everything": ({W: G}, lambda m, w, x, n: (m, x["g"][n])),
    "old accumulator": (
        {M: G + alpha * M, W: lam * W + eta * M - G},
        lambda m, w, x, n: (
            x["alpha"][n] * m + x["g"][n],
            x["lam"][n] * w + x["eta"][n] * m - x["g"][n],
        ),
    ),
    "two accumulators": (
        {M: G + alpha * M, A: NEXT_M + lam * A, W: lam * W - eta * following(A)},
        lambda m, w, x, n: stepped_two(m, w, x, n, late=False),
    ),
    "two accumulators, old values": (
        {M: G + alpha * M, A: M + lam * A, W: lam * W - eta * A},
        lambda m, w, x, n: stepped_two(m, w, x, n, late=True),
    ),
}


@pytest.mark.parametrize("name", DECAYS)
def test_decay(name):
    recurrence, step = DECAYS[name]
    given, solved = draw(2), solve(written(recurrence))
    m, w = 0, given["start"][0]
    for n in range(STEPS):
        m, w = step(m, w, given, n)
        assert predicted(solved[W], n, given["start"][0], given) == w


def test_one_decay_is_not_another():
    given, solved = draw(2), solve(written(DECAYS["decay per step"][0]))
    w = given["start"][0]
    for n in range(STEPS):
        _, w = DECAYS["constant decay"][1](0, w, given, n)
    assert predicted(solved[W], STEPS - 1, given["start"][0], given) != w


NONLINEAR = {
    "square of the gradient": {W: W - G**2},
    "square of the state": {W: W**2 - G},
    "state times gradient": {W: W - W * G},
    "a constant added": {W: W - G + 1},
    "a function of the gradient": {W: W - sp.sign(G)},
    "nonlinear accumulator": {M: M**2 + G, W: W - NEXT_M},
    "state times accumulator": {M: M + G, W: W - W * NEXT_M},
    "square of the accumulator": {M: M + G, W: W - NEXT_M**2},
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_updates_are_refused(name):
    told = (
        r"^the update must be linear in its states, .+; \w becomes .+, which is not linear\. .+\.$"
    )
    with pytest.raises(NotCoveredError, match=told):
        solve(written(NONLINEAR[name]))


APART = {
    "coupled": ({M: M + W, W: W - NEXT_M}, "which depends on W, a state after it"),
    "a buffer of a later one": (
        {M: M + A, A: A + G, W: W - NEXT_M},
        "which depends on A, a state after it",
    ),
}


@pytest.mark.parametrize("name", APART)
def test_states_that_are_coupled_are_refused(name):
    rule, why = APART[name]
    with pytest.raises(NotCoveredError, match=why):
        solve(written(rule))


def test_two_inputs_are_refused():
    lines = (Line(M, -G), Line(U, operator("o", NEXT_M), "operator"), Line(W, W + U - G))
    with pytest.raises(NotCoveredError, match="which has several inputs, G and U"):
        solve(Rule(lines))


HIDDEN = {
    "coefficients that cancel": {M: M + G, W: M * W - M * G},
    "old accumulator times gradient": {M: M + G, W: W - M * G},
    "state times square of the gradient": {W: W + W * G**2},
    "normalised": {W: W / sp.Abs(W) - G},
    "gradient over state": {W: W + G / W},
}


@pytest.mark.parametrize("name", HIDDEN)
def test_nonlinear_updates_that_look_linear_are_refused(name):
    with pytest.raises(ValueError, match="must be linear"):
        solve(written(HIDDEN[name]))


# Operators and gates: what the closed form weighs is then U, and the gates are in its weights.

OPERATED = {
    "operator, momentum": GradientStep("per_step", "outside", "per_step", orthogonal="o"),
    "operator, rate inside": GradientStep("per_step", "inside", "constant", orthogonal="o"),
    "operator, ascent": GradientStep("constant", ascent=True, orthogonal="o"),
    "operator and norm": GradientStep(
        "per_step", "outside", "per_step", orthogonal="o", weight_norm="n"
    ),
    "norm": GradientStep("per_step", weight_norm="n"),
    "norm, momentum": GradientStep("per_step", "outside", "per_step", weight_norm="n"),
    "clip, momentum": GradientStep("per_step", "inside", "per_step", clip="c"),
    "clip and norm": GradientStep(
        "constant", "outside", "constant", True, clip="c", weight_norm="n"
    ),
    "no rate": GradientStep(None, momentum="per_token"),
}


def operated(update: GradientStep, given, late: int = 0) -> list[tuple[Fraction, Fraction]]:
    """(M, W) after each step, where the operator makes `x["g"]` of anything, or is not there.

    N is one step late, if asked for.
    """
    m, w, states = Fraction(0), given["start"][0], []
    way = 1 if update.ascent else -1
    for n in range(STEPS - 1):
        rate = given["eta"][n if update.rate == "per_step" else 0] if update.rate else 1
        alpha = given["alpha"][n if update.momentum in ("per_step", "per_token") else 0]
        inside, outside = (rate, 1) if update.place == "inside" else (1, rate)
        step = inside * given["g"][n] * (given["R"][n] if update.clip else 1)
        if update.orthogonal:
            m = way * step + (alpha * m if update.momentum else 0)
            w += outside * given["U"][n]
        else:
            step = m = step + (alpha * m if update.momentum else 0)
            w += way * outside * step
        if update.weight_norm:
            w *= given["N"][n + 1 - late]
        states.append((m, w))
    return states


@pytest.mark.parametrize("name", OPERATED)
def test_closed_forms_with_operators_and_gates(name, monkeypatch):
    update, rng = OPERATED[name], random.Random(5)
    given = draw(3)
    for letter in "RNU":
        given[letter] = [Fraction(rng.randint(1, 9), rng.randint(1, 7)) for _ in range(STEPS)]
    monkeypatch.setattr("tests.symbolic.test_closed_forms.NAMES", (*NAMES, "R", "N"))
    solved = solve(update.rule)
    assert solved[W].input == (U if update.orthogonal else G)
    source = given | {"g": given["U"]} if update.orthogonal else given
    late = operated(update, given, late=1)
    for n, (m, w) in enumerate(operated(update, given)):
        assert predicted(solved[W], n, given["start"][0], source) == w
        if M in solved:
            assert solved[M].input == G
            assert predicted(solved[M], n, Fraction(0), given) == m
        if update.weight_norm:
            assert late[n][1] != w
