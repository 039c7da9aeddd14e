"""From SymPy to kernel terms: each expression means the same on both sides."""

from fractions import Fraction

import numpy as np
import pytest
import sympy as sp

from tests.symbolic.values import ENTRYWISE, Meaning, matrix
from ttt_proofs.kernel.definitions import sum_over
from ttt_proofs.kernel.terms import TIME, App, Atom, Ix, Num, Var, check, free, inside, ix
from ttt_proofs.kernel.terms import Term as AnyTerm
from ttt_proofs.loops.expressions import (
    ACTIVATIONS,
    RowFunction,
    RowLoss,
    RowLossGradient,
    activate,
    width,
)
from ttt_proofs.symbolic.bridge import (
    Scope,
    entry,
    index,
    loss_term,
    product,
    scalar,
    variable,
)

SIZES = {"L": 2, "D_k": 3, "D_h": 4, "D_v": 5}
L, K, H, V = (width(name) for name in SIZES)

SHAPES = {"X": (L, K), "A": (L, H), "B": (L, H), "W": (H, V), "U": (K, H), "F": (L, V),
          "Y": (L, V), "S": (H, H),
          "R": (H, H)}  # fmt: skip
X, A, B, W, U, F, Y, S, R = (sp.MatrixSymbol(name, *shape) for name, shape in SHAPES.items())


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random values of all matrices."""
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=[SIZES[s.name] for s in shape]) for n, shape in SHAPES.items()}


def names(**values) -> Scope:
    """A scope in which each symbol stands for itself."""
    entries = {n: lambda row, col, n=n: Atom(n, (row, col)) for n in SHAPES if n not in values}
    return Scope(entries, values)


def whole(expression: sp.MatrixExpr, scope: Scope, meaning: Meaning) -> np.ndarray:
    """All entries of the kernel's term for a matrix expression."""
    row, col = (Var(name, s.name) for name, s in zip("rj", expression.shape, strict=True))
    term = entry(expression, ix(row), ix(col), scope)
    check(term, AnyTerm)
    assert free(term) <= {row, col}
    rows, cols = (range(SIZES[s.name]) for s in expression.shape)
    return np.array([[float(meaning.of(term, {row: r, col: c})) for c in cols] for r in rows])


EXPRESSIONS = {
    "symbol": X,
    "transpose": X.T,
    "product": X * U,
    "three factors": X * U * W,
    "inner product": A.T * B,
    "outer product": A * B.T,
    "transpose of a product": (X * U).T,
    "coefficient": sp.Rational(-3, 7) * A * W,
    "minus": -X,
    "sum": A + 2 * B - X * U,
    "product of sums": (A - B) * (W + S * W),
    "entrywise": sp.HadamardProduct(A, B),
    "entrywise of products": sp.HadamardProduct(X * U, A, B),
    "entrywise in a product": sp.HadamardProduct(A, B).T * F,
    "four factors": A * S * R * W,
    "twice the same": S * R * S,
    **{f"activation {name}": activate(name, X * U) for name in ACTIVATIONS},
    "activation of an activation": activate("tanh", activate("silu", A) * S),
    "abstract activation": activate("act", A + B),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_matrix_expressions_keep_their_value(name):
    values = arrays()
    expected = matrix(EXPRESSIONS[name], values)
    meaning = Meaning(SIZES, values)
    np.testing.assert_allclose(whole(EXPRESSIONS[name], names(), meaning), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A.T * B, B.T * A),
        (A + B, A - B),
        (S * R, R * S),
        (sp.HadamardProduct(A, B), A),
        (activate("silu", A), activate("sigmoid", A)),
        (2 * A, A),
    ],
    ids=str,
)
def test_another_expression_is_told_apart(one, other):
    """The comparison above can fail."""
    values = arrays()
    actual = whole(one, names(), Meaning(SIZES, values))
    assert not np.allclose(actual, matrix(other, values))


def test_definitions_are_put_in():
    values = arrays()
    scope = names(A=X * U, F=activate("silu", A) * W)
    expected = ENTRYWISE["sigmoid"][0](values["X"] @ values["U"]) * (values["X"] @ values["U"])
    actual = whole(F, scope, Meaning(SIZES, values))
    np.testing.assert_allclose(actual, expected @ values["W"], rtol=1e-12)


