"""Rules that users write: their linear-attention form, proved, sampled, and no other form."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sympy as sp

from tests.program.rules import RULES, ruled
from ttt_proofs import reduce
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import CheckerError, symbols
from ttt_proofs.evidence.exact import exact_witness, refute
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    Coefficient,
    Features,
    Frobenius,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    Update,
    column_norm,
    operator,
    zeros_like,
)
from ttt_proofs.program.coefficients import Shape, t
from ttt_proofs.program.rules import G, Rule, following
from ttt_proofs.render import text
from ttt_proofs.symbolic import additive_part, affine_part, attention_part, single_step_part
from ttt_proofs.symbolic.closed_forms import NotCoveredError
from ttt_proofs.symbolic.linear_attention import linear_attention, predicate, scores
from ttt_proofs.symbolic.parts import outer_products_part, same_outputs_part

READ = [Schedule(2), Schedule(2, "before_update"), Schedule(2, "causal")]


def holds(part) -> None:
    """The checker accepts the proof, and exact arithmetic agrees."""
    theorem = Theorem(part.proof)
    assert theorem.statement.equation == part.statement and not theorem.statement.hypotheses
    assert exact_witness(part.statement, part.proof.definitions, seed=1).agrees


def fails(part) -> None:
    """The checker refuses the proof, and exact arithmetic sees both sides differ."""
    with pytest.raises(CheckerError):
        Theorem(part.proof)
    assert not exact_witness(part.statement, part.proof.definitions, seed=1).agrees


def read_causally(name: str) -> bool:
    """Whether a rule has neither gates nor operators, so that tokens can be counted one by one."""
    return all(line.kind == "state" for line in ruled(name).rule.lines)


@pytest.mark.parametrize(
    ("net", "every", "schedule"),
    [(Linear(), "step", READ[0]), (MLP(2, "act"), "loop", READ[1]), (Linear(), "step", READ[2])],
    ids=["after", "before", "causal"],
)
@pytest.mark.parametrize("name", RULES)
def test_the_form_is_proved(name, net, every, schedule):
    if schedule.read == "causal" and not read_causally(name):
        with pytest.raises(ValueError, match="not be 'causal'"):
            ruled(name, every, net=net, schedule=schedule)
    else:
        holds(attention_part(ruled(name, every, net=net, loss=SquaredError(), schedule=schedule)))


@pytest.mark.parametrize(
    ("shape", "every"), [("row", "step"), ("column", "loop"), ("entry", "step")]
)
@pytest.mark.parametrize(
    "name", ["decay", "titans", "old buffers", "muon, decay", "muon of old", "clipped twice"]
)
def test_the_form_is_proved_where_coefficients_have_rows_and_columns(name, shape, every):
    causal = read_causally(name) and shape == "row"
    schedule = READ[2 if causal else 0]
    abstract = {"net": Features(), "loss": AbstractLoss(), "schedule": schedule}
    holds(attention_part(ruled(name, every, shape, **abstract)))


COEFFICIENTS = {
    "decay": "η[i] · Π_{s=i+1}^{t} (1 − α[s])",
    "titans": "Σ_{j=i}^{t} θ[i] · (Π_{s=j+1}^{t} (1 − α[s])) · Π_{s=i+1}^{j} η[s]",
    "nesterov": "lr[i] + Σ_{j=i}^{t} lr[j] · μ[j] · Π_{s=i+1}^{j} μ[s]",
    "two buffers": (
        "Σ_{j=i}^{t} η[j] · Σ_{j′=i}^{j} (Π_{s=i+1}^{j′} b1[s]) · Π_{s=j′+1}^{j} b2[s]"
    ),
    "muon, decay": "−lr[i] · Π_{s=i+1}^{t} (1 − lr[s] · wd[s])",
    "old buffer": "η[i] − Σ_{j=i+1}^{t} μ[j] · Π_{s=i+1}^{j−1} μ[s]",
}


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_coefficient_is_the_one_that_a_person_would_write(name):
    form = linear_attention(ruled(name))
    assert text(form.coefficient) == COEFFICIENTS[name]


def test_products_carry_rows_and_columns():
    def of(shape):
        loop = ruled("decay", "step", shape)
        return text(linear_attention(loop).coefficient)

    assert of("row") == "η[i,a] · Π_{s=i+1}^{t} (1 − α[s,a])"
    assert of("column") == "η[i,c] · Π_{s=i+1}^{t} (1 − α[s,c])"
    assert of("entry") == "η[i,a,c] · Π_{s=i+1}^{t} (1 − α[s,a,c])"


def test_queries_meet_keys_first_only_where_rows_share_the_coefficient():
    def loop(shape):
        return ruled("titans", "step", shape, loss=SquaredError(), schedule=Schedule(2))

    for shape in ("scalar", "column"):
        holds(attention_part(loop(shape), scores=True))
    for shape in ("row", "entry"):
        with pytest.raises(ValueError, match="the same for all rows of the state"):
            scores(linear_attention(loop(shape)))


# Mutants: the form of another rule, claimed of this one.


def variants(rule: Rule, names: list[str]) -> Iterator[Rule]:
    """Rules that differ by a sign, a forgotten coefficient, a new or old value, another time."""
    changes = [{G: -G}, {s: following(s) for s in rule.buffers}]
    changes += [{following(s): s for s in rule.buffers}]
    for name in names:
        family = sp.IndexedBase(name)
        changes += [{family[t]: value} for value in (sp.Integer(1), sp.Integer(0), family[t + 1])]
    for k, line in enumerate(rule.lines):
        for change in changes:
            expression = line.expression.xreplace(change)
            if line.kind == "state" and expression != line.expression:
                lines = list(rule.lines)
                lines[k] = replace(line, expression=expression)
                yield replace(rule, lines=tuple(lines))


@pytest.mark.parametrize(
    "name",
    ["decay", "titans", "nesterov", "two buffers", "old buffer", "muon, decay"],
)
def test_the_form_of_another_rule_is_refused(name):
    loop, tried = ruled(name, schedule=READ[2] if name == "titans" else READ[0]), 0
    for rule in variants(loop.rule, list(loop.coefficients)):
        try:
            part = attention_part(loop, like=loop.under(rule))
        except NotCoveredError:  # a buffer that is made of its own new value
            continue
        fails(part)
        tried += 1
    assert tried >= 6


def test_a_forgotten_decay_has_a_counterexample():
    loop = ruled("titans")
    theta, i = sp.IndexedBase("theta"), sp.Symbol("i", integer=True)
    part = attention_part(loop, coefficient=theta[i])
    fails(part)
    assert refute(part.statement, part.proof.definitions, seed=1) is not None


@pytest.mark.parametrize("shape", ["row", "column", "entry"])
def test_a_decay_of_another_shape_is_refused(shape):
    loop = ruled("decay", "step", shape)
    fails(attention_part(loop, like=ruled("decay", "step")))
    (known,) = predicate(loop)
    assert {"alpha", "eta"} < symbols(known.right)


def test_a_step_is_affine_in_the_weights():
    for name in ("titans", "old buffers", "implicit"):
        holds(affine_part(ruled(name, "step", "row", loss=SquaredError())))
    for name in ("muon, decay", "clipped buffer", "restored"):
        fails(affine_part(ruled(name, loss=SquaredError())))
    holds(additive_part(ruled("nesterov")))
    fails(additive_part(ruled("titans")))


def test_one_step_alone():
    loop = ruled("decay", loss=SquaredError())
    holds(single_step_part(loop, scale=sp.IndexedBase("eta")[t]))
    fails(single_step_part(loop, scale=2 * sp.IndexedBase("eta")[t]))


def test_an_operator_on_each_outer_product_is_another_rule():
    fails(outer_products_part(ruled("muon, decay")))


def nesterov_by_two_steps(W, g, M, *, mu, lr):
    """The same in another form: the buffer's part first."""
    M = mu * M + g
    half = W - lr * g
    return half - lr * mu * M, M


