"""The interpreter agrees with values worked out by hand."""

from fractions import Fraction

import flint
import pytest

from tests.checker.build import at
from ttt_proofs.checker.definitions import Define, DefineGradient
from ttt_proofs.checker.terms import (
    TIME,
    Add,
    App,
    Atom,
    Lam,
    Mul,
    Num,
    Prod,
    Sum,
    Var,
    ix,
)
from ttt_proofs.evidence.codes import Numbers, known_derivative
from ttt_proofs.evidence.evaluate import ExtentModel, Model
from ttt_proofs.evidence.fields import (
    Extent,
    Query,
    Rationals,
    Reals,
    Residues,
    Source,
    random_primes,
)
from ttt_proofs.evidence.true_values import Undefined, cubic

T, N, S = (Var(name, TIME) for name in "tis")
A, B, C = (Var(name, "D") for name in "abc")
TWO = Num(2)
FIELD, OTHER = (Residues(random_primes(source)) for source in ("one", "other"))


def num(value: int) -> Num:
    return Num(*Fraction(value).as_integer_ratio())


def table(**families):
    """Values by name: a number, or a nested list that the indices run through."""
    given = {}

    def put(name, index, values):
        if isinstance(values, list):
            for k, value in enumerate(values):
                put(name, (*index, k), value)
        else:
            given[Query(name, index)] = Fraction(values)

    for name, values in families.items():
        put(name, (), values)
    return given


def rational(sizes=None, definitions=(), given=None, seed=0) -> Model:
    return Model(Rationals(9), sizes or {"D": 2, "H": 3}, definitions, seed, given)


def test_primes_are_different_primes_between_two_to_the_60_and_two_to_the_61():
    drawn = [random_primes(f"claim {k}") for k in range(50)]
    assert drawn[0] == random_primes("claim 0") and all(p != q for p, q in drawn)
    assert len({p for pair in drawn for p in pair}) == 100
    for p in (p for pair in drawn for p in pair):
        assert flint.fmpz(p).is_prime()
        assert 2**60 < p < 2**61
    third = [sum(p % 3 == r for pair in drawn for p in pair) for r in (1, 2)]
    assert min(third) > 30  # of 100, half each


def test_residues_hold_an_element_of_each_field():
    p, q = random_primes("")
    number = Residues((p, q)).number
    assert number(Fraction(1, 3)) * 3 == 1
    assert number(Fraction(p)) != 0 and number(Fraction(q)) != 0 and number(Fraction(p * q)) == 0
    with pytest.raises(ZeroDivisionError):
        number(Fraction(1, p))


def test_matrix_product_by_hand():
    model = rational(given=table(x=[[1, 2], [3, 4]], y=[[5, 6], [7, 8]]))
    body = Mul((Atom("x", (ix(A), ix(B))), Atom("y", (ix(B), ix(C)))))
    entry = Sum(B, None, None, body)
    got = [[model.value(entry, {A: a, C: c}) for c in (0, 1)] for a in (0, 1)]
    assert got == [[19, 22], [43, 50]]


def test_sums_and_products_over_times():
    model = rational(given=table(x=[1, 2, 3, 4]))
    x = Atom("x", (ix(N),))
    total = Sum(N, at(1), ix(T), x)
    running = Prod(at(1), ix(T), Lam((S,), Atom("x", (ix(S),))))
    assert [model.value(total, {T: t}) for t in range(4)] == [0, 2, 5, 9]
    assert [model.value(running, {T: t}) for t in range(4)] == [1, 2, 6, 24]
    assert model.value(running, {T: -3}) == 1


def test_shadowed_indices():
    model = rational(given=table(x=[1, 10]))
    x = Atom("x", (ix(A),))
    inner = Sum(A, None, None, x)
    assert model.value(Sum(A, None, None, Mul((x, inner))), {}) == 121
    f = App("f", (), (Lam((A,), x),))
    model.value(Mul((x, f)), {A: 1})
    assert Query("f", (), (), ((1, 10),), ((2,),)) in model.asked


