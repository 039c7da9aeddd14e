"""The prover records what the checker concludes; what does not follow it cannot record."""

import pytest

from tests.checker.build import at
from ttt_proofs.checker.definitions import Define, Equation
from ttt_proofs.checker.proof import Calculate, Induction, Reflexivity, Theorem
from ttt_proofs.checker.terms import TIME, Add, Atom, CheckerError, Mul, Num, Sum, Var, ix
from ttt_proofs.symbolic.prover import Prover

T, I = Var("t", TIME), Var("i", TIME)  # noqa: E741
NOW, NEXT = ix(T), ix(T, 1)


def b(index):
    """What is added at a step."""
    return Atom("b", (index,))


def x(index):
    """The state."""
    return Atom("x", (index,))


ZERO = Num(0)
STATE = Define("x", (T,), Add((x(NOW), b(NOW))), ZERO)  # x_0 = 0, x_{t+1} = x_t + b_t
TOTAL = Sum(I, at(0), ix(T, -1), b(ix(I)))
CLAIM = Equation((), x(NOW), TOTAL)


def prover() -> Prover:
    """A prover that knows the state's definition."""
    return Prover(((STATE,),))


def test_definitions_and_their_starts():
    p = prover()
    assert p.at(p.definition("x")).equation == Equation((T,), x(NEXT), STATE.term)
    assert p.at(p.definition("x", start=True)).equation == Equation((), x(at(0)), ZERO)
    with pytest.raises(CheckerError, match="`y` must be a defined symbol"):
        p.definition("y")
    assert len(p.steps) == 2  # what fails is not recorded


def test_a_calculation_step_by_step():
    p = prover()
    step = p.definition("x")
    begun = p.begin((T,), x(NEXT))
    assert p.right(begun) == x(NEXT) and p.steps[begun].rule == Reflexivity((T,), x(NEXT))
    used = p.use(begun, step)
    assert p.right(used) == STATE.term
    swapped = Add((b(NOW), x(NOW)))
    moved = p.rearrange(used, swapped)
    assert p.at(moved).equation == Equation((T,), x(NEXT), swapped)
    assert p.steps[moved].premises == (used,) and p.steps[moved].rule == Calculate(swapped)


@pytest.mark.parametrize(
    "wrong",
    [
        Add((x(NOW), b(NEXT))),
        Add((x(NEXT), b(NOW))),
        Add((x(NOW), Mul((Num(2), b(NOW))))),
        x(NOW),
        ZERO,
    ],
)
def test_what_is_no_rearrangement_is_refused(wrong):
    p = prover()
    used = p.use(p.begin((T,), x(NEXT)), p.definition("x"))
    with pytest.raises(CheckerError, match="must have one normal form; they differ"):
        p.rearrange(used, wrong)
    assert p.right(len(p.steps) - 1) == STATE.term


def proved(p: Prover, claim: Equation = CLAIM) -> int:
    """The steps of the induction that the state is the total of what was added."""
    assumed = p.assume(claim)
    goal = claim.put({T: at(0)})
    base = p.rearrange(p.use(p.begin((), goal.left), p.definition("x", start=True)), goal.right)
    goal = claim.put({T: NEXT})
    number = p.use(p.begin((), goal.left), p.definition("x"), assumed)
    return p.induct(T, (claim,), [base], [p.rearrange(number, goal.right, NOW)], 0)


def test_an_induction():
    p = prover()
    number = proved(p)
    assert isinstance(p.steps[number].rule, Induction)
    assert p.at(number).hypotheses == ()
    assert p.at(number).equation == Equation((T,), x(NOW), TOTAL)


@pytest.mark.parametrize(
    "wrong",
    [
        Sum(I, at(0), ix(T), b(ix(I))),
        Sum(I, at(1), ix(T, -1), b(ix(I))),
        Sum(I, at(0), ix(T, -1), b(ix(I, 1))),
        Mul((Num(2), TOTAL)),
        Add((TOTAL, Num(1))),
    ],
)
def test_an_induction_on_what_is_false_is_refused(wrong):
    with pytest.raises(CheckerError):
        proved(prover(), Equation((), x(NOW), wrong))


def test_the_step_needs_the_peel():
    p = prover()
    goal = CLAIM.put({T: NEXT})
    number = p.use(p.begin((), goal.left), p.definition("x"), p.assume(CLAIM))
    with pytest.raises(CheckerError, match="normal form"):
        p.rearrange(number, goal.right)
    p.rearrange(number, goal.right, NOW)


def test_a_claim_is_judged_by_the_kernel_alone():
    """A claim that does not follow is written down all the same; replaying refuses it."""
    p = prover()
    number = p.use(p.begin((T,), x(NOW)), proved(p))
    right = Equation((T,), x(NOW), TOTAL)
    theorem = Theorem(p.claim(number, right))
    assert theorem.statement.equation == right and not theorem.statement.hypotheses
    for wrong in (
        Equation((T,), x(NOW), b(NOW)),
        Equation((T,), x(NEXT), TOTAL),
        Equation((), x(NOW), TOTAL),
    ):
        with pytest.raises(CheckerError):
            Theorem(p.claim(number, wrong))


def test_a_claim_cannot_drop_a_hypothesis():
    p = prover()
    assumed = p.assume(CLAIM)
    number = p.use(p.begin((), x(NOW)), assumed)
    assert p.at(number).hypotheses == (CLAIM,)
    with pytest.raises(CheckerError, match="does not conclude this"):
        Theorem(p.claim(number, CLAIM))


def test_claims_leave_the_record_as_it_was():
    p = prover()
    number = p.begin((T,), x(NOW))
    before = tuple(p.steps)
    p.claim(number, Equation((T,), x(NOW), x(NOW)))
    assert tuple(p.steps) == before


def test_a_premise_must_exist():
    with pytest.raises(IndexError):
        prover().use(3, 4)
