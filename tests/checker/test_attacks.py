"""Attempts to make the checker accept what is false, one test each.

What Python code in the same process does to the checker's own functions cannot be kept out;
nor can `object.__setattr__` on a finished `Theorem`. Against these, a proof is written to
disk and replayed by a fresh process. All else is refused here.
"""

import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

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
    proof_of,
    running,
    time,
    total,
    width,
)
from ttt_proofs.checker import proof as proof_module
from ttt_proofs.checker import terms
from ttt_proofs.checker.definitions import Define, DefineGradient, Equation
from ttt_proofs.checker.normal import naturals, normal_form
from ttt_proofs.checker.proof import (
    Assume,
    Calculate,
    Definition,
    Induction,
    Proof,
    Reflexivity,
    Sequent,
    Step,
    Theorem,
    infer,
    replay,
)
from ttt_proofs.checker.terms import Add, Atom, CheckerError, Ix, Lam, Num, Var, free, ix
from ttt_proofs.symbolic.records import dumps, loads

ROOT = Path(__file__).resolve().parents[2]

i, j, s, t = time("i"), time("j"), time("s"), time("t")
h, g = width("h"), width("g")
then = ix(t, 1)
FALSE = forall((), num(0), num(1))
CLAIM = Sequent((), FALSE)


def x(*indices):
    """The symbol `x`."""
    return atom("x", *indices)


def refused(*steps, blocks=()):
    """Replaying raises."""
    with pytest.raises(CheckerError):
        Theorem(proof_of(*steps, blocks=blocks))


def honest() -> Script:
    """A sound proof: x[t] = t, as a sum of ones."""
    part = forall((), x(t), total(i, 0, ix(t, -1), num(1)))
    script = Script((Define("x", (t,), add(x(t), num(1)), num(0)),))
    assumed = script.assume(part)
    base = script.calculate(
        script.begin((), x(0)), part.put({t: at(0)}).right, script.define("x", start=True)
    )
    step = script.calculate(
        script.begin((), x(then)),
        part.put({t: then}).right,
        script.define("x"),
        assumed,
        peel=ix(t),
    )
    script.induct(t, [part], [base, step])
    return script


def test_the_honest_proof_passes():
    assert honest().theorem().statement.hypotheses == ()


# What is recorded is not believed.


def test_forged_conclusion():
    refused(Step(Reflexivity((), num(0)), (), CLAIM))


def test_forged_premise():
    script = honest()
    for number, step in enumerate(script.steps[:-1]):
        forged = Sequent((), replace(step.conclusion.equation, right=num(7)))
        steps = [*script.steps]
        steps[number] = replace(step, conclusion=forged)
        with pytest.raises(CheckerError, match=f"step {number}"):
            Theorem(proof_of(*steps, blocks=script.blocks))


def test_lost_assumption():
    script = Script()
    script.calculate(script.assume(forall((), x(), num(1))), num(1))
    (first, last) = script.steps
    assert last.conclusion.hypotheses
    refused(first, replace(last, conclusion=Sequent((), last.conclusion.equation)))
    refused(replace(first, conclusion=Sequent((), first.conclusion.equation)), last)


def test_lost_assumption_of_a_source():
    script = Script()
    assumed = script.assume(forall((), x(), num(1)))
    script.calculate(script.begin((), x()), num(1), assumed)
    assert script.theorem().statement.hypotheses == (forall((), x(), num(1)),)
    *before, last = script.steps
    refused(*before, replace(last, conclusion=Sequent((), last.conclusion.equation)))


def test_hypothesis_added_to_hide_another():
    script = Script()
    script.assume(FALSE)
    (step,) = script.steps
    refused(replace(step, conclusion=Sequent((forall((), num(0), num(0)),), FALSE)))


@pytest.mark.parametrize("premises", [(0,), (1,), (2,), (-1,), (0, -1)])
def test_circular_premises(premises):
    # Step 0 would justify itself, or call on a later step; negative numbers count from the end.
    equation = forall((), x(), num(1))
    step = Step(Calculate(num(1)), premises, Sequent((), equation))
    refused(step, Step(Calculate(num(1)), (0,), Sequent((), equation)))


def test_premise_that_is_no_number():
    begun = Step(Reflexivity((), x()), (), Sequent((), forall((), x(), x())))
    for number in (False, 0.0, "0", None):
        refused(begun, Step(Calculate(x()), (number,), begun.conclusion))  # pyright: ignore


# Induction.