def test_derivatives_of_activations_are_kept_as_such():
    x = sp.Dummy("x")
    slope = A.applyfunc(sp.Lambda(x, sp.Function("act")(x).diff(x)))
    values = arrays()
    actual = whole(slope, names(), Meaning(SIZES, values))
    np.testing.assert_allclose(actual, 3 * values["A"] ** 2 - 1, rtol=1e-12)
    term = entry(slope, ix(Var("r", "L")), ix(Var("j", "D_h")), names())
    assert [app.slots for app in inside(term, App)] == [((0, ()),)]


def rows(at, arguments, slots):
    """An abstract φ for the test: it mixes the entries of its row, and knows the time."""
    *time, col = at
    (x,) = arguments
    return np.sin(x @ np.arange(1.0, len(x) + 1) + col + 10 * sum(time))


def test_functions_of_rows():
    values = arrays()
    phi = RowFunction("phi", X, H)
    mixed = values["X"] @ np.arange(1.0, 4.0)
    expected = np.sin(mixed[:, None] + np.arange(4.0))
    meaning = Meaning(SIZES, values, {"phi": rows})
    np.testing.assert_allclose(whole(phi, names(), meaning), expected, rtol=1e-12)
    later = names()
    later.time = Ix((), 2)
    actual = whole(phi, later, meaning)
    np.testing.assert_allclose(actual, np.sin(mixed[:, None] + np.arange(4.0) + 20), rtol=1e-12)


def ell(at, arguments, slots):
    """An abstract loss for the test, `Σ_c (f_c)³ v_c`, and its gradient in f."""
    f, v = arguments
    if not slots:
        return (f**3 * v).sum()
    ((argument, c),) = slots
    return 3 * f[c] ** 2 * v[c] if argument == 0 else f[c] ** 3


def test_abstract_losses_and_their_gradients():
    values = arrays()
    f, v = values["F"], values["Y"]
    meaning = Meaning(SIZES, values, {"ell": ell})
    actual = whole(RowLossGradient("ell", F, Y), names(), meaning)
    np.testing.assert_allclose(actual, 3 * f**2 * v, rtol=1e-12)
    term = loss_term(RowLoss("ell", F, Y), names())
    assert not free(term)
    assert meaning.of(term) == pytest.approx((f**3 * v).sum(), rel=1e-12)


