"""Whole random proofs against brute force: nothing that the checker accepts is false.

`FUZZ_PROOFS=20000 pytest tests/checker/test_proofs.py -k no_random_proof` tries as many proofs.
"""

from collections import Counter
from dataclasses import replace
from os import environ
from random import Random

import pytest

from tests.checker.build import at
from tests.checker.proofs import Proofs, tampered
from tests.checker.worlds import contradiction, judged
from ttt_proofs.checker import definitions, normal, proof, terms
from ttt_proofs.checker.definitions import Define
from ttt_proofs.checker.proof import Calculate, Induction, Proof, Sequent
from ttt_proofs.checker.terms import Atom, CheckerError, Ix, ix


def judge(record: Proof, random: Random, seen: set) -> Counter:
    """How many conclusions of each rule are true, vacuous and false; `seen` are passed over."""
    found: Counter = Counter()
    for step in record.steps:
        if step.conclusion in seen:
            continue
        seen.add(step.conclusion)
        verdict = judged(record.definitions, step.conclusion, random)
        found[type(step.rule).__name__, verdict] += 1
        if verdict == "false":
            break
    return found


def fuzzed(seed: int) -> Counter:
    """What one random proof, and some forgeries of it, come to."""
    random = Random(seed)
    made = Proofs(random)
    if contradiction(made.blocks, random):
        return Counter({("Definition", "false"): 1})
    seen: set = set()
    found = judge(made.proof, random, seen)
    proof.replay(made.proof)
    for _ in range(3):
        forged = tampered(made)
        try:
            proof.replay(forged)
        except CheckerError:
            found["forgery", "refused"] += 1
            continue
        found["forgery", "accepted"] += 1
        if forged.definitions != made.blocks:
            if contradiction(forged.definitions, random):
                found["Definition", "false"] += 1
                break
            seen = set()
        found += judge(forged, random, seen)
    found.update((rule, "refused") for rule in made.refused)
    return found


def is_false(found: Counter) -> bool:
    """Whether something false was accepted."""
    return any(verdict == "false" for _, verdict in found)


def test_no_random_proof_proves_what_is_false():
    number = int(environ.get("FUZZ_PROOFS", "400"))
    found: Counter = Counter()
    for seed in range(number):
        one = fuzzed(seed)
        assert not is_false(one), f"seed {seed}"
        found += one
    print(number, "proofs:", dict(sorted(found.items())))
    # Enough is accepted, in models where its hypotheses hold, and enough is refused.
    least = {"Definition": 0.7, "Reflexivity": 2, "Assume": 1.5, "Calculate": 1.5, "Induction": 0.5}
    for rule, share in least.items():
        assert found[rule, "true"] > share * number, rule
        assert found[rule, "true"] > 5 * found[rule, "vacuous"], rule
    for rule in ("Calculate", "Induction"):
        assert found[rule, "refused"] > 0.3 * number, rule
    assert found["forgery", "refused"] > number


# Faults in the checker. Each is a list of what is put in place of what.


def deaf(module, *words: str):
    """A requirement, known by words of its message, that is not asked for."""
    true = module.require

    def require(condition, message: str) -> None:
        true(condition or any(word in message for word in words), message)

    return [(module, "require", require)]


def told(rule, change):
    """A rule that looks at other premises than those it is given."""
    true = rule.conclude

    def conclude(self, known, premises):
        return true(self, known, change(self, list(premises)))

    return [(rule, "conclude", conclude)]


def says(rule, change):
    """A rule that concludes something else."""
    true = rule.conclude

    def conclude(self, known, premises):
        return change(self, premises, true(self, known, premises))

    return [(rule, "conclude", conclude)]


def given_at(start: bool, move: int):
    """An equation that defines a symbol gives it at another time."""
    true = Define.equation

    def equation(self, entry, start_asked):
        e = true(self, entry, start_asked)
        if self.start is None or start_asked != start:
            return e
        place = len(definitions.leading_times(self.every)) - 1
        assert isinstance(e.left, Atom)
        index = list(e.left.ix)
        index[place] = Ix(index[place].vars, index[place].shift + move)
        return replace(e, left=Atom(self.name, tuple(index)))

    return [(Define, "equation", equation)]


def base_for_granted(self, premises):
    """The base cases are what they should be."""
    goals = (part.put({self.time: at(0)}) for part in self.predicate)
    bases = [Sequent(p.hypotheses, g) for p, g in zip(premises, goals, strict=False)]
    return bases + premises[len(bases) :]


def step_for_granted(self, premises):
    """A premise that is P(t) counts as P(t + 1)."""
    after = [part.put({self.time: ix(self.time, 1)}) for part in self.predicate]
    moved = dict(zip(self.predicate, after, strict=True))
    return [Sequent(p.hypotheses, moved.get(p.equation, p.equation)) for p in premises]


