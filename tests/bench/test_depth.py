"""The benchmark of depth: what it times is right, and what takes too long ends its line."""

import pytest
import sympy as sp

from ttt_proofs.bench import depth, explicit
from ttt_proofs.bench.benchmark import NotRunError, Settings
from ttt_proofs.bench.child import printed


@pytest.mark.parametrize("activation", depth.ACTIVATIONS)
def test_backpropagation_on_explicit_matrices_is_the_derivative(activation):
    found = explicit.differences(2, activation)
    assert len(found) == 8 and all(sp.expand(x) == 0 for x in found)


def test_a_difference_is_seen(monkeypatch):
    monkeypatch.setitem(explicit.ACTIVATIONS, "odd", lambda z: z if z.is_Dummy else z**3)
    assert any(sp.expand(x) != 0 for x in explicit.differences(2, "odd"))


@pytest.mark.parametrize("way", depth.WAYS)
def test_both_ways_run_in_a_process_of_their_own(way):
    assert depth.seconds(way, "act", 1) > 0


def test_a_line_ends_where_it_takes_too_long():
    def timed(way, activation, deep):
        if deep == 3:
            raise NotRunError("it took more than 60 s")
        return 0.5 * deep**2

    (case, *_) = depth.cases(Settings(), timed)
    rows = list(case.measure())
    assert [row["depth"] for row in rows] == [1, 2, 3]
    assert rows[1]["growth"] == pytest.approx(2) and "growth" not in rows[0]
    assert rows[2] == {"depth": 3, "not_run": "it took more than 60 s"}


def test_a_process_that_takes_too_long_or_fails_says_so():
    with pytest.raises(NotRunError, match=r"more than 0\.01 s"):
        printed("timeit", "-n", "1", limit=0.01)
    with pytest.raises(RuntimeError, match="ended with code 1"):
        printed("ttt_proofs.bench.one_proof", "proof", "act", "0")