def test_recursive_definition_is_iterated():
    # M[t+1] = g[t] + α M[t], M[0] = 0; W[t+1] = W[t] - M[t+1], W[0] = w
    moved = Define("M", (T,), Add((Atom("g", (ix(T),)), Mul((TWO, Atom("M", (ix(T),)))))), num(0))
    weight = Define(
        "W", (T,), Add((Atom("W", (ix(T),)), Mul((num(-1), Atom("M", (ix(T, 1),)))))), Atom("w", ())
    )
    model = rational(definitions=((moved, weight),), given=table(g=[1, 5, 7], w=100))
    assert [model.value(Atom("M", (ix(T),)), {T: t}) for t in range(4)] == [0, 1, 7, 21]
    assert [model.value(Atom("W", (ix(T),)), {T: t}) for t in range(4)] == [100, 99, 92, 71]


def test_symbols_outside_their_definition_are_free():
    define = Define("W", (T, A), Atom("W", (ix(T), ix(A))), num(3))
    model = Model(FIELD, {"D": 2}, ((define,),), 0)
    w = Atom("W", (ix(T), ix(A)))
    assert int(model.value(w, {T: 4, A: 1})) == 3
    outside = {int(model.value(w, {T: t, A: a})) for t, a in [(-1, 0), (0, 2), (-2, 0)]}
    assert len(outside) == 3 and 3 not in outside


def test_circular_definition_is_refused():
    define = Define("W", (T,), Atom("W", (ix(T),)))
    with pytest.raises(ValueError, match="needs itself"):
        rational(definitions=((define,),)).value(Atom("W", (at(1),)), {})


def test_oracles_respect_equality_of_values_and_nothing_else():
    model = Model(FIELD, {"D": 2}, (), 0)
    x, y = (Atom(name, (ix(A),)) for name in "xy")

    def f(body, *index):
        return model.value(App("f", tuple(map(at, index)), (Lam((A,), body),)), {})

    assert f(Add((x, y))) == f(Add((y, x, num(0))))
    assert f(Mul((TWO, x))) == f(Add((x, x)))
    different = [f(x), f(y), f(x, 0), f(x, 1), f(Mul((num(-1), x)))]
    assert len({int(value) for value in different}) == len(different)


def test_draws_do_not_depend_on_order():
    first, second = Source(FIELD, 5), Source(FIELD, 5)
    queries = [Query("x", (k,)) for k in range(5)]
    assert [first(q) for q in queries] == [second(q) for q in queries[::-1]][::-1]
    assert Source(FIELD, 6)(queries[0]) != first(queries[0])
    assert int(Source(OTHER, 5)(queries[0])) != int(first(queries[0]))
    assert first(Query("y", (0,))) != first(queries[0])


def gradient(loss, at_point, outer=()) -> DefineGradient:
    return DefineGradient("G", outer, "X", loss, at_point)


def test_gradient_of_a_square_by_hand():
    # loss = Σ_a c[a] X[a]², gradient 2 c[a] X[a] at X = p
    x = Atom("X", (ix(A),))
    loss = Sum(A, None, None, Mul((Atom("c", (ix(A),)), x, x)))
    define = gradient(loss, Lam((B,), Atom("p", (ix(B),))))
    model = rational(definitions=((define,),), given=table(c=[3, 5], p=[7, 11]))
    assert [model.value(Atom("G", (at(k),)), {}) for k in (0, 1)] == [42, 110]


def test_gradient_through_abstract_functions_by_hand():
    # loss = ell(f(2 X), v): derivative ∂ell/∂x1 · f' · 2
    x = Mul((TWO, Atom("X", ())))
    f = App("f", (), (Lam((), x),))
    loss = App("ell", (), (Lam((), f), Lam((), Atom("v", ()))))
    given = table(p=3, v=4) | {
        Query("f", (), (), ((Fraction(6),),)): Fraction(5),
        Query("f", (), ((0, ()),), ((Fraction(6),),)): Fraction(7),
        Query("ell", (), ((0, ()),), ((Fraction(5),), (Fraction(4),))): Fraction(11),
    }
    model = rational(definitions=((gradient(loss, Lam((), Atom("p", ()))),),), given=given)
    assert model.value(Atom("G", ()), {}) == 11 * 7 * 2