def bases_discharged(self, premises):
    """The predicate is no hypothesis in the base either."""
    return [
        Sequent(tuple(h for h in p.hypotheses if h not in self.predicate), p.equation)
        for p in premises
    ]


def any_instance(equation, found, known):
    """Values of the quantified indices; the other indices of the left side are not compared."""
    left = equation.left
    if not isinstance(left, Atom) or (left.name, len(left.ix)) != (found.name, len(found.ix)):
        return None
    values = {
        v: Ix(i.vars, i.shift - p.shift)
        for p, i in zip(left.ix, found.ix, strict=True)
        for v in p.vars
        if v in equation.every
    }
    met = all(v in values and in_range(v, values[v], known) for v in equation.every)
    return values if met else None


def circular(record: Proof) -> Sequent:
    """Replaying where any step may be a premise."""
    definitions.admit(record.definitions)
    known = {d.name: d for block in record.definitions for d in block}
    for step in record.steps:
        premises = [record.steps[k].conclusion for k in step.premises]
        terms.require(
            proof.same(proof.infer(known, step.rule, premises), step.conclusion), "something else"
        )
    return record.steps[-1].conclusion


def in_part(part: slice):
    """Where a range is split, some of it is lost."""
    true = normal.settled_time

    def settled_time(rule, m, v, table, peel, names):
        found = true(rule, m, v, table, peel, names)
        return found[part] if len(found) > 1 else found

    return [(normal, "settled_time", settled_time)]


def unlimited(m, scope):
    """The limits of sums are not compared."""
    return replace(compared(m, scope), limits=())


def one_early(known, low, high):
    """A constraint holds though it is missed by one."""
    return implied(known, low, Ix(high.vars, high.shift + 1))


in_range, implied, naturals = proof.in_range, proof.implied, proof.naturals
close, compared = normal.close, normal.compared


FAULTS = {
    "induction without base": told(Induction, base_for_granted),
    "induction without step": told(Induction, step_for_granted),
    "induction from anything": deaf(proof, "premises must be P(0)"),
    "induction discharges everything": says(
        Induction, lambda rule, premises, found: Sequent((), found.equation)
    ),
    "induction discharges in the base": told(Induction, bases_discharged),
    "a kept hypothesis fixes the time": deaf(proof, "fixed nowhere", "fixes must not"),
    "hypotheses of sources are dropped": says(
        Calculate, lambda rule, premises, found: Sequent(premises[0].hypotheses, found.equation)
    ),
    "hypotheses of the target are dropped": says(
        Calculate, lambda rule, premises, found: Sequent(proof.united(premises[1:]), found.equation)
    ),
    "calculation to anything": deaf(proof, "one normal form"),
    "times are not looked at": [
        (proof, "in_range", lambda v, i, known: v.sort == "time" or in_range(v, i, known))
    ],
    "widths are not looked at": [
        (proof, "in_range", lambda v, i, known: v.sort != "time" or in_range(v, i, known))
    ],
    "other indices are not looked at": [(proof, "match", any_instance)],
    "ranges end one early": [(proof, "implied", one_early)],
    "products are unfolded one early": [(normal, "implied", one_early)],
    "limits are not compared": [(normal, "compared", unlimited)],
    "sums have one limit": [(normal, "close", lambda limits, known: close(limits[::2], known))],
    "free times are not 0": [(proof, "naturals", lambda vs: dict.fromkeys(naturals(vs), -1))],
    "names are captured in sources": [(proof, "renamed", lambda node, avoid: node)],
    "names are captured": [(terms, "renamed", lambda node, avoid: node)],
    "free widths": deaf(proof, "a width may be empty"),
    "quantified and fixed": deaf(proof, "fixes must not"),
    "any conclusion is the same": [(proof, "same", lambda a, b: True)],
    "a proof may go in a circle": [(proof, "replay", circular)],
    "a range without its last step": in_part(slice(0, 1)),
    "a range without all but its last step": in_part(slice(1, 2)),
    "a start is at time 1": given_at(True, 1),
    "a step is from now to now": given_at(False, -1),
    "any use is early": deaf(definitions, "must use earlier values"),
    "defined twice": deaf(definitions, "must be defined once"),
    "terms with more indices": deaf(definitions, "a term in its own indices"),
    "any gradient": deaf(definitions, "the differential must be"),
    "a gradient elsewhere": [(definitions, "put_symbol", lambda node, name, value: node)],
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_checker_is_noticed(fault, monkeypatch):
    for place, name, change in fault:
        monkeypatch.setattr(place, name, change)
    assert any(is_false(fuzzed(seed)) for seed in range(400))
