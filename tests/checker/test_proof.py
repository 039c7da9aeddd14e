"""The rules, each with what it must refuse, and small theorems from end to end."""

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
from ttt_proofs.checker.definitions import Define, DefineGradient
from ttt_proofs.checker.normal import naturals, normal_form
from ttt_proofs.checker.proof import Calculate, Induction, Proof, Step, Theorem, replaced
from ttt_proofs.checker.terms import CheckerError, Lam, free, ix

i, j, s, t = time("i"), time("j"), time("s"), time("t")
h, g = width("h"), width("g")
then = ix(t, 1)


def a(*indices):
    """The symbol `a`."""
    return atom("a", *indices)


def x(*indices):
    """The symbol `x`."""
    return atom("x", *indices)


SUM = (Define("x", (t,), add(x(t), a(t)), num(0)),)  # x[t] = Σ_{i < t} a[i]


def test_induction_sums_a_recursion():
    part = forall((), x(t), total(i, 0, ix(t, -1), a(i)))
    script = Script(SUM)
    assumed = script.assume(part)
    base = script.begin((), x(0))
    base = script.calculate(base, part.put({t: at(0)}).right, script.define("x", start=True))
    step = script.begin((), x(then))
    goal = part.put({t: then}).right
    step = script.calculate(step, goal, script.define("x"), assumed, peel=ix(t))
    script.induct(t, [part], [base, step])
    statement = script.theorem().statement
    assert statement.hypotheses == ()
    assert statement.equation == forall((t,), x(t), total(i, 0, ix(t, -1), a(i)))


def test_induction_over_two_quantities_with_a_running_product():
    # m[t+1] = b[t] m[t] + a[t], x[t+1] = x[t] + m[t+1]
    def m(*indices):
        return atom("m", *indices)

    def b(*indices):
        return atom("b", *indices)

    block = (
        Define("m", (t,), add(mul(b(t), m(t)), a(t)), num(0)),
        Define("x", (t,), add(x(t), m(then)), num(0)),
    )

    def weight(top):
        return running(s, ix(i, 1), top, b(s))

    last = ix(t, -1)
    parts = [
        forall((), m(t), total(i, 0, last, mul(a(i), weight(last)))),
        forall((), x(t), total(i, 0, last, mul(a(i), total(j, i, last, weight(j))))),
    ]
    script = Script(block)
    assumed = [script.assume(part) for part in parts]
    bases, steps = [], []
    for part in parts:
        goal = part.put({t: at(0)})
        begun = script.begin((), goal.left)
        start = script.define(goal.left.name, start=True)
        bases.append(script.calculate(begun, goal.right, start))
    for part in parts:
        goal = part.put({t: then})
        begun = script.begin((), goal.left)
        sources = [script.define(goal.left.name), *steps, *assumed]
        steps.append(script.calculate(begun, goal.right, *sources, peel=ix(t)))
    script.induct(t, parts, [*bases, *steps], pick=1)
    statement = script.theorem().statement
    assert statement.hypotheses == ()
    assert statement.equation.every == (t,)


def test_gradient_descent_is_a_sum():
    # w[t+1] = w[t] - G[t], where G is the gradient of <w, k[t]>: w[t] = w0 - Σ k.
    def w(*indices):
        return atom("w", *indices)

    loss = total(h, mul(atom("X", h), atom("k", t, h)))
    block = (
        Define("w", (t, h), add(w(t, h), mul(num(-1), atom("G", t, h))), atom("w0", h)),
        DefineGradient("G", (t,), "X", loss, Lam((h,), w(t, h))),
    )
    script = Script(block)
    gradient = script.define("G", Lam((g,), atom("k", t, g)))
    step = script.begin((t, h), w(then, h))
    script.calculate(
        step, add(w(t, h), mul(num(-1), atom("k", t, h))), script.define("w"), gradient
    )
    assert script.theorem().statement.hypotheses == ()


