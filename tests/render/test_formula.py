"""Terms built by hand, and exactly what they look like."""

import pytest

from tests.checker.build import at
from ttt_proofs.checker.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Var, ix
from ttt_proofs.render import latex, text

T, FIRST, S = (Var(name, TIME) for name in "tis")
A, H, C = Var("a", "D_k"), Var("h", "D_h"), Var("c", "D_v")
ROW = Var("l", "L")
X, Y, Z = (Atom(name, (ix(H),)) for name in "xyz")
ETA, ALPHA = Atom("eta", ()), Atom("alpha", (ix(S),))
MINUS = Num(-1)
K = Atom("k", (ix(T), ix(ROW), ix(A)))
KEPT = Prod(ix(FIRST, 1), ix(T, -1), Lam((S,), ALPHA))


def sum_h(body):
    return Sum(H, None, None, body)


def sigmoid(x):
    return App("sigmoid", (), (Lam((), x),))


def ell(*slots):
    return App("ell", (), (Lam((C,), Atom("f", (ix(C),))), Lam((C,), Atom("v", (ix(C),)))), slots)


def root(x):
    return App("root", (), (Lam((), x),))


def inverse(x):
    return App("inverse", (), (Lam((), x),))


def muon(argument, *entry):
    return App("muon", entry, (argument,))


W, G = (Atom(name, (ix(T), ix(H), ix(C))) for name in ("W1", "G_W1"))
NORM = root(sum_h(Mul((W, W))))
H1, C1 = Var("h1", "D_h"), Var("c1", "D_v")
INNER = Lam((H1, C1), Mul((Atom("k", (ix(H1),)), Atom("v", (ix(C1),)))))
PIXEL = tuple(Var(*pair) for pair in (("y", "Y"), ("dy", "D_y"), ("x", "X"), ("dx", "D_x")))
SHIFTED = Atom("k", (ix(T), Ix((PIXEL[1], PIXEL[0])), Ix((PIXEL[3], PIXEL[2])), ix(C)))

