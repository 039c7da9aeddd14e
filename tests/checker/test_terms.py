"""Terms: scopes, substitution, and the check of everything that comes from outside."""

from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest

from tests.checker.build import add, at, atom, call, index, mul, num, running, time, total, width
from ttt_proofs.checker.proof import Proof
from ttt_proofs.checker.terms import (
    Add,
    App,
    Atom,
    CheckerError,
    Ix,
    Lam,
    Num,
    Prod,
    Sum,
    Term,
    Var,
    binders,
    check,
    free,
    inside,
    ix,
    put_symbol,
    renamed,
    require,
    substitute,
    symbols,
)

i, j, t = time("i"), time("j"), time("t")
h, g = width("h"), width("g")


def test_free_indices_are_those_that_nothing_binds():
    term = add(total(i, 0, t, atom("A", i, j)), atom("B", i))
    assert free(term) == {i, j, t}
    assert free(total(i, 0, t, atom("A", i))) == {t}
    assert free(call("f", Lam((h,), atom("W", h, g)))) == {g}
    assert free(running(i, j, t, atom("a", i))) == {j, t}


def test_variables_of_another_sort_are_others():
    assert free(total(width("i"), atom("A", i))) == {i}


def test_symbols_are_the_atoms_not_the_functions():
    assert symbols(mul(atom("A", i), call("f", atom("B")))) == {"A", "B"}


def test_inside_finds_every_node():
    term = call("f", Lam((h,), atom("A", h)), slots=((0, (ix(h),)),))
    assert len(inside(term, Ix)) == 2
    assert inside(term, Atom) == [atom("A", h)]


def test_put_adds_shifts_and_sorts_variables():
    assert substitute(ix(i, 2), {i: ix(j, 3)}) == ix(j, 5)
    assert substitute(Ix((t, i)), {t: at(1)}) == ix(i, 1)
    assert substitute(Ix((i, t)), {i: ix(t)}) == Ix((t, t))
    assert substitute(Ix((i, t)), {i: ix(width("z"))}) == Ix((t, width("z")))


def test_substitution_renames_what_would_capture():
    term = substitute(total(i, 0, 3, atom("A", i, t)), {t: ix(i)})
    assert free(term) == {i}
    assert isinstance(term, Sum) and term.var != i
    assert term.body == atom("A", term.var, i)


def test_substitution_leaves_bound_indices():
    term = total(i, 0, t, atom("A", i))
    assert substitute(term, {i: at(5)}) == term


def test_substitution_is_simultaneous():
    assert substitute(atom("A", i, j), {i: ix(j), j: ix(i)}) == atom("A", j, i)


def test_substitution_reaches_bounds_arguments_and_slots():
    term = add(
        total(i, t, t, num(1)),
        call("f", at=(t,), slots=((0, (ix(t),)),)),
        running(i, t, t, atom("a", t)),
    )
    assert t not in free(substitute(term, {t: at(4)}))


@pytest.mark.parametrize("bound", ["i_", "i__", "i___", "i____"])
def test_renaming_a_sum_does_not_capture_its_own_bounds(bound):
    # The new name must be new to the bounds too, not only to the body.
    term = total(i, 0, time(bound), atom("A", i))
    for avoid in ({i}, {i, time("ab")}, {i, time("abc")}, {i, time("abcd")}):
        other = renamed(term, frozenset(avoid))
        assert free(other) == free(term), other
        check(other, Sum)


def test_substitution_does_not_capture_bounds():
    # As it happens inside the normal form: an index of the same name, of another sort.
    term = total(i, 0, time("i_"), atom("A", i, width("i")))
    assert time("i_") in free(substitute(term, {width("i"): ix(width("k"))}))


def test_renaming_is_by_name_whatever_the_sort():
    term = Lam((h,), atom("A", h, t))
    assert renamed(term, frozenset({time("h")})).binders != (h,)
    assert renamed(term, frozenset({time("x")})) is term


def test_renaming_several_binders_keeps_them_apart():
    both = Lam((width("h"), width("h_")), atom("A", width("h"), width("h_")))
    other = renamed(both, frozenset({width("h")}))
    assert len({v.name for v in binders(other)}) == 2
    check(other, Lam)


def test_put_symbol_replaces_entry_by_entry_without_capture():
    value = Lam((h,), atom("w", h, t))
    assert put_symbol(atom("X", g), "X", value) == atom("w", g, t)
    inner = put_symbol(total(t, 0, 2, mul(atom("X", h), atom("a", t))), "X", value)
    assert free(inner) == {h, t}