def test_steps_on_each_chunk_sum_to_a_double_sum():
    # w[t+1, k] = z[t, k, k] and z[t, j+1, k] = z[t, j, k] + a[t, j]: w is a sum of sums.
    def w(*indices):
        return atom("w", *indices)

    def z(*indices):
        return atom("z", *indices)

    k = time("k")
    block = (
        Define("w", (t, h, k), z(t, k, h, k), num(0)),
        Define("z", (t, j, h, k), add(z(t, j, h, k), a(t, j)), w(t, h, k)),
    )
    script = Script(block)
    within = forall((t, h, k), z(t, j, h, k), add(w(t, h, k), total(i, 0, ix(j, -1), a(t, i))))
    base = script.calculate(
        script.begin((t, h, k), z(t, 0, h, k)),
        within.put({j: at(0)}).right,
        script.define("z", start=True),
    )
    assumed, goal = script.assume(within), within.put({j: ix(j, 1)})
    step = script.calculate(
        script.begin(goal.every, goal.left), goal.right, script.define("z"), assumed, peel=ix(j)
    )
    inner = script.induct(j, [within], [base, step])
    double = total(s, 0, ix(t, -1), total(i, 0, ix(k, -1), a(s, i)))
    overall = forall((h, k), w(t, h, k), double)
    base = script.calculate(
        script.begin((h, k), w(0, h, k)),
        overall.put({t: at(0)}).right,
        script.define("w", start=True),
    )
    assumed, goal = script.assume(overall), overall.put({t: then})
    step = script.calculate(
        script.begin(goal.every, goal.left),
        goal.right,
        script.define("w"),
        inner,
        assumed,
        peel=ix(t),
    )
    script.induct(t, [overall], [base, step])
    statement = script.theorem().statement
    assert statement.hypotheses == ()
    assert statement.equation == forall((t, h, k), w(t, h, k), double)


def test_a_gradient_at_each_step():
    # z[t, j+1] = z[t, j] - (gradient of <z, key[t]> at z[t, j]).
    def z(*indices):
        return atom("z", *indices)

    loss = total(h, mul(atom("X", h), atom("key", t, h)))
    script = Script(
        (
            Define("z", (t, j, h), add(z(t, j, h), mul(num(-1), atom("G", t, j, h))), num(0)),
            DefineGradient("G", (t, j), "X", loss, Lam((h,), z(t, j, h))),
        )
    )
    gradient = script.define("G", Lam((g,), atom("key", t, g)))
    assert script.steps[gradient].conclusion.equation == forall(
        (t, j, g), atom("G", t, j, g), atom("key", t, g)
    )
    less = add(z(t, j, h), mul(num(-1), atom("key", t, h)))
    script.calculate(script.begin((t, j, h), z(t, ix(j, 1), h)), less, script.define("z"), gradient)
    assert script.theorem().statement.hypotheses == ()


def test_a_hypothesis_stays_where_nothing_discharges_it():
    equation = forall((h,), a(h), num(1))
    script = Script()
    script.calculate(script.begin((), total(h, a(h))), total(g, num(1)), script.assume(equation))
    statement = script.theorem().statement
    assert statement.hypotheses == (equation,)
    assert statement.equation == forall((), total(h, a(h)), total(g, num(1)))


def test_hypotheses_are_listed_once_even_if_unused():
    equation = forall((), a(), num(1))
    script = Script()
    one, two = script.assume(equation), script.assume(equation)
    script.calculate(script.begin((), x()), x(), one, two)
    assert script.theorem().statement.hypotheses == (equation,)


def found(term, source):
    """The term with the source's instances replaced."""
    return replaced(term, source, naturals(free(term)))


