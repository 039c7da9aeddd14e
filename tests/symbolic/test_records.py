"""Proofs on disk: what is read back is replayed, and nothing that was changed passes."""

import hashlib
import json
import random
from fractions import Fraction

import pytest
import sympy as sp

from ttt_proofs.checker.proof import Assume, Definition, Proof, Sequent, Step, Theorem
from ttt_proofs.checker.terms import Atom, CheckerError, Ix, Num, Var
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    Features,
    GradientStep,
    InnerLoop,
    SquaredError,
)
from ttt_proofs.symbolic import attention_part, gradient_part, identity_part, single_step_part
from ttt_proofs.symbolic.records import decode, digest, dumps, encode, loads, loads_derivation

ABSTRACT = InnerLoop(Features(), AbstractLoss(), GradientStep("per_step", momentum="per_step"))
NET = InnerLoop(MLP(2, "silu"), SquaredError())


def exchange():
    """A sum over pairs, in both orders."""
    i, j, t = sp.symbols("i j t", integer=True)
    b = sp.IndexedBase("b")[i, j]
    left = sp.Sum(sp.Sum(b, (i, 0, j)), (j, 0, t))
    return identity_part(left, sp.Sum(sp.Sum(b, (j, i, t)), (i, 0, t)), (t,))


PARTS = {
    "attention": attention_part(ABSTRACT),
    "single step": single_step_part(NET, scale=sp.Symbol("eta")),
    "gradient": gradient_part(NET, NET.fast_weights[0]),
    "identity": exchange(),
}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_written_is_read_back(name):
    proof = PARTS[name].proof
    theorem = loads(dumps(proof))
    assert theorem.proof == proof and theorem.statement == Theorem(proof).statement
    assert dumps(theorem.proof) == dumps(proof)


@pytest.mark.parametrize("name", PARTS)
def test_it_is_plain_json(name):
    text = dumps(PARTS[name].proof)
    again = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    assert again == text and json.loads(text)[0] == "Proof"


def test_names_outside_ascii_survive():
    i, t = sp.symbols("i t", integer=True)
    a = sp.Symbol("η") * sp.IndexedBase("β")[i]
    proof = identity_part(sp.Sum(a, (i, 0, t)), sp.Sum(a, (i, 0, t)), (t,)).proof
    assert "η" in dumps(proof) and loads(dumps(proof)).proof == proof


def test_digests_name_proofs():
    digests = {digest(part.proof) for part in PARTS.values()}
    assert len(digests) == len(PARTS)
    proof = PARTS["identity"].proof
    assert digest(proof) == digest(exchange().proof)
    assert digest(proof) == hashlib.sha256(dumps(proof).encode()).hexdigest()


@pytest.mark.parametrize("value", ["1/1", "-7/3", "0/1", "9007199254740991/2"])
def test_fractions(value):
    number = Num(*Fraction(value).as_integer_ratio())
    assert decode(encode(number), Num) == number
    assert encode(number) == ["Num", *Fraction(value).as_integer_ratio()]


Path = tuple[int, ...]


def leaves(data, path: Path = ()):
    """Each leaf of some JSON, and where it is."""
    if isinstance(data, list):
        for k, part in enumerate(data):
            yield from leaves(part, (*path, k))
    else:
        yield path, data


def put(data, path: Path, value):
    """The JSON with `value` at `path`."""
    if not path:
        return value
    return [put(x, path[1:], value) if k == path[0] else x for k, x in enumerate(data)]