def test_non_fresh_induction_variable():
    # x[t] = 0 is assumed for one t; induction over t must not make it true for all.
    part = forall((), x(t), num(0))
    script = Script()
    assumed = script.assume(forall((), x(t), num(0)))
    base = script.assume(part.put({t: at(0)}))
    granted = script.assume(forall((), x(then), x(t)))
    step = script.calculate(script.begin((), x(then)), num(0), granted, assumed)
    with pytest.raises(CheckerError, match="fixed nowhere"):
        script.induct(t, [part], [base, step])


def test_base_case_that_uses_the_hypothesis_of_the_step():
    part = forall((), x(), atom("a", t))
    script = Script()
    # P(t) mentions t on the right only; P(0) is not P(t).
    base = script.assume(part)
    with pytest.raises(CheckerError, match="premises must be"):
        script.induct(t, [part], [base, base])


def test_base_case_under_the_predicate_itself():
    # The predicate at an unknown t is no proof of the case 0, and is not discharged there.
    part = forall((), mul(num(0), atom("a", t)), num(1))
    script = Script()
    assumed = script.assume(part)
    base = script.calculate(assumed, num(1))
    goal = part.put({t: at(0)})
    with pytest.raises(CheckerError, match="premises must be"):
        script.induct(t, [part], [base, base])
    forged = replace(script.steps[base], conclusion=Sequent((part,), goal))
    refused(script.steps[0], forged)


def test_predicate_without_its_variable_is_not_discharged_from_the_base():
    script = Script()
    assumed = script.assume(FALSE)
    number = script.induct(t, [FALSE], [assumed, assumed])
    assert script.steps[number].conclusion.hypotheses == (FALSE,)


def test_quantifying_an_index_that_a_hypothesis_fixes():
    hypothesis = forall((), x(t), num(0))
    script = Script()
    begun, assumed = script.begin((t,), x(t)), script.assume(hypothesis)
    with pytest.raises(CheckerError, match="must not be quantified"):
        script.calculate(begun, num(0), assumed)


def test_induction_below_zero():
    # Nothing is known at -1, though everything is known at all natural times.
    script = Script((Define("x", (t,), num(5)),))
    begun = script.begin((), x(-1))
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(begun, num(5), script.define("x"))


def test_stateful_predicate():
    # A predicate that is one thing when it is substituted, another when it is concluded.
    class Predicate(tuple):
        looks = 0

        def __getitem__(self, key):
            return FALSE

    part = forall((), num(0), num(0))
    rule = Induction(t, Predicate((part,)), 0)
    steps = Script()
    steps.begin((), num(0))
    for conclusion in (CLAIM, Sequent((), forall((t,), num(0), num(1)))):
        refused(*steps.steps, Step(rule, (0, 0), conclusion))


def test_predicate_that_is_a_function():
    rule = Induction(t, lambda n: FALSE, 0)  # pyright: ignore
    refused(Step(rule, (), CLAIM))


# Objects that are not what they say.


class Chameleon(type):
    """A class that is equal to every class."""

    def __eq__(cls, other) -> bool:
        return True

    __hash__ = type.__hash__


def test_rule_of_a_class_that_equals_every_class():
    class Rule(metaclass=Chameleon):
        def conclude(self, *_):
            return CLAIM

    refused(Step(Rule(), (), CLAIM))  # pyright: ignore


def test_term_of_a_class_that_equals_every_class():
    class Term(metaclass=Chameleon):
        pass

    term = Term()
    equation = Equation((), term, term)  # pyright: ignore
    refused(Step(Reflexivity((), term), (), Sequent((), equation)))  # pyright: ignore


@pytest.mark.parametrize(
    "kind", [Reflexivity, Sequent, Step, Proof, Theorem, Num, Var], ids=lambda kind: kind.__name__
)
def test_records_have_no_subclasses(kind):
    # One could conclude, equal or hold something else than it says.
    with pytest.raises(CheckerError, match="no subclass"):
        type("Own", (kind,), {"__slots__": ()})


