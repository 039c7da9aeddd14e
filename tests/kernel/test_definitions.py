"""Definitions that cannot contradict anything, and gradients that are gradients."""

import pytest

from tests.kernel.build import (
    Script,
    add,
    atom,
    call,
    forall,
    mul,
    num,
    running,
    time,
    total,
    width,
)
from ttt_proofs.kernel.definitions import (
    Define,
    DefineGradient,
    Equation,
    admit,
    differential,
)
from ttt_proofs.kernel.normal import naturals, normal_form
from ttt_proofs.kernel.terms import KernelError, Lam, at, free, ix

i, t = time("i"), time("t")
h, g, c = width("h"), width("g"), width("c", "E")
then = ix(t, 1)


def x(*indices):
    """The symbol `x`."""
    return atom("x", *indices)


def y(*indices):
    """The symbol `y`."""
    return atom("y", *indices)


ADMITTED = {
    "plain": [(Define("x", (), num(1)),)],
    "over a width": [(Define("x", (h,), atom("a", h)),)],
    "one after the other": [(Define("x", (t,), num(1)),), (Define("y", (t,), x(ix(t, 7))),)],
    "recursion": [(Define("x", (t, h), add(x(t, h), atom("a", t, h)), atom("b", h)),)],
    "recursion far back": [(Define("x", (t,), add(x(t), x(ix(t, -5))), num(0)),)],
    "together": [(
        Define("x", (t,), add(x(t), y(t)), num(0)),
        Define("y", (t,), add(x(t), y(t)), num(1)),
    )],
    "new value used at once": [(
        Define("x", (t,), x(t), num(0)),
        Define("y", (t,), add(y(t), x(then)), num(0)),
    )],
    "in the same moment, in order": [(Define("x", (t,), num(1)), Define("y", (t,), x(t)))],
    "feedback through a gradient": [(
        Define("w", (t, h), add(atom("w", t, h), atom("G", t, h)), atom("w0", h)),
        DefineGradient("G", (t,), "X", total(h, mul(atom("X", h), atom("k", t, h))),
                       Lam((h,), atom("w", t, h))),
    )],
}  # fmt: skip


@pytest.mark.parametrize("blocks", ADMITTED.values(), ids=ADMITTED)
def test_admitted(blocks):
    admit(tuple(blocks))


REFUSED = {
    "by itself": [(Define("x", (), x()),)],
    "by itself plus one": [(Define("x", (), add(x(), num(1))),)],
    "by itself at the same time": [(Define("x", (t,), add(x(t), num(1))),)],
    "by itself at a later time": [(Define("x", (t,), x(ix(t, 1))),)],
    "by itself at another entry": [(Define("x", (h,), x(0)),)],
    "by itself over a width": [(Define("x", (h,), add(x(h), num(1))),)],
    "by the next value": [(Define("x", (t,), x(then), num(0)),)],
    "by the value after": [(Define("x", (t,), x(ix(t, 2)), num(0)),)],
    "by a constant time": [(Define("x", (t,), x(5), num(0)),)],
    "by another time": [(Define("x", (t,), total(i, 0, 9, x(i)), num(0)),)],
    "by the time as another index": [(Define("x", (t, h), x(h, t), num(0)),)],
    "in a circle": [(Define("x", (t,), y(t)), Define("y", (t,), x(t)))],
    "in a circle of blocks": [(Define("x", (t,), y(t)),), (Define("y", (t,), x(t)),)],
    "in a circle of next values": [(
        Define("x", (t,), y(then), num(0)),
        Define("y", (t,), x(then), num(0)),
    )],
    "in a circle through a gradient": [(
        Define("w", (t,), atom("G", t)),
        DefineGradient("G", (t,), "X", mul(atom("X"), atom("X")), Lam((), atom("w", t))),
    )],
    "a start by itself": [(Define("x", (t,), x(t), x(0)),)],
    "a start by the block": [(
        Define("x", (t,), num(1), y(0)),
        Define("y", (t,), num(1), x(0)),
    )],
    "start at a width": [(Define("x", (h,), num(1), num(2)),)],
    "twice": [(Define("x", (), num(1)),), (Define("x", (), num(2)),)],
    "twice in a block": [(Define("x", (), num(1)), Define("x", (), num(2)))],
    "twice, once as a gradient": [(
        Define("G", (h,), num(1)),
        DefineGradient("G", (), "X", atom("X", 0), Lam((h,), num(0))),
    )],
    "after it is used": [(Define("y", (), x()),), (Define("x", (), num(1)),)],
    "after a gradient used it": [
        (DefineGradient("G", (), "X", mul(atom("X"), x()), Lam((), num(0))),),
        (Define("x", (), num(1)),),
    ],
    "after it is used in an argument": [
        (Define("y", (), call("f", x())),), (Define("x", (), num(1)),)],
    "after it is used in a running product": [
        (Define("y", (), running(i, 0, 3, x(i))),), (Define("x", (t,), num(1)),)],
    "with an index left over": [(Define("x", (), atom("a", t)),)],
    "with an index left over at the start": [(Define("x", (t,), num(1), atom("a", t)),)],
    "with a width left over": [(Define("x", (t,), atom("a", h)),)],
    "with one index twice": [(Define("x", (t, t), num(1)),)],
    "with one name twice": [(Define("x", (t, width("t")), num(1)),)],
    "with an index bound again": [(Define("x", (h,), total(h, atom("a", h))),)],
    "with a gradient's index left over": [
        (DefineGradient("G", (), "X", mul(atom("X"), atom("a", t)), Lam((), num(0))),)],
    "with a point's index left over": [
        (DefineGradient("G", (), "X", atom("X"), Lam((), atom("a", t))),)],
}  # fmt: skip


