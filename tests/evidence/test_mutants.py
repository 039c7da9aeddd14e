"""Each operator makes its kind of mistake, and each mistake is refused twice."""

import random
from dataclasses import replace

import pytest

from derivations import momentum, momentum_rates_agree, sum_order
from tests.checker.build import at
from ttt_proofs.checker.definitions import Equation
from ttt_proofs.checker.normal import naturals, normal_form
from ttt_proofs.checker.proof import Calculate, Proof, Sequent, Step, replay
from ttt_proofs.checker.terms import (
    TIME,
    Add,
    App,
    Atom,
    CheckerError,
    Ix,
    Lam,
    Mul,
    Num,
    Prod,
    Sum,
    Var,
    check,
    ix,
)
from ttt_proofs.evidence import score as scoring
from ttt_proofs.evidence.exact import Points
from ttt_proofs.evidence.mutants import OPERATORS, addends, mutants
from ttt_proofs.evidence.score import Attempt, accepts, last_step, score
from ttt_proofs.evidence.texts import line, short

T, N, J, S = (Var(name, TIME) for name in "tijs")
A, B = Var("a", "D"), Var("b", "D")

K, V, W = (Atom(name, (ix(T), ix(A))) for name in "kvw")


def made(operator: str, term, *scope: Var) -> list[str]:
    """What an operator makes of a term, as text."""
    return [line(new) for _, new in OPERATORS[operator](term, scope)]


def test_sign_and_doubling():
    term = Add((K, V))
    assert made("sign", term, T, A) == [
        "-1 · (k[t, a] + v[t, a])",
        "(-1 · k[t, a] + v[t, a])",
        "(k[t, a] + -1 · v[t, a])",
    ]
    assert made("doubled", K, T, A) == ["2 · k[t, a]"]


def test_signs_inside_arguments_and_running_products():
    f = App("f", (), (Lam((A,), K),))
    gate = Prod(at(0), ix(T), Lam((S,), Atom("g", (ix(S),))))
    places = [line(site.node) for site in addends(Mul((f, gate)), (T,))]
    assert places == ["f(k[t, a]) · Π_s=0..t g[s]", "k[t, a]", "g[s]"]


def test_dropped_terms_and_factors():
    assert made("dropped term", Add((K, V)), T, A) == ["(v[t, a])", "(k[t, a])"]
    assert made("dropped factor", Mul((K, V)), T, A) == ["v[t, a]", "k[t, a]"]


def test_shifted_times():
    assert made("shifted time", K, T, A) == ["k[t+1, a]", "k[t-1, a]"]
    phi = App("phi", (ix(T, 1), ix(A)), (Lam((), Atom("x", ())),))
    assert made("shifted time", phi, T, A) == ["phi[t+2, a](x)", "phi[t, a](x)"]


def test_shifted_bounds():
    total = Sum(N, at(0), ix(T), Atom("x", (ix(N),)))
    assert made("shifted bound", total, T) == [
        "Σ_i=1..t x[i]",
        "Σ_i=-1..t x[i]",
        "Σ_i=0..t+1 x[i]",
        "Σ_i=0..t-1 x[i]",
    ]
    gate = Prod(at(0), ix(T), Lam((S,), Atom("g", (ix(S),))))
    assert len(made("shifted bound", gate, T)) == 4
    assert made("shifted bound", Sum(A, None, None, K), T) == []


def test_moved_times_stay_in_scope():
    total = Sum(N, at(0), ix(T), Mul((Atom("eta", (ix(N),)), Sum(J, ix(N), ix(T), Atom("x", ())))))
    assert made("moved time", total, T) == [line(total).replace("eta[i]", "eta[t]")]


def test_transposed():
    assert made("transposed", Atom("m", (ix(T), ix(A), ix(B))), T, A, B) == ["m[t, b, a]"]
    assert made("transposed", K, T, A) == []


def test_roles():
    assert made("swapped roles", Mul((K, V)), T, A) == ["v[t, a] · k[t, a]"]
    assert made("replaced role", Mul((K, V)), T, A) == ["v[t, a] · v[t, a]", "k[t, a] · k[t, a]"]
    assert made("swapped roles", Mul((K, Atom("eta", ()))), T, A) == []


def test_functions():
    ell = App("ell", (), (Lam((), K), Lam((), V)), ((0, ()),))
    assert made("swapped arguments", ell, T, A) == ["∂1 ell(v[t, a], k[t, a])"]
    assert made("derivative", ell, T, A) == ["ell(k[t, a], v[t, a])"]


def test_long_texts_are_cut():
    assert len(short(Add((K,) * 30))) == 60
    assert short(Ix((), 0)) == "0"


def test_mutants_are_distinct_well_formed_and_always_the_same():
    part = momentum.derive().parts[0]
    found = mutants(part.statement)
    rights = [m.equation.right for m in found]
    assert len({m.name for m in found}) == len(set(rights)) == len(found) >= 12
    assert part.statement.right not in rights
    assert found == mutants(part.statement)
    for mutant in found:
        check(mutant.equation, Equation)
        assert mutant.equation.left == part.statement.left
    assert {m.name.rpartition(" ")[0] for m in found} == set(OPERATORS)


