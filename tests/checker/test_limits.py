"""The bounds on work: what is just within them passes, what is beyond is refused, quickly."""

import json
from time import process_time

import pytest

from tests.checker.build import (
    Script,
    add,
    atom,
    call,
    forall,
    mul,
    num,
    running,
    time,
    total,
    width,
)
from ttt_proofs.checker import normal
from ttt_proofs.checker.proof import Proof, Reflexivity, Sequent, Step, replay
from ttt_proofs.checker.terms import LARGEST_DEPTH, CheckerError, Lam, at, check, ix
from ttt_proofs.symbolic.records import dumps, loads

i, t = time("i"), time("t")
NOTHING = frozenset()


def nested(depth: int):
    """`f(f(... x))`: two records for each function, its argument and itself, and one for x."""
    term = atom("x")
    for _ in range(depth):
        term = call("f", term)
    return term


def reflexive(term) -> Proof:
    """The proof that the term equals itself."""
    conclusion = Sequent((), forall((), term, term))
    return Proof((), (Step(Reflexivity((), term), (), conclusion),))


def test_records_nest_so_deep_and_no_deeper():
    # Proof, Step, Sequent and Equation hold the term.
    deepest = (LARGEST_DEPTH - 5) // 2
    replay(reflexive(nested(deepest)))
    assert loads(dumps(reflexive(nested(deepest)))).statement.equation.left == nested(deepest)
    with pytest.raises(CheckerError, match="may nest"):
        replay(reflexive(nested(deepest + 1)))
    with pytest.raises(CheckerError, match="may nest"):
        replay(reflexive(nested(400)))


