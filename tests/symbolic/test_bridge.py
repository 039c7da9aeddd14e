"""From SymPy to checker terms: each expression means the same on both sides."""

from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
import torch

from tests.checker.build import at
from tests.symbolic.values import ENTRYWISE, Meaning, matrix
from ttt_proofs.checker.definitions import sum_over
from ttt_proofs.checker.terms import TIME, App, Atom, Ix, Num, Var, check, free, inside, ix
from ttt_proofs.checker.terms import Term as AnyTerm
from ttt_proofs.program.expressions import (
    ACTIVATIONS,
    RowFunction,
    RowFunctionAdjoint,
    RowLoss,
    RowLossGradient,
    Windowed,
    WindowedAdjoint,
    activate,
    width,
)
from ttt_proofs.symbolic.bridge import (
    Scope,
    entry,
    index,
    loss_term,
    place,
    product,
    scalar,
    shifted,
    variable,
    variables,
)

SIZES = {"L": 2, "D_k": 3, "D_h": 4, "D_v": 5}
L, K, H, V = (width(name) for name in SIZES)

SHAPES = {
    "X": (L, K),
    "A": (L, H),
    "B": (L, H),
    "W": (H, V),
    "U": (K, H),
    "F": (L, V),
    "Y": (L, V),
    "S": (H, H),
    "R": (H, H),
}
X, A, B, W, U, F, Y, S, R = (sp.MatrixSymbol(name, *shape) for name, shape in SHAPES.items())


AT_R, AT_J, AT_C = (
    (ix(Var(name, sort)),) for name, sort in (("r", "L"), ("j", "D_h"), ("j", "D_v"))
)


def unweighed(token):
    """No factors of a token's loss."""
    return []


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random values of all matrices."""
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=[SIZES[s.name] for s in shape]) for n, shape in SHAPES.items()}


def names(**values) -> Scope:
    """A scope in which each symbol stands for itself."""
    entries = {n: lambda row, col, n=n: Atom(n, (*row, *col)) for n in SHAPES if n not in values}
    return Scope(entries, values)


def whole(expression: sp.MatrixExpr, scope: Scope, meaning: Meaning) -> np.ndarray:
    """All entries of the checker's term for a matrix expression."""
    row, col = (
        tuple(Var(f"{name}{n}", part) for n, part in enumerate(scope.axes.get(s.name, (s.name,))))
        for name, s in zip("rj", expression.shape, strict=True)
    )
    term = entry(expression, place(row), place(col), scope)
    check(term, AnyTerm)
    assert free(term) <= {*row, *col}
    shape = [SIZES[v.sort] for v in row + col]
    values = [
        float(meaning.of(term, dict(zip(row + col, at, strict=True)))) for at in np.ndindex(*shape)
    ]
    return np.array(values).reshape(shape)


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
    term = entry(slope, AT_R, AT_J, names())
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
    later.time = (Ix((), 2),)
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
    term = loss_term(RowLoss("ell", F, Y), names(), unweighed)
    assert not free(term)
    assert meaning.of(term) == pytest.approx((f**3 * v).sum(), rel=1e-12)