def test_every_mutant_of_momentum_is_refused_twice():
    part = momentum.derive().parts[0]
    result = score(part.statement, part.proof.definitions, part.proof, seed=0)
    assert result.total == result.killed_by_proof == result.killed_by_exact >= 12
    assert result.survivors == ()
    # A step after t adds nothing, as its coefficient is an empty sum.
    ((name, why),) = result.equivalent
    assert name.startswith("shifted bound") and "normal form" in why
    assert result == score(part.statement, part.proof.definitions, part.proof, seed=0)


def test_the_sum_order_has_enough_mutants():
    (part,) = sum_order.derive().parts
    result = score(part.statement, part.proof.definitions, part.proof, seed=0)
    assert result.total >= 12 and not result.survivors


def test_a_false_claim_has_a_score_too():
    (part,) = momentum_rates_agree.derive().parts
    result = score(part.statement, part.proof.definitions, part.proof, seed=0)
    assert result.total >= 12 and not result.survivors


def test_the_quick_check_is_what_replay_does():
    part = momentum.derive().parts[0]
    goals = [part.statement, *(m.equation for m in mutants(part.statement)[::9])]
    *steps, last = part.proof.steps
    assert isinstance(last.rule, Calculate)
    for goal in goals:
        conclusion = replace(last.conclusion, equation=goal)
        end = Step(replace(last.rule, term=goal.right), last.premises, conclusion)
        try:
            replay(Proof(part.proof.definitions, (*steps, end)))
            replayed = True
        except CheckerError:
            replayed = False
        assert accepts(part.proof.definitions, last_step(part.proof), goal) == replayed


SIMPLE = Equation((T,), Atom("x", (ix(T),)), Mul((Num(1), Atom("x", (ix(T),)))))
START = Attempt((Sequent((), Equation((T,), SIMPLE.left, SIMPLE.left)),), Calculate(SIMPLE.right))


def test_an_equivalent_mutant_is_listed_with_its_reason():
    result = score(SIMPLE, (), START, seed=0)
    assert [name for name, _ in result.equivalent] == ["dropped factor 1"]
    assert result.total == result.killed_by_proof == result.killed_by_exact
    assert not result.survivors


def test_a_kernel_that_accepts_anything_lets_mutants_survive(monkeypatch):
    monkeypatch.setattr(scoring, "accepts", lambda *_: True)
    result = score(SIMPLE, (), START, seed=0)
    assert result.killed_by_proof == 0 and len(result.survivors) == result.total > 0


def test_a_blind_witness_lets_mutants_survive(monkeypatch):
    monkeypatch.setattr(Points, "differences", lambda *_: iter(()))
    result = score(SIMPLE, (), START, seed=0)
    assert result.killed_by_exact == 0 and len(result.survivors) == result.total > 0


def test_a_mutant_that_puts_a_false_claim_right_is_no_survivor():
    x = Atom("x", (ix(T),))
    false = Equation((T,), x, Add((x, x)))
    attempt = Attempt((Sequent((), Equation((T,), x, x)),), Calculate(false.right))
    result = score(false, (), attempt, seed=0)
    assert {why.rpartition(": ")[2] for _, why in result.equivalent} == {
        "the checker proves it from the same premises"
    }
    assert not result.survivors


def test_the_proof_must_be_of_the_claim():
    (part,) = sum_order.derive().parts
    with pytest.raises(ValueError, match="must end with the claim"):
        score(SIMPLE, part.proof.definitions, part.proof, seed=0)


def random_term(rng: random.Random, scope: list[Var], depth: int):
    """A term over times and one width, with nested, shadowed and empty ranges among its sums."""
    times, widths = ([v for v in scope if (v.sort == TIME) == time] for time in (True, False))

    def time() -> Ix:
        return ix(rng.choice(times), rng.randint(-1, 1)) if rng.random() < 0.8 else at(1)

    def inner(*new: Var):
        return random_term(rng, [v for v in scope if v not in new] + [*new], depth - 1)

    kind = rng.choice(["add", "mul", "sum", "trace", "prod", "app"]) if depth else "atom"
    if kind in ("add", "mul"):
        return {"add": Add, "mul": Mul}[kind]((inner(), inner()))
    if kind == "sum":
        var, low, high = Var(rng.choice("ijk"), TIME), time(), time()
        return inner() if var in low.vars + high.vars else Sum(var, low, high, inner(var))
    if kind == "trace":
        var = Var(rng.choice("ab"), "D")
        return Sum(var, None, None, inner(var))
    if kind == "prod":
        return Prod(time(), time(), Lam((S,), Atom("g", (ix(S),))))
    if kind == "app":
        return App("f", (time(),), (Lam((A,), inner(A)),))
    if widths and rng.random() < 0.5:
        return Atom("m", (ix(rng.choice(widths)), ix(rng.choice(widths))))
    return rng.choice([Atom("x", (time(),)), Atom("y", (time(), time())), Num(2)])


@pytest.mark.parametrize("seed", range(60))
def test_what_the_kernel_makes_equal_has_equal_values(seed):
    rng = random.Random(seed)
    every = (T, Var("u", TIME))
    term = random_term(rng, [*every], 3)
    known, peel = naturals(frozenset(every)), rng.choice([None, ix(T), ix(T, 1)])
    points, form = None, normal_form(term, known, peel)
    for mutant in mutants(Equation(every, term, term))[:25]:
        if normal_form(mutant.equation.right, known, peel) == form:
            points = points or Points(mutant.equation, (), seed=seed)
            assert next(points.differences(mutant.equation.right), None) is None, mutant.name