CASES = [
    (Num(0), "0", "0"),
    (Num(-1, 2), "−1/2", r"-\tfrac{1}{2}"),
    (X, "x[h]", "x_{h}"),
    (Atom("M_W", (ix(T, 1), ix(H), ix(C))), "M_W[t+1,h,c]", "M^{W}_{t+1,hc}"),
    (Atom("W_0", (ix(H), ix(C))), "W_0[h,c]", "W^{0}_{hc}"),
    (Atom("W", (at(0), ix(H), ix(C))), "W[0,h,c]", "W_{0,hc}"),
    (Atom("W1_0", (ix(H), ix(C))), "W1_0[h,c]", "W^{(1),0}_{hc}"),
    (Atom("alpha", (ix(T, -2),)), "α[t−2]", r"\alpha_{t-2}"),
    (Atom("x", (at(-1),)), "x[−1]", "x_{-1}"),
    (Atom("x", (Ix((A, H), 1),)), "x[a+h+1]", "x_{a+h+1}"),
    # signs and numbers
    (Mul((MINUS, X)), "−x[h]", "-x_{h}"),
    (Mul((MINUS, MINUS, X)), "x[h]", "x_{h}"),
    (Mul((X, MINUS, ETA)), "−η · x[h]", r"-\eta\,x_{h}"),
    (Mul((X, Mul((MINUS, Y)))), "x[h] · (−y[h])", r"x_{h} \cdot (-y_{h})"),
    (Mul((Mul((MINUS, X)), Mul((MINUS, Y)))), "x[h] · y[h]", r"x_{h}\,y_{h}"),
    (Mul((Num(-3, 2), X)), "−3/2 · x[h]", r"-\tfrac{3}{2}\,x_{h}"),
    (Add((Mul((MINUS, X)), Y)), "y[h] − x[h]", "y_{h} - x_{h}"),
    (Add((X, Mul((Num(-2), Y)))), "x[h] − 2 · y[h]", r"x_{h} - 2\,y_{h}"),
    (Add((Mul((MINUS, X)), Mul((MINUS, Y)))), "−x[h] − y[h]", "-x_{h} - y_{h}"),
    (Add((X, Num(-1))), "x[h] − 1", "x_{h} - 1"),
    (Mul((MINUS, Add((X, Mul((MINUS, Y)))))), "y[h] − x[h]", "y_{h} - x_{h}"),
    (Add(()), "0", "0"),
    (Mul(()), "1", "1"),
    # parentheses only where they are needed
    (Mul((X, Add((Y, Z)))), "x[h] · (y[h] + z[h])", r"x_{h} \cdot (y_{h} + z_{h})"),
    (Add((X, Add((Y, Z)))), "x[h] + y[h] + z[h]", "x_{h} + y_{h} + z_{h}"),
    (Mul((X, Mul((Y, Z)))), "x[h] · y[h] · z[h]", r"x_{h}\,y_{h}\,z_{h}"),
    (sum_h(Mul((X, Y))), "Σ_h x[h] · y[h]", r"\sum_{h} x_{h}\,y_{h}"),
    (sum_h(Add((X, Y))), "Σ_h (x[h] + y[h])", r"\sum_{h} (x_{h} + y_{h})"),
    (Mul((sum_h(X), Y)), "(Σ_h′ x[h′]) · y[h]", r"\Bigl(\sum_{h'} x_{h'}\Bigr)\,y_{h}"),
    (Mul((Y, sum_h(X))), "y[h] · Σ_h′ x[h′]", r"y_{h}\,\sum_{h'} x_{h'}"),
    (Add((sum_h(X), Y)), "(Σ_h′ x[h′]) + y[h]", r"\Bigl(\sum_{h'} x_{h'}\Bigr) + y_{h}"),
    (Add((Y, sum_h(X))), "y[h] + Σ_h′ x[h′]", r"y_{h} + \sum_{h'} x_{h'}"),
    (sum_h(Mul((MINUS, X))), "−Σ_h x[h]", r"-\sum_{h} x_{h}"),
    (
        Sum(FIRST, at(0), ix(T, -1), KEPT),
        "Σ_{i=0}^{t−1} Π_{s=i+1}^{t−1} α[s]",
        r"\sum_{i=0}^{t-1} \prod_{s=i+1}^{t-1} \alpha_{s}",
    ),
    (
        Mul((KEPT, X)),
        "(Π_{s=i+1}^{t−1} α[s]) · x[h]",
        r"\Bigl(\prod_{s=i+1}^{t-1} \alpha_{s}\Bigr)\,x_{h}",
    ),
    # functions
    (
        App("phi", (ix(T, 1), ix(H)), (Lam((A,), K),)),
        "φ[t+1,h](k[t,l,·])",
        r"\varphi_{t+1,h}(k_{t,l\cdot})",
    ),
    (sigmoid(X), "σ(x[h])", r"\sigma(x_{h})"),
    (App("sigma", (), (Lam((), X),)), "sigma(x[h])", r"\operatorname{sigma}(x_{h})"),
    (App("gelu_tanh", (), (Lam((), X),)), "gelu_tanh(x[h])", r"\operatorname{gelu-tanh}(x_{h})"),
    (
        App("act", (), (Lam((), X),), ((0, ()), (0, ()))),
        "act′′(x[h])",
        r"\operatorname{act}''(x_{h})",
    ),
    (ell((0, (ix(C),))), "∂_{1,c} ℓ(f[·], v[·])", r"\partial_{1,c}\,\ell(f_{\cdot}, v_{\cdot})"),
    (
        ell((0, (ix(C),)), (1, (ix(C, 1),))),
        "∂_{1,c} ∂_{2,c+1} ℓ(f[·], v[·])",
        r"\partial_{1,c}\,\partial_{2,c+1}\,\ell(f_{\cdot}, v_{\cdot})",
    ),
    (App("silu", (), (Lam((), X),)), "silu(x[h])", r"\operatorname{silu}(x_{h})"),
    (App("silu", (), (Lam((), X),), ((0, ()),)), "silu′(x[h])", r"\operatorname{silu}'(x_{h})"),
    (Mul((X, sigmoid(Y))), "x[h] · σ(y[h])", r"x_{h}\,\sigma(y_{h})"),
    # powers, roots, norms, fractions
    (Mul((X, X)), "x[h]²", "(x_{h})^{2}"),
    (Mul((ETA, X, ETA, Y, ETA)), "η³ · x[h] · y[h]", r"(\eta)^{3}\,x_{h}\,y_{h}"),
    (Mul((Add((X, Y)), Add((X, Y)))), "(x[h] + y[h])²", "(x_{h} + y_{h})^{2}"),
    (Mul((sigmoid(X), sigmoid(X))), "σ(x[h])²", r"\sigma(x_{h})^{2}"),
    (Mul((MINUS, X, MINUS, X)), "x[h]²", "(x_{h})^{2}"),
    (root(X), "√(x[h])", r"\sqrt{x_{h}}"),
    (Mul((root(X), root(X))), "√(x[h])²", r"\sqrt{x_{h}}^{2}"),
    (root(Mul((X, X))), "√(x[h]²)", r"\sqrt{(x_{h})^{2}}"),
    (NORM, "‖W1[t,·,c]‖", r"\lVert W^{(1)}_{t,\cdot c} \rVert"),
    (
        root(sum_h(Mul((Add((W, Mul((ETA, G)))),) * 2))),
        "‖W1[t,·,c] + η · G_W1[t,·,c]‖",
        r"\lVert W^{(1)}_{t,\cdot c} + \eta\,G^{W^{(1)}}_{t,\cdot c} \rVert",
    ),
    (root(sum_h(Mul((X, Y)))), "√(Σ_h x[h] · y[h])", r"\sqrt{\sum_{h} x_{h}\,y_{h}}"),
    (
        root(sum_h(Mul((X, Y, X, Y)))),
        "√(Σ_h x[h]² · y[h]²)",
        r"\sqrt{\sum_{h} (x_{h})^{2} \cdot (y_{h})^{2}}",
    ),
    (
        root(sum_h(Mul((Add((X, ETA)),) * 2))),
        "√(Σ_h (x[h] + η)²)",
        r"\sqrt{\sum_{h} (x_{h} + \eta)^{2}}",
    ),
    (inverse(X), "1 / x[h]", r"\frac{1}{x_{h}}"),
    (inverse(Num(2)), "1 / (2)", r"\frac{1}{(2)}"),
    (
        Mul((inverse(Add((NORM, Atom("epsilon", ())))), X)),
        "x[h] / (‖W1[t,·,c]‖ + ε)",
        r"\frac{x_{h}}{\lVert W^{(1)}_{t,\cdot c} \rVert + \varepsilon}",
    ),
    (
        Mul((MINUS, inverse(X), inverse(Mul((Y, Z))))),
        "−1 / x[h] / (y[h] · z[h])",
        r"-\frac{\frac{1}{x_{h}}}{y_{h}\,z_{h}}",
    ),
    (Mul((sum_h(X), inverse(ETA))), "(Σ_h x[h]) / η", r"\frac{\Bigl(\sum_{h} x_{h}\Bigr)}{\eta}"),
    (Mul((inverse(X), inverse(X))), "1 / x[h] / x[h]", r"\frac{\frac{1}{x_{h}}}{x_{h}}"),
    # operators on matrices, pixels, names
    (
        muon(Lam((H, C), W), ix(H), ix(C)),
        "muon(W1[t,·,·])[h,c]",
        r"\operatorname{muon}(W^{(1)}_{t,\cdot \cdot})_{hc}",
    ),
    (
        muon(INNER, ix(H), ix(C)),
        "muon((h′, c′) ↦ k[h′] · v[c′])[h,c]",
        r"\operatorname{muon}((h', c') \mapsto k_{h'}\,v_{c'})_{hc}",
    ),
    (
        muon(INNER, ix(C), ix(H)),
        "muon[c,h]((h′, c′) ↦ k[h′] · v[c′])",
        r"\operatorname{muon}_{ch}((h', c') \mapsto k_{h'}\,v_{c'})",
    ),
    (SHIFTED, "k[t,y+dy,x+dx,c]", "k_{t,y+d_{y},x+d_{x},c}"),
    (Atom("eta_W1", (ix(T), ix(ROW))), "η_W1[t,l]", r"\eta^{W^{(1)}}_{t,l}"),
    (Atom("G_Theta", ()), "G_Θ", r"G^{\Theta}"),
    (Atom("M_W0_b", (ix(T), ix(A), ix(H))), "M_W0_b[t,a,h]", "M^{W^{(0)},b}_{t,ah}"),
    (Atom("W_seen", (ix(T),)), "W_seen[t]", r"W^{\mathrm{seen}}_{t}"),
    (
        App("unit_W1", (ix(C),), (Lam((), X),)),
        "unit_W1[c](x[h])",
        r"\operatorname{unit}^{W^{(1)}}_{c}(x_{h})",
    ),
]


