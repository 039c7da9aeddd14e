"""Nodes are closed: no attribute beside the fields, no change, no theorem but by replay."""

import copy
import io
import pickle

import pytest

from tests.checker.build import Script, atom, call, forall, num, total
from ttt_proofs.checker import definitions, proof, terms
from ttt_proofs.checker.proof import Proof, Reflexivity, Sequent, Step, Theorem
from ttt_proofs.checker.terms import Node

FALSE = Sequent((), forall((), num(0), num(1)))
NODES = [
    kind
    for module in (terms, definitions, proof)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Node) and kind is not Node
]


def zero_is_zero() -> Theorem:
    """A true theorem."""
    script = Script()
    script.begin((), num(0))
    return script.theorem()


@pytest.mark.parametrize("kind", dict.fromkeys(NODES), ids=lambda kind: kind.__name__)
def test_nodes_have_their_fields_and_nothing_else(kind):
    bare = kind.__new__(kind)
    assert not hasattr(bare, "__dict__")
    for name in ("conclude", "equation", "anything"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(bare, name, lambda *_: FALSE)
    for name in kind.__slots__:
        with pytest.raises((AttributeError, TypeError)):
            setattr(bare, name, 0)


def test_a_rule_cannot_be_shadowed():
    rule = Reflexivity((), num(0))
    with pytest.raises(TypeError):
        vars(rule)["conclude"] = lambda *_: FALSE
    with pytest.raises(terms.CheckerError):
        Theorem(Proof((), (Step(rule, (), FALSE),)))


def forged() -> Theorem:
    """An object that says of itself that 0 = 1 was proved."""
    fake = Theorem.__new__(Theorem)
    object.__setattr__(fake, "proof", zero_is_zero().proof)
    object.__setattr__(fake, "statement", FALSE)
    return fake


@pytest.mark.parametrize(
    "carry", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy]
)
def test_a_copy_of_a_theorem_is_replayed(carry):
    assert carry(zero_is_zero()) == zero_is_zero()
    assert carry(forged()).statement == zero_is_zero().statement


def test_a_pickled_proof_that_does_not_hold_makes_no_theorem():
    fake = forged()
    object.__setattr__(fake, "proof", Proof((), (Step(Reflexivity((), num(0)), (), FALSE),)))
    with pytest.raises(terms.CheckerError):
        pickle.loads(pickle.dumps(fake))


def test_numbers_cannot_change():
    number = zero_is_zero().statement.equation.right
    for name in ("top", "bottom", "_numerator", "numerator"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(number, name, 1)
    assert zero_is_zero().statement.equation.right == num(0) == number


def test_a_recorded_conclusion_may_name_its_bound_indices_otherwise():
    h, g = terms.Var("h", "D"), terms.Var("g", "D")
    x_h, x_g = atom("x", h), atom("x", g)
    rule = Reflexivity((h,), x_h)
    renamed = Sequent((), forall((g,), x_g, x_g))
    assert Theorem(Proof((), (Step(rule, (), renamed),))).statement == renamed
    for wrong in (forall((g,), x_g, x_h), forall((g,), x_h, x_h), forall((h, g), x_h, x_h)):
        with pytest.raises(terms.CheckerError):
            Theorem(Proof((), (Step(rule, (), Sequent((), wrong)),)))
    other = terms.Var("h", "E")
    wide = Sequent((), forall((other,), atom("x", other), atom("x", other)))
    with pytest.raises(terms.CheckerError):
        Theorem(Proof((), (Step(rule, (), wide),)))


def state_forged() -> bytes:
    """A pickle that makes a theorem without its constructor and puts a false statement in."""
    records = pickle.dumps((zero_is_zero().proof, FALSE), protocol=2)[:-1]  # without STOP
    name = b"cttt_proofs.checker.proof\nTheorem\n"
    return records[:2] + name + b")\x81" + records[2:] + b"b."


def test_a_pickle_cannot_put_a_statement_into_a_theorem():
    with pytest.raises(TypeError, match="not callable"):
        pickle.loads(state_forged())


@pytest.mark.parametrize("kind", dict.fromkeys(NODES), ids=lambda kind: kind.__name__)
def test_no_state_is_put_into_a_record(kind):
    bare = object.__new__(kind)
    for put in (kind.__setstate__, lambda node, state: node.__setstate__(state)):
        with pytest.raises(TypeError, match="not callable"):
            put(bare, [None] * len(kind.__slots__))


@pytest.mark.parametrize("kind", dict.fromkeys(NODES), ids=lambda kind: kind.__name__)
def test_records_have_no_subclass(kind):
    with pytest.raises(terms.CheckerError, match="no subclass"):
        type("Own", (kind,), {"__slots__": ()})


def test_a_pickle_cannot_put_a_state_into_a_record_that_a_theorem_shares():
    # It names classes of the checker only: a proof, its theorem, then BUILD on its conclusion.
    true = zero_is_zero().proof
    stream = io.BytesIO()
    pickler = pickle._Pickler(stream, protocol=2)  # pyright: ignore
    stream.write(pickle.PROTO + bytes([2]))
    conclusion = true.steps[-1].conclusion
    pickler.save(conclusion)
    stream.write(pickle.POP)
    pickler.save(Theorem)
    pickler.save((true,))
    stream.write(pickle.REDUCE)
    pickler.save(conclusion)
    pickler.save([(), FALSE.equation])
    stream.write(pickle.BUILD + pickle.POP + pickle.STOP)
    with pytest.raises(TypeError, match="not callable"):
        pickle.loads(stream.getvalue())


@pytest.mark.parametrize(
    "carry", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy]
)
def test_records_are_copied_by_their_constructors(carry):
    script = Script()
    h, t = terms.Var("h", "D"), terms.Var("t", terms.TIME)
    script.begin((h, t), total(h, call("f", atom("x", h, t), at=(t,))))
    assert terms.free(script.proof.steps[0].rule) == {h, t}
    copied = carry(script.proof)
    assert copied == script.proof and Theorem(copied) == script.theorem()


def test_a_theorem_is_made_once():
    theorem, true = zero_is_zero(), zero_is_zero().statement
    bad = Proof((), (Step(Reflexivity((), num(0)), (), FALSE),))
    for proof_of_another in (bad, one_is_one().proof, theorem.proof):
        with pytest.raises(terms.CheckerError, match="once"):
            theorem.__init__(proof_of_another)
        assert theorem.statement == true and theorem.proof == zero_is_zero().proof
    bare = object.__new__(Theorem)
    with pytest.raises(terms.CheckerError):
        bare.__init__(bad)
    assert not hasattr(bare, "statement") and not hasattr(bare, "proof")


def one_is_one() -> Theorem:
    """Another true theorem."""
    script = Script()
    script.begin((), num(1))
    return script.theorem()