@pytest.mark.parametrize("blocks", REFUSED.values(), ids=REFUSED)
def test_refused(blocks):
    with pytest.raises(KernelError):
        admit(tuple(blocks))


def test_the_equations_of_a_recursion():
    define = Define("x", (t, h), mul(num(2), x(t, h)), atom("a", h))
    assert define.equation(None, False) == forall((t, h), x(then, h), mul(num(2), x(t, h)))
    assert define.equation(None, True) == forall((h,), x(0, h), atom("a", h))


def test_a_plain_definition_has_no_start():
    define = Define("x", (t,), num(1))
    assert define.equation(None, False) == forall((t,), x(t), num(1))
    with pytest.raises(KernelError, match="no such equation"):
        define.equation(None, True)
    with pytest.raises(KernelError, match="no such equation"):
        define.equation(Lam((), num(1)), False)


def test_what_is_put_into_an_equation_must_be_free():
    equation = Equation((i,), x(i, t), num(0))
    assert equation.put({t: at(0)}) == Equation((i,), x(i, 0), num(0))
    for subst in ({i: at(0)}, {t: ix(i)}):
        with pytest.raises(KernelError, match="must be free"):
            equation.put(subst)


def slope(term):
    """The normal form of the derivative in `X` along `E`."""
    change = differential(term, "X", "E")
    return normal_form(change, naturals(free(change)))


def form(term):
    """The normal form."""
    return normal_form(term, naturals(free(term)))


