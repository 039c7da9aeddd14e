"""The normal form: what is equal, what is not, and at what price."""

import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.checker.build import add, at, atom, call, mul, num, running, time, total, width
from ttt_proofs.checker.normal import NEVER, close, implied, naturals, normal_form
from ttt_proofs.checker.terms import CheckerError, Ix, Lam, check, free, ix

ROOT = Path(__file__).resolve().parents[2]

i, j, k, s, t = (time(name) for name in "ijkst")
h, g, c = width("h"), width("g"), width("c", "E")


def same(left, right, peel=None) -> bool:
    """Whether the two have one normal form where free times are natural numbers."""
    known = naturals(free((left, right)))
    return normal_form(left, known, peel) == normal_form(right, known, peel)


def a(*indices):
    """The symbol `a`."""
    return atom("a", *indices)


def b(*indices):
    """The symbol `b`."""
    return atom("b", *indices)


EQUAL = {
    "sums commute": (add(a(), b()), add(b(), a())),
    "products commute": (mul(a(), b()), mul(b(), a())),
    "products distribute": (mul(a(), add(a(), b())), add(mul(b(), a()), mul(a(), a()))),
    "constants": (add(num(2), num(3)), num(5)),
    "terms cancel": (add(a(), mul(num(-1), a())), num(0)),
    "empty sum": (add(), num(0)),
    "empty product": (mul(), num(1)),
    "bound names": (total(h, a(h)), total(g, a(g))),
    "widths exchange": (total(h, total(c, a(h, c))), total(c, total(h, a(h, c)))),
    "factor moves out": (total(h, mul(a(h), b())), mul(b(), total(h, a(h)))),
    "product of sums": (
        mul(total(h, a(h)), total(h, b(h))),
        total(h, total(g, mul(a(g), b(h)))),
    ),
    "transposed": (
        total(h, total(g, mul(a(h, g), b(h), b(g)))),
        total(h, total(g, mul(a(g, h), b(h), b(g)))),
    ),
    "times exchange": (
        total(i, 0, t, total(j, 0, i, a(i, j))),
        total(j, 0, t, total(i, j, t, a(i, j))),
    ),
    "range shifts": (total(i, 0, t, a(i)), total(i, 1, ix(t, 1), a(ix(i, -1)))),
    "empty range": (total(i, 1, 0, a(i)), num(0)),
    "range that no natural time fills": (total(i, ix(t, 1), t, a(i)), num(0)),
    "single range": (total(i, t, t, a(i)), a(t)),
    "single range through others": (
        total(i, 0, t, total(j, i, i, a(i, j))),
        total(i, 0, t, a(i, i)),
    ),
    "arguments": (call("f", add(a(), b())), call("f", add(b(), a()))),
    "vector arguments": (call("f", Lam((h,), a(h))), call("f", Lam((g,), a(g)))),
    "arguments know the ranges around them": (
        total(i, 0, t, call("f", total(j, 0, i, total(k, 0, j, a(j, k))))),
        total(i, 0, t, call("f", total(k, 0, i, total(j, k, i, a(j, k))))),
    ),
    "empty running product": (running(i, 1, 0, a(i)), num(1)),
    "empty running product, symbolic": (running(i, ix(t, 1), t, a(i)), num(1)),
    "very empty running product": (running(i, ix(t, 5), t, a(i)), num(1)),
    "running product of one": (running(i, t, t, a(i)), a(t)),
    "constant running product": (running(i, 0, 2, a(i)), mul(a(0), a(1), a(2))),
    "running product, bound name": (running(i, s, t, a(i)), running(j, s, t, a(j))),
    "running product below a sum": (
        total(i, 0, t, running(j, i, i, a(j))),
        total(i, 0, t, a(i)),
    ),
}

