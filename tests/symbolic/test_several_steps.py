"""Several steps on a chunk: closed forms against iterating the delta rule, and planted faults."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest

from tests.checker.build import at
from tests.symbolic.values import Meaning
from ttt_proofs import reduce
from ttt_proofs.checker.proof import Proof, Theorem
from ttt_proofs.checker.terms import (
    TIME,
    Atom,
    CheckerError,
    Mul,
    Num,
    Prod,
    Sum,
    inside,
    ix,
    rebuild,
    symbols,
)
from ttt_proofs.evidence.autograd import Run, autograd_witness
from ttt_proofs.evidence.statement import statement_witness
from ttt_proofs.loops import (
    GLU,
    MLP,
    AbstractLoss,
    Coefficient,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
    Update,
    operator,
    zeros_like,
)
from ttt_proofs.symbolic import Part, attention_part, delta_steps_part, summed_rate_part, theory
from ttt_proofs.symbolic.bridge import entry
from ttt_proofs.symbolic.closed_forms import NotCoveredError
from ttt_proofs.symbolic.parts import attention_form, steps_part
from ttt_proofs.symbolic.several_steps import K, linear_attention

MANY = Schedule(2, steps=3)
CONV = InnerLoop(DepthwiseConv(), Frobenius(), schedule=Schedule(4, steps=2))
CONVS = [
    CONV,
    replace(
        CONV,
        loss=SquaredError(),
        update=GradientStep("per_token", "inside"),
        schedule=Schedule(4, "before_update", steps=3),
    ),
]
DELTA = InnerLoop(Linear(), SquaredError(), schedule=Schedule(steps=2, single=True), trained="last")


def proved(part) -> bool:
    """Whether the checker accepts the part."""
    try:
        theorem = Theorem(part.proof)
    except CheckerError:
        return False
    return theorem.statement.equation == part.statement and not theorem.statement.hypotheses


UPDATES = {
    "momentum": GradientStep("per_step", momentum="per_step"),
    "momentum outside": GradientStep("per_step", "outside", momentum="constant", ascent=True),
    "clip": GradientStep("per_step", clip="column_norm"),
    "clip and momentum": GradientStep(momentum="per_step", clip="column_norm"),
    "Muon": GradientStep(orthogonal="muon"),
    "weight norm": GradientStep(weight_norm="initial_norm"),
    "LaCT": GradientStep(
        "per_token", "inside", momentum="per_step", orthogonal="muon", weight_norm="initial_norm"
    ),
}
LOOPS = [
    InnerLoop(Features(), AbstractLoss(), schedule=MANY),
    InnerLoop(Features(), AbstractLoss(), GradientStep("per_step", ascent=True), MANY),
    InnerLoop(Linear(), SquaredError(), GradientStep(None), MANY),
    InnerLoop(MLP(2, "act"), Frobenius(), schedule=Schedule(2, "before_update", steps=2)),
    InnerLoop(SwiGLU(), SquaredError(), GradientStep("per_token", "inside"), MANY),
    InnerLoop(GLU(), NegatedValues(SquaredError()), schedule=replace(MANY, read_with="key")),
    *CONVS,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: type(loop.net).__name__)
def test_k_keys_and_values_for_each_token(loop):
    part = attention_part(loop, "label")
    assert part.label == "label" and proved(part)
    assert part.statement.every[-1] == K


@pytest.mark.parametrize("steps", [2, 3, 64])
def test_the_number_of_steps_is_a_variable(steps):
    loop = replace(LOOPS[0], schedule=replace(MANY, steps=steps))
    assert attention_part(loop) == attention_part(LOOPS[0])


def fewer(term):
    """The term with each sum over the steps on a chunk ending at K - 2 in place of K - 1."""
    if isinstance(term, Sum) and term.high == ix(K, -1):
        term = replace(term, high=ix(K, -2))
    return rebuild(term, fewer)


def restated(part, right) -> Proof:
    """The part's proof, with another right side in its last step."""
    *steps, last = part.proof.steps
    equation = replace(part.statement, right=right)
    conclusion = replace(last.conclusion, equation=equation)
    forged = replace(last, rule=replace(last.rule, term=right), conclusion=conclusion)
    return Proof(part.proof.definitions, (*steps, forged))


@pytest.mark.parametrize("loop", [*LOOPS[:3], *CONVS], ids=range(5))
def test_one_step_too_few_is_refused(loop):
    part = attention_part(loop)
    wrong = fewer(part.statement.right)
    assert wrong != part.statement.right
    with pytest.raises(CheckerError):
        Theorem(restated(part, wrong))
    Theorem(restated(part, part.statement.right))


