"""Gates on columns and operators on matrices, in numbers."""

import numpy as np
import pytest
import sympy as sp

from tests.checker.build import at
from tests.symbolic.values import Meaning, muon_entry
from ttt_proofs.checker.terms import App, Atom, Lam, Var, ix, symbols
from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
from ttt_proofs.program.rules import W_0, G, W, operator
from ttt_proofs.symbolic.bridge import scalar
from ttt_proofs.symbolic.gates import applied, columns, norm

ROW, COL = Var("a", "D_k"), Var("c", "D_v")
SIZES = {"D_k": 3, "D_v": 2}
X, START = np.arange(6.0).reshape(3, 2) - 1.5, np.array([[3.0, 1.0], [0.0, 2.0], [4.0, 2.0]])
X_ENTRY = sp.Symbol("x")
COLUMN = Lam((ROW,), Atom("x", (ix(ROW), ix(COL))))


def value(term, col: int) -> float:
    """The term's value at a column."""
    symbols = {"x": X, "W_0": START, "epsilon": 1e-5}
    return float(Meaning(SIZES, symbols, {"muon": muon_entry}).of(term, {COL: col}))


def gate(clip: str | None = None, weight_norm: str | None = None):
    """A gate on column c of W, of the matrix x: the one of a step's line, of the step or weight."""
    rule = GradientStep(None, clip=clip, weight_norm=weight_norm).rule
    taken = {G: X_ENTRY} if clip else {W - G: X_ENTRY}
    expression = rule[sp.Symbol("R" if clip else "N")].xreplace(taken)

    def entry(e: sp.Expr):
        return scalar(e, found | {X_ENTRY: COLUMN.body, W_0: Atom("W_0", (ix(ROW), ix(COL)))})

    weight = InnerLoop(Linear(), Frobenius()).net.last
    found = columns(weight, (ROW,), (ix(COL),), entry)
    return entry(expression)


@pytest.mark.parametrize("col", [0, 1])
def test_the_clip_divides_by_the_column_norm_plus_one(col):
    found = value(gate(clip="column_norm"), col)
    assert found == pytest.approx(1 / (np.linalg.norm(X[:, col]) + 1), rel=1e-12)
    assert found != pytest.approx(1 / (np.linalg.norm(X[:, 1 - col]) + 1), rel=1e-3)
    assert found != pytest.approx(1 / (np.linalg.norm(X) + 1), rel=1e-3)


@pytest.mark.parametrize("col", [0, 1])
def test_the_weight_norm_restores_the_initial_norm_of_the_column(col):
    found, initial = (
        value(gate(weight_norm="initial_norm"), col),
        np.linalg.norm(START, axis=0),
    )
    length = np.linalg.norm(X[:, col])
    assert found == pytest.approx(initial[col] / (length + 1e-5), rel=1e-12)
    assert found != pytest.approx(initial[col] / length, rel=1e-7)  # ε counts
    assert found != pytest.approx(initial[1 - col] / (length + 1e-5), rel=1e-3)


def test_norms():
    assert value(norm(COLUMN), 1) == pytest.approx(np.linalg.norm(X[:, 1]), rel=1e-12)


def test_other_names_are_unknown_functions():
    """A clip is one function of a column; a normalisation may be another for each column."""
    assert gate(clip="r") == App("r", (), (COLUMN,))
    assert gate(weight_norm="n") == App("n_W", (ix(COL),), (COLUMN,))
    assert symbols(gate(weight_norm="initial_norm")) == {"x", "W_0", "epsilon"}


def test_operators_take_the_whole_matrix():
    inner = Lam((ROW, COL), Atom("x", (ix(ROW), ix(COL))))
    term = applied(operator("muon", X_ENTRY), (at(2), at(1)), inner)
    assert (term.fn, term.ix, term.args) == ("muon", (at(2), at(1)), (inner,))
    whole = muon_entry((2, 1), [X], [])
    assert value(term, 0) == pytest.approx(whole, rel=1e-12)
    alone = np.zeros_like(X)
    alone[2, 1] = X[2, 1]
    assert whole != pytest.approx(muon_entry((2, 1), [alone], []), rel=1e-2)