def heavy_ball(W, g, M, *, mu, lr):
    M = mu * M + g
    return W - lr * M, M


def test_two_rules_that_are_the_same_have_the_same_outputs():
    def loop(rule):
        return replace(mine, update=Update(rule, {"M": zeros_like}))

    mine = ruled("nesterov", net=MLP(2), loss=SquaredError())
    Theorem(same_outputs_part(mine, loop(nesterov_by_two_steps)).proof)
    with pytest.raises(CheckerError):
        Theorem(same_outputs_part(mine, loop(heavy_ball)).proof)


# What the theorems do not cover is said, with the line that breaks their assumption.


def squared(W, g):
    return W - g * g


def adam(W, g, m, v, *, b1, b2, lr):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    return W - lr * m / (v.sqrt() + 1e-8), m, v


def of_the_weight(W, g, M):
    return W - g + M, M + W


def averaged(W, g, M, *, mu):
    return W - g, mu * M + W


def both(W, g):
    return W - g - operator("muon")(g)


def two_operators(W, g):
    return W - operator("muon")(operator("muon")(g))


def retracted(W, g):
    return operator("muon")(W - g)


def added_norm(W, g):
    return W - g + column_norm(g)


NOT_COVERED = {
    squared: ("", "", r"W becomes -G\*\*2 \+ W, which is not linear"),
    adam: ("m v", "b1 b2 lr", "v becomes .+, which is not linear"),
    of_the_weight: ("M", "", "M becomes M [+] W, which depends on W, a state after it"),
    averaged: ("M", "mu", "M becomes .+, which depends on W, a state after it"),
    both: ("", "", "W becomes -G - U [+] W, which has several inputs, G and U"),
    two_operators: ("", "", "U2 is taken of M2, which U leads to"),
    retracted: ("", "", "M becomes -G [+] W, which depends on W, a state after it"),
    added_norm: ("", "", "W becomes .+, which is not linear"),
}