def test_gradient_of_a_vector_argument_sums_over_its_entries():
    # loss = f((X M[0], X M[1])) with one number X: Σ_a ∂_a f · M[a]
    f = App("f", (), (Lam((A,), Mul((Atom("X", ()), Atom("M", (ix(A),))))),))
    define = gradient(f, Lam((), Atom("p", ())))
    args = ((Fraction(2), Fraction(4)),)
    given = table(p=2, M=[1, 2]) | {
        Query("f", (), ((0, (k,)),), args, ((2,),)): Fraction(value)
        for k, value in enumerate((3, 5))
    }
    assert rational(definitions=((define,),), given=given).value(Atom("G", ()), {}) == 13


@pytest.mark.parametrize("fn", ["sigmoid", "tanh", "step", "exp"])
def test_true_derivatives(fn):
    model = Model(
        Reals(1),
        {},
        (
            (
                gradient(
                    App(fn, (), (Lam((), Mul((num(3), Atom("X", ())))),)), Lam((), Atom("p", ()))
                ),
            ),
        ),
        1,
    )
    y = model.value(App(fn, (), (Lam((), Mul((num(3), Atom("p", ())))),)), {})
    slope = {"sigmoid": y * (1 - y), "tanh": 1 - y * y, "step": y * 0, "exp": y}[fn]
    assert model.value(Atom("G", ()), {}).overlaps(3 * slope)


def test_second_derivatives_of_known_functions():
    # σ'' = σ' (1 - 2σ) = σ - 3σ² + 2σ³; tanh'' = -2y(1 - y²)
    assert known_derivative("sigmoid", 2) == (0, 1, -3, 2)
    assert known_derivative("tanh", 2) == (0, -2, 0, 2)
    assert not any(known_derivative("step", 1))


def test_dual_numbers_against_polynomial_interpolation():
    # A cubic in one number with an outer index; the slope from exact differences at five points.
    x, c = Atom("X", ()), Atom("c", (ix(T),))
    loss = Add((Mul((c, x, x, x)), Mul((num(-4), x)), Sum(A, None, None, Mul((x, x)))))
    define = gradient(loss, Lam((), Atom("p", (ix(T),))), (T,))
    model = rational({"D": 2}, ((define,),))
    for t in range(3):
        slope = model.value(Atom("G", (at(t),)), {})
        p, ct = (model.value(Atom(name, (at(t),)), {}) for name in "pc")

        def value(z, ct=ct):
            return ct * z**3 - 4 * z + 2 * z**2

        central = (8 * (value(p + 1) - value(p - 1)) - (value(p + 2) - value(p - 2))) / 12
        assert slope == central


def test_degrees_bound_the_polynomial_and_count_queries():
    x = Atom("x", (ix(A),))
    square = Mul((x, x))
    f = App("f", (), (Lam((A,), square),))
    model = ExtentModel({"D": 3}, (), Numbers())
    assert model.value(Sum(A, None, None, Mul((x, square, f))), {}).degree == 4
    assert (model.queries, model.argument_extent.degree) == (1, 2)


def test_heights_bound_the_coefficients_over_one_denominator():
    x, y = Atom("x", ()), Atom("y", ())

    def extent(term):
        return ExtentModel({"D": 3}, (), Numbers()).value(term, {})

    # (3 x - 2 y)², absolute values 9 + 12 + 4
    square = Mul((Add((Mul((num(3), x)), Mul((num(-2), y)))),) * 2)
    assert 2 ** extent(square).height == pytest.approx(25)
    # x/6 + 3 y/4 = (2 x + 9 y)/12
    parts = Add((Mul((Num(1, 6), x)), Mul((Num(3, 4), y))))
    assert extent(parts).denominator == 12 and 2 ** extent(parts).height == pytest.approx(11)
    halves = Sum(A, None, None, Mul((Num(1, 2), x)))  # 3 x / 2
    assert extent(halves).denominator == 2 and 2 ** extent(halves).height == pytest.approx(3)
    assert extent(Add(())).height == extent(Mul((num(0), x))).height == -float("inf")


