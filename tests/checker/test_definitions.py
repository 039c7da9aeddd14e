"""Definitions that cannot contradict anything, and gradients that are gradients."""

import pytest

from tests.checker.build import (
    Script,
    add,
    at,
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
from ttt_proofs.checker import definitions
from ttt_proofs.checker.definitions import (
    Define,
    DefineGradient,
    Equation,
    admit,
    differential,
    leading_times,
)
from ttt_proofs.checker.normal import naturals, normal_form
from ttt_proofs.checker.proof import Definition, infer
from ttt_proofs.checker.terms import App, CheckerError, Ix, Lam, free, inside, ix

i, j, k, t = time("i"), time("j"), time("k"), time("t")
h, g, c = width("h"), width("g"), width("c", "E")
then, after = ix(t, 1), ix(j, 1)


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
    "together": [
        (
            Define("x", (t,), add(x(t), y(t)), num(0)),
            Define("y", (t,), add(x(t), y(t)), num(1)),
        )
    ],
    "new value used at once": [
        (
            Define("x", (t,), x(t), num(0)),
            Define("y", (t,), add(y(t), x(then)), num(0)),
        )
    ],
    "in the same moment, in order": [(Define("x", (t,), num(1)), Define("y", (t,), x(t)))],
    "feedback through a gradient": [
        (
            Define("w", (t, h), add(atom("w", t, h), atom("G", t, h)), atom("w0", h)),
            DefineGradient(
                "G",
                (t,),
                "X",
                total(h, mul(atom("X", h), atom("k", t, h))),
                Lam((h,), atom("w", t, h)),
            ),
        )
    ],
}


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
    "in a circle of next values": [
        (
            Define("x", (t,), y(then), num(0)),
            Define("y", (t,), x(then), num(0)),
        )
    ],
    "in a circle through a gradient": [
        (
            Define("w", (t,), atom("G", t)),
            DefineGradient("G", (t,), "X", mul(atom("X"), atom("X")), Lam((), atom("w", t))),
        )
    ],
    "a start by itself": [(Define("x", (t,), x(t), x(0)),)],
    "a start by the block": [
        (
            Define("x", (t,), num(1), y(0)),
            Define("y", (t,), num(1), x(0)),
        )
    ],
    "start at a width": [(Define("x", (h,), num(1), num(2)),)],
    "twice": [(Define("x", (), num(1)),), (Define("x", (), num(2)),)],
    "twice in a block": [(Define("x", (), num(1)), Define("x", (), num(2)))],
    "twice, once as a gradient": [
        (
            Define("G", (h,), num(1)),
            DefineGradient("G", (), "X", atom("X", 0), Lam((h,), num(0))),
        )
    ],
    "after it is used": [(Define("y", (), x()),), (Define("x", (), num(1)),)],
    "after a gradient used it": [
        (DefineGradient("G", (), "X", mul(atom("X"), x()), Lam((), num(0))),),
        (Define("x", (), num(1)),),
    ],
    "after it is used in an argument": [
        (Define("y", (), call("f", x())),),
        (Define("x", (), num(1)),),
    ],
    "after it is used in a running product": [
        (Define("y", (), running(i, 0, 3, x(i))),),
        (Define("x", (t,), num(1)),),
    ],
    "with an index left over": [(Define("x", (), atom("a", t)),)],
    "with an index left over at the start": [(Define("x", (t,), num(1), atom("a", t)),)],
    "with a width left over": [(Define("x", (t,), atom("a", h)),)],
    "with one index twice": [(Define("x", (t, t), num(1)),)],
    "with one name twice": [(Define("x", (t, width("t")), num(1)),)],
    "with an index bound again": [(Define("x", (h,), total(h, atom("a", h))),)],
    "with a gradient's index left over": [
        (DefineGradient("G", (), "X", mul(atom("X"), atom("a", t)), Lam((), num(0))),)
    ],
    "with a point's index left over": [
        (DefineGradient("G", (), "X", atom("X"), Lam((), atom("a", t))),)
    ],
}


@pytest.mark.parametrize("blocks", REFUSED.values(), ids=REFUSED)
def test_refused(blocks):
    with pytest.raises(CheckerError):
        admit(tuple(blocks))


def z(*indices):
    """The symbol `z`, with a step within each chunk: `z[t, j]`."""
    return atom("z", *indices)


def chunks(term, inner, start):
    """`x[t + 1, h, k] = term`, `z[t, j + 1, h, k] = inner` and `z[t, 0, h, k] = start`."""
    return [(Define("x", (t, h, k), term, num(0)), Define("z", (t, j, h, k), inner, start))]