X, E = atom("X", h), atom("E", h)
DERIVATIVES = {
    "constant": (atom("a"), num(0)),
    "itself": (X, E),
    "sum": (add(X, X, atom("a")), mul(num(2), E)),
    "product": (mul(X, X), mul(num(2), X, E)),
    "cube": (mul(X, X, X), mul(num(3), X, X, E)),
    "under a sum": (total(h, mul(X, atom("a", h))), total(h, mul(E, atom("a", h)))),
    "over times": (total(i, 0, t, mul(atom("a", i), X)), mul(E, total(i, 0, t, atom("a", i)))),
    "sigmoid": (
        call("sigmoid", X),
        mul(call("sigmoid", X), add(num(1), mul(num(-1), call("sigmoid", X))), E),
    ),
    "tanh": (
        call("tanh", X),
        mul(E, add(num(1), mul(num(-1), call("tanh", X), call("tanh", X)))),
    ),
    "step": (mul(X, call("step", X)), mul(E, call("step", X))),
    "abstract": (call("f", X), mul(E, call("f", X, slots=((0, ()),)))),
    "abstract, twice": (
        call("f", X, slots=((0, ()),)),
        mul(E, call("f", X, slots=((0, ()), (0, ())))),
    ),
    "two arguments": (
        call("f", X, mul(X, X)),
        add(
            mul(E, call("f", X, mul(X, X), slots=((0, ()),))),
            mul(num(2), X, E, call("f", X, mul(X, X), slots=((1, ()),))),
        ),
    ),
    "vector argument": (
        call("f", Lam((g,), mul(atom("W", g), atom("X", g)))),
        total(g, mul(
            atom("W", g), atom("E", g),
            call("f", Lam((g,), mul(atom("W", g), atom("X", g))), slots=((0, (ix(g),)),)),
        )),
    ),
    "indexed named function is abstract": (
        call("tanh", X, at=(t,)),
        mul(E, call("tanh", X, at=(t,), slots=((0, ()),))),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("term", "expected"), DERIVATIVES.values(), ids=DERIVATIVES)
def test_differential(term, expected):
    assert slope(term) == form(expected)


def test_vector_argument_keeps_outer_indices_of_the_same_name():
    # The slot's index must not be mistaken for the `h` that is free outside.
    term = call("f", Lam((h,), mul(atom("X", h), atom("a", h))), at=(h,))
    other = call("f", Lam((g,), mul(atom("X", g), atom("a", g))), at=(h,))
    assert slope(term) == slope(other)


def test_running_products_of_the_parameter_are_refused():
    with pytest.raises(KernelError, match="must not occur in a Prod"):
        differential(running(i, 0, t, atom("X", i)), "X", "E")
    assert differential(running(i, 0, t, atom("a", i)), "X", "E") == num(0)


LOSS = total(h, mul(atom("X", h), atom("X", h), atom("k", t, h)))
POINT = Lam((h,), atom("w", t, h))
TRUE = Lam((h,), mul(num(2), atom("X", h), atom("k", t, h)))


def gradient(loss=LOSS, outer=(t,), point=POINT, entry=TRUE):
    """The equation of the gradient `G`, replayed."""
    script = Script((DefineGradient("G", outer, "X", loss, point),))
    script.define("G", entry)
    return script.theorem().statement.equation


def test_a_gradient_is_evaluated_at_its_point():
    value = mul(num(2), atom("w", t, h), atom("k", t, h))
    assert gradient() == forall((t, h), atom("G", t, h), value)


def test_a_gradient_under_another_name():
    entry = Lam((g,), mul(atom("k", t, g), add(atom("X", g), atom("X", g))))
    assert form(gradient(entry=entry).right) == form(mul(num(2), atom("w", t, g), atom("k", t, g)))


def test_an_entry_whose_name_clashes_with_an_outer_index():
    loss = total(c, mul(atom("X", c), atom("k", h, c)))
    entry = Lam((width("h", "E"),), atom("k", h, width("h", "E")))
    found = gradient(loss, (h,), Lam((c,), num(0)), entry)
    assert found == forall((h, found.every[1]), atom("G", h, found.every[1]),
                           atom("k", h, found.every[1]))  # fmt: skip
    assert len({v.name for v in found.every}) == 2


NO_GRADIENTS = {
    "wrong factor": Lam((h,), mul(num(3), atom("X", h), atom("k", t, h))),
    "wrong sign": Lam((h,), mul(num(-2), atom("X", h), atom("k", t, h))),
    "zero": Lam((h,), num(0)),
    "at another time": Lam((h,), mul(num(2), atom("X", h), atom("k", then, h))),
    "at the point already": Lam((h,), mul(num(2), atom("w", t, h), atom("k", t, h))),
    "summed": Lam((h,), total(g, mul(num(2), atom("X", g), atom("k", t, g)))),
    "too few indices": Lam((), num(0)),
    "too many indices": Lam((h, g), mul(num(2), atom("X", h), atom("k", t, h))),
    "over another width": Lam((c,), mul(num(2), atom("X", c), atom("k", t, c))),
    "over a time": Lam((i,), mul(num(2), atom("X", i), atom("k", t, i))),
    "none at all": None,
}


@pytest.mark.parametrize("entry", NO_GRADIENTS.values(), ids=NO_GRADIENTS)
def test_what_is_no_gradient_is_refused(entry):
    with pytest.raises(KernelError):
        gradient(entry=entry)


def test_a_gradient_in_times_is_refused():
    loss = total(i, 0, 3, atom("X", i))
    with pytest.raises(KernelError, match="must have indices of the widths"):
        gradient(loss, (t,), Lam((i,), num(0)), Lam((i,), num(1)))


def test_a_gradient_along_the_diagonal_is_refused():
    # d Σ_h X[h, h] is no pairing with a matrix that the kernel could write down.
    loss = total(h, atom("X", h, h))
    with pytest.raises(KernelError, match="pairing"):
        gradient(loss, (), Lam((h, g), num(0)), Lam((h, g), num(1)))


def test_a_matrix_and_its_transpose_are_told_apart():
    loss = total(h, total(g, mul(atom("X", h, g), atom("a", h), atom("b", g))))
    point = Lam((h, g), num(0))
    gradient(loss, (), point, Lam((h, g), mul(atom("a", h), atom("b", g))))
    with pytest.raises(KernelError, match="pairing"):
        gradient(loss, (), point, Lam((h, g), mul(atom("a", g), atom("b", h))))


def test_a_gradient_has_no_start():
    script = Script((DefineGradient("G", (t,), "X", LOSS, POINT),))
    with pytest.raises(KernelError):
        script.define("G", TRUE, start=True)


def test_the_direction_cannot_be_named():
    entry = Lam((h,), atom("$direction", h))
    script = Script((DefineGradient("G", (), "X", total(h, atom("X", h)), POINT),))
    with pytest.raises(KernelError):
        script.define("G", entry)
        script.theorem()