def test_the_deepest_term_has_a_normal_form_and_is_calculated_with():
    deepest = nested((LARGEST_DEPTH - 5) // 2 - 2)
    script = Script()
    begun = script.begin((), mul(num(1), deepest))
    script.calculate(begun, deepest)
    script.theorem()


def refused_soon(term, match: str) -> None:
    """Refused, in less time than it would take to multiply out."""
    began = process_time()
    with pytest.raises(CheckerError, match=match):
        normal.normal_form(term, NOTHING)
    assert process_time() - began < 60


def test_products_of_sums_are_multiplied_out_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(normal, "LARGEST_EXPANSION", 1024)
    two = add(atom("x"), atom("y"))
    assert len(normal.normal_form(mul(*[two] * 10), NOTHING)) == 11
    for more in (mul(*[two] * 11), add(mul(*[two] * 10), atom("x")), mul(*[two] * 200)):
        refused_soon(more, "more than 1024 monomials")


def test_what_vanishes_in_the_end_counts_as_well(monkeypatch):
    monkeypatch.setattr(normal, "LARGEST_EXPANSION", 1024)
    two = add(atom("x"), mul(num(-1), atom("x")))
    refused_soon(mul(*[two] * 11), "more than 1024 monomials")
    refused_soon(mul(*[two] * 11, num(0)), "more than 1024 monomials")


def test_arguments_and_unfolded_products_count(monkeypatch):
    monkeypatch.setattr(normal, "LARGEST_FORM", 100)
    two = add(atom("x"), atom("y"))
    inner = call("f", mul(*[two] * 5))  # 32 settled monomials in the argument, one outside
    normal.normal_form(mul(inner, inner, inner), NOTHING)
    refused_soon(mul(inner, inner, inner, inner), "more than 100 monomials arise in one")
    fixed = running(i, 1, 6, add(atom("x", i), num(1)))  # unfolds to 64 monomials
    normal.normal_form(fixed, NOTHING)
    refused_soon(running(i, 1, 7, add(atom("x", i), num(1))), "more than 100 monomials")


def test_a_monomial_binds_so_many_indices_and_no_more():
    def bound(number: int):
        term = num(1)
        for k in range(number):
            term = total(width(f"h{k}", f"D{k}"), term)
        return term

    normal.normal_form(bound(normal.LARGEST_BINDING), NOTHING)
    refused_soon(bound(normal.LARGEST_BINDING + 1), "indices may be bound")


def test_symmetric_monomials_are_named_quickly():
    # Sixteen indices that nothing tells apart, in a ring and one by one.
    hs = [width(f"h{k}") for k in range(16)]
    ring = mul(*(atom("x", a, b) for a, b in zip(hs, hs[1:] + hs[:1], strict=True)))
    alone = mul(*(atom("y", a) for a in hs))
    for body in (ring, alone):
        term = body
        for h in hs:
            term = total(h, term)
        other = body
        for h in reversed(hs):
            other = total(h, other)
        began = process_time()
        assert normal.normal_form(term, NOTHING) == normal.normal_form(other, NOTHING)
        assert process_time() - began < 20


@pytest.mark.parametrize("shift", [101, -101])
def test_shifts_are_small(shift):
    check(ix(t, 100 if shift > 0 else -100), type(ix(t)))
    with pytest.raises(CheckerError, match="shift"):
        check(at(shift), type(ix(t)))


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_integers_are_those_that_every_reader_of_json_reads_alike(number):
    replay(reflexive(num(2**53 - 1)))
    with pytest.raises(CheckerError, match="at most"):
        replay(reflexive(num(number)))
    text = dumps(reflexive(num(7))).replace('["Num",7,1]', json.dumps(["Num", number, 1]))
    with pytest.raises(CheckerError, match="at most"):
        loads(text)


def test_an_argument_over_all_times_has_no_derivative():
    from ttt_proofs.checker.definitions import differential

    over = call("f", Lam((i,), mul(atom("X"), atom("x", i))))
    with pytest.raises(CheckerError, match="all times"):
        differential(over, "X", "E")
    apart = call("f", Lam((i,), atom("x", i)))
    assert differential(mul(atom("X"), apart), "X", "E")


def test_a_running_product_is_refused_before_it_is_multiplied_out(monkeypatch):
    monkeypatch.setattr(normal, "LARGEST_FORM", 1000)
    refused_soon(running(i, 0, 40, add(atom("x", i), num(1))), "more than 1000 monomials")


def test_long_running_products_need_no_deep_recursion():
    long = mul(*(running(i, -100, 100, atom(f"x{k}", i)) for k in range(6)))
    assert len(normal.normal_form(long, NOTHING)) == 1


def test_gadgets_that_are_alike_are_named_quickly():
    # Σ_h (Σ_{a, b} x[h, a] y[a, b])^8, whose pairs (a, b) may be exchanged in 8! ways.
    h, pairs = width("h"), [(width(f"a{k}"), width(f"b{k}")) for k in range(8)]
    term = mul(*(mul(atom("x", h, a), atom("y", a, b)) for a, b in pairs))
    other = mul(*(mul(atom("y", a, b), atom("x", h, a)) for a, b in reversed(pairs)))
    for a, b in pairs:
        term, other = total(a, total(b, term)), total(b, total(a, other))
    began = process_time()
    assert normal.normal_form(total(h, term), NOTHING) == normal.normal_form(
        total(h, other), NOTHING
    )
    assert process_time() - began < 20


def test_so_many_times_are_compared_and_no_more():
    def free_times(number: int) -> Proof:
        every = tuple(time(f"t{k}") for k in range(number))
        script = Script()
        term = atom("x", *every)
        script.calculate(script.begin(every, mul(num(1), term)), term)
        return script.proof

    replay(free_times(normal.LARGEST_CONTEXT - 1))
    with pytest.raises(CheckerError, match="times may be compared"):
        free_times(normal.LARGEST_CONTEXT)


def test_sides_that_double_are_refused():
    # x = f(x, x), used again and again, doubles the sides each time.
    x = atom("x")
    script = Script()
    grows, begun = script.assume(forall((), x, call("f", x, x))), script.begin((), x)
    script.calculate(begun, x, *[grows] * 3)
    began = process_time()
    with pytest.raises(CheckerError, match="too large"):
        script.calculate(begun, x, *[grows] * 60)
    assert process_time() - began < 60