READ, INNER, START = z(t, k, h, k), z(t, j, h, k), x(t, h, k)

TWO_TIMES_ADMITTED = {
    "steps on each chunk": chunks(READ, INNER, START),
    "after as many steps as one likes": chunks(z(t, 99, h, k), INNER, START),
    "after steps that another index counts": chunks(
        total(i, 0, k, z(t, i, h, k)), add(INNER, START), START
    ),
    "an earlier chunk at any step": chunks(
        READ, z(ix(t, -1), ix(j, 9), h, k), z(ix(t, -1), 9, h, k)
    ),
    "an earlier step": chunks(READ, add(INNER, z(t, ix(j, -1), h, k)), START),
    "a value of the chunk before": chunks(READ, INNER, x(ix(t, -1), h, k)),
    "without a start": [(Define("z", (t, j), z(t, ix(j, -1))),)],
    "without a start, in order": [(Define("z", (t, j), num(1)), Define("y", (t, j), z(t, j)))],
    "the new step of another, in order": [
        (Define("z", (t, j), z(t, j), num(1)), Define("y", (t, j), z(t, after), num(1)))
    ],
    "a chunk's value for its steps": [
        (Define("z", (t, j), y(t)), Define("y", (t,), z(ix(t, -1), 5)))
    ],
    "three times, the third a parameter": [
        (Define("z", (t, j, k), z(t, j, ix(k, 1)), x(t)), Define("x", (t,), num(1)))
    ],
    "a start at its parameter": [(Define("z", (t, j, k), z(t, j, 5), atom("a", t, k)),)],
    "a gradient at each step": [
        (
            Define("x", (t, h, k), READ, num(0)),
            Define("z", (t, j, h, k), add(INNER, atom("G", t, j, k, h)), START),
            DefineGradient(
                "G", (t, j, k), "X", total(h, mul(atom("X", h), atom("X", h))), Lam((h,), INNER)
            ),
        )
    ],
}


@pytest.mark.parametrize("blocks", TWO_TIMES_ADMITTED.values(), ids=TWO_TIMES_ADMITTED)
def test_two_times_admitted(blocks):
    admit(tuple(blocks))


TWO_TIMES_REFUSED = {
    "a chunk by its own steps": [(Define("x", (t,), z(t, 5)), Define("z", (t, j), z(t, j), x(t)))],
    "the next chunk's steps": chunks(z(then, k, h, k), INNER, START),
    "the next chunk at the start": chunks(READ, INNER, x(then, h, k)),
    "the next chunk at a step": chunks(READ, x(then, h, k), START),
    "the next chunk at an earlier step": chunks(READ, z(then, ix(j, -5), h, k), START),
    "the step itself": chunks(READ, z(t, after, h, k), START),
    "a later step": chunks(READ, z(t, ix(j, 2), h, k), START),
    "the last step": chunks(READ, z(t, k, h, k), START),
    "a constant step": chunks(READ, z(t, 0, h, k), START),
    "a constant chunk": chunks(READ, z(0, j, h, k), START),
    "the times exchanged": chunks(READ, z(j, t, h, k), START),
    "the step as the chunk": chunks(READ, x(j, h, k), START),
    "the chunk as the step": chunks(READ, z(t, t, h, k), START),
    "a sum of times": chunks(READ, z(Ix((j, t), -9), j, h, k), START),
    "all steps": chunks(READ, total(i, 0, 9, z(t, i, h, k)), START),
    "a start by itself": chunks(READ, INNER, z(t, 0, h, k)),
    "a start by a step before 0": chunks(READ, INNER, z(t, -1, h, k)),
    "a start that mentions the step": chunks(READ, INNER, atom("a", j)),
    "a start by its own step": chunks(READ, INNER, z(t, ix(j, -5), h, k)),
    "a start by steps bound under the name of its own": chunks(
        READ, INNER, total(j, 0, 9, z(t, ix(j, -5), h, k))
    ),
    "a start by a parameter as the step": [(Define("z", (t, j, k), num(1), z(t, ix(k, -2), 0)),)],
    "a start by another's parameter as the step": [
        (
            Define("z", (t, j, k), z(t, j, 20), y(t, ix(k, -9))),
            Define("y", (t, j), z(t, j, 0), num(1)),
        )
    ],
    "a start by the other's start": [
        (Define("z", (t, j), num(1), y(t, 0)), Define("y", (t, j), num(1), z(t, 0)))
    ],
    "a parameter that goes down": [(Define("z", (t, j, k), z(t, j, ix(k, -1))),)],
    "the same step in a circle": [(Define("z", (t, j), y(t, j)), Define("y", (t, j), z(t, j)))],
    "new steps in a circle": [
        (Define("z", (t, j), y(t, after), num(1)), Define("y", (t, j), z(t, after), num(1)))
    ],
    "the next chunk's value at a step": [
        (Define("z", (t, j), y(ix(t, 1))), Define("y", (t,), z(ix(t, -1), 5)))
    ],
    "a gradient at its own step, in a circle": [
        (
            Define("z", (t, j), atom("G", t, j)),
            DefineGradient("G", (t, j), "X", mul(atom("X"), atom("X")), Lam((), z(t, j))),
        )
    ],
    "a gradient at the next step": [
        (
            Define("z", (t, j), atom("G", t, j), num(0)),
            DefineGradient("G", (t, j), "X", mul(atom("X"), atom("X")), Lam((), z(t, after))),
        )
    ],
    "a loss at the next chunk": [
        (
            Define("z", (t, j), atom("G", t, j), num(0)),
            DefineGradient("G", (t, j), "X", mul(atom("X"), z(then, 0)), Lam((), num(0))),
        )
    ],
    "a chunk's gradient at its steps": [
        (
            Define("z", (t, j), atom("G", t), num(0)),
            DefineGradient("G", (t,), "X", mul(atom("X"), atom("X")), Lam((), z(t, 5))),
        )
    ],
    "a start without times": [(Define("x", (), num(1), num(2)),)],
    "a start where the time is second": [(Define("x", (h, t), x(h, t), num(2)),)],
    "without times, by the block": [(Define("y", (t,), num(1)), Define("x", (), y(0)))],
}