REPLACED = {
    "an instance": (x(3), forall((t,), x(t), a(t)), a(3)),
    "a shifted instance": (x(ix(t, 2)), forall((t,), x(then), a(t)), a(then)),
    "first step": (x(1), forall((t,), x(then), a(t)), a(0)),
    "a width": (x(g), forall((h,), x(h), a(h)), a(g)),
    "in an argument": (call("f", x(t)), forall((t,), x(t), a(t)), call("f", a(t))),
    "a bound time in range": (total(i, 0, t, x(i)), forall((t,), x(t), a(t)), total(i, 0, t, a(i))),
    "a bound time that starts later": (
        total(i, 1, t, x(i)),
        forall((t,), x(then), a(t)),
        total(i, 1, t, a(ix(i, -1))),
    ),
    "a fixed time": (x(t), forall((), x(t), a(t)), a(t)),
    "once, not again": (x(t), forall((t,), x(t), x(then)), x(then)),
    "both at once": (x(s, t), forall((s, t), x(t, s), a(s, t)), a(t, s)),
}


@pytest.mark.parametrize(("term", "source", "expected"), REPLACED.values(), ids=REPLACED)
def test_instances_are_replaced(term, source, expected):
    assert found(term, source) == expected


EVERY = forall((t,), x(t), a(t))
KEPT = {
    "a negative time": (x(-1), EVERY),
    "a time that may be negative": (x(ix(t, -1)), EVERY),
    "the start by the step": (x(0), forall((t,), x(then), a(t))),
    "a bound time that starts before 0": (total(i, -1, t, x(i)), EVERY),
    "a time of a whole sequence": (call("f", Lam((i,), x(i))), EVERY),
    "a width by a time": (x(h), EVERY),
    "a time by a width": (x(t), forall((h,), x(h), a(h))),
    "another width": (x(width("h", "E")), forall((h,), x(h), a(h))),
    "a constant by a width": (x(0), forall((h,), x(h), a(h))),
    "a shifted width": (x(ix(h, 1)), forall((h,), x(h), a(h))),
    "another symbol": (a(t), EVERY),
    "another number of indices": (x(t, t), EVERY),
    "fewer indices": (x(), EVERY),
    "another fixed time": (x(s), forall((), x(t), a(t))),
    "an instance of a fixed time": (x(0), forall((), x(t), a(t))),
    "unequal indices for equal ones": (x(s, t), forall((t,), x(t, t), a(t))),
    "an index that the left side does not determine": (x(), forall((t,), x(), a(t))),
    "a bound index of the name of a fixed one": (total(t, 0, 5, x(t)), forall((), x(t), a(t))),
    "a left side that is no symbol": (call("f", x(t)), forall((t,), call("f", x(t)), a(t))),
}


@pytest.mark.parametrize(("term", "source"), KEPT.values(), ids=KEPT)
def test_what_is_no_instance_is_kept(term, source):
    known = naturals(free(term))
    assert normal_form(found(term, source), known) == normal_form(term, known)


def test_replacing_does_not_capture_what_the_source_fixes():
    term = found(total(s, 0, 5, mul(x(), a(s))), forall((), x(), atom("b", s)))
    assert free(term) == {s}


def use(right, term, *sources, every=(), peel=None):
    """What a calculation concludes from `right = right`, with hypotheses for sources."""
    script = Script()
    begun, numbers = script.begin(every, right), [script.assume(source) for source in sources]
    return script.steps[script.calculate(begun, term, *numbers, peel=peel)].conclusion


def y(*indices):
    """The symbol `y`."""
    return atom("y", *indices)


ANY = forall((t,), x(t), a(t))
ON_THE_NEW_SIDE = {
    "backwards": (a(t), x(t), [ANY]),
    "on one of two": (add(x(t), x(then)), add(a(t), x(then)), [ANY]),
    "another one on each side": (mul(x(t), a(then)), mul(a(t), x(then)), [ANY]),
    "under a sum": (total(i, 0, t, a(i)), total(j, 0, t, x(j)), [ANY]),
    "in an argument": (call("f", a(t)), call("f", x(t)), [ANY]),
    "in a running product": (running(i, 0, t, x(3)), running(i, 0, t, a(3)), [ANY]),
    "one after the other": (a(t), y(t), [forall((t,), y(t), x(t)), ANY]),
    "in turn on both": (y(t), x(t), [forall((t,), y(t), x(t)), ANY]),
    "a fixed time": (a(s), x(s), [forall((), x(s), a(s))]),
    "a width": (total(h, a(h)), total(g, x(g)), [forall((h,), x(h), a(h))]),
    "a quantified width": (a(h), x(h), [forall((g,), x(g), a(g))]),
    "a time that is nowhere else": (a(), x(t), [forall((t,), x(t), a())]),
}