def test_one_step_at_the_summed_rate_needs_a_static_kernel_and_frobenius():
    static = InnerLoop(Features(), Frobenius(), schedule=MANY, trained="last")
    assert proved(summed_rate_part(static, "label")) and proved(summed_rate_part(CONV))
    ascending = replace(static, update=GradientStep(ascent=True))
    assert proved(summed_rate_part(ascending))
    for other in (
        replace(static, trained="all"),
        replace(static, loss=SquaredError()),
        replace(static, loss=AbstractLoss()),
        replace(static, net=MLP(2), trained="all"),
        replace(CONV, loss=SquaredError()),
    ):
        assert proved(attention_part(other)) and not proved(summed_rate_part(other))


def test_the_form_of_another_loop_is_refused():
    loop = LOOPS[0]
    assert proved(steps_part(loop, linear_attention(loop), ""))
    for other in (
        replace(loop, update=GradientStep(ascent=True)),
        replace(loop, update=GradientStep("per_step")),
        replace(loop, schedule=replace(MANY, read="before_update")),
        replace(loop, schedule=replace(MANY, read_with="key")),
        replace(loop, loss=Frobenius()),
    ):
        try:
            part = steps_part(loop, linear_attention(other), "")
        except CheckerError:
            continue
        assert not proved(part)


PLAIN = (GradientStep(), GradientStep("per_token", "inside", ascent=True), GradientStep(None))


@pytest.mark.parametrize("update", [*PLAIN, *UPDATES.values()], ids=str)
def test_one_step_stands_for_plain_steps_alone(update):
    loop = InnerLoop(Features(), Frobenius(), update, MANY, trained="last")
    assert proved(attention_part(loop))
    if update in PLAIN:
        assert proved(summed_rate_part(loop))
        return
    with pytest.raises(NotCoveredError, match=r"^a single step .*; got .* a chunk\.$"):
        summed_rate_part(loop)


def test_another_form_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"must be left out for .*; got Inner.* a chunk\.$"):
        attention_part(LOOPS[0], scores=True)


def forgetful(term):
    """The term with running products and sums begun a step late."""
    if isinstance(term, Prod) and term.low.vars:
        term = replace(term, low=ix(term.low.vars[0], term.low.shift + 1))
    return rebuild(term, forgetful)


def rule(moved, buffers: str = "", **given: Coefficient) -> dict[str, Any]:
    """An update rule of a user's own, as arguments of a loop."""
    return {
        "update": Update(moved, dict.fromkeys(buffers.split(), zeros_like)),
        "coefficients": given,
    }


STEP = Coefficient("step")
RULED = {
    "decay by entry": rule(
        lambda W, g, *, eta, lam: (1 - lam) * W - eta * g,
        eta=STEP,
        lam=replace(STEP, shape="entry"),
    ),
    "rate by row": rule(lambda W, g, *, eta: W - eta * g, eta=replace(STEP, shape="row")),
    "rate by column": rule(lambda W, g, *, eta: W - eta * g, eta=replace(STEP, shape="column")),
    "an old buffer": rule(
        lambda W, g, M, *, eta, alpha: (W - eta * M, alpha * M + g), "M", eta=STEP, alpha=STEP
    ),
    "momentum and decay": rule(
        lambda W, g, M, *, theta, alpha: (
            (1 - alpha) * W + 0.5 * M - theta * g,
            0.5 * M - theta * g,
        ),
        "M",
        theta=STEP,
        alpha=STEP,
    ),
    "Muon with decay": rule(
        lambda W, g, *, alpha: (1 - alpha) * W - 0.25 * operator("muon")(g), alpha=STEP
    ),
    "Muon of a look ahead": rule(
        lambda W, g, M, *, eta, alpha: (
            W - eta * operator("muon")(alpha * (alpha * M + g) + g),
            alpha * M + g,
        ),
        "M",
        eta=STEP,
        alpha=STEP,
    ),
    "two buffers": rule(
        lambda W, g, M, N, *, eta: (W - eta * (M + N), 0.5 * M + g, 0.25 * N + M), "M N", eta=STEP
    ),
}
STEPPED = [
    *(InnerLoop(MLP(2, "silu"), SquaredError(), u, MANY) for u in UPDATES.values()),
    *(InnerLoop(Linear(), SquaredError(), schedule=MANY, **given) for given in RULED.values()),
    InnerLoop(Linear(), Frobenius(), UPDATES["momentum"], replace(MANY, read="before_update")),
]


@pytest.mark.parametrize("loop", STEPPED, ids=str)
def test_steps_of_any_linear_rule_are_proved_and_are_the_loop(loop):
    found, (_, part) = reduce(loop), attention_form(loop)
    assert found.theorem.statement.equation == part.statement
    assert statement_witness(part, loop, seed=0).agrees
    faults = {fewer(part.statement.right), forgetful(part.statement.right)} - {part.statement.right}
    for right in faults:
        with pytest.raises(CheckerError):
            Theorem(restated(part, right))
        wrong = Part("", replace(part.statement, right=right), part.proof)
        assert not statement_witness(wrong, loop, seed=0).agrees