@pytest.mark.parametrize("blocks", TWO_TIMES_REFUSED.values(), ids=TWO_TIMES_REFUSED)
def test_two_times_refused(blocks):
    with pytest.raises(CheckerError):
        admit(tuple(blocks))


def test_the_equations_of_steps_on_each_chunk():
    define = Define("z", (t, j, h, k), mul(num(2), INNER), START)
    step = forall((t, j, h, k), z(t, after, h, k), mul(num(2), INNER))
    assert define.equation(None, False) == step
    assert define.equation(None, True) == forall((t, h, k), z(t, 0, h, k), START)


def test_the_equations_of_three_leading_times():
    # The third is a parameter; the second is what the recursion is over.
    define = Define("z", (t, j, k), z(t, j, 5), atom("a", t, k))
    assert define.equation(None, False) == forall((t, j, k), z(t, after, k), z(t, j, 5))
    assert define.equation(None, True) == forall((t, k), z(t, 0, k), atom("a", t, k))


def test_a_time_behind_a_width_is_a_parameter():
    define = Define("x", (t, h, j), x(t, h, j), num(0))
    assert define.equation(None, False) == forall((t, h, j), x(then, h, j), x(t, h, j))
    assert define.equation(None, True) == forall((h, j), x(0, h, j), num(0))


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ((), 0),
        ((h,), 0),
        ((h, t), 0),
        ((t,), 1),
        ((t, h), 1),
        ((t, h, j), 1),
        ((t, j), 2),
        ((t, j, h), 2),
        ((t, j, k), 2),
        ((t, j, k, h), 2),
    ],
)
def test_leading_times(every, expected):
    assert len(leading_times(every)) == expected


def test_the_equations_of_a_recursion():
    define = Define("x", (t, h), mul(num(2), x(t, h)), atom("a", h))
    assert define.equation(None, False) == forall((t, h), x(then, h), mul(num(2), x(t, h)))
    assert define.equation(None, True) == forall((h,), x(0, h), atom("a", h))


def test_a_plain_definition_has_no_start():
    define = Define("x", (t,), num(1))
    assert define.equation(None, False) == forall((t,), x(t), num(1))
    with pytest.raises(CheckerError, match="has no start"):
        define.equation(None, True)
    with pytest.raises(CheckerError, match="takes no entry"):
        define.equation(Lam((), num(1)), False)