DIFFERENT = {
    "another symbol": (a(), b()),
    "A + C is not B + B": (add(a(), atom("c")), add(b(), b())),
    "A C is not B B": (mul(a(h), atom("c", h)), mul(b(h), b(h))),
    "other coefficients": (mul(num(2), a()), mul(num(3), a())),
    "a matrix and its transpose": (
        total(h, total(g, mul(a(h, g), atom("x", h), atom("y", g)))),
        total(h, total(g, mul(a(g, h), atom("x", h), atom("y", g)))),
    ),
    "other widths": (total(h, num(1)), total(c, num(1))),
    "a width and 1": (total(h, num(1)), num(1)),
    "a width squared and once": (total(h, total(g, num(1))), total(h, num(1))),
    "trace of a product and product of traces": (
        total(h, total(g, mul(a(h, g), b(g, h)))),
        mul(total(h, a(h, h)), total(h, b(h, h))),
    ),
    "square of a sum and sum of squares": (
        mul(total(h, a(h)), total(h, a(h))),
        total(h, mul(a(h), a(h))),
    ),
    "one more step": (total(i, 0, t, a(i)), total(i, 0, ix(t, 1), a(i))),
    "mask shifted": (
        total(i, 0, t, total(j, 0, i, a(i, j))),
        total(i, 0, t, total(j, 0, ix(i, 1), a(i, j))),
    ),
    "a range that may be empty, and its first step": (
        total(i, 1, t, a(i)),
        add(a(1), total(i, 2, t, a(i))),
    ),
    "times and a width of that name": (a(time("x")), a(width("x"))),
    "free times": (a(s), a(t)),
    "functions": (call("f", a()), call("g", a())),
    "function and symbol": (call("a"), a()),
    "order of arguments": (call("f", a(), b()), call("f", b(), a())),
    "derivative and function": (call("f", a(), slots=((0, ()),)), call("f", a())),
    "derivatives in other arguments": (
        call("f", a(), b(), slots=((0, ()),)),
        call("f", a(), b(), slots=((1, ()),)),
    ),
    "functions are not linear": (call("f", add(a(), b())), add(call("f", a()), call("f", b()))),
    "sum inside and outside": (call("f", total(h, a(h))), total(h, call("f", a(h)))),
    "running products": (running(i, s, t, a(i)), running(i, s, ix(t, 1), a(i))),
    "an unfolded running product that may be empty": (
        running(i, s, t, a(i)),
        mul(a(t), running(i, s, ix(t, -1), a(i))),
    ),
    "vectors over other widths": (call("f", Lam((h,), num(1))), call("f", Lam((c,), num(1)))),
    "scalar and vector": (call("f", Lam((), num(1))), call("f", Lam((h,), num(1)))),
}


@pytest.mark.parametrize(("left", "right"), EQUAL.values(), ids=EQUAL)
def test_equal_terms_have_one_normal_form(left, right):
    assert same(left, right)