def test_how_many_large_primes_can_divide_all_coefficients():
    for power, count in ((59.9, 0), (60, 1), (119.9, 1), (130, 2), (-float("inf"), 0)):
        assert Extent(1, power).factors(2**60) == count


def test_extents_at_larger_sizes_bound_those_at_smaller_ones():
    # W[5] is free for a width of 3 and 0 for one of 6: the bound at 6 must hold for both
    define = Define("W", (A,), num(0))
    power = Mul((Atom("W", (at(5),)),) * 4)
    extents = [
        ExtentModel({"D": size}, ((define,),), Numbers()).value(power, {}) for size in (3, 6)
    ]
    assert [e.degree for e in extents] == [4, 4] and extents[1].height >= extents[0].height


def test_a_symbol_with_another_number_of_indices_is_another():
    define = Define("W", (T, A), num(3))
    model = Model(FIELD, {"D": 2}, ((define,),), 0)
    drawn = [model.value(Atom("W", tuple(map(at, index))), {}) for index in ((), (0,), (0, 0, 0))]
    assert len({int(v) for v in drawn}) == 3 and 3 not in drawn
    # X[0, 1] is not the entry of X that the gradient is taken in, nor is it what `at` says
    loss = Sum(A, None, None, Mul((Atom("X", (ix(A),)), Atom("X", (at(0), at(1))))))
    found = Model(FIELD, {"D": 2}, ((gradient(loss, Lam((B,), num(7))),),), 0)
    slope = found.value(Atom("G", (at(0),)), {})
    assert slope == found.value(Atom("X", (at(0), at(1))), {}) and slope != 7


def test_true_values_over_the_reals():
    model = Model(Reals(1), {}, (), 0)

    def apply(fn, value):
        return model.value(App(fn, (), (Lam((), num(value)),)), {})

    assert apply("sigmoid", 0) == Fraction(1, 2).__float__()
    assert apply("tanh", 0) == 0
    assert (apply("step", 0), apply("step", 2), apply("step", -1)) == (0, 1, 0)
    assert abs(float(apply("sigmoid", 1)) - 0.7310585786300049) < 1e-15
    with pytest.raises(Undefined):
        model.value(App("f", (), (Lam((), App("tanh", (), (Lam((), num(1)),))),)), {})


def test_products_over_the_rationals_stop_at_zero():
    model = rational(given=table(x=0))
    assert model.value(Mul((Atom("x", ()), Atom("y", ()))), {}) == 0
    assert list(model.asked) == [Query("x", ())]


def call(fn, body) -> App:
    return App(fn, (), (Lam((), body),))


@pytest.mark.parametrize(
    ("fn", "x", "value"),
    [
        ("root", Fraction(9, 4), Fraction(3, 2)),
        ("root", 0, 0),
        ("inverse", -3, Fraction(-1, 3)),
        ("root", 2, None),
        ("root", -1, None),
        ("inverse", 0, None),
        ("sigmoid", 1, None),
    ],
)
def test_functions_over_the_rationals_are_exact_or_undefined(fn, x, value):
    term = call(fn, Num(*Fraction(x).as_integer_ratio()))
    if value is None:
        with pytest.raises(Undefined):
            rational().value(term, {})
    else:
        model = rational()
        assert model.value(term, {}) == value and not model.asked


def test_roots_and_reciprocals_over_the_reals_are_enclosed():
    def apply(fn, value):
        return Model(Reals(1), {}, (), 0).value(call(fn, num(value)), {})

    assert apply("root", 9) == 3 and apply("inverse", 2) == 0.5
    assert abs(float(apply("root", 2)) - 2**0.5) < 1e-15 and (apply("root", 2) ** 2).contains(2)
    for fn, value in (("root", -1), ("inverse", 0)):
        with pytest.raises(Undefined):
            apply(fn, value)
    around_zero = Add((call("root", num(2)), Mul((num(-1), call("root", num(2))))))
    for fn in ("inverse", "step"):  # the interval holds numbers of either sign
        with pytest.raises(Undefined):
            Model(Reals(1), {}, (), 0).value(call(fn, around_zero), {})


