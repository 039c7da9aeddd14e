"""Claims that are false only at the smallest sizes, or at these together, are refuted."""

from itertools import combinations, product

import pytest

from ttt_proofs.checker.definitions import Define, Equation
from ttt_proofs.checker.terms import TIME, Add, Atom, Mul, Num, Sum, Var, ix
from ttt_proofs.evidence.exact import exact_witness, refute
from ttt_proofs.evidence.sizes_tried import shapes

T, S = Var("t", TIME), Var("s", TIME)
A, B = Var("a", "D"), Var("b", "E")
ZERO = Num(0)
SEEDS = range(3)


def claim(left, right, *every: Var) -> Equation:
    return Equation(every, left, right)


def count_of(width: str) -> Sum:
    """How large a width is."""
    return Sum(Var("e", width), None, None, Num(1))


def minus(term, number: int) -> Add:
    return Add((term, Num(-number)))


def test_a_claim_false_only_for_an_empty_width_is_refuted():
    # (D - 1)(D - 2)(D - 3) = 0 holds for D = 1, 2 and 3
    count = count_of("D")
    false = claim(Mul(tuple(minus(count, n) for n in (1, 2, 3))), Num(0))
    for seed in range(5):
        assert not exact_witness(false, (), seed=seed).agrees
    found = refute(false, (), seed=0)
    assert found is not None and found.sizes == (("D", 0),)
    assert (found.left, found.right) == ("-6", "0")


def test_each_width_is_empty_while_others_are_not():
    # D (E - 1)(E - 2)(E - 3) = 0 shows only where E = 0 and D > 0
    for first, second in ("DE", "ED"):
        factors = [count_of(first), *(minus(count_of(second), n) for n in (1, 2, 3))]
        for seed in range(5):
            assert not exact_witness(claim(Mul(tuple(factors)), ZERO), (), seed=seed).agrees


def test_a_claim_false_only_for_a_width_of_one_is_refuted():
    # D (D - 2)(D - 3) = 0 fails for D = 1 alone
    count = count_of("D")
    false = claim(Mul((count, minus(count, 2), minus(count, 3))), ZERO)
    for seed in range(5):
        assert not exact_witness(false, (), seed=seed).agrees


def test_a_width_that_the_claim_is_about_is_never_empty():
    x = Atom("x", (ix(A),))
    equation = claim(Mul((x, count_of("E"))), Mul((count_of("E"), x)), A)
    for seed in range(5):
        found = shapes(equation, (), seed, 4)
        assert all(shape.widths["D"] >= 1 for shape in found)
        assert any(shape.widths["E"] == 0 < shape.widths["D"] for shape in found)
        assert any(set(shape.widths.values()) == {1} for shape in found)


def only_where(width: str, size: int) -> Mul:
    """Not 0 at this size, 0 at all others from 0 to 3."""
    return Mul(tuple(minus(count_of(width), n) for n in range(4) if n != size))


def more_than_one(width: str) -> Mul:
    """0 at the sizes 0 and 1 alone."""
    return Mul((count_of(width), minus(count_of(width), 1)))


SIZES = {
    "0": lambda width: only_where(width, 0),
    "1": lambda width: only_where(width, 1),
    "more": more_than_one,
}


def only_at(time: Var, moment: int) -> tuple[Atom, tuple]:
    """A symbol that is 1 at this moment and 0 at all others, and its definition."""
    blocks = [(Define("m0", (time,), ZERO, Num(1)),)]
    for k in range(moment):
        blocks.append((Define(f"m{k + 1}", (time,), Atom(f"m{k}", (ix(time),)), ZERO),))
    return Atom(f"m{moment}", (ix(time),)), tuple(blocks)


def mentioned(widths: str) -> Mul:
    """0, in terms of these widths."""
    return Mul((ZERO, *map(count_of, widths)))


def is_refuted(factors, definitions, *every: Var, others: str = "") -> bool:
    """Whether the witness refutes, at each seed, that the product of these factors is 0."""
    false = claim(Add((Mul(tuple(factors)), mentioned(others))), ZERO, *every)
    return all(exact_witness(false, definitions, seed=s).status == "refuted" for s in SEEDS)