@pytest.mark.parametrize(
    ("right", "term", "sources"), ON_THE_NEW_SIDE.values(), ids=ON_THE_NEW_SIDE
)
def test_sources_are_used_on_the_new_side_as_well(right, term, sources):
    every = tuple(free(right) - {v for source in sources for v in source.free()})
    conclusion = use(right, term, *sources, every=every)
    assert conclusion.equation == forall(every, right, term)
    assert set(conclusion.hypotheses) == set(sources)


def test_the_new_side_is_used_as_it_stands_first():
    # The source would spoil it: x[t + 1] is wanted, and is an instance itself.
    assert use(x(t), x(then), forall((t,), x(t), x(then))).equation.right == x(then)


def test_the_new_side_is_split_at_the_peel_as_well():
    part = total(i, 0, t, a(i))
    split = add(total(i, 0, ix(t, -1), a(i)), x(t))
    assert use(part, split, ANY, peel=ix(t)).equation.right == split
    with pytest.raises(CheckerError, match="one normal form"):
        use(part, split, ANY)


NOT_ON_THE_NEW_SIDE = {
    "a negative time": (a(-1), x(-1), [ANY]),
    "a time that may be negative": (a(ix(t, -1)), x(ix(t, -1)), [ANY]),
    "the start by the step": (a(0), x(0), [forall((t,), x(then), a(then))]),
    "a time of a whole sequence": (call("f", Lam((i,), a(i))), call("f", Lam((i,), x(i))), [ANY]),
    "a bound time that starts before 0": (total(i, -1, t, a(i)), total(i, -1, t, x(i)), [ANY]),
    "a factor of a running product": (running(i, -1, t, a(i)), running(i, -1, t, x(i)), [ANY]),
    "another width": (
        total(h, a(h)),
        total(h, x(h)),
        [forall((width("h", "E"),), x(width("h", "E")), a(width("h", "E")))],
    ),
    "a fixed time by another": (a(t), x(t), [forall((), x(s), a(s))]),
    "a fixed time under a sum": (
        total(s, 0, 3, a(s)),
        total(s, 0, 3, x(s)),
        [forall((), x(s), a(s))],
    ),
    "a captured index": (total(s, 0, 3, a(s)), total(s, 0, 3, x()), [forall((), x(), a(s))]),
    "the other order": (a(t), y(t), [ANY, forall((t,), y(t), x(t))]),
    "twice": (x(ix(t, 2)), x(t), [forall((t,), x(t), x(then))]),
    "another value": (num(0), x(t), [ANY]),
    "without a source": (a(t), x(t), []),
}


@pytest.mark.parametrize(
    ("right", "term", "sources"), NOT_ON_THE_NEW_SIDE.values(), ids=NOT_ON_THE_NEW_SIDE
)
def test_what_sources_do_not_say_of_the_new_side_is_refused(right, term, sources):
    with pytest.raises(CheckerError, match="one normal form"):
        use(right, term, *sources)


def test_the_checker_shifts_the_premises_itself():
    part = forall((), x(t), num(0))
    script = Script()
    base = script.assume(forall((), x(0), num(0)))
    for wrong in (x(ix(t, 2)), x(t), x(1)):
        step = script.assume(forall((), wrong, num(0)))
        with pytest.raises(CheckerError, match="premises must be"):
            script.induct(t, [part], [base, step])