class Quiet:
    """Keeps a class that is derived from it and a record from being refused."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        pass


def test_records_of_own_classes_are_refused_all_the_same():
    def own(kind, *fields):
        return type("Own", (Quiet, kind), {"__slots__": (), "__eq__": lambda *_: True})(*fields)

    step = Step(Reflexivity((), x()), (), Sequent((), forall((), x(), x())))
    refused(own(Step, step.rule, step.premises, step.conclusion))
    refused(Step(own(Reflexivity, (), num(0)), (), CLAIM))
    refused(Step(Reflexivity((), num(0)), (), own(Sequent, (), FALSE)))
    with pytest.raises(CheckerError):
        Theorem(own(Proof, (), (step,)))


def test_steps_that_change_while_they_are_read():
    class Steps(tuple):
        def __iter__(self):
            return iter((Step(Reflexivity((), num(0)), (), CLAIM),))

    with pytest.raises(CheckerError):
        Theorem(Proof((), Steps()))


@pytest.mark.parametrize("kind", ["name", "sort", "symbol", "shift", "premise", "number"])
def test_values_that_equal_everything(kind):
    class Word(str):
        def __eq__(self, other) -> bool:
            return True

        __hash__ = str.__hash__

    class Whole(int):
        def __eq__(self, other) -> bool:
            return True

        __hash__ = int.__hash__

    class Ratio(Fraction):
        def __eq__(self, other) -> bool:
            return True

        __hash__ = Fraction.__hash__

    term = {
        "name": Atom("x", (ix(Var(Word("t"), "time")),)),
        "sort": Atom("x", (ix(Var("t", Word("time"))),)),
        "symbol": Atom(Word("x"), ()),
        "shift": Atom("x", (Ix((), Whole(1)),)),
        "premise": x(),
        "number": Num(Ratio(1)),
    }[kind]
    premises = (Whole(0),) if kind == "premise" else ()
    begun = Step(Reflexivity((), x()), (), Sequent((), forall((), x(), x())))
    refused(begun, Step(Reflexivity((), term), premises, Sequent((), Equation((), term, term))))


def test_booleans_and_floats_for_integers():
    for shift in (True, False, 1.0):
        term = Atom("x", (Ix((), shift),))  # pyright: ignore
        refused(Step(Reflexivity((), term), (), Sequent((), Equation((), term, term))))
    for number in ((1.0, 1), (True, 1), (1, True), (Fraction(1), 1), (1, 0), (1, -1), (2**53, 1)):
        term = Num(*number)  # pyright: ignore
        refused(Step(Reflexivity((), term), (), Sequent((), Equation((), term, term))))


def test_a_denominator_of_zero():
    # x = 1/0, hence x + 1 = x, if it were let in.
    define = Define("x", (), Num(1, 0))
    refused(Step(Definition("x"), (), Sequent((), forall((), x(), Num(1, 0)))), blocks=((define,),))


def test_pick_that_is_a_boolean():
    part = forall((), num(0), num(0))
    script = Script()
    script.begin((), num(0))
    rule = Induction(t, (part,), False)
    refused(*script.steps, Step(rule, (0, 0), Sequent((), forall((t,), num(0), num(0)))))


# What was found about one object is not recalled for another.


def twin(of, *terms):
    """A sum of these terms that equals all else, and hashes like something else."""
    own = {"__slots__": (), "__eq__": lambda *_: True, "__hash__": lambda _: hash(of)}
    return type("Twin", (Quiet, Add), own)(terms)


def refill(other) -> None:
    """Ask the checker, as any program may, about terms that hold the object."""
    for term in (other, mul(other), total(i, 0, 3, other), call("f", other)):
        target = Sequent((), forall((), term, term))
        step = Step(Reflexivity((), term), (), target)
        with contextlib.suppress(Exception):
            free((term, term))
        with contextlib.suppress(Exception):
            infer({}, Calculate(term), [target, target])
        with contextlib.suppress(Exception):
            Theorem(proof_of(step))


def test_a_memory_of_an_object_that_equals_a_term_does_not_mislead():
    sound = total(i, 0, t, x(i))
    refill(twin(sound))
    hypothesis = forall((), atom("y"), sound)
    script = Script()
    script.assume(hypothesis)
    assert script.theorem().statement.equation == hypothesis
    assert free(total(i, 0, t, x(i))) == {t}


def test_another_thread_cannot_refill_a_memory_during_a_replay():
    one, other = mul(x()), atom("y")
    same = Step(Reflexivity((), x()), (), Sequent((), forall((), x(), x())))
    begun = Step(Reflexivity((), one), (), Sequent((), forall((), one, one)))
    last = Step(Calculate(other), (4000,), Sequent((), forall((), one, other)))
    done = threading.Event()

    def poison() -> None:
        evil = twin(one, other)
        while not done.is_set():
            infer({}, Calculate(evil), [Sequent((), Equation((), evil, evil))])

    thread = threading.Thread(target=poison)
    thread.start()
    try:
        for _ in range(3):
            refused(*[same] * 4000, begun, last)
    finally:
        done.set()
        thread.join()


def test_what_was_noted_of_an_object_of_another_class_is_forgotten():
    # It has no free index while it is of its own class; then it becomes a sum.
    class Own(terms.Node):
        __slots__ = ("terms",)
        __match_args__ = ()

    own: Any = Own()
    object.__setattr__(own, "terms", (x(h),))
    assert free(own) == frozenset()
    own.__class__ = Add
    assert own == add(x(h))
    refused(Step(Reflexivity((), own), (), Sequent((), Equation((), own, own))))


OTHER_TYPES = """
from ttt_proofs.checker.terms import CheckerError, Node, Num, check