@pytest.mark.parametrize("widths", ["DE", "DEF", "DEFG", "DEFGHI"])
def test_every_two_widths_are_small_and_large_together(widths):
    for (a, b), (x, y) in product(combinations(widths, 2), product(SIZES, repeat=2)):
        factors = SIZES[x](a), SIZES[y](b)
        assert is_refuted(factors, (), others=widths), (a, x, b, y)


@pytest.mark.parametrize("widths", ["D", "DE", "DEFG"])
@pytest.mark.parametrize("moment", range(5))
def test_every_width_is_small_and_large_at_every_time(widths, moment):
    now, blocks = only_at(T, moment)
    for width, size in product(widths, SIZES):
        assert is_refuted((SIZES[size](width), now), blocks, T, others=widths), (width, size)


@pytest.mark.parametrize("widths", ["D", "DE", "DEFG"])
@pytest.mark.parametrize("size", range(4))
def test_every_width_has_every_size(widths, size):
    assert all(is_refuted((only_where(w, size),), (), others=widths) for w in widths)


@pytest.mark.parametrize("widths", ["DEF", "DEFGH"])
def test_all_widths_are_empty_or_one_together(widths):
    for size in (0, 1):
        assert is_refuted([only_where(w, size) for w in widths], ())


@pytest.mark.parametrize("sizes", list(product((1, 2), repeat=2)))
def test_widths_of_the_entries_are_small_and_large_together(sizes):
    def indicator(width: str, size: int) -> Mul:
        return more_than_one(width) if size > 1 else only_where(width, 1)

    x = Atom("x", (ix(A), ix(B)))
    now, blocks = only_at(T, 4)
    d, e = map(indicator, "DE", sizes)
    for empty in "FG":
        factors = (x, d, e, only_where(empty, 0))
        assert is_refuted(factors[:3], (), A, B, others="FG")
        assert is_refuted((x, d, factors[3]), (), A, B, others="DEFG")
        assert is_refuted((x, e, now), blocks, T, A, B, others="FG")


def test_pairs_of_widths_come_at_two_times_from_0_to_2():
    x = Atom("x", (ix(A), ix(B)))
    (late, blocks), (early, _) = only_at(T, 2), only_at(S, 0)
    moments = late, early  # t = 2 and s = 0, by the same definitions
    for d, e in product((only_where("D", 1), more_than_one("D")), (more_than_one("E"),)):
        assert is_refuted((x, d, *moments), blocks, T, S, A, B, others="EF")
        assert is_refuted((x, d, e), blocks, T, S, A, B, others="F")


def test_the_first_trial_is_large_in_every_direction():
    equation = claim(Atom("x", (ix(T), ix(A), ix(B))), Atom("x", (ix(T), ix(A), ix(B))), T, A, B)
    for seed in range(20):
        first, *others = shapes(equation, (), seed, 5)
        assert first.last >= 2 and all(size >= 2 for size in first.widths.values())
        assert all(1 <= size <= 3 for shape in others for size in shape.widths.values())
        assert all(0 <= shape.last <= 4 for shape in others)
        assert shapes(equation, (), seed, 5) == [first, *others]


def test_the_trials_are_few():
    for widths in ("", "D", "DE", "DEF", "DEFGH"):
        count = len(shapes(claim(mentioned(widths), ZERO), (), 0, 1))
        assert count <= 1 + 9 + 3 * len(widths)


@pytest.mark.parametrize("others", ["EF", "EFGHI"])
@pytest.mark.parametrize("moment", [3, 4])
def test_a_width_is_large_as_late_as_it_alone_allows(others, moment):
    """Others that are large at the same time must not end the times before."""
    now, blocks = only_at(T, moment)
    every = [Var(name.lower(), name) for name in "D" + others]
    times = T, S, Var("r", TIME)
    x = Atom("x", tuple(map(ix, (*times, *every))))
    assert is_refuted((x, now, minus(count_of("D"), 1)), blocks, *times, *every)