def induction(part, base, step, var=t, pick=0):
    """What induction concludes from premises that are taken for granted."""
    script = Script()
    premises = [script.assume(base), script.assume(step)]
    return script.steps[script.induct(var, [part], premises, pick)].conclusion


def test_induction_keeps_all_other_hypotheses():
    part = forall((), x(t), num(0))
    base, step = part.put({t: at(0)}), part.put({t: then})
    with pytest.raises(CheckerError, match="fixed nowhere"):  # the step, assumed, fixes t
        induction(part, base, step)
    outside = forall((), x(s, t), num(0))
    with pytest.raises(CheckerError, match="fixed nowhere"):
        induction(outside, outside.put({t: at(0)}), outside.put({t: then}))
    script = Script()
    other, assumed = script.assume(forall((), a(), num(0))), script.assume(part)
    granted = script.assume(forall((s,), x(ix(s, 1)), x(s)))
    zero = script.assume(base)
    step = script.calculate(script.begin((), x(then)), num(0), granted, assumed, other)
    script.induct(t, [part], [zero, step])
    kept = script.theorem().statement.hypotheses
    assert set(kept) == {base, forall((), a(), num(0)), forall((s,), x(ix(s, 1)), x(s))}


def test_induction_is_over_a_time():
    part = forall((), x(h), num(0))
    with pytest.raises(CheckerError, match="width may be empty"):
        induction(part, part.put({h: at(0)}), part.put({h: ix(h, 1)}), h)
    closed = forall((), num(0), num(0))
    with pytest.raises(CheckerError, match="needs a time"):
        induction(closed, closed, closed, h)


@pytest.mark.parametrize("pick", [-1, 1, 2])
def test_induction_picks_a_part_that_is_there(pick):
    part = forall((), num(0), num(0))
    with pytest.raises(CheckerError, match="needs a time"):
        induction(part, part, part, pick=pick)


def test_induction_needs_all_premises():
    script = Script()
    part = forall((), num(0), num(0))
    only = script.begin((), num(0))
    for premises in ([], [only], [only] * 3):
        with pytest.raises(CheckerError, match="2 premises"):
            script.induct(t, [part], premises)
    with pytest.raises(CheckerError, match="needs a time"):
        script.add(Induction(t, (), 0))


def test_induction_does_not_replace_a_quantified_time():
    part = forall((t,), x(t), num(0))
    with pytest.raises(CheckerError, match="must be free"):
        induction(part, part, part)


def test_a_calculation_needs_a_target():
    with pytest.raises(CheckerError, match="target"):
        Script().add(Calculate(num(0)))


def test_a_calculation_that_differs_is_refused():
    script = Script()
    begun = script.begin((t,), total(i, 0, t, a(i)))
    for wrong in (total(i, 0, then, a(i)), total(i, 1, t, a(i)), num(0), a(t)):
        with pytest.raises(CheckerError, match="one normal form"):
            script.calculate(begun, wrong)


def test_unknown_definitions_are_refused():
    with pytest.raises(CheckerError, match="must be a defined symbol"):
        Script().define("x")


@pytest.mark.parametrize("every", [(t, t), (t, width("t"))])
def test_quantified_indices_differ(every):
    with pytest.raises(CheckerError, match="must differ"):
        Script().begin(every, num(0))


def test_a_proof_has_a_step():
    with pytest.raises(CheckerError, match="at least one step"):
        Theorem(Proof((), ()))


def test_the_last_step_is_what_is_proved():
    script = Script()
    script.begin((), a())
    script.begin((), x())
    assert script.theorem().statement.equation == forall((), x(), x())


def test_errors_name_the_step():
    script = Script()
    script.begin((), a())
    (step,) = script.steps
    script.steps.append(Step(step.rule, (7,), step.conclusion))
    with pytest.raises(CheckerError, match=r"step 1, Reflexivity: premises must be earlier"):
        script.theorem()