@pytest.mark.parametrize(("term", "plain", "typeset"), CASES, ids=[case[1] for case in CASES])
def test_term_looks_as_expected(term, plain, typeset):
    assert text(term) == plain
    assert latex(term) == typeset


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        (Lam((A,), Atom("k", (ix(A),))), "f(k[·])"),
        (Lam((A, H), Atom("k", (ix(A), ix(T), ix(H)))), "f(k[·,t,·])"),
        (Lam((A, H), Atom("k", (ix(H), ix(A)))), "f((a, h) ↦ k[h,a])"),
        (Lam((A,), Atom("k", (ix(A), ix(A)))), "f(a ↦ k[a,a])"),
        (Lam((A,), Atom("k", (ix(A, 1),))), "f(a ↦ k[a+1])"),
        (Lam((A,), Atom("k", (ix(T),))), "f(a ↦ k[t])"),
        (Lam((A,), Mul((ETA, Atom("k", (ix(A),))))), "f(a ↦ η · k[a])"),
        (Lam((A,), App("g", (ix(A),), (Lam((), ETA),))), "f(g[·](η))"),
        (Lam((A,), App("g", (ix(A),), (Lam((), Atom("k", (ix(A),))),))), "f(a ↦ g[a](k[a]))"),
        (Lam((), Atom("k", (ix(A),))), "f(k[a])"),
    ],
)
def test_rows_are_shown_without_their_index(argument, shown):
    assert text(App("f", (), (argument,))) == shown


