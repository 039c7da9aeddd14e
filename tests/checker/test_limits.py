"""The bounds on work: what is just within them passes, what is beyond is refused, quickly."""

import json
import sys
from fractions import Fraction
from time import process_time

import pytest

from tests.checker.build import (
    Script,
    add,
    at,
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
from ttt_proofs.checker.definitions import Define, DefineGradient, admit
from ttt_proofs.checker.proof import Proof, Reflexivity, Sequent, Step, Theorem, replay
from ttt_proofs.checker.terms import LARGEST_DEPTH, CheckerError, Ix, Lam, Term, check, free, ix
from ttt_proofs.symbolic.records import dumps, loads

i, t = time("i"), time("t")
NOTHING = {}


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


HEAVY, MANY, DEEP = "too much work", "bind few indices", "nest too deep"
two = add(atom("x"), atom("y"))


def powers(number: int) -> Term:
    """`(x + y)^number`: 2^number monomials, each of which weighs 3 and its factors."""
    return mul(*[two] * number)


def weight(term: Term, known: normal.Table = NOTHING) -> int:
    """What the work on a term's normal form weighs."""
    scope = normal.Scope(known)
    normal.form(term, normal.level(term), scope)
    return scope.spent[0]


# A one has two digits. Multiplied out | looked at | settled besides, as the page counts.
g, h, k = width("g"), width("h"), width("k")
x = atom("x")
WEIGHTS = {
    "a number": (num(0), 1 + (0 + 2 - 1)),
    "a symbol": (x, (1 + 1) + (1 + 2)),
    "a sum": (add(x, atom("y")), 2 * (1 + 1 + 2) + 2 * (1 + 1) + 2 * (1 + 2)),
    "a product": (mul(x, atom("y")), 4 + 5 + (1 + 2) + (2 + 2)),
    "ones": (mul(*[num(1)] * 5), 5 * 3 + 1 + 2),
    "a sum over a width": (total(h, atom("x", h)), 4 + (1 + 3) + (3 + 2)),
    "over two widths": (total(h, total(width("g", "E"), atom("x", h, width("g", "E")))), 21),
    "over one width twice": (total(h, total(g, atom("x", h, g))), 4 + 4 + (1 + 5) + (5 + 2) * 3),
    "a function": (call("f", x), (1 + 3) + (3 + 2 + 5)),
    "a function of bound indices": (
        total(g, total(h, call("f", mul(atom("x", g), atom("x", h))))),
        4 + 4 + (1 + 9) + (9 + 2 + (4 + 5 + (1 + 6) + (6 + 2))) * 3,
    ),
    "a free time": (atom("x", t), (1 + 1 + 3) + (3 + 2)),
    "an empty product": (running(i, 1, 0, atom("x", i)), (1 + 8) + 3 + 1 + 2),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_the_page(name, monkeypatch):
    term, found = WEIGHTS[name]
    known = normal.naturals(free(term))
    assert weight(term, known) == found
    monkeypatch.setattr(normal, "LARGEST_FORM", found)
    normal.normal_form(term, known)
    monkeypatch.setattr(normal, "LARGEST_FORM", found - 1)
    with pytest.raises(CheckerError, match=HEAVY):
        normal.normal_form(term, known)


@pytest.mark.parametrize(("sorts", "pairs"), [("DEF", 0), ("DDE", 2), ("DDD", 6)])
def test_what_has_to_be_told_apart_weighs(sorts, pairs):
    inner = [width(name, sort) for name, sort in zip("ghk", sorts, strict=True)]
    term = call("f", *(atom("x", v) for v in inner))
    for v in inner:
        term = total(v, term)
    own, argument = 1 + 3 * (1 + 3), (1 + 3) + (3 + 2)
    assert weight(term) == 3 * 4 + 1 + own + (own + 2 + 3 * argument) * (1 + pairs)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_times_weigh_by_their_pairs(number):
    term = atom("x", t)
    times = [t, *(time(f"t{n}") for n in range(1, number))]
    known = normal.naturals(frozenset(times))
    assert weight(term, known) == weight(term) + number**2


def test_products_of_sums_are_multiplied_out_up_to_a_bound():
    assert len(normal.normal_form(powers(10), NOTHING)) == 11
    for more in (powers(16), mul(*[powers(8), powers(8)]), powers(200)):
        refused_soon(more, HEAVY)


def test_what_vanishes_in_the_end_counts_as_well():
    zero = add(atom("x"), mul(num(-1), atom("x")))
    normal.normal_form(mul(*[zero] * 10), NOTHING)
    refused_soon(mul(*[zero] * 16), HEAVY)
    refused_soon(mul(*[zero] * 16, num(0)), HEAVY)


def test_partial_products_and_factors_of_monomials_that_die_weigh():
    # A product of ones with many terms; factors that are rewritten again and again, to vanish.
    normal.normal_form(mul(add(*[atom("x")] * 2400), *[num(1)] * 20), NOTHING)
    refused_soon(mul(add(*[atom("x")] * 2400), *[num(1)] * 60), HEAVY)
    long = running(i, -100, 100, atom("x", *[i] * 2000))
    never = running(time("j"), -100, 100, running(i, time("j"), -100, total(i, 1, 0, num(1))))
    refused_soon(mul(long, never), HEAVY)


def test_numbers_of_many_digits_are_refused():
    prime, half = num(2**53 - 111), num(Fraction(1, 2))
    assert normal.normal_form(mul(*[prime] * 100), NOTHING)
    refused_soon(mul(*[prime] * 110), HEAVY)
    refused_soon(mul(*[num(Fraction(1, 2**53 - 111))] * 110), HEAVY)
    assert normal.normal_form(mul(*[half] * 750), NOTHING)
    refused_soon(mul(*[half] * 800), HEAVY)
    # They are refused before they grow large, however they are made.
    power, blocks = atom("c0"), [(Define("c0", (), prime),)]
    for k in range(1, 6):
        blocks.append((Define(f"c{k}", (), mul(*[power] * 20)),))
        power = atom(f"c{k}")
    script = Script(*blocks)
    sources = [script.define(f"c{k}") for k in reversed(range(6))]
    began = process_time()
    with pytest.raises(CheckerError):
        script.calculate(script.begin((), power), power, *sources)
    assert process_time() - began < 20


def test_long_products_in_products_are_refused():
    def nested_products(number: int) -> Term:
        term = atom("x", time("v0"))
        for k in range(number):
            term = running(time(f"v{k}"), -100, 100, term)
        return term

    normal.normal_form(nested_products(1), NOTHING)
    for number in (2, 3, 5):
        refused_soon(nested_products(number), HEAVY)


def test_a_monomial_binds_so_many_indices_and_no_more():
    def bound(number: int):
        term = num(1)
        for k in range(number):
            term = total(width(f"h{k}", f"D{k}"), term)
        return term

    normal.normal_form(bound(normal.LARGEST_BINDING), NOTHING)
    refused_soon(bound(normal.LARGEST_BINDING + 1), MANY)


HS = [width(f"h{k}") for k in range(normal.LARGEST_BINDING)]
LEFT, RIGHT = HS[::2], HS[1::2]
RING = [atom("x", a, b) for a, b in zip(HS, HS[1:] + HS[:1], strict=True)]
ALONE = [atom("y", a) for a in HS]
PAIRS = [atom("x", a, b) for a, b in zip(LEFT, RIGHT, strict=True)]
CROWN = [atom("x", a, b) for k, a in enumerate(LEFT) for n, b in enumerate(RIGHT) if k != n]
ALL = [atom("z", Ix(tuple(HS)))]


@pytest.mark.parametrize("factors", [RING, ALONE, PAIRS, CROWN, ALL])
@pytest.mark.parametrize("outer", [mul, lambda *parts: call("f", add(*parts))])
def test_symmetric_monomials_are_named_quickly(factors, outer):
    # As many indices as may be that nothing, or little, tells apart.
    term, other = outer(*factors), outer(*reversed(factors))
    for a, b in zip(HS, [*HS[3:], *HS[:3]], strict=True):
        term, other = total(a, term), total(b, other)
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
    refused_soon(running(i, 0, 40, add(atom("x", i), num(1))), HEAVY)


def test_long_running_products_need_no_deep_recursion():
    long = running(i, -100, 100, atom("x", i))
    assert len(normal.normal_form(long, NOTHING)) == 1


def test_gadgets_that_are_alike_are_named_quickly():
    # Σ_h (Σ_{a, b} x[h, a] y[a, b])^5, whose pairs (a, b) may be exchanged in 5! ways.
    h, pairs = width("h"), [(width(f"a{k}"), width(f"b{k}")) for k in range(5)]
    term = mul(*(mul(atom("x", h, a), atom("y", a, b)) for a, b in pairs))
    other = mul(*(mul(atom("y", a, b), atom("x", h, a)) for a, b in reversed(pairs)))
    for a, b in pairs:
        term, other = total(a, total(b, term)), total(b, total(a, other))
    began = process_time()
    assert normal.normal_form(total(h, term), NOTHING) == normal.normal_form(
        total(h, other), NOTHING
    )
    assert process_time() - began < 20


def many_times(number: int):
    """So many times."""
    return tuple(time(f"t{k:03}") for k in range(number))


@pytest.mark.parametrize("factor", [num(1), add()], ids=["one", "none"])
def test_so_many_times_are_compared_and_no_more(factor):
    # Where no monomial arises, too.
    def free_times(number: int) -> Proof:
        every, script = many_times(number), Script()
        old = mul(factor, atom("x", Ix(every)))
        script.calculate(script.begin(every, old), add() if factor == add() else old)
        return script.proof

    replay(free_times(normal.LARGEST_CONTEXT))
    with pytest.raises(CheckerError, match="times are compared"):
        free_times(normal.LARGEST_CONTEXT + 1)


def test_times_of_enclosing_sums_count_where_a_source_is_used():
    def used(number: int) -> Theorem:
        every = many_times(number)
        term = mul(atom("x", Ix(every)), total(i, 0, 3, atom("y")))
        script = Script((Define("z", (), num(1)),))
        return script.calculate(script.begin(every, term), term, script.define("z"))

    used(normal.LARGEST_CONTEXT - 1)
    with pytest.raises(CheckerError, match="times are compared"):
        used(normal.LARGEST_CONTEXT)


def test_sides_that_double_are_refused():
    # x = f(x, x), used again and again, doubles the sides each time.
    x = atom("x")
    script = Script()
    grows, begun = script.assume(forall((), x, call("f", x, x))), script.begin((), x)
    script.calculate(begun, x, *[grows] * 3)
    began = process_time()
    with pytest.raises(CheckerError, match=HEAVY):
        script.calculate(begun, x, *[grows] * 60)
    assert process_time() - began < 60


def grown(right: Term, *more: Term) -> Script:
    """`z = right` and more such hypotheses, used in turn on `z = z`."""
    script, z = Script(), atom("z")
    sources = [script.assume(forall((), z, other)) for other in (right, *more)]
    script.calculate(script.begin((), z), z, *sources)
    return script


def test_sources_nest_sides_so_deep_and_no_deeper():
    z = atom("z")

    def around(number: int, term: Term = z) -> Term:
        for _ in range(number):
            term = mul(term)
        return term

    # Before the last use z stands in 50 records; what comes in its place is 50 deep, then 51.
    grown(around(50), around(49))
    with pytest.raises(CheckerError, match=DEEP):
        grown(around(50), around(50))
    # What is deep and has no z does not count.
    beside = add(around(50), around(80, atom("x")))
    grown(beside, around(48))
    with pytest.raises(CheckerError, match=DEEP):
        grown(beside, around(49))
    for once in (call("f", z), add(z, atom("x")), total(width("h"), mul(z, atom("x", width("h"))))):
        with pytest.raises(CheckerError, match=DEEP):
            grown(*[once] * 100)


def test_a_source_puts_in_so_many_records_and_no_more():
    # z, z, and the right side twice, which is an atom with so many indices; then these again.
    grown(atom("x", *[0] * 74_998), atom("z"))
    with pytest.raises(CheckerError, match=HEAVY):
        grown(atom("x", *[0] * 74_999), atom("z"))


def test_scopes_of_a_calculation_weigh_by_their_times():
    # So many sums inside of each other, and sums beside them in the innermost, with one source.
    def sums(around: int, beside: int) -> Term:
        term = add(*[total(time("w"), 0, 0, atom("z"))] * beside)
        for n in range(around):
            term = total(time(f"u{n:02}"), 0, 0, term)
        return mul(num(0), term)

    def used(beside: int) -> None:
        script, z = Script(), atom("z")
        old = sums(9, beside)
        source = script.assume(forall((), z, z))
        script.calculate(script.begin((), old), old, source)

    # On each side 81 + 64 + ... + 1 and 100 for each of the sums beside, and records.
    used(200)
    with pytest.raises(CheckerError, match=HEAVY):
        used(1500)


def test_the_verdict_does_not_depend_on_the_stack_of_the_caller():
    script = grown(call("f", atom("z")), *[call("f", atom("z"))] * 40)

    def below(frames: int) -> Theorem:
        return below(frames - 1) if frames else script.theorem()

    assert below(400) == script.theorem()
    with pytest.raises(RecursionError):  # and no refusal
        below(sys.getrecursionlimit() - 150)


def test_names_are_so_long_and_no_longer():
    for kind in (lambda name: atom(name), lambda name: atom("x", time(name)), call):
        name = "α" + "b" * 99
        check(kind(name), Term)
        with pytest.raises(CheckerError, match="a name of"):
            check(kind(name + "b"), Term)


def test_functions_of_functions_are_named_quickly():
    # Each argument has two bound indices of its own, and sees those outside of it or not.
    def towers(names: bool) -> Term:
        term = atom("x")
        for k in range(7):
            g, h = (width(f"{name}{k}") for name in ("gh" if names else "hg"))
            term = total(g, total(h, call("f", mul(term, atom("y", g, h)), at=(g, h))))
        return term

    began = process_time()
    assert normal.normal_form(towers(True), NOTHING) == normal.normal_form(towers(False), NOTHING)
    assert process_time() - began < 20


def test_rings_of_different_lengths_are_named_quickly():
    def rings(*lengths: int) -> Term:
        term, hub, names = num(1), width("hub"), iter(range(100))
        for length in lengths:
            ring = [width(f"h{next(names)}") for _ in range(length)]
            for g, h in zip(ring, ring[1:] + ring[:1], strict=True):
                term = mul(atom("e", g, h), atom("e", h, g), term, atom("u", hub, g))
            for h in ring:
                term = total(h, term)
        return total(hub, term)

    began = process_time()
    one, other = (normal.normal_form(rings(*r), NOTHING) for r in ([3, 4, 4], [4, 3, 4]))
    assert one == other
    assert process_time() - began < 20


def test_each_change_of_a_monomial_counts(monkeypatch):
    monkeypatch.setattr(normal, "LARGEST_FORM", 30_000)  # a tenth, and a tenth of the time
    # Each factor is x + y times a sum that is empty, which shows only after all are taken out.
    k, m, n = time("k"), time("m"), time("n")
    never = total(m, 5, k, total(n, k, m, num(1)))
    normal.normal_form(running(k, 0, 6, mul(two, never)), NOTHING)
    refused_soon(running(k, 0, 40, mul(two, never)), HEAVY)


def differentiated(loss: Term, body: Term, at: Term) -> None:
    """The gradient of a loss in the number Y is said to be `body`, with `at` in place of Y."""
    define = DefineGradient("G", (), "Y", loss, Lam((), at))
    define.equation(Lam((), body), False)


def test_a_loss_is_admitted_only_if_its_differential_is_small():
    y, none = atom("Y"), add()
    for many, small in ((200, True), (400, False)):
        for loss in (mul(none, *[y] * many), mul(none, call("f", *[y] * many))):
            block = (DefineGradient("G", (), "Y", loss, Lam((), atom("x"))),)
            if small:
                admit((block,))
                continue
            with pytest.raises(CheckerError, match="a loss must be small"):
                admit((block,))


def test_a_point_is_put_in_only_if_the_result_is_small():
    y = atom("Y")
    body, loss = mul(num(2), y), mul(y, y)
    differentiated(loss, body, atom("x", *[0] * 99_000))
    with pytest.raises(CheckerError, match="grows too large"):
        differentiated(loss, body, atom("x", *[0] * 100_000))
    deep = y
    for _ in range(60):
        deep = mul(deep)
    differentiated(loss, mul(num(2), deep), mul(mul(mul(atom("x")))))
    point = atom("x")
    for _ in range(60):
        point = mul(point)
    with pytest.raises(CheckerError, match=DEEP):
        differentiated(loss, mul(num(2), deep), point)


def test_arguments_that_see_all_bound_variables_are_named_quickly():
    def nest(k: int, seen: tuple) -> Term:
        h = width(f"h{k}")
        inner = atom("a", *seen, h) if k == 29 else call("f", nest(k + 1, (*seen, h)))
        return total(h, inner)

    began = process_time()
    assert normal.normal_form(nest(0, ()), NOTHING)
    assert process_time() - began < 20


def test_limits_that_are_compared_weigh():
    # 12 times in a row, each at most the next: a hundred limits for each of 64 monomials.
    def row(k: int, last: Ix | int, body: Term) -> Term:
        t = time(f"t{k}")
        return total(t, last, 9, row(k + 1, ix(t), body)) if k < 12 else body

    refused_soon(row(0, 0, mul(*[add(*map(atom, "abcd"))] * 3)), HEAVY)
    assert normal.normal_form(row(8, 0, mul(*[add(*map(atom, "abcd"))] * 3)), NOTHING)


def test_a_calculation_has_so_many_sources_and_no_more():
    z = atom("z")
    grown(*[z] * 100)
    with pytest.raises(CheckerError, match="few sources"):
        grown(*[z] * 101)


def test_a_list_of_variables_is_so_long_and_no_longer():
    def every(number: int) -> Proof:
        variables, x = many_times(number), atom("x")
        conclusion = Sequent((), forall(variables, x, x))
        return Proof((), (Step(Reflexivity(variables, x), (), conclusion),))

    replay(every(100))
    with pytest.raises(CheckerError, match="101 parts"):
        replay(every(101))


def test_many_bound_names_are_told_apart_quickly():
    # A name for each of 100 indices, round a term of many nodes that bind none.
    variables, x = many_times(100), add(*[mul(atom("x"), atom("y"))] * 4000)
    for _ in range(80):
        x = add(x)
    other = tuple(time(f"{v.name}_") for v in variables)
    step = Step(Reflexivity(variables, x), (), Sequent((), forall(other, x, x)))
    began = process_time()
    replay(Proof((), (step,)))
    assert process_time() - began < 20