@pytest.mark.parametrize("steps", [1, 3])
def test_the_form_and_the_part_that_claims_it(steps):
    loop = replace(LOOPS[0], schedule=replace(MANY, steps=steps))
    form, part = attention_form(loop, "label")
    assert part == attention_part(loop, "label") and proved(part)
    assert part.statement.right == form.term and (K in form.every) is (steps > 1)


@dataclass
class Claimed:
    """A run that is said to be another loop's."""

    loop: InnerLoop
    recurrent: Run
    parallel: str = "sequential"
    parallel_form: Run = None  # pyright: ignore


@pytest.mark.parametrize("loop", CONVS, ids=str)
def test_a_convolution_of_several_steps_is_its_form_and_what_autograd_finds(loop):
    found, (_, part) = reduce(loop), attention_form(loop)
    assert found.static and found.parallel == ("additive" if loop is CONV else "affine")
    assert found.theorem.statement.equation == part.statement
    assert autograd_witness(found, seed=0).agrees
    assert statement_witness(part, loop, seed=0).agrees
    wrong = Part("", replace(part.statement, right=fewer(part.statement.right)), part.proof)
    assert not statement_witness(wrong, loop, seed=0).agrees
    longer = reduce(replace(loop, schedule=replace(loop.schedule, steps=4)))
    assert not autograd_witness(Claimed(loop, longer.recurrent), seed=0).agrees


def test_features_of_a_convolution_are_windows(monkeypatch):
    """With pixels for features, each alone, the checker refuses."""

    def pixel(loop, names, token, row, col):
        return entry(loop.net.features, token, row, names)

    assert proved(attention_part(CONV)) and proved(attention_part(LOOPS[0]))
    monkeypatch.setattr(theory, "features", pixel)
    assert not proved(attention_part(CONV))
    assert proved(attention_part(LOOPS[0]))


# K steps of the delta rule on one token, in exact fractions: from W, f = k W, v, η.

KEY, VALUE = (Fraction(2), Fraction(-1, 3)), (Fraction(1), Fraction(3, 2))
ETA, START = Fraction(2, 7), ((Fraction(1), Fraction(-2)), (Fraction(1, 2), Fraction(3)))


def stepped(steps: int) -> list[list[Fraction]]:
    """The weight after that many steps `W ← W - η kᵀ (k W - v)`."""
    weight = [list(row) for row in START]
    for _ in range(steps):
        error = [sum(KEY[a] * weight[a][c] for a in range(2)) - VALUE[c] for c in range(2)]
        weight = [[weight[a][c] - ETA * KEY[a] * error[c] for c in range(2)] for a in range(2)]
    return weight


def sides(statement, steps: int, after: list[list[Fraction]]) -> list[tuple[Fraction, Fraction]]:
    """Both sides at each entry of the weight, with `after` for it after K steps."""

    def weight(t, a, c, k):
        return START[a][c] if t == 0 else after[a][c]

    given = {"W": weight, "k": lambda t, a: KEY[a], "v": lambda t, c: VALUE[c], "eta": lambda: ETA}
    model, (now, row, col, many) = Meaning({"D_k": 2, "D_v": 2}, given), statement.every
    assert many == K and now.sort == TIME
    return [
        tuple(
            model.of(side, {now: 0, row: a, col: c, many: steps})
            for side in (statement.left, statement.right)
        )
        for a in range(2)
        for c in range(2)
    ]


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("steps", range(6))
def test_the_closed_form_is_what_stepping_gives(steps, closed):
    part = delta_steps_part(DELTA, "label", closed=closed)
    assert part.label == "label" and symbols(part.statement.right) == {"W", "k", "v", "eta"}
    assert all(left == right for left, right in sides(part.statement, steps, stepped(steps)))
    for wrong in (stepped(steps + 1), stepped(steps - 1) if steps else stepped(2)):
        assert all(left != right for left, right in sides(part.statement, steps, wrong))


@pytest.mark.parametrize("closed", [False, True])
def test_the_closed_form_is_proved_for_every_static_kernel(closed):
    for loop in (DELTA, replace(DELTA, net=Features()), replace(DELTA, net=SwiGLU("act"))):
        part = delta_steps_part(loop, closed=closed)
        assert proved(part)
        for wrong in (
            fewer(part.statement.right),
            Mul((Num(2), part.statement.right)),
            later(part.statement.right),
        ):
            if wrong != part.statement.right:
                with pytest.raises(CheckerError):
                    Theorem(restated(part, wrong))


def later(term):
    """The term with the weight after the chunk in place of that before it."""
    if isinstance(term, Atom) and term.name.startswith("W") and len(term.ix) == 4:
        return replace(term, ix=(replace(term.ix[0], shift=1), *term.ix[1:]))
    return rebuild(term, later)


def test_a_rate_for_each_step_is_taken_at_the_chunk():
    loop = replace(DELTA, update=GradientStep("per_step"))
    part = delta_steps_part(loop, closed=True)
    assert proved(part)
    etas = [a for a in inside(part.statement.right, Atom) if a.name == "eta"]
    assert etas and all(a.ix[0] != at(0) for a in etas)