class Kind(type):
    def __eq__(cls, other):
        return True
    def __hash__(cls):
        return hash(Num)

Own = Kind("Own", (Node,), {"__slots__": ()})
try:
    check(Own(), Own)
except Exception as error:
    print(type(error).__name__)
try:
    check(Num("1/2"), Num)
except CheckerError:
    print("refused")
"""


def test_a_memory_of_declared_types_does_not_mislead():
    # A class that equals `Num`, and declares nothing.
    run = subprocess.run(
        [sys.executable, "-c", OTHER_TYPES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1:] == ["refused"]


# Theorems that were not replayed.


def test_theorem_with_another_statement():
    theorem = honest().theorem()
    with pytest.raises(ValueError, match="init=False"):
        replace(theorem, statement=CLAIM)
    with pytest.raises(TypeError):
        Theorem(theorem.proof, CLAIM)  # pyright: ignore
    with pytest.raises(AttributeError):
        theorem.statement = CLAIM  # pyright: ignore


def test_theorem_with_another_proof_is_replayed():
    theorem = honest().theorem()
    proof = proof_of(Step(Reflexivity((), num(0)), (), CLAIM))
    with pytest.raises(CheckerError):
        replace(theorem, proof=proof)


def test_a_forged_theorem_does_not_survive_being_written_down():
    # Python lets anyone write into any object; the file says what was proved.
    theorem = honest().theorem()
    object.__setattr__(theorem, "statement", CLAIM)
    assert loads(dumps(theorem.proof)).statement == honest().theorem().statement


# Names and scopes.


def test_captured_index():
    # From y[t] = Σ_i x[i, t] the instance t := i must not become Σ_i x[i, i].
    script = Script((Define("y", (t,), total(i, 0, 3, x(i, t))),))
    begun = script.begin((i,), atom("y", i))
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(begun, total(i, 0, 3, x(i, i)), script.define("y"))
    script.calculate(begun, total(j, 0, 3, x(j, i)), script.define("y"))


def test_captured_bound():
    # A renamed index must not take the name of its own upper bound, which is bound outside.
    d, z, k = width("i"), time("i____"), time("k")
    inner = call("f", total(i, 0, z, mul(x(i), atom("b", d))))
    true = total(d, total(z, 0, 5, inner))
    escaped = total(d, total(k, 0, 5, inner))  # here z is free
    script = Script()
    begun = script.begin((), true)
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(begun, escaped)


def test_index_captured_by_a_definition_of_a_gradient():
    # The entry's index has the name of the chunk's.
    loss = total(h, mul(atom("X", h), atom("k", t, h)))
    script = Script((DefineGradient("G", (t,), "X", loss, Lam((h,), num(0))),))
    entry = Lam((width("t"),), atom("k", t, width("t")))
    with pytest.raises(CheckerError, match="quantified indices must differ"):
        script.define("G", entry)


def test_index_captured_while_replacing():
    # The source fixes s; under Σ_s its right side must not be bound.
    script = Script()
    fixed = script.assume(forall((), atom("y"), x(s)))
    begun = script.begin((), total(s, 0, 1, atom("y")))
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(begun, total(s, 0, 1, x(s)), fixed)


def test_one_name_for_a_time_and_a_width():
    script = Script((Define("y", (t,), num(1)),))
    begun = script.begin((width("t"),), atom("y", width("t")))
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(begun, num(1), script.define("y"))


def test_reserved_names():
    # The checker's own names would let a term meet its bound indices.
    for name in ("$0_0", "$direction", "$0_0_", "a:b", "", "1x", "x y"):
        for term in (Atom(name, ()), Atom("x", (ix(time(name)),)), Atom("x", (ix(width(name)),))):
            refused(Step(Reflexivity((), term), (), Sequent((), Equation((), term, term))))


def test_range_learned_under_another_index_of_the_same_name():
    # 0 <= i holds inside Σ_i; it does not for the i of a whole sequence inside that sum.
    script = Script((Define("y", (t,), num(1)),))
    body = call("f", Lam((i,), atom("y", i)))
    begun = script.begin((), total(i, 0, 3, mul(atom("y", i), body)))
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(begun, total(i, 0, 3, call("f", Lam((i,), num(1)))), script.define("y"))
    script.calculate(begun, total(i, 0, 3, body), script.define("y"))


# Ranges.


def test_out_of_range_peel():
    # Σ_{s..t} has no last step where t < s.
    script = Script()
    begun = script.begin((s, t), total(i, s, t, x(i)))
    split = add(total(i, s, ix(t, -1), x(i)), x(t))
    for peel in (ix(t), ix(t, -1), ix(t, 1), ix(s)):
        with pytest.raises(CheckerError, match="one normal form"):
            script.calculate(begun, split, peel=peel)


def test_out_of_range_peel_of_a_running_product():
    script = Script()
    begun = script.begin((s, t), running(i, s, t, x(i)))
    split = mul(running(i, s, ix(t, -1), x(i)), x(t))
    for peel in (ix(t), ix(t, -1), ix(s)):
        with pytest.raises(CheckerError, match="one normal form"):
            script.calculate(begun, split, peel=peel)


def test_peel_that_is_no_time():
    script = Script()
    begun = script.begin((t,), total(i, 0, t, x(i)))
    for peel in (at(3), Ix((s, t)), Ix((t, t))):
        with pytest.raises(CheckerError, match="peeled"):
            script.calculate(begun, total(i, 0, t, x(i)), peel=peel)
    with pytest.raises(CheckerError, match="peeled"):
        script.calculate(begun, add(total(i, 0, ix(t, -1), x(i)), x(t)), peel=ix(width("t")))


def test_widths_may_be_empty():
    # Σ_h 1 may be 0, so nothing follows from what holds for all h alone.
    script = Script()
    begun = script.begin((), total(h, num(1)))
    for wrong in (num(1), add(num(1), total(g, num(1)))):
        with pytest.raises(CheckerError, match="one normal form"):
            script.calculate(begun, wrong)


def test_a_width_reached_through_a_running_product():
    # y[h] = 5 for h within D says nothing of y[-3]; a product over h must not lead there.
    script = Script((Define("y", (h,), num(5)),))
    detour = running(h, -3, -3, atom("y", h))
    with pytest.raises(CheckerError):
        number = script.calculate(script.begin((), atom("y", -3)), detour)
        script.calculate(number, num(5), script.define("y"))
        script.theorem()


def test_running_product_from_high_to_low_is_one():
    known = naturals(frozenset({t}))
    assert normal_form(running(i, ix(t, 3), t, x(i)), known) == normal_form(num(1), known)
    assert normal_form(running(i, ix(t, 1), t, num(0)), known) == normal_form(num(1), known)


# Definitions.


@pytest.mark.parametrize("term", [x(), add(x(), num(1)), mul(num(2), x())])
def test_circular_definition(term):
    step = Step(Definition("x"), (), Sequent((), forall((), x(), term)))
    refused(step, blocks=((Define("x", (), term),),))


def test_double_definition():
    blocks = ((Define("x", (), num(0)),), (Define("x", (), num(1)),))
    refused(Step(Definition("x"), (), Sequent((), forall((), x(), num(1)))), blocks=blocks)


def test_definition_after_use():
    blocks = ((Define("y", (), x()),), (Define("x", (), add(atom("y"), num(1))),))
    refused(
        Step(Definition("x"), (), Sequent((), forall((), x(), add(atom("y"), num(1))))),
        blocks=blocks,
    )


def test_recursion_without_end():
    # x[t] = x[t + 1] + 1 has no solution among natural numbers, though none below any bound.
    blocks = ((Define("x", (t,), add(x(then), num(1))),),)
    equation = forall((t,), x(t), add(x(then), num(1)))
    refused(Step(Definition("x"), (), Sequent((), equation)), blocks=blocks)


def test_the_step_of_a_recursion_does_not_define_its_start():
    # x[t + 1] = 1 for all t; x[0] = x[-1 + 1] is not an instance.
    script = Script((Define("x", (t,), num(1), num(0)),))
    begun = script.begin((), x(0))
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(begun, num(1), script.define("x"))


def z(*indices):
    """The symbol `z`, with a step within each chunk: `z[t, j]`."""
    return atom("z", *indices)


def test_a_start_that_takes_a_third_time_for_the_step():
    # z[t, 0, s] = z[t, s - 2, 0] + 1 and z[t, j + 1, s] = z[t, j, 3]: z[0, 0, 3] is one more
    # than z[0, 1, 0], which is z[0, 0, 3].
    start = add(z(t, ix(s, -2), 0), num(1))
    script = Script((Define("z", (t, j, s), z(t, j, 3), start),))
    number = script.begin((), z(0, 0, 3))
    number = script.calculate(number, add(z(0, 1, 0), num(1)), script.define("z", start=True))
    script.calculate(number, add(z(0, 0, 3), num(1)), script.define("z"))
    with pytest.raises(CheckerError, match="not earlier"):
        script.theorem()


def test_a_start_that_binds_a_time_of_the_name_of_the_step():
    # z[t, 0] = 1 + Σ_{j = 2..2} z[t, j - 2]
    start = add(num(1), total(j, 2, 2, z(t, ix(j, -2))))
    script = Script((Define("z", (t, j), num(0), start),))
    number = script.begin((), z(0, 0))
    script.calculate(number, add(num(1), z(0, 0)), script.define("z", start=True))
    with pytest.raises(CheckerError, match="`z`"):
        script.theorem()


def test_a_chunk_that_reads_its_own_steps():
    # x[t] = z[t, 1], z[t, 0] = x[t], z[t, j + 1] = z[t, j] + 1
    block = (Define("x", (t,), z(t, 1)), Define("z", (t, j), add(z(t, j), num(1)), x(t)))
    script = Script(block)
    number = script.calculate(script.begin((), x(0)), z(0, 1), script.define("x"))
    number = script.calculate(number, add(z(0, 0), num(1)), script.define("z"))
    script.calculate(number, add(x(0), num(1)), script.define("z", start=True))
    with pytest.raises(CheckerError, match="not earlier"):
        script.theorem()


def test_steps_and_starts_are_used_in_range_only():
    script = Script((Define("z", (t, j), num(1), num(0)),))
    step, start = script.define("z"), script.define("z", start=True)
    for term, value, source in (
        (z(0, 0), num(1), step),
        (z(-1, 1), num(1), step),
        (z(0, -1), num(1), step),
        (z(t, j), num(1), step),
        (z(-1, 0), num(0), start),
        (z(0, 1), num(0), start),
        (z(0), num(0), start),
        (z(0, 0, 0), num(0), start),
    ):
        with pytest.raises(CheckerError, match="one normal form"):
            script.calculate(script.begin((), term), value, source)
    script.calculate(script.begin((t, j), z(t, ix(j, 1))), num(1), step)
    script.calculate(script.begin((t,), z(t, 0)), num(0), start)
    script.theorem()


# A width may be empty: what holds for each of its indices says nothing of what mentions none.


def q(*indices):
    """The symbol `q`, all of whose entries are one number."""
    return atom("q", *indices)


def test_a_width_that_may_be_empty_joins_nothing():
    # q[h] = c and q[h] = d for all h; c = d only if there is an h.
    script = Script()
    sources = [script.assume(forall((h,), q(h), atom(name))) for name in "cd"]
    with pytest.raises(CheckerError):
        number = script.calculate(script.begin((), atom("c")), q(h), sources[0])
        script.calculate(number, atom("d"), sources[1])


def test_an_empty_width_joins_nothing_by_an_induction():
    # y[0] = d and y[t + 1] = c; the step passes through q[h] under a hypothesis that mentions h.
    part, trivial = forall((), atom("y", t), atom("d")), forall((), q(h), q(h))
    script = Script((Define("y", (t,), atom("c"), atom("d")),))
    sources = [script.assume(forall((h,), q(h), atom(name))) for name in "cd"]
    base = script.calculate(
        script.begin((), atom("y", 0)), atom("d"), script.define("y", start=True)
    )
    with pytest.raises(CheckerError, match="width may be empty"):
        script.assume(trivial)
    with pytest.raises(CheckerError, match="width may be empty"):
        proved = script.begin((), q(h))
        step = script.calculate(
            script.begin((), atom("y", then)), q(h), script.define("y"), sources[0], proved
        )
        step = script.calculate(step, atom("d"), sources[1])
        script.induct(t, [part, trivial], [base, proved, step, proved])


def test_an_empty_width_joins_nothing_by_a_gradient():
    # (2 X)' = 2 + q[h] - q[h] by the normal form; then one of the two is c, the other d.
    define = DefineGradient("G", (), "X", mul(num(2), atom("X")), Lam((), num(0)))
    script = Script((define,))
    sources = [script.assume(forall((h,), q(h), atom(name))) for name in "cd"]
    minus = mul(num(-1), q(h))
    with pytest.raises(CheckerError):
        number = script.define("G", Lam((), add(num(2), q(h), minus)))
        number = script.calculate(number, add(num(2), atom("c"), minus), sources[0])
        script.calculate(number, add(num(2), atom("c"), mul(num(-1), atom("d"))), sources[1])


def test_under_a_quantifier_an_empty_width_is_harmless():
    # For all h: c = d. That is true, and of no use to prove c = d.
    script = Script()
    sources = [script.assume(forall((h,), q(h), atom(name))) for name in "cd"]
    number = script.calculate(script.begin((h,), atom("c")), q(h), sources[0])
    number = script.calculate(number, atom("d"), sources[1])
    with pytest.raises(CheckerError, match="one normal form"):
        script.calculate(script.begin((), atom("c")), atom("d"), number)


def test_definition_with_an_index_left_over():
    # x = a[t] for all t would make a constant.
    define = Define("x", (), atom("a", t))
    refused(
        Step(Definition("x"), (), Sequent((), forall((), x(), atom("a", t)))), blocks=((define,),)
    )


def test_gradient_at_a_point_that_moves_with_the_parameter():
    # (X²)' at X is 2 X, not the derivative of what is found after X was put in.
    define = DefineGradient("G", (), "X", mul(atom("X"), atom("X")), Lam((), atom("w")))
    script = Script((define,))
    with pytest.raises(CheckerError, match="pairing"):
        script.define("G", Lam((), mul(num(2), atom("w"))))


def test_gradient_through_a_symbol_that_hides_the_parameter():
    # y = X², and the loss says y: the differential would see no X, and call 0 the gradient.
    hide = Define("y", (), mul(atom("X"), atom("X")))
    define = DefineGradient("G", (), "X", atom("y"), Lam((), atom("w")))
    rule = Definition("G", Lam((), num(0)))
    zero = Sequent((), forall((), atom("G"), num(0)))
    refused(Step(rule, (), zero), blocks=((hide,), (define,)))
    together = (
        Define("y", (t,), mul(atom("X"), atom("X"))),
        DefineGradient("G", (t,), "X", atom("y", t), Lam((), atom("w"))),
    )
    zero = Sequent((), forall((t,), atom("G", t), num(0)))
    refused(Step(rule, (), zero), blocks=(together,))


# Arithmetic.


def test_a_plus_c_is_not_b_plus_b():
    # Three matrices of one shape: a checker that fills them with the same numbers is fooled.
    a, b, c = (atom(name, h, g) for name in "abc")
    script = Script()
    for left, right in ((add(a, c), add(b, b)), (mul(a, c), mul(b, b)), (a, b)):
        begun = script.begin((h, g), left)
        with pytest.raises(CheckerError, match="one normal form"):
            script.calculate(begun, right)


def test_zero_is_not_one():
    script = Script()
    begun = script.begin((), num(0))
    for wrong in (num(1), mul(), num(Fraction(1, 10**30)), call("zero"), total(h, num(1))):
        with pytest.raises(CheckerError, match="one normal form"):
            script.calculate(begun, wrong)


# Proofs on disk.


def test_a_serialized_proof_is_replayed():
    script = honest()
    assert loads(dumps(script.proof)).statement == script.theorem().statement


def edits(data, path=()):
    """Every way to change one number, name or length in a serialized proof."""
    if isinstance(data, list):
        for k, part in enumerate(data):
            for change in edits(part, (*path, k)):
                yield [*data[:k], change, *data[k + 1 :]]
            yield [*data[:k], *data[k + 1 :]]
    elif isinstance(data, bool):
        yield not data
    elif isinstance(data, int):
        yield from (data + 1, data - 1, bool(data), float(data))
    elif isinstance(data, str):
        yield from (data + "x", "", 0, "7/1", None)
    else:
        yield 0


def test_edited_serialized_proof():
    # Each single edit is refused, or proves something that is true all the same: never 0 = 1,
    # and never that x[t] is anything but t, unless the definition of x was what was edited.
    script = honest()
    good, blocks = script.theorem().statement, script.proof.definitions
    accepted = 0
    for change in edits(json.loads(dumps(script.proof))):
        try:
            theorem = loads(json.dumps(change))
        except CheckerError:
            continue
        accepted += 1
        known = naturals(free(theorem.statement.equation.right) | {t})
        same = normal_form(theorem.statement.equation.right, known) == normal_form(
            good.equation.right, known
        )
        assert theorem.statement.hypotheses or same or theorem.proof.definitions != blocks
    assert accepted < 15  # names of bound variables, for the most part


BROKEN = {
    "nothing": "",
    "no JSON": "{",
    "null": "null",
    "a number": "1",
    "an object": "{}",
    "an empty list": "[]",
    "another record": '["Step"]',
    "no steps": '["Proof",[],[]]',
    "a step that is none": '["Proof",[],[1]]',
    "an unknown rule": '["Proof",[],[["Step",["Axiom"],[],["Sequent",[],[]]]]]',
    "not a number": '["Proof",[],[NaN]]',
    "a huge number": '["Proof",[],[' + "9" * 5000 + "]]",
    "a lone surrogate": '["\\ud800"]',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_refused(text):
    with pytest.raises(CheckerError):
        loads(text)


def test_unequal_fractions_on_disk():
    script = Script()
    script.begin((), num(Fraction(1, 2)))
    good = '["Num",1,2]'
    assert good in dumps(script.proof)
    for wrong in (
        "1,0",
        "1",
        "1.5,1",
        "true,2",
        '"1",2',
        "1,-2",
        "1,2,3",
        "[1,2]",
        "1e3,1",
        "null,1",
    ):
        with pytest.raises(CheckerError):
            loads(dumps(script.proof).replace(good, f'["Num",{wrong}]'))


def test_a_proof_too_deep_or_too_long_is_refused_not_a_crash():
    long = running(i, 0, 10**5, x(i))
    steps = (
        Step(Reflexivity((), long), (), Sequent((), forall((), long, long))),
        Step(Calculate(num(1)), (0,), Sequent((), forall((), long, num(1)))),
    )
    refused(*steps)


# Python without asserts.

OPTIMISED = """
from tests.checker.build import *
from ttt_proofs.checker.proof import *
from ttt_proofs.checker.terms import CheckerError
if __debug__:
    raise SystemExit("asserts are on")
