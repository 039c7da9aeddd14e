"""Constants: which fraction stands for a float, and that it is this float when code runs."""

from fractions import Fraction

import numpy as np
import pytest

from ttt_proofs import NotCoveredError, TTTLayer, reduce
from ttt_proofs.loops import Frobenius, InnerLoop, Linear, Update
from ttt_proofs.program.constants import LARGEST, fraction

AS_WRITTEN = {
    0.1: Fraction(1, 10),
    0.044715: Fraction(44715, 10**6),
    -2.5: Fraction(-5, 2),
    1e-15: Fraction(1, 10**15),
    1 / 3: Fraction(1, 3),
    -5 / 7: Fraction(-5, 7),
    3: Fraction(3),
    Fraction(2, 9): Fraction(2, 9),
    np.float64(0.3): Fraction(3, 10),
}


@pytest.mark.parametrize("value", AS_WRITTEN, ids=repr)
def test_a_number_is_the_fraction_that_it_is_written_as(value):
    assert fraction(value) == AS_WRITTEN[value]


def test_a_quotient_of_small_integers_is_itself():
    for bottom in range(1, 31):
        for top in range(4 * bottom):
            assert fraction(top / bottom) == Fraction(top, bottom)


@pytest.mark.parametrize("power", [-0.5, -1, 0.5, 1.5], ids=str)
def test_a_float_is_a_fraction_that_rounds_to_it(power):
    for width in range(1, 300):
        found = fraction(width**power)
        assert found is not None and float(found) == width**power
        assert max(abs(found.numerator), found.denominator) < LARGEST


@pytest.mark.parametrize("value", [1e-20, -1e300, float("inf"), float("nan"), LARGEST])
def test_what_no_fraction_stands_for(value):
    assert fraction(value) is None


def scaled(factor):
    """A linear net whose steps are scaled by a constant in the rule."""
    return InnerLoop(Linear(), Frobenius(), Update(lambda W, g: W - factor * g))


def test_a_rule_takes_a_constant_for_the_same_fraction():
    (line,) = scaled(1 / 3).rule.lines
    assert str(line.expression) == "-G/3 + W"
    assert reduce(scaled(1 / 3)).parallel == reduce(scaled(96**-0.5)).parallel == "additive"


def test_what_is_too_long_for_a_proof_is_not_covered_and_runs():
    with pytest.raises(NotCoveredError, match=r"that the checker accepts; it says that at most"):
        reduce(scaled(1e-20))
    assert "not covered, so recurrent" in repr(TTTLayer(scaled(1e-20), 8, heads=2))