LOSSES = {
    "trace": sp.Trace(F * Y.T),
    "minus": sp.Trace(-F * Y.T),
    "half": sp.Trace((F - Y) * (F - Y).T) / 2,
    "sum": sp.Trace(F * Y.T) - 3 * sp.Trace(Y * Y.T),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_keep_their_value(name):
    values = arrays()
    term = loss_term(LOSSES[name], names(), unweighed)
    assert not free(term)
    expected = matrix(LOSSES[name], values)
    assert float(Meaning(SIZES, values).of(term)) == pytest.approx(float(expected), rel=1e-12)


def test_no_index_is_bound_twice_on_the_way_down():
    """A matrix met twice in one product gets fresh indices each time, so nothing is captured."""
    term = entry(A * S * R * W, AT_R, AT_C, names())
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

    return {
        "a": [draw() for _ in range(6)],
        "b": [[draw() for _ in range(6)] for _ in range(6)],
        "eta": draw(),
    }


@pytest.mark.parametrize("name", SCALARS)
def test_scalars_keep_their_value_exactly(name):
    expression, expected = SCALARS[name]
    given = numbers()
    symbols = {
        "a": lambda k: given["a"][k],
        "b": lambda k, n: given["b"][k][n],
        "eta": lambda: given["eta"],
    }
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
        entry(wrong, AT_R, AT_J, names())


WRONG_LOSSES = [sp.Symbol("x"), sp.Trace(S) ** 2, sp.sin(sp.Trace(S)), sp.Trace(F.T * Y)]


@pytest.mark.parametrize("wrong", WRONG_LOSSES, ids=str)
def test_losses_outside_the_language_are_refused(wrong):
    with pytest.raises(TypeError, match=r"a loss must be a sum over tokens; got"):
        loss_term(wrong, names(), unweighed)


def test_an_unknown_matrix_is_named():
    scope = Scope({})
    with pytest.raises(KeyError, match="`A` must be a symbol of the loop"):
        entry(A, AT_R, AT_J, scope)


WEIGHTS = np.array([2.0, -3.0])


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_weighed_token_by_token(name):
    """With a factor for each row the loss is the sum of the rows' own losses, each times its."""
    values = arrays()
    term = loss_term(LOSSES[name], names(), lambda token: [Atom("eta", token)])
    parts = [
        float(matrix(LOSSES[name], values | {n: values[n][[r]] for n in "FY"})) for r in range(2)
    ]
    found = float(Meaning(SIZES, values | {"eta": WEIGHTS}).of(term))
    assert found == pytest.approx(float(WEIGHTS @ parts), rel=1e-12)
    assert found != pytest.approx(float(WEIGHTS[::-1] @ parts), rel=1e-6)
    both = loss_term(LOSSES[name], names(), lambda token: [Atom("eta", token)] * 2)
    twice = float(Meaning(SIZES, values | {"eta": WEIGHTS}).of(both))
    assert twice == pytest.approx(float(WEIGHTS**2 @ parts), rel=1e-12)


# Windows: pixels and offsets have two coordinates each.

PIXELS, OFFSETS, CHANNELS = (width(name) for name in ("P", "D_w", "D_v"))
IMAGE, WINDOW = sp.MatrixSymbol("X", PIXELS, CHANNELS), sp.MatrixSymbol("W", OFFSETS, CHANNELS)
COTANGENT = sp.MatrixSymbol("C", PIXELS, CHANNELS)
AXES = {"P": ("Y", "X"), "D_w": ("D_y", "D_x")}
SIZES |= {"Y": 3, "X": 2, "D_y": 3, "D_x": 5}


def windows() -> tuple[Scope, dict]:
    """An image with its margin, a window that is not square, and a cotangent."""
    rng = np.random.default_rng(2)
    values = {
        "X": rng.normal(size=(3 + 2, 2 + 4, 5)),
        "W": rng.normal(size=(3, 5, 5)),
        "C": rng.normal(size=(3, 2, 5)),
    }
    entries = {n: lambda row, col, n=n: Atom(n, (*row, *col)) for n in values}
    return Scope(entries, axes=AXES), values


def correlated(image, window):
    """`Y[p, c] = Σ_d X[p + d, c] W[d, c]`, by PyTorch, which flips nothing."""
    x, w = (torch.tensor(a).permute(2, 0, 1) for a in (image, window))
    return torch.nn.functional.conv2d(x[None], w[:, None], groups=len(w))[0].permute(1, 2, 0)


def test_windows_slide_over_images():
    scope, values = windows()
    found = whole(Windowed(IMAGE, WINDOW), scope, Meaning(SIZES, values))
    expected = correlated(values["X"], values["W"]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    flipped = correlated(values["X"], values["W"][::-1, ::-1].copy()).numpy()
    assert not np.allclose(found, flipped)


def test_the_adjoint_of_a_window_is_its_gradient():
    scope, values = windows()
    window = torch.tensor(values["W"]).requires_grad_()
    x, w = torch.tensor(values["X"]).permute(2, 0, 1), window.permute(2, 0, 1)
    made = torch.nn.functional.conv2d(x[None], w[:, None], groups=5)[0].permute(1, 2, 0)
    (expected,) = torch.autograd.grad((made * torch.tensor(values["C"])).sum(), window)
    adjoint = WindowedAdjoint(Windowed(IMAGE, WINDOW), COTANGENT)
    found = whole(adjoint, scope, Meaning(SIZES, values))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-11, atol=1e-12)
    assert not np.allclose(found, expected.numpy()[::-1, ::-1])


THETA = sp.MatrixSymbol("S", H, H)


def net(x, theta, out):
    """Some function of a row and of parameters."""
    mixed = (theta * (1 + np.arange(16.0)).reshape(4, 4)).sum()
    return np.sin(x @ np.arange(1.0, 4.0) + mixed + out)


def net_entry(at, arguments, slots):
    """The same, or its derivative in the parameters."""
    x, theta = arguments
    if not slots:
        return net(x, theta, at[0])
    ((argument, *cell),) = slots
    assert argument == 1
    change = np.zeros((4, 4), complex)
    change[*cell] = 1e-30j
    return net(x, theta + change, at[0]).imag / 1e-30


def test_functions_of_rows_and_parameters_and_their_gradient():
    values, meaning = arrays(), Meaning(SIZES, arrays(), {"f": net_entry})
    f = RowFunction("f", X, V, THETA)
    expected = [[net(row, values["S"], c) for c in range(5)] for row in values["X"]]
    np.testing.assert_allclose(whole(f, names(), meaning), expected, rtol=1e-12)
    adjoint = RowFunctionAdjoint(f, Y)
    slopes = [
        [
            net_entry([c], [row, values["S"]], [(1, a, b)]) * values["Y"][n, c]
            for n, row in enumerate(values["X"])
            for c in range(5)
        ]
        for a, b in np.ndindex(4, 4)
    ]
    found = whole(adjoint, names(), meaning)
    np.testing.assert_allclose(found, np.sum(slopes, axis=1).reshape(4, 4), rtol=1e-9)
    assert not np.allclose(found, found.T)


def test_places():
    row, by = variables("D_w", AXES), variables("P", AXES, 1)
    assert [v.sort for v in row] == ["D_y", "D_x"] and [v.name for v in by] == ["y1", "x1"]
    assert variables("L", {"L": ()}) == () and variables("L", {}) == (variable("L"),)
    there = shifted(place(row), place(by))
    assert [{v.name for v in i.vars} for i in there] == [{"dy", "y1"}, {"dx", "x1"}]
    assert shifted((Ix((row[0],), 1),), (Ix((), 2),)) == (Ix((row[0],), 3),)
    with pytest.raises(ValueError, match="zip"):
        shifted(place(row), place(by[:1]))


def test_families_in_the_environment_are_functions_of_time():
    base, now = sp.IndexedBase("N"), Var("t", TIME)
    env = {base: lambda time: Atom("N_W", (time, at(0)))}
    assert scalar(base[t + 1], env) == Atom("N_W", (ix(now, 1), at(0)))
    inner = scalar(sp.Product(base[s], (s, 1, t)), env)
    assert inside(inner, Atom) == [Atom("N_W", (ix(Var("s", TIME)), at(0)))]
    assert scalar(base[t + 1]) == Atom("N", (ix(now, 1),))


def test_small_pieces():
    assert variable("D_k") == Var("a", "D_k") and variable("D_v", 2) == Var("c2", "D_v")
    assert variable("D_2") == Var("d2", "D_2")  # hidden widths get letters of their own
    one, x = Num(1), Atom("x", ())
    assert product([]) == one and product([one, x, one]) == x
    assert sum_over((), x) == x
    outer, inner = Var("a", "D_k"), Var("c", "D_v")
    assert (sum_over((outer, inner), x).var, sum_over([outer, inner], x).body.var) == (outer, inner)
