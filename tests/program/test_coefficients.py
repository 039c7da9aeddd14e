"""Coefficients: what may be declared, and which entries values together tell apart."""

from itertools import product
from typing import get_args

import pytest

from ttt_proofs.loops import Coefficient
from ttt_proofs.program.coefficients import Shape, united

TELLS_APART = {"scalar": set(), "row": {0}, "column": {1}, "entry": {0, 1}}  # the axes


@pytest.mark.parametrize("count", range(4))
def test_values_together_differ_along_all_of_their_axes(count):
    for shapes in product(get_args(Shape), repeat=count):
        axes = set().union(*(TELLS_APART[shape] for shape in shapes))
        assert TELLS_APART[united(shapes)] == axes


WRONG = ["ab", (0,), (0, 1, 2), None, 1.0, (float("nan"), 1), ("0", "1"), (True, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize("ends", WRONG, ids=repr)
def test_a_range_that_is_none_is_refused_in_a_sentence(ends):
    with pytest.raises(ValueError, match=r"^`range` must be [^;]+; got .+\. [A-Z].+\.$"):
        Coefficient(range=ends)


@pytest.mark.parametrize("ends", [(0, 1), [0, 1], (None, 1.0), (-1, None), (None, None)], ids=repr)
def test_a_range_is_a_pair_and_may_be_open(ends):
    found = Coefficient(range=ends)
    assert found.range == tuple(ends) and hash(found) == hash(Coefficient(range=tuple(ends)))