def changed(value):
    """A leaf of the same kind with another value."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if value is None:
        return ["Ix", [], 0]
    return value + "x"


LEAVES = {name: list(leaves(encode(part.proof))) for name, part in PARTS.items()}
COUNTS = {"identity": len(LEAVES["identity"]), "gradient": 40, "single step": 40, "attention": 40}
CHANGES = [(name, random.Random(0).sample(LEAVES[name], n)) for name, n in COUNTS.items()]


@pytest.mark.parametrize(("name", "some"), CHANGES, ids=[name for name, _ in CHANGES])
def test_each_leaf_that_is_changed_is_refused(name, some):
    """Names, indices, coefficients, premises: any one of them, wherever the steps look."""
    proof = PARTS[name].proof
    data = encode(proof)
    looked_at = {step.rule.name for step in proof.steps if isinstance(step.rule, Definition)}
    for path, value in some:
        if path[0] == 1 and proof.definitions[path[1]][path[2]].name not in looked_at:
            continue
        text = json.dumps(put(data, path, changed(value)))
        with pytest.raises(CheckerError):
            loads(text)
            pytest.fail(f"{value!r} at {path} was changed, and it passed")


def test_the_change_itself_can_be_undone():
    """It is the changed leaf that is refused: the same route with the old value passes."""
    data = encode(PARTS["identity"].proof)
    for path, value in LEAVES["identity"]:
        assert put(data, path, value) == data != put(data, path, changed(value))


def edited(name: str, edit) -> str:
    """The record of a part with its steps changed."""
    data = encode(PARTS[name].proof)
    edit(data)
    return json.dumps(data)


def drop_first(data):
    data[2].pop(0)


def drop_last(data):
    data[2].pop()


def drop_definitions(data):
    data[1].clear()


def define_twice(data):
    data[1].append(data[1][0])


def forget_hypotheses(data):
    for step in data[2]:
        step[3][1] = []


def circular(data):
    data[2][-1][2] = [len(data[2]) - 1]


def later(data):
    data[2][-1][2] = [len(data[2])]


def before_the_start(data):
    data[2][-1][2] = [-1]


def swap_sides(data):
    equation = data[2][-1][3][2]
    equation[2], equation[3] = equation[3], equation[2]


def another_rule(data):
    data[2][-1][1] = ["Reflexivity", data[2][-1][3][2][1], data[2][-1][3][2][2]]


def admit_it(data):
    data[2][-1][1] = ["Assume", data[2][-1][3][2]]


def unknown_rule(data):
    data[2][-1][1][0] = "Trust"


EDITS = [
    drop_first,
    drop_definitions,
    define_twice,
    forget_hypotheses,
    circular,
    later,
    before_the_start,
    swap_sides,
    another_rule,
    admit_it,
    unknown_rule,
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_record_is_refused(edit):
    with pytest.raises(CheckerError):
        loads(edited("attention", edit))


def test_a_shorter_record_proves_what_it_ends_with_and_no_more():
    theorem = loads(edited("attention", drop_last))
    assert theorem.statement.equation != PARTS["attention"].statement


def test_an_honest_edit_keeps_the_theorem():
    """Spaces and line breaks mean nothing."""
    data = json.loads(dumps(PARTS["identity"].proof))
    theorem = loads(json.dumps(data, indent=1))
    assert theorem.statement.equation == PARTS["identity"].statement


MALFORMED = [
    "",
    " ",
    "null",
    "true",
    "3",
    "1.5",
    "NaN",
    "Infinity",
    '"Proof"',
    "[]",
    "{}",
    "[",
    "{",
    '{"a": 1}',
    '["Proof"]',
    '["Proof", []]',
    '["Proof", [], []]',
    '["Proof", [], null]',
    '["Proof", [], [], []]',
    '["Theorem", [], []]',
    '["Proof", [[]], [[]]]',
    '["Proof", [], [["Step"]]]',
    "[" + "9" * 5000 + "]",
    "\ud800",
    "Proof",
    '["Proof", [], []] x',
    "'Proof'",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_text_is_refused(text):
    with pytest.raises(CheckerError) as caught:
        loads(text)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_text_that_is_nested_too_deep_is_refused(depth):
    term = '["Add",[' * depth + '["Num","1/1"]' + "]]" * depth
    step = f'["Step",["Reflexivity",[],{term}],[],["Sequent",[],["Equation",[],{term},{term}]]]'
    with pytest.raises(CheckerError):
        loads(f'["Proof",[],[{step}]]')


WRONG = [
    (["Num", "1/0"], Num),
    (["Num", "1.5"], Num),
    (["Num", 1], Num),
    (["Num", "x/1"], Num),
    (["Num", "--1/2"], Num),
    (["Num", "1/-2"], Num),
    (["Num", " 1/2"], Num),
    (["Num"], Num),
    (["Num", "1/2", "1/2"], Num),
    (["Var", "t"], Var),
    (["Var", 1, "time"], Var),
    (["Ix", [], True], Ix),
    (["Ix", [], 1.0], Ix),
    (["Ix", [], "1"], Ix),
    (["Ix", None, 1], Ix),
    (["Atom", "x", {}], Atom),
    (["Ix", [], 0], Var),
    ("Num", Num),
    (None, Num),
    ({"Num": "1/2"}, Num),
    ([["Num"], "1/2"], Num),
]


@pytest.mark.parametrize(("data", "hint"), WRONG)
def test_data_of_another_type_is_refused(data, hint):
    with pytest.raises(CheckerError, match=r"is required; got"):
        decode(data, hint)


def test_only_whole_proofs_are_read():
    with pytest.raises(CheckerError, match="is required; got"):
        loads(json.dumps(encode(PARTS["identity"].statement)))
    assert isinstance(loads(dumps(PARTS["identity"].proof)).proof, Proof)


def file_of(name: str) -> dict:
    """A file with one part."""
    part = PARTS[name]
    return {"parts": [{"statement": encode(part.statement), "proof": encode(part.proof)}]}


def with_key(key: str, value, part: bool = False):
    """An edit that puts a key into the file, or into its part."""

    def edit(data: dict) -> None:
        (data["parts"][0] if part else data)[key] = value

    return edit


ALLOWED = {
    "nothing more": lambda data: None,
    "the keys of `show`": lambda data: data.update(schema=1, name="n", expects="holds"),
    "a label": with_key("label", "l", part=True),
    "any statement": with_key("statement", None, part=True),
    "two parts": lambda data: data["parts"].append(data["parts"][0]),
}
FORBIDDEN = {
    "no parts": with_key("parts", []),
    "parts that are an object": with_key("parts", {}),
    "parts that are a text": with_key("parts", ""),
    "parts that are nothing": with_key("parts", None),
    "absent parts": lambda data: data.pop("parts"),
    "a part that is a list": lambda data: data["parts"].append([]),
    "no statement": lambda data: data["parts"][0].pop("statement"),
    "no proof": lambda data: data["parts"][0].pop("proof"),
    "a false statement": with_key("statement", False, part=True),
    "another key": with_key("note", "n"),
    "another key of a part": with_key("note", "n", part=True),
    "another schema": with_key("schema", 2),
    "a schema that is true": with_key("schema", True),
    "a schema that is no integer": with_key("schema", 1.0),
    "no schema": with_key("schema", None),
    "a name that is no text": with_key("name", float("nan")),
    "a label that is no text": with_key("label", ["l"], part=True),
}


@pytest.mark.parametrize("edit", ALLOWED.values(), ids=ALLOWED)
def test_files_with_these_keys_are_read(edit):
    data = file_of("identity")
    edit(data)
    assert {t.proof for t in loads_derivation(json.dumps(data))} == {PARTS["identity"].proof}


@pytest.mark.parametrize("edit", FORBIDDEN.values(), ids=FORBIDDEN)
def test_files_with_other_keys_are_refused(edit):
    data = file_of("identity")
    edit(data)
    with pytest.raises(CheckerError):
        loads_derivation(json.dumps(data))


def test_a_statement_is_that_of_the_proof_and_without_hypotheses():
    data = file_of("identity")
    data["parts"][0]["statement"] = encode(PARTS["attention"].statement)
    with pytest.raises(CheckerError, match="end with its statement"):
        loads_derivation(json.dumps(data))
    claim = PARTS["identity"].statement
    sequent = Sequent((claim,), claim)
    data["parts"][0]["proof"] = encode(Proof((), (Step(Assume(claim), (), sequent),)))
    with pytest.raises(CheckerError, match="end with its statement"):
        loads_derivation(json.dumps(with_statement(data, encode(claim))))
    (theorem,) = loads_derivation(json.dumps(with_statement(data, None)))
    assert theorem.statement == sequent


def with_statement(data: dict, statement) -> dict:
    """The file with another statement of its part."""
    return {"parts": [data["parts"][0] | {"statement": statement}]}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused_wherever_it_stands(number):
    proof = json.loads(dumps(PARTS["identity"].proof))
    text = json.dumps({"parts": [{"proof": proof, "statement": None}]})
    assert loads_derivation(text)
    for place in ('{"parts": ' + number + ", " + text[1:], text.replace("null", number)):
        with pytest.raises(CheckerError, match="no number of JSON"):
            loads_derivation(place)
