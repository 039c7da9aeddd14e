"""Derivations and their parts: what they state, and that the record decides."""

import pytest
import sympy as sp

from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import TIME, CheckerError, Var, symbols
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    SwiGLU,
)
from ttt_proofs.symbolic import (
    Derivation,
    Part,
    attention_part,
    gradient_part,
    identity_part,
    matrix_identity_part,
    single_step_part,
)

LOOP = InnerLoop(Features(), AbstractLoss(), GradientStep("per_step"))
i, j, t = sp.symbols("i j t", integer=True)
a, b = sp.IndexedBase("a"), sp.IndexedBase("b")


def holds(part: Part) -> bool:
    """Whether replaying the record ends with the statement."""
    try:
        theorem = Theorem(part.proof)
    except CheckerError:
        return False
    assert theorem.statement.equation == part.statement
    return not theorem.statement.hypotheses


def test_the_output_for_all_times():
    part = attention_part(LOOP, "unrolled")
    assert part.label == "unrolled" and holds(part)
    assert [v.sort for v in part.statement.every] == [TIME, "L", "D_v"]
    assert symbols(part.statement.left) == {"o"}
    assert symbols(part.statement.right) == {"W_0", "W", "q", "k", "v", "eta"}


def test_the_coefficient_can_be_given():
    eta = sp.IndexedBase("eta")
    assert holds(attention_part(LOOP, coefficient=eta[i]))
    assert holds(attention_part(LOOP, coefficient=sp.Integer(1), scale=eta[i]))
    assert not holds(attention_part(LOOP, coefficient=eta[t]))
    assert not holds(attention_part(LOOP, coefficient=sp.Integer(1)))
    assert not holds(attention_part(LOOP, scale=eta[i]))  # the rate would count twice


def test_one_step():
    eta = sp.IndexedBase("eta")
    part = single_step_part(LOOP, scale=eta[t])
    assert holds(part) and part.label == ""
    assert symbols(part.statement.right) == {"W", "q", "k", "v", "eta"}
    assert not holds(single_step_part(LOOP))
    assert not holds(single_step_part(LOOP, scale=-eta[t]))
    assert not holds(single_step_part(LOOP, scale=eta[t + 1]))


def test_one_step_is_about_updates_without_momentum():
    """With momentum, what moves the weight is no gradient: the claim is refused."""
    loop = InnerLoop(Features(), AbstractLoss(), GradientStep(momentum="constant"))
    assert not holds(single_step_part(loop, scale=sp.Symbol("eta")))


def test_gradients_of_each_weight():
    loop = InnerLoop(SwiGLU("act"), AbstractLoss())
    for weight in loop.fast_weights:
        part = gradient_part(loop, weight)
        assert part.label == f"gradient in {weight.name}" and holds(part)
        assert symbols(part.statement.left) == {f"G_{weight.name}"}
    assert gradient_part(loop, loop.fast_weights[0], "gate").label == "gate"


def test_the_gradient_of_one_weight_is_not_that_of_another():
    loop = InnerLoop(SwiGLU("act"), AbstractLoss())
    gate, content, _ = (gradient_part(loop, w) for w in loop.fast_weights)
    assert gate.statement.every != () and gate.statement.right != content.statement.right
    last = content.proof.steps[-1]
    forged = type(last)(last.rule, last.premises, gate.proof.steps[-1].conclusion)
    proof = type(content.proof)(content.proof.definitions, (*content.proof.steps[:-1], forged))
    assert not holds(Part("swapped", gate.statement, proof))


SUM = sp.Sum(sp.Sum(a[i] * b[i, j], (i, 0, j)), (j, 0, t))
IDENTITIES = {
    "the double sum": (SUM, sp.Sum(a[i] * sp.Sum(b[i, j], (j, i, t)), (i, 0, t)), True),
    "one pair too many": (SUM, sp.Sum(a[i] * sp.Sum(b[i, j], (j, i, t + 1)), (i, 0, t)), False),
    "the diagonal left out": (SUM, sp.Sum(a[i] * sp.Sum(b[i, j], (j, i + 1, t)), (i, 0, t)), False),
    "indices swapped": (SUM, sp.Sum(a[i] * sp.Sum(b[j, i], (j, i, t)), (i, 0, t)), False),
    "the whole square": (SUM, sp.Sum(a[i] * sp.Sum(b[i, j], (j, 0, t)), (i, 0, t)), False),
    "doubled": (SUM, 2 * SUM, False),
    "itself": (SUM, SUM, True),
    "a square of a sum": ((a[t] + b[t]) ** 2, a[t] ** 2 + 2 * a[t] * b[t] + b[t] ** 2, True),
    "a square without its middle": ((a[t] + b[t]) ** 2, a[t] ** 2 + b[t] ** 2, False),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities(name):
    left, right, true = IDENTITIES[name]
    part = identity_part(left, right, (t,), name)
    assert part.label == name and holds(part) is true
    assert part.statement.every == (Var("t", TIME),)


A, B, C = (
    sp.MatrixSymbol(name, sp.Symbol(rows), sp.Symbol(cols))
    for name, rows, cols in (("A", "D_k", "D_h"), ("B", "D_h", "D_v"), ("C", "D_v", "D_k"))
)


@pytest.mark.parametrize(
    ("right", "true"),
    [
        (sp.MatMul(A, sp.MatMul(B, C, evaluate=False), evaluate=False), True),
        ((C.T * B.T * A.T).T, True),
        (2 * A * B * C, False),
        (A * B * C + A * A.T, False),
        ((A * B * C).T, False),
    ],
)
def test_an_identity_between_matrices_is_of_each_entry(right, true):
    part = matrix_identity_part(A * B * C, right, "products")
    assert part.label == "products" and holds(part) is true
    assert [v.sort for v in part.statement.every] == ["D_k", "D_k"]


def test_the_grouping_of_products_is_kept():
    nested = sp.MatMul(A, sp.MatMul(B, C, evaluate=False), evaluate=False)
    statement = matrix_identity_part(A * B * C, nested).statement
    assert statement.left != statement.right


def test_matrices_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        matrix_identity_part(A, A.T)


def test_a_derivation_is_data():
    part = attention_part(LOOP)
    one = Derivation("name", "title", "source", (part,))
    assert (one.loops, one.expects, one.instead) == ((), "holds", "")
    assert one == Derivation("name", "title", "source", (attention_part(LOOP),))
    assert hash(one) == hash(Derivation("name", "title", "source", (part,)))
    assert one != Derivation("name", "title", "source", (part,), expects="fails")
    with pytest.raises(AttributeError):
        one.name = "other"  # pyright: ignore


def test_a_concrete_loop_has_the_same_statement_with_its_own_pieces():
    for net in (Linear(), MLP(2, "tanh")):
        part = attention_part(InnerLoop(net, Frobenius(), GradientStep("per_step")))
        assert holds(part) and symbols(part.statement.left) == {"o"}
        assert net.last.name + "_0" in symbols(part.statement.right)


def test_what_a_derivation_must_be():
    good = {"name": "n", "title": "t", "source": "s"}
    (part, other) = (identity_part(sp.Integer(k), sp.Integer(k), ()) for k in (1, 2))
    Derivation(**good, parts=(part, other))
    for wrong, words in (
        ({"parts": ()}, "at least one statement"),
        ({"parts": (part,), "expects": "nonsense"}, "'holds' or 'fails'"),
        ({"parts": (part, other), "expects": "fails"}, "one statement"),
    ):
        with pytest.raises(ValueError, match=words):
            Derivation(**good, **wrong)
