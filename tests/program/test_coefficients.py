"""Coefficients: what may be declared."""

import pytest

from ttt_proofs.loops import Coefficient

WRONG = ["ab", (0,), (0, 1, 2), None, 1.0, (float("nan"), 1), ("0", "1"), (True, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize("ends", WRONG, ids=repr)
def test_a_range_that_is_none_is_refused_in_a_sentence(ends):
    with pytest.raises(ValueError, match=r"^`range` must be [^;]+; got .+\. [A-Z].+\.$"):
        Coefficient(range=ends)


@pytest.mark.parametrize("ends", [(0, 1), [0, 1], (None, 1.0), (-1, None), (None, None)], ids=repr)
def test_a_range_is_a_pair_and_may_be_open(ends):
    found = Coefficient(range=ends)
    assert found.range == tuple(ends) and hash(found) == hash(Coefficient(range=tuple(ends)))