@pytest.mark.parametrize(("left", "right"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_terms_have_different_normal_forms(left, right):
    assert not same(left, right)
    assert not same(left, right, ix(t))


def test_the_last_step_is_split_off_at_the_peel():
    whole, split = total(i, 0, ix(t, 1), a(i)), add(total(i, 0, t, a(i)), a(ix(t, 1)))
    assert not same(whole, split)
    assert same(whole, split, ix(t, 1))


def test_a_peel_below_takes_several_steps():
    whole = total(i, 0, ix(t, 1), a(i))
    split = add(total(i, 0, ix(t, -1), a(i)), a(t), a(ix(t, 1)))
    assert not same(whole, split, ix(t, 1))
    known = naturals(frozenset({t}))
    assert normal_form(whole, known, ix(t)) == normal_form(split, known, ix(t))


def test_peeling_a_range_that_may_be_empty_keeps_the_condition():
    whole, split = total(i, s, t, a(i)), add(total(i, s, ix(t, -1), a(i)), a(t))
    for peel in (None, ix(t), ix(t, -1), ix(t, 1)):
        assert not same(whole, split, peel)


def test_running_product_unfolds_at_the_peel_only_where_it_has_a_top():
    whole = running(i, 0, ix(t, 1), a(i))
    assert same(whole, mul(a(ix(t, 1)), running(i, 0, t, a(i))), ix(t, 1))
    may_be_empty = running(i, s, t, a(i)), mul(a(t), running(i, s, ix(t, -1), a(i)))
    assert not same(*may_be_empty, ix(t))


def test_negative_times_are_not_assumed_away():
    # Index t - 1 is -1 at the start: a symbol has a value there, about which nothing is known.
    assert not same(a(ix(t, -1)), a(0))
    assert same(total(i, ix(t, -1), ix(t, -1), a(i)), a(ix(t, -1)))


def test_free_times_are_natural():
    assert same(total(i, ix(t, 1), 0, a(i)), num(0))
    assert normal_form(total(i, ix(t, 1), 0, a(i)), {}) != ()


def test_a_capturing_name_makes_no_difference():
    # `i____` is bound outside; the renaming of the inner `i` must not take its name.
    d = width("i")
    for tail in range(1, 9):
        z = time("i" + "_" * tail)
        inner = call("f", total(i, 0, z, mul(a(i), b(d))))
        bound, escaped = total(d, total(z, 0, 5, inner)), total(d, total(k, 0, 5, inner))
        assert not same(bound, escaped), z
        other = call("f", total(j, 0, k, mul(a(j), b(g))))
        assert same(bound, total(g, total(k, 0, 5, other))), z


def test_two_ranges_that_meet():
    # Σ_{t..0} has one step at t = 0, and none else.
    meeting = total(j, t, 0, b(j))
    assert same(meeting, meeting)
    assert not same(meeting, b(0))
    assert not same(meeting, b(t))


MEET = """
from tests.checker.build import *
from ttt_proofs.checker.normal import naturals, normal_form
t, j = time("t"), time("j")
print(normal_form(total(j, t, 0, atom("b", j)), naturals(frozenset((t,)))))
"""


def test_normal_form_does_not_depend_on_the_hash_seed():
    # A proof that replays in one process must replay in the next.
    def form(seed: int) -> str:
        run = subprocess.run(
            [sys.executable, "-c", MEET],
            cwd=ROOT,
            text=True,
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": str(seed)},
        )
        return run.stdout

    assert len({form(seed) for seed in range(6)}) == 1


@pytest.mark.parametrize("bound", [Ix((t, t)), ix(h), Ix((h, t))], ids=["2t", "width", "mixed"])
def test_bounds_must_be_a_time_plus_a_constant(bound):
    for term in (total(i, 0, bound, a(i)), running(i, 0, bound, a(i))):
        with pytest.raises(CheckerError, match="a time range must end at"):
            check(term, type(term))


@pytest.mark.parametrize("peel", [at(3), Ix((s, t))], ids=["constant", "two variables"])
def test_peel_must_be_a_variable_plus_a_constant(peel):
    with pytest.raises(CheckerError, match="peeled"):
        normal_form(a(), {}, peel)


def test_closing_constraints():
    known = close([(ix(i), ix(j, 2)), (ix(j), ix(t, -1))], {})
    assert implied(known, ix(i), ix(t, 1))
    assert not implied(known, ix(i), ix(t))
    assert implied({}, ix(i), ix(i, 1))
    assert not implied({}, ix(i, 1), ix(i))
    assert close([(ix(i), ix(j, -1)), (ix(j), ix(i))], {}) == NEVER
    assert close([(ix(i), ix(j))], NEVER) == NEVER
    assert implied(close(((at(1), ix(i)), (ix(i), at(0))), {}), at(7), at(0))


V = [width(f"h{n}") for n in range(8)]


def summed(variables, body):
    """The sum over several widths."""
    for v in variables:
        body = total(v, body)
    return body


EIGHT = {
    "star": summed([c, *V], mul(*(a(c, v) for v in V))),
    "power": mul(*(total(v, a(v)) for v in V)),
    "cycle": summed(V, mul(*(a(v, w) for v, w in zip(V, V[1:] + V[:1], strict=True)))),
    "path": summed(V, mul(*(a(v, w) for v, w in pairwise(V)))),
    "pairs": summed(
        [c, *V],
        mul(*(mul(a(c, v), b(v, w), atom("x", w)) for v, w in zip(V[::2], V[1::2], strict=True))),
    ),
    "times": mul(*(total(i, 0, 3, a(i)) for _ in V)),
    "nested": total(c, call("f", Lam((), summed(V, mul(*(a(c, v) for v in V)))), at=(c,))),
}


@contextmanager
def at_most_seconds(seconds: float):
    """Stop what takes longer: an exponential search would not end."""

    def stop(*_):
        raise TimeoutError(f"took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.parametrize("term", EIGHT.values(), ids=EIGHT)
def test_eight_bound_indices_stay_cheap(term):
    with at_most_seconds(5):
        normal_form(term, {})


def f(body):
    """A function of one number."""
    return call("f", body)


VANISHED = {
    "width": (total(g, f(mul(num(0), a(g)))), total(g, f(num(0)))),
    "cancelled": (total(g, f(add(a(g), b(k), mul(num(-1), a(g))))), total(g, f(b(k)))),
    "time": (total(i, 0, t, f(mul(num(0), a(i)))), total(i, 0, t, f(num(0)))),
    "product": (
        total(i, 0, t, running(j, 0, t, mul(num(0), a(i)))),
        total(i, 0, t, running(j, 0, t, num(0))),
    ),
    "beside a range": (
        total(i, 0, t, f(add(mul(num(0), a(i)), total(j, 0, 3, b(j))))),
        total(i, 0, t, f(total(j, 0, 3, b(j)))),
    ),
    "two levels": (
        total(g, f(f(add(num(1), mul(num(0), a(g)))))),
        total(g, f(f(num(1)))),
    ),
    "one of two": (
        total(g, total(h, mul(a(g), f(add(a(h), mul(num(0), a(g))))))),
        mul(total(g, a(g)), total(h, f(a(h)))),
    ),
}


@pytest.mark.parametrize(("one", "other"), VANISHED.values(), ids=VANISHED)
def test_a_variable_that_vanishes_from_an_argument_does_not_occur(one, other):
    assert same(one, other)
    assert not same(mul(num(2), one), other)


# U+03A2 is a letter that Python writes as an escape, which begins with a backslash.
@pytest.mark.parametrize(
    ("first", "second"), [("a", "\u03a2"), ("Z", "a"), ("t", "t_"), ("_", "a")]
)
def test_a_time_that_equals_several_is_the_first_by_name(first, second):
    one, other = time(first), time(second)

    def meeting(index):
        return total(i, one, other, total(j, other, one, a(index)))

    assert same(meeting(i), meeting(one))
    assert not same(meeting(i), meeting(other))
