"""`show`: one part, every format, records that replay; `--version`; hints for unknown names."""

import json

import pytest

import ttt_proofs
from ttt_proofs.checker.proof import Proof, Theorem
from ttt_proofs.checker.terms import CheckerError
from ttt_proofs.cli import main
from ttt_proofs.cli.catalogue import folder, load
from ttt_proofs.cli.requests import nearest
from ttt_proofs.symbolic.records import decode, digest, dumps, encode, loads_derivation


@pytest.fixture
def call(capsys, monkeypatch):
    """`call("show", ...)`: exit code, standard output, standard error."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["ttt-proofs", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run


@pytest.mark.parametrize("form", ["text", "latex", "md", "html"])
def test_the_parts_are_those_of_the_whole(call, form):
    whole = call("show", "momentum", "--format", form)[1]
    parts = [call("show", "momentum", "--part", str(k), "--format", form)[1] for k in (1, 2)]
    for number, part in enumerate(parts, start=1):
        heading = f"Part {number} of 2: read {('after', 'before')[number - 1]} the update."
        assert heading in part and heading in whole
        assert f"Part {3 - number} of 2" not in part
        assert "Definitions" in part  # it stands by itself
    assert parts[0] != parts[1]


def test_the_only_part_is_the_whole(call):
    assert call("show", "sum_order", "--part", "1") == call("show", "sum_order")


def test_a_part_of_a_false_claim_has_its_counterexample(call):
    _, out, _ = call("show", "momentum_rates_agree", "--part", "1")
    assert "the left side is" in out and "The checker refuses" in out


@pytest.mark.parametrize("form", ["text", "html", "json"])
@pytest.mark.parametrize("part", ["0", "-1", "3", "99999999999999999999", "x", "1.5", ""])
def test_a_part_that_is_not_there_is_one_sentence(call, form, part):
    code, out, err = call("show", "momentum", "--part", part, "--format", form)
    assert (code, out) == (2, "") and err.count("\n") == 1
    if part.lstrip("-").isdecimal():
        assert f"must be a number from 1 to 2; got {part}." in err


def test_a_part_of_the_table_is_refused(call):
    code, out, err = call("show", "--table", "--part", "1")
    assert (code, out) == (2, "") and "`--part` goes with a name" in err


@pytest.mark.parametrize("name", ["momentum", "sum_order", "ladder_v6", "scan_is_associative"])
def test_json_replays(call, name):
    code, out, _ = call("show", name, "--format", "json")
    data, derivation = json.loads(out), load(folder(None), name)
    assert code == 0 and out.isascii()
    assert list(data) == ["schema", "name", "expects", "parts"]
    assert (data["schema"], data["name"], data["expects"]) == (1, name, "holds")
    theorems = loads_derivation(out)
    assert [t.proof for t in theorems] == [part.proof for part in derivation.parts]
    assert [t.statement.equation for t in theorems] == [p.statement for p in derivation.parts]
    for part, written in zip(derivation.parts, data["parts"], strict=True):
        assert list(written) == ["label", "statement", "proof"]
        assert written["label"] == part.label
        read = decode(written["proof"], Proof)
        assert digest(read) == digest(part.proof) and dumps(read) == dumps(part.proof)


def test_json_of_one_part(call):
    whole = json.loads(call("show", "momentum", "--format", "json")[1])
    part = json.loads(call("show", "momentum", "--format", "json", "--part", "2")[1])
    assert part == whole | {"parts": whole["parts"][1:]}


def test_json_of_a_false_claim_is_the_attempt_and_does_not_replay(call):
    text = call("show", "momentum_rates_agree", "--format", "json")[1]
    (part,) = json.loads(text)["parts"]
    assert json.loads(text)["expects"] == "fails" and part["proof"][0] == "Proof"
    with pytest.raises(CheckerError):
        loads_derivation(text)


def leaves(data):
    """Each leaf of some JSON."""
    if isinstance(data, list | dict):
        for part in data.values() if isinstance(data, dict) else data:
            yield from leaves(part)
    else:
        yield data


def test_json_has_no_floats(call):
    text = call("show", "parallel_form", "--format", "json")[1]
    assert {type(leaf) for leaf in leaves(json.loads(text))} <= {int, str, bool, type(None)}


def other_statement(data):
    data["parts"][0]["statement"] = data["parts"][1]["statement"]


def swapped(data):
    first, second = data["parts"]
    first["proof"], second["proof"] = second["proof"], first["proof"]


def shorter(data):
    data["parts"][0]["proof"][2].pop()


def assumed(data):
    """The statement itself as a hypothesis that is left."""
    statement = data["parts"][0]["statement"]
    proof = data["parts"][0]["proof"]
    sequent = ["Sequent", [statement], statement]
    proof[2].append(["Step", ["Assume", statement], [], sequent])


def other_schema(data):
    data["schema"] = 2


def no_parts(data):
    del data["parts"]


def no_statement(data):
    del data["parts"][1]["statement"]


@pytest.mark.parametrize(
    "edit", [other_statement, swapped, shorter, assumed, other_schema, no_parts, no_statement]
)
def test_what_was_changed_is_not_read(call, edit):
    data = json.loads(call("show", "momentum", "--format", "json")[1])
    assert loads_derivation(json.dumps(data))
    edit(data)
    with pytest.raises(CheckerError):
        loads_derivation(json.dumps(data))


@pytest.mark.parametrize("text", ["", "null", "[]", "3", '{"schema":1}', '{"parts":3,"schema":1}'])
def test_other_json_is_not_read(text):
    with pytest.raises(CheckerError, match="must be JSON as `show` writes it"):
        loads_derivation(text)


def test_an_assumption_is_no_theorem():
    """The case above has teeth: its steps do replay, with the hypothesis left."""
    derivation = load(folder(None), "sum_order")
    statement = derivation.parts[0].statement
    data = encode(derivation.parts[0].proof)
    data[2].append(["Step", ["Assume", encode(statement)], [], None])
    data[2][-1][3] = ["Sequent", [encode(statement)], encode(statement)]
    theorem = Theorem(decode(data, Proof))
    assert theorem.statement.equation == statement and theorem.statement.hypotheses


def test_the_version_is_the_packages(call):
    assert call("--version") == (0, f"ttt-proofs {ttt_proofs.__version__}\n", "")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("momentun", "Did you mean momentum?"),
        (
            "lact_muon_on_each",
            "Did you mean lact_muon_on_each_token, lact_muon_on_momentum or lact_muon_on_each_",
        ),
        ("ladder", "Did you mean ladder_v6, ladder_v5 or ladder_v4?"),
        ("zzz", "`ttt-proofs list` lists all."),
        ("", "`ttt-proofs list` lists all."),
    ],
)
@pytest.mark.parametrize("verb", ["show", "verify"])
def test_an_unknown_name_gets_the_nearest_few(call, verb, name, hint):
    code, out, err = call(verb, name)
    assert (code, out) == (2, "") and hint in err
    named = [word for word in err.replace(",", " ").split() if word.strip("?.;") in ALL]
    assert len(named) <= 3


ALL = {file.stem for file in folder(None).glob("*.py")}


def test_few_names_are_all_told():
    assert nearest("x", ["a", "b"], "list") == "Known are a, b."
    assert nearest("x", [], "list") == "There is none."