@pytest.mark.parametrize("rule", NOT_COVERED, ids=lambda rule: rule.__name__)
def test_what_is_not_covered_is_said(rule):
    buffers, names, told = NOT_COVERED[rule]
    given = dict.fromkeys(names.split(), Coefficient("step"))
    mine = Update(rule, dict.fromkeys(buffers.split(), zeros_like))
    with pytest.raises(NotCoveredError, match=told) as caught:
        reduce(InnerLoop(Linear(), Frobenius(), mine, coefficients=given))
    assert "\n" not in str(caught.value)


def test_several_steps_are_covered_where_each_is_linear():
    def loop(rule, shape: Shape = "scalar"):
        given = {"eta": Coefficient("step", shape)}
        schedule = Schedule(2, steps=3)
        return InnerLoop(Linear(), SquaredError(), Update(rule), schedule, coefficients=given)

    for right in (
        loop(lambda W, g, *, eta: W - eta * g),
        loop(lambda W, g, *, eta: (1 - eta) * W - g),
        loop(lambda W, g, *, eta: W - eta * g, "row"),
    ):
        Theorem(attention_part(right).proof)
    for wrong in (
        loop(lambda W, g, *, eta: W - eta * g * g),
        loop(lambda W, g, *, eta: W - eta * W * g),
    ):
        with pytest.raises(NotCoveredError, match="which is not linear"):
            attention_part(wrong)


def test_weights_that_are_trained_by_name():
    loop = ruled("titans", net=MLP(3, "act"), schedule=Schedule(2))
    for trained in (("W3",), ("W1", "W3")):
        holds(attention_part(replace(loop, trained=trained)))


def test_weights_with_losses_of_their_own():
    loop = ruled("titans", net=MLP(2), loss=SquaredError(), schedule=Schedule(2))
    part = attention_part(replace(loop, loss_weights={"W2": "lr", "W1": "lr"}))
    holds(part)
    assert "lr" in symbols(part.statement)