def test_put_symbol_does_not_look_into_what_it_put():
    assert put_symbol(atom("X", h), "X", Lam((g,), atom("X", g))) == atom("X", h)


def test_put_symbol_requires_the_number_of_indices():
    with pytest.raises(CheckerError, match="`X` has 1 indices"):
        put_symbol(atom("X"), "X", Lam((h,), num(0)))


def test_terms_are_frozen():
    with pytest.raises(FrozenInstanceError):
        atom("A").name = "B"  # pyright: ignore


def test_require_raises():
    with pytest.raises(CheckerError, match="so"):
        require(False, "so")


GOOD = [
    num(Fraction(-1, 3)),
    total(i, 0, t, atom("A", i)),
    total(h, atom("A", h)),
    running(i, 0, t, atom("A", i)),
    call("f", Lam((h, g), atom("W", h, g)), at=(t,), slots=((0, (ix(h), ix(g))),)),
    call("f", Lam((i,), atom("W", i))),  # a function of a whole sequence
    add(),
    mul(),
]


@pytest.mark.parametrize("term", GOOD, ids=lambda term: type(term).__name__)
def test_well_formed_terms_pass(term):
    check(Lam((), term), Lam)


BAD = {
    "a list for a tuple": Add([num(1)]),  # pyright: ignore
    "a number of two kinds": Num(1, True),  # pyright: ignore
    "a float": Num(0.5),  # pyright: ignore
    "a true shift": atom("A", Ix((i,), True)),
    "a float shift": atom("A", Ix((i,), 1.0)),  # pyright: ignore
    "a number for an index": Atom("A", (1,)),  # pyright: ignore
    "no variable": atom("A", Ix(("i",))),  # pyright: ignore
    "a name that is none": atom("A b"),
    "an empty name": atom(""),
    "a reserved name": atom("$direction"),
    "a reserved variable": atom("A", time("$0_1")),
    "a sort that is no name": atom("A", Var("h", "D:E")),
    "a name that is no string": Atom(None, ()),  # pyright: ignore
    "a bare number in a sum": Add((1,)),  # pyright: ignore
    "none in a sum": Add((None,)),  # pyright: ignore
    "a time without bounds": total(i, num(1)),
    "a time without an upper bound": Sum(i, at(0), None, num(1)),
    "a time without a lower bound": Sum(i, None, at(0), num(1)),
    "a width with bounds": total(h, 0, 3, num(1)),
    "a sum bounded by itself": total(i, 0, i, num(1)),
    "an index bound twice": call("f", Lam((h, h), num(1))),
    "a name bound twice": call("f", Lam((h, time("h")), num(1))),
    "an argument that is no vector": App("f", (), (num(1),)),  # pyright: ignore
    "a slot too short": App("f", (), (), ((0,),)),  # pyright: ignore
    "a slot that is no number": App("f", (), (), (("0", ()),)),  # pyright: ignore
    "a product over nothing": Prod(at(0), ix(t), Lam((), num(2))),
    "a product over a width": Prod(at(0), ix(t), Lam((h,), num(2))),
    "a product over two": Prod(at(0), ix(t), Lam((i, j), num(2))),
}


@pytest.mark.parametrize("term", BAD.values(), ids=BAD)
def test_malformed_terms_are_refused(term):
    with pytest.raises(CheckerError):
        check(Lam((), term), Lam)


@pytest.mark.parametrize("value", [None, 1, "x", (), [], atom("A"), object(), Proof])
def test_what_is_no_proof_is_refused(value):
    with pytest.raises(CheckerError, match="is required"):
        check(value, Proof)


def test_a_union_takes_each_of_its_types():
    check(index(1), Ix | None)
    check(None, Ix | None)
    with pytest.raises(CheckerError):
        check(1, Ix | None)
    with pytest.raises(CheckerError):
        check(index(1), Term)


@pytest.mark.parametrize(
    "slots",
    [((1, ()),), ((-1, ()),), ((0, (ix(Var("h", "D")),)),), ((0, ()), (2, ()))],
    ids=["no such argument", "a negative number", "too many indices", "the second"],
)
def test_slots_are_entries_of_arguments(slots):
    call_at = App("f", (), (Lam((), num(1)),), ((0, ()),))
    check(call_at, App)
    with pytest.raises(CheckerError, match="slot"):
        check(App("f", (), call_at.args, slots), App)
