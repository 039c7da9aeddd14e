"""Coefficients: which entries values tell apart when they are taken together."""

from itertools import product
from typing import get_args

import pytest

from ttt_proofs.program.coefficients import Shape, united

TELLS_APART = {"scalar": set(), "row": {0}, "column": {1}, "entry": {0, 1}}  # the axes


@pytest.mark.parametrize("count", range(4))
def test_values_together_differ_along_all_of_their_axes(count):
    for shapes in product(get_args(Shape), repeat=count):
        axes = set().union(*(TELLS_APART[shape] for shape in shapes))
        assert TELLS_APART[united(shapes)] == axes