false = Sequent((), forall((), num(0), num(1)))
rules = [Reflexivity((), num(0)), Calculate(num(1)), Definition("x"), Assume(false.equation),
         Induction(time("t"), (false.equation,), 0)]
for rule in rules:
    for premises in ((), (0,), (-1,)):
        try:
            Theorem(proof_of(Step(rule, premises, false)))
        except CheckerError:
            continue
        raise SystemExit(f"accepted {rule}")
print("all refused")
"""


def test_python_without_asserts():
    run = subprocess.run(
        [sys.executable, "-O", "-c", OPTIMISED], cwd=ROOT, text=True, capture_output=True
    )
    assert (run.returncode, run.stdout.strip()) == (0, "all refused"), run.stderr


def test_assuming_a_falsehood_says_so():
    script = Script()
    script.add(Assume(FALSE))
    assert script.theorem().statement == Sequent((FALSE,), FALSE)


def renamed_away() -> Proof:
    """x[0] = 0 and x[t + 1] = 1, and yet 0 = 1, if a recorded name may hide what is fixed.

    Under P(t): x[t] = 0, a calculation for all t that uses P would conclude that x[t] = 0 for all
    t; the record calls that t by another name, so that nothing is seen to be both.
    """
    part = forall((), x(t), num(0))
    script = Script((Define("x", (t,), num(1), num(0)),))
    assumed, begun = script.assume(part), script.begin((t,), x(t))
    hidden = Sequent((part,), forall((s,), x(s), num(0)))
    script.steps.append(Step(Calculate(num(0)), (begun, assumed), hidden))
    all_zero, base = len(script.steps) - 1, script.define("x", start=True)
    step = script.calculate(script.begin((), x(then)), num(0), all_zero)
    zero = script.induct(t, [part], [base, step])
    last = script.calculate(script.begin((), num(0)), x(1), zero)
    script.calculate(last, num(1), script.define("x"))
    return script.proof


def test_a_recorded_name_hides_no_hypothesis():
    with pytest.raises(CheckerError, match=r"step 2.*must not be quantified"):
        replay(renamed_away())


def test_that_attack_would_succeed(monkeypatch):
    monkeypatch.setattr(
        proof_module, "infer", lambda known, rule, given: rule.conclude(known, given)
    )
    assert replay(renamed_away()) == Sequent((), forall((), num(0), num(1)))