LOSSES = {
    "trace": sp.Trace(F.T * Y),
    "minus": sp.Trace(-F.T * Y),
    "half": sp.Trace((F - Y).T * (F - Y)) / 2,
    "sum": sp.Trace(F.T * Y) - 3 * sp.Trace(Y.T * Y),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_keep_their_value(name):
    values = arrays()
    term = loss_term(LOSSES[name], names())
    assert not free(term)
    expected = matrix(LOSSES[name], values)
    assert float(Meaning(SIZES, values).of(term)) == pytest.approx(float(expected), rel=1e-12)


def test_no_index_is_bound_twice_on_the_way_down():
    """A matrix met twice in one product gets fresh indices each time, so nothing is captured."""
    term = entry(A * S * R * W, ix(Var("r", "L")), ix(Var("j", "D_v")), names())
    bound = [v for v in inside(term, Var) if v.sort == "D_h"]
    assert len({v.name for v in bound}) == 3


t, i, j, s = sp.symbols("t i j s", integer=True)
a, b, eta = sp.IndexedBase("a"), sp.IndexedBase("b"), sp.Symbol("eta")
TIMES = {Var("t", TIME): 4, Var("i", TIME): 1, Var("j", TIME): 2}

SCALARS = {
    "rational": (sp.Rational(-2, 3), lambda a, b, e: Fraction(-2, 3)),
    "symbol": (eta, lambda a, b, e: e),
    "indexed": (a[t], lambda a, b, e: a[4]),
    "shifted": (a[t - 1] * a[i + 2], lambda a, b, e: a[3] * a[3]),
    "two indices": (b[i, j], lambda a, b, e: b[1][2]),
    "power": (a[j] ** 3, lambda a, b, e: a[2] ** 3),
    "polynomial": (2 * a[t] ** 2 - eta / 3 + 1, lambda a, b, e: 2 * a[4] ** 2 - e / 3 + 1),
    "sum": (sp.Sum(a[s], (s, i, t)), lambda a, b, e: sum(a[1:5])),
    "empty sum": (sp.Sum(a[s], (s, t, i)), lambda a, b, e: 0),
    "product": (sp.Product(a[s], (s, i + 1, t)), lambda a, b, e: a[2] * a[3] * a[4]),
    "empty product": (sp.Product(a[s], (s, t + 1, t)), lambda a, b, e: 1),
    "constant product": (sp.Product(eta, (s, i, t)), lambda a, b, e: e**4),
    "double sum": (
        sp.Sum(b[s, j], (s, 0, j), (j, 0, t)),
        lambda a, b, e: sum(b[s][j] for j in range(5) for s in range(j + 1)),
    ),
    "sum of products": (
        sp.Sum(a[j] * sp.Product(a[s], (s, i + 1, j)), (j, i, t)),
        lambda a, b, e: a[1] + a[2] * a[2] + a[3] * a[2] * a[3] + a[4] * a[2] * a[3] * a[4],
    ),
}


def numbers() -> dict:
    """Random rational values."""
    rng = np.random.default_rng(1)

    def draw():
        return Fraction(int(rng.integers(-9, 10)), int(rng.integers(1, 8)))

    return {"a": [draw() for _ in range(6)], "b": [[draw() for _ in range(6)] for _ in range(6)],
            "eta": draw()}  # fmt: skip


@pytest.mark.parametrize("name", SCALARS)
def test_scalars_keep_their_value_exactly(name):
    expression, expected = SCALARS[name]
    given = numbers()
    symbols = {"a": lambda k: given["a"][k], "b": lambda k, n: given["b"][k][n],
               "eta": lambda: given["eta"]}  # fmt: skip
    term = scalar(expression)
    check(term, AnyTerm)
    assert Meaning({}, symbols).of(term, TIMES) == expected(*given.values())


def test_the_environment_stands_for_symbols():
    stands = Atom("G", (ix(Var("t", TIME)),))
    assert scalar(eta, {eta: stands}) == stands
    assert scalar(eta * a[t], {eta: stands}) != scalar(eta * a[t])


def test_indices():
    assert index(t) == ix(Var("t", TIME)) and index(t - 2) == ix(Var("t", TIME), -2)
    assert index(sp.Integer(3)) == Ix((), 3) and index(0) == Ix((), 0)


@pytest.mark.parametrize("wrong", [2 * t, t + i, sp.Rational(1, 2), t / 2, t**2], ids=str)
def test_other_indices_are_refused(wrong):
    with pytest.raises(TypeError, match=r"a time index must be a symbol plus an integer; got"):
        index(wrong)


@pytest.mark.parametrize(
    "wrong", [sp.sqrt(2), sp.pi, 1 / eta, eta**i, sp.Symbol("x") ** sp.Rational(1, 2)], ids=str
)
def test_scalars_outside_the_language_are_refused(wrong):
    with pytest.raises(TypeError, match=r"a scalar expression of a known kind is required; got"):
        scalar(wrong)


@pytest.mark.parametrize(
    "wrong", [S * S, S.inv(), sp.Determinant(S) * A, sp.ZeroMatrix(2, 3)], ids=str
)
def test_matrices_outside_the_language_are_refused(wrong):
    with pytest.raises(TypeError, match=r"is required; got"):
        entry(wrong, ix(Var("r", "L")), ix(Var("j", "D_h")), names())


@pytest.mark.parametrize("wrong", [sp.Symbol("x"), sp.Trace(S) ** 2, sp.sin(sp.Trace(S))], ids=str)
def test_losses_outside_the_language_are_refused(wrong):
    with pytest.raises(TypeError, match=r"a loss must be built from traces; got"):
        loss_term(wrong, names())


def test_an_unknown_matrix_is_named():
    scope = Scope({})
    with pytest.raises(KeyError, match="`A` must be a symbol of the loop"):
        entry(A, ix(Var("r", "L")), ix(Var("j", "D_h")), scope)


def test_small_pieces():
    assert variable("D_k") == Var("a", "D_k") and variable("D_v", 2) == Var("c2", "D_v")
    assert variable("D_2") == Var("d2", "D_2")  # hidden widths get letters of their own
    one, x = Num(Fraction(1)), Atom("x", ())
    assert product([]) == one and product([one, x, one]) == x
    assert sum_over((), x) == x
    outer, inner = Var("a", "D_k"), Var("c", "D_v")
    assert (sum_over((outer, inner), x).var, sum_over([outer, inner], x).body.var) == (outer, inner)