def test_bound_indices_get_primes_and_tell_their_width():
    inner = sum_h(Mul((X, Sum(Var("q", "D_h"), None, None, Atom("y", (ix(Var("q", "D_h")),))))))
    assert text(inner) == "Σ_h x[h] · Σ_h′ y[h′]"
    assert text(Sum(Var("h", "D_1"), None, None, X)) == "Σ_d1 x[h]"
    assert text(Sum(Var("h", "N"), None, None, X)) == "Σ_n x[h]"
    assert text(Sum(Var("h", "C"), None, None, X)) == "Σ_x_C x[h]"


def test_a_name_that_looks_like_another_is_quoted():
    assert text(Add((Atom("eta", ()), Atom("η", ())))) == "η + ‹η›"


NAMES = [
    "W",
    "W_0",
    "W_b",
    "W_0_b",
    "W0",
    "W0_0",
    "W0_b",
    "W_W0",
    "M_W0_b",
    "M_W",
    "M_W_b",
    "o_b",
    "eta",
    "η",
    "eta_W",
    "η_W",
    "eta_W_b",
    "eta_b",
    "G_Theta",
    "G_Θ",
    "W_seen",
    "G_W_seen",
]


@pytest.mark.parametrize("render", [text, latex])
def test_symbols_and_the_tags_on_them_stay_apart(render):
    assert len({render(Atom(name, ())) for name in NAMES}) == len(NAMES)


def test_free_indices_that_share_a_name_show_their_widths():
    assert text(Mul((X, Atom("y", (ix(Var("h", "D_v")),))))) == "x[h:D_h] · y[h:D_v]"


def test_factors_that_differ_in_bound_names_only_are_one_power():
    inner = [Sum(Var(n, "D_k"), None, None, Atom("k", (ix(Var(n, "D_k")), ix(H)))) for n in "ab"]
    assert text(Mul(tuple(inner))) == "(Σ_a k[a,h])²"
    other = Sum(Var("b", "D_h"), None, None, Atom("k", (ix(Var("b", "D_h")), ix(H))))
    assert "²" not in text(Mul((inner[0], other)))
