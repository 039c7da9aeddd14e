"""Slopes and slots: the witness takes for true what the checker's page does."""

import pytest

from tests.checker.build import at
from ttt_proofs.checker.definitions import DefineGradient, Equation
from ttt_proofs.checker.proof import (
    Calculate,
    Definition,
    Proof,
    Reflexivity,
    Sequent,
    Step,
    replay,
)
from ttt_proofs.checker.terms import (
    Add,
    App,
    Atom,
    CheckerError,
    Lam,
    Mul,
    Num,
    Sum,
    Var,
    ix,
    put_symbol,
)
from ttt_proofs.evidence.exact import exact_witness, refute

A, B = Var("a", "D"), Var("b", "D")
P, X = Atom("p", ()), Atom("X", ())
ONE, ZERO = Num(1), Num(0)


def of_a_number(fn: str, body, times: int = 0, index=()) -> App:
    """A function of one number, differentiated so many times."""
    return App(fn, index, (Lam((), body),), ((0, ()),) * times)


def of_a_vector(fn: str, body, *cells) -> App:
    """A function of a vector `body[a]`, differentiated in these entries."""
    return App(fn, (), (Lam((A,), body),), tuple((0, (cell,)) for cell in cells))


def of_two(fn: str, body, *slots: int) -> App:
    """A function of two numbers, differentiated in these arguments."""
    return App(fn, (), (Lam((), body), Lam((), Atom("y", ()))), tuple((k, ()) for k in slots))


def negative(term) -> Mul:
    return Mul((Num(-1), term))


def candidates(value) -> dict:
    """Terms that some function's slope is, or might be taken for, given the function's value."""
    return {
        "0": ZERO,
        "1": ONE,
        "y": value,
        "y (1 - y)": Mul((value, Add((ONE, negative(value))))),
        "1 - y²": Add((ONE, negative(Mul((value, value))))),
    }


def proves(steps: list[Step], definitions=()) -> bool:
    """Whether the checker accepts a proof."""
    try:
        replay(Proof(definitions, tuple(steps)))
    except CheckerError:
        return False
    return True


def equal_for_the_checker(left, right) -> bool:
    """Whether the checker proves that two terms are equal, with nothing given."""
    same, goal = (Sequent((), Equation((), left, side)) for side in (left, right))
    return proves([Step(Reflexivity((), left), (), same), Step(Calculate(right), (0,), goal)])


def agrees(left, right, definitions=()) -> bool:
    """Whether the witness says so, at each of some seeds."""
    said = {
        exact_witness(Equation((), left, right), definitions, seed=seed).agrees for seed in range(3)
    }
    assert len(said) == 1
    return said.pop()


KINDS = {
    "number": of_a_number,
    "with an index": lambda fn, body, times=0: of_a_number(fn, body, times, (at(0),)),
    "vector": lambda fn, body, times=0: of_a_vector(fn, body, *(at(0),) * times),
    "two numbers": lambda fn, body, times=0: of_two(fn, body, *(0,) * times),
}
NAMES = ["sigmoid", "tanh", "step", "root", "muon", "f"]


@pytest.mark.parametrize("fn", NAMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, 2])
def test_of_slots_nothing_is_assumed(fn, kind, times):
    sloped = KINDS[kind](fn, P, times)
    rivals = candidates(KINDS[kind](fn, P)) | {"itself": sloped, "y'": KINDS[kind](fn, P, 1)}
    for name, rival in rivals.items():
        said = agrees(sloped, rival), equal_for_the_checker(sloped, rival)
        assert said == (sloped == rival,) * 2, name


@pytest.mark.parametrize("fn", NAMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [0, 1, 2])
def test_slopes_of_a_loss_are_those_of_the_checker(fn, kind, times):
    define = DefineGradient("G", (), "X", KINDS[kind](fn, X, times), Lam((), P))
    entries = candidates(KINDS[kind](fn, X, times))
    entries["one slot more"] = KINDS[kind](fn, X, times + 1)
    if kind == "vector":  # all of whose entries are X
        slots = *(at(0),) * times, ix(B)
        entries["one slot more"] = Sum(B, None, None, of_a_vector(fn, X, *slots))
    for name, entry in entries.items():
        at_p = put_symbol(entry, "X", Lam((), P))
        goal = Sequent((), Equation((), Atom("G", ()), at_p))
        accepted = proves([Step(Definition("G", Lam((), entry), False), (), goal)], ((define,),))
        said = agrees(Atom("G", ()), at_p, ((define,),)), accepted
        assert said == (name == "one slot more",) * 2, name


def test_a_refutation_uses_true_slopes_of_functions_with_true_values():
    # of the true tanh, tanh' = 1 - tanh²; an arbitrary slope at 0 would refute it
    true = Equation((), of_a_number("tanh", P, 1), candidates(of_a_number("tanh", P))["1 - y²"])
    assert refute(true, (), seed=0) is None
    found = refute(Equation((), of_a_number("tanh", P, 1), ZERO), (), seed=0)
    assert found is not None and (found.values, found.left) == ((("p", "0"),), "1")


def test_mixed_slopes_commute_since_functions_are_smooth():
    # The page makes functions infinitely differentiable, so this holds in every model. The checker
    # takes no two orders for one, and does not prove it.
    mixed = of_two("f", P, 0, 1), of_two("f", P, 1, 0)
    assert agrees(*mixed) and not equal_for_the_checker(*mixed)
    assert not agrees(of_two("f", P, 0, 0), of_two("f", P, 0, 1))


def test_an_entry_that_an_argument_lacks_has_no_slope():
    x = Atom("x", (ix(A),))
    assert agrees(of_a_vector("f", x, at(-1)), ZERO)
    assert not agrees(of_a_vector("f", x, at(0)), ZERO)
