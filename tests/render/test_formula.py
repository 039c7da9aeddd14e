"""Terms built by hand, and exactly what they look like."""

from fractions import Fraction

import pytest

from ttt_proofs.kernel.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Var, at, ix
from ttt_proofs.render import latex, text

T, FIRST, S = (Var(name, TIME) for name in "tis")
A, H, C = Var("a", "D_k"), Var("h", "D_h"), Var("c", "D_v")
ROW = Var("l", "L")
X, Y, Z = (Atom(name, (ix(H),)) for name in "xyz")
ETA, ALPHA = Atom("eta", ()), Atom("alpha", (ix(S),))
MINUS = Num(Fraction(-1))
K = Atom("k", (ix(T), ix(ROW), ix(A)))
KEPT = Prod(ix(FIRST, 1), ix(T, -1), Lam((S,), ALPHA))


def sum_h(body):
    return Sum(H, None, None, body)


def sigmoid(x):
    return App("sigmoid", (), (Lam((), x),))


def ell(*slots):
    return App("ell", (), (Lam((C,), Atom("f", (ix(C),))), Lam((C,), Atom("v", (ix(C),)))), slots)


CASES = [
    (Num(Fraction(0)), "0", "0"),
    (Num(Fraction(-1, 2)), "−1/2", r"-\tfrac{1}{2}"),
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
    (Mul((Num(Fraction(-3, 2)), X)), "−3/2 · x[h]", r"-\tfrac{3}{2}\,x_{h}"),
    (Add((Mul((MINUS, X)), Y)), "y[h] − x[h]", "y_{h} - x_{h}"),
    (Add((X, Mul((Num(Fraction(-2)), Y)))), "x[h] − 2 · y[h]", r"x_{h} - 2\,y_{h}"),
    (Add((Mul((MINUS, X)), Mul((MINUS, Y)))), "−x[h] − y[h]", "-x_{h} - y_{h}"),
    (Add((X, Num(Fraction(-1)))), "x[h] − 1", "x_{h} - 1"),
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
    (Sum(FIRST, at(0), ix(T, -1), KEPT), "Σ_{i=0}^{t−1} Π_{s=i+1}^{t−1} α[s]",
     r"\sum_{i=0}^{t-1} \prod_{s=i+1}^{t-1} \alpha_{s}"),
    (Mul((KEPT, X)), "(Π_{s=i+1}^{t−1} α[s]) · x[h]",
     r"\Bigl(\prod_{s=i+1}^{t-1} \alpha_{s}\Bigr)\,x_{h}"),
    # functions
    (App("phi", (ix(T, 1), ix(H)), (Lam((A,), K),)), "φ[t+1,h](k[t,l,·])",
     r"\varphi_{t+1,h}(k_{t,l\cdot})"),
    (sigmoid(X), "σ(x[h])", r"\sigma(x_{h})"),
    (App("sigma", (), (Lam((), X),)), "sigma(x[h])", r"\operatorname{sigma}(x_{h})"),
    (App("gelu_tanh", (), (Lam((), X),)), "gelu_tanh(x[h])", r"\operatorname{gelu-tanh}(x_{h})"),
    (App("act", (), (Lam((), X),), ((0, ()), (0, ()))), "act′′(x[h])",
     r"\operatorname{act}''(x_{h})"),
    (ell((0, (ix(C),))), "∂_{1,c} ℓ(f[·], v[·])", r"\partial_{1,c}\,\ell(f_{\cdot}, v_{\cdot})"),
    (ell((0, (ix(C),)), (1, (ix(C, 1),))), "∂_{1,c} ∂_{2,c+1} ℓ(f[·], v[·])",
     r"\partial_{1,c}\,\partial_{2,c+1}\,\ell(f_{\cdot}, v_{\cdot})"),
    (Mul((X, sigmoid(X))), "silu(x[h])", r"\operatorname{silu}(x_{h})"),
    (Mul((X, sigmoid(Y))), "x[h] · σ(y[h])", r"x_{h}\,\sigma(y_{h})"),
    (App("silu", (), (Lam((), X),)), "‹silu›(x[h])", r"\operatorname{silu}^{\ast}(x_{h})"),
]  # fmt: skip


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


def test_free_indices_that_share_a_name_show_their_widths():
    assert text(Mul((X, Atom("y", (ix(Var("h", "D_v")),))))) == "x[h:D_h] · y[h:D_v]"