def test_roots_and_reciprocals_in_prime_fields_are_drawn():
    model = Model(FIELD, {}, (), 0)
    for fn in ("root", "inverse"):
        four = model.value(call(fn, num(4)), {})
        assert four == model.value(call(fn, Add((num(1), num(3)))), {})
        assert four * four != 4 and four * 4 != 1
        assert Query(fn, (), (), ((4,),)) in model.asked


@pytest.mark.parametrize("fn", ["root", "inverse"])
def test_no_slope_is_made_up_for_what_has_true_values(fn):
    define = gradient(call(fn, Atom("X", ())), Lam((), Atom("p", ())))
    with pytest.raises(Undefined):
        rational(definitions=((define,),), given=table(p=4)).value(Atom("G", ()), {})
    prime = Model(FIELD, {}, ((define,),), 0)
    prime.value(Atom("G", ()), {})
    assert any(query.slots for query in prime.asked)


def operator(name: str, row, col, body, *binders: Var) -> App:
    return App(name, (ix(row), ix(col)), (Lam(binders, body),))


H = Var("h", "H")


def entries(model, term, rows, cols):
    return [[model.value(term, {A: r, C: c}) for c in range(cols)] for r in range(rows)]


def test_muon_over_the_rationals_is_the_cubic_by_hand():
    # X Xᵀ = [[5, 2], [2, 1]], times X = [[1, 2], [0, 1]]
    muon = operator("muon", A, C, Atom("x", (ix(A), ix(B))), A, B)
    model = rational(given=table(x=[[1, 2], [0, 1]]))
    assert entries(model, muon, 2, 2) == [[5, 12], [2, 5]]
    assert {query.name for query in model.asked} == {"x"}


def test_rows_and_columns_come_in_the_order_of_the_binders():
    # X is 2 by 3: [[1, 1, 0], [0, 1, 1]], X Xᵀ = [[2, 1], [1, 2]]
    given = table(x=[[1, 1, 0], [0, 1, 1]])
    straight = operator("muon", A, C, Atom("x", (ix(B), ix(H))), B, H)
    across = operator("muon", C, A, Atom("x", (ix(B), ix(H))), H, B)
    expected = [[2, 3, 1], [1, 3, 2]]
    assert entries(rational(given=given), straight, 2, 3) == expected
    assert entries(rational(given=given), across, 2, 3) == expected


def test_an_operator_runs_once_for_each_argument(monkeypatch):
    calls = []
    monkeypatch.setitem(Rationals.operators, "muon", lambda x: calls.append(x) or cubic(x))
    muon = operator("muon", A, C, Atom("x", (ix(T), ix(A), ix(B))), A, B)
    model = rational()
    for t in range(3):
        for a in range(2):
            for c in range(2):
                model.value(muon, {T: t, A: a, C: c})
    assert len(calls) == 3


def test_an_entry_beyond_the_matrix_is_undefined():
    muon = App("muon", (at(0), at(2)), (Lam((A, B), Atom("x", (ix(A), ix(B)))),))
    with pytest.raises(Undefined):
        rational().value(muon, {})


def test_operators_elsewhere_are_oracles():
    x = Atom("x", (ix(A), ix(B)))
    prime = Model(FIELD, {"D": 2}, (), 0)
    other = rational(given=table(x=[[1, 2], [0, 1]]))
    for model, name in ((prime, "muon"), (prime, "polar"), (other, "polar")):
        found = entries(model, operator(name, A, C, x, A, B), 2, 2)
        doubled = operator(name, A, C, Mul((TWO, x, Num(1, 2))), A, B)
        assert entries(model, doubled, 2, 2) == found
        assert any(query.name == name and query.args is not None for query in model.asked)
    drawn = [int(v) for row in entries(prime, operator("muon", A, C, x, A, B), 2, 2) for v in row]
    assert len(set(drawn)) == 4