def test_what_is_put_into_an_equation_must_be_free():
    equation = Equation((i,), x(i, t), num(0))
    assert equation.put({t: at(0)}) == Equation((i,), x(i, 0), num(0))
    for subst in ({i: at(0)}, {t: ix(i)}):
        with pytest.raises(CheckerError, match="must be free"):
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
        total(
            g,
            mul(
                atom("W", g),
                atom("E", g),
                call("f", Lam((g,), mul(atom("W", g), atom("X", g))), slots=((0, (ix(g),)),)),
            ),
        ),
    ),
    "no name means anything": (
        mul(call("tanh", X), call("step", X)),
        add(
            mul(E, call("tanh", X, slots=((0, ()),)), call("step", X)),
            mul(E, call("tanh", X), call("step", X, slots=((0, ()),))),
        ),
    ),
    "indexed": (call("f", X, at=(t,)), mul(E, call("f", X, at=(t,), slots=((0, ()),)))),
}


@pytest.mark.parametrize(("term", "expected"), DERIVATIVES.values(), ids=DERIVATIVES)
def test_differential(term, expected):
    assert slope(term) == form(expected)


def test_a_wrong_chain_rule_is_seen(monkeypatch):
    true = definitions.chain
    monkeypatch.setattr(definitions, "chain", lambda *given: add(true(*given), true(*given)))
    wrong = {
        name for name, (term, expected) in DERIVATIVES.items() if slope(term) != form(expected)
    }
    assert wrong == {name for name, (term, _) in DERIVATIVES.items() if inside(term, App)}


def test_vector_argument_keeps_outer_indices_of_the_same_name():
    # The slot's index must not be mistaken for the `h` that is free outside.
    term = call("f", Lam((h,), mul(atom("X", h), atom("a", h))), at=(h,))
    other = call("f", Lam((g,), mul(atom("X", g), atom("a", g))), at=(h,))
    assert slope(term) == slope(other)


def test_running_products_of_the_parameter_are_refused():
    with pytest.raises(CheckerError, match="must not occur in a Prod"):
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
    define = DefineGradient("G", (h,), "X", loss, Lam((c,), num(0)))
    with pytest.raises(CheckerError, match="quantified indices must differ"):
        infer({"G": define}, Definition("G", entry), ())
    apart = Lam((c,), atom("k", h, c))
    assert infer({"G": define}, Definition("G", apart), ()).equation.every == (h, c)


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
    with pytest.raises(CheckerError):
        gradient(entry=entry)


def test_a_gradient_in_times_is_refused():
    loss = total(i, 0, 3, atom("X", i))
    with pytest.raises(CheckerError, match="must have indices of the widths"):
        gradient(loss, (t,), Lam((i,), num(0)), Lam((i,), num(1)))


def test_a_gradient_along_the_diagonal_is_refused():
    # d Σ_h X[h, h] is no pairing with a matrix that the checker could write down.
    loss = total(h, atom("X", h, h))
    with pytest.raises(CheckerError, match="pairing"):
        gradient(loss, (), Lam((h, g), num(0)), Lam((h, g), num(1)))


def test_a_matrix_and_its_transpose_are_told_apart():
    loss = total(h, total(g, mul(atom("X", h, g), atom("a", h), atom("b", g))))
    point = Lam((h, g), num(0))
    gradient(loss, (), point, Lam((h, g), mul(atom("a", h), atom("b", g))))
    with pytest.raises(CheckerError, match="pairing"):
        gradient(loss, (), point, Lam((h, g), mul(atom("a", g), atom("b", h))))


def test_a_gradient_has_no_start():
    script = Script((DefineGradient("G", (t,), "X", LOSS, POINT),))
    with pytest.raises(CheckerError):
        script.define("G", TRUE, start=True)


def test_the_direction_cannot_be_named():
    entry = Lam((h,), atom("$direction", h))
    script = Script((DefineGradient("G", (), "X", total(h, atom("X", h)), POINT),))
    with pytest.raises(CheckerError):
        script.define("G", entry)
        script.theorem()


def test_a_parameter_is_used_up_by_its_gradient():
    # Also where its loss does not mention it, so that no symbol of that name occurs.
    still = DefineGradient("G", (), "X", num(1), Lam((), num(0)))
    admit(((still,),))
    for later in (Define("X", (), num(1)), DefineGradient("H", (), "X", num(1), Lam((), num(0)))):
        with pytest.raises(CheckerError):
            admit(((still,), (later,)))


@pytest.mark.parametrize("loss", [x(), atom("X")], ids=["unused", "used"])
def test_a_parameter_belongs_to_one_gradient(loss):
    one, other = (DefineGradient(n, (), "X", loss, Lam((), num(0))) for n in ("G", "H"))
    admit(((one,),))
    admit(((one, DefineGradient("H", (), "Y", x(), Lam((), num(0)))),))
    for blocks in (((one, other),), ((one,), (other,))):
        with pytest.raises(CheckerError):
            admit(blocks)
