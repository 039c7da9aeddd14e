"""The linear-attention form: proved for every kind of loop, for no particular size, and no other.

"For no particular size" is read off the record: its only integers are shifts of time, the
numbers of steps, and rational coefficients; every width is a name.
"""

import ast
from dataclasses import replace
from itertools import product

import pytest
import sympy as sp

from tests.checker.build import at
from ttt_proofs.checker.definitions import Equation
from ttt_proofs.checker.proof import Calculate, Definition, Induction, Proof, Theorem
from ttt_proofs.checker.terms import (
    TIME,
    App,
    Atom,
    CheckerError,
    Ix,
    Node,
    Num,
    Prod,
    Sum,
    Var,
    inside,
    ix,
    parts,
    rebuild,
    symbols,
)
from ttt_proofs.loops import (
    GLU,
    MLP,
    AbstractLoss,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic import attention_part, outer_products_part, single_step_part
from ttt_proofs.symbolic.linear_attention import (
    claim,
    linear_attention,
    predicate,
    prove_claim,
    single_step,
)
from ttt_proofs.symbolic.records import digest

KINDS = ("constant", "per_step")
UPDATES = [
    GradientStep(*choice)
    for choice in product(KINDS, ("inside", "outside"), (None, *KINDS), (False, True))
]
READS = [Schedule(2, read) for read in ("after_update", "before_update")]
ABSTRACT = [InnerLoop(Features(), AbstractLoss(), u, s) for u in UPDATES for s in READS]

STEP = GradientStep("per_step", "outside", "per_step")
NETS = [
    Linear(),
    Features(),
    MLP(1),
    MLP(2, "relu"),
    MLP(3, "act"),
    MLP(3, "silu"),
    SwiGLU(),
    SwiGLU("act"),
]
CONCRETE = [
    InnerLoop(net, loss, STEP, read, trained=trained)
    for net in NETS
    for loss in (Frobenius(), SquaredError())
    for trained, read in (("all", READS[0]), ("last", READS[1]))
]


def proved(loop: InnerLoop) -> Theorem:
    """The theorem that the loop is linear attention."""
    part = attention_part(loop)
    theorem = Theorem(part.proof)
    assert theorem.statement.equation == part.statement
    assert not theorem.statement.hypotheses
    return theorem


def short(loop: InnerLoop) -> str:
    """An id that can be read."""
    u, net = loop.update, loop.net
    net_id = [type(net).__name__, *(str(value) for value in vars(net).values() if value)]
    parts = [u.rate, u.place, u.momentum, "up" if u.ascent else "down", loop.trained]
    return "-".join(map(str, (*net_id, type(loop.loss).__name__, *parts, loop.schedule.read)))


@pytest.mark.parametrize("loop", ABSTRACT + CONCRETE, ids=short)
def test_claims_prove_and_mention_no_size(loop):
    proof = proved(loop).proof
    nothing_numeric(proof)


def nothing_numeric(proof: Proof) -> None:
    """Raise unless lengths and widths are names, everywhere in the record."""
    assert all(v.sort.isidentifier() for v in inside(proof, Var))
    for total in [*inside(proof, Sum), *inside(proof, Prod)]:
        bounds = [index for index in (total.low, total.high) if index]
        timed = isinstance(total, Prod) or total.var.sort == TIME
        assert len(bounds) == 2 * timed, "a width has no bounds"
        empty = bounds == [at(0), at(-1)]  # what 0 steps add up to
        assert not timed or empty or any(b.vars for b in bounds), "a fixed number of terms"
    for index in inside(proof, Ix):
        assert index.shift in (-1, 0, 1), "times move by one step"
        assert index.vars or index.shift <= 0, "the only time with a number is the start"
    for number in inside(proof, Num):
        assert abs(number.top) <= number.bottom <= 2, "no other coefficient"
    known = {(Ix, "shift"), (Induction, "pick"), (Num, "top"), (Num, "bottom")}
    for node in inside(proof, Node):
        for field, value in zip(type(node).__match_args__, parts(node), strict=True):
            if isinstance(value, int) and not isinstance(value, bool):
                assert (type(node), field) in known, "premises are the only other integers"


SIZES = [
    Sum(Var("i", TIME), at(0), at(7), Num(1)),
    Atom("k", (Ix((Var("t", TIME),), 4),)),
    Atom("k", (at(3),)),
    Atom("k", (ix(Var("l", "16")),)),
    Num(64),
    Num(1, 32),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_size_in_a_record_would_be_seen(size):
    proof = proved(ABSTRACT[0]).proof
    nothing_numeric(proof)
    rule = Calculate(size)
    step = type(proof.steps[0])(rule, (), proof.steps[0].conclusion)
    with pytest.raises(AssertionError):
        nothing_numeric(Proof(proof.definitions, (*proof.steps, step)))


def test_the_proof_is_the_same_for_every_chunk_length():
    for read in ("after_update", "before_update"):
        schedules = [Schedule(chunk, read) for chunk in (1, 3, 2048)]
        loops = [InnerLoop(MLP(2), Frobenius(), STEP, schedule) for schedule in schedules]
        assert len({digest(attention_part(loop).proof) for loop in loops}) == 1


def test_no_module_of_proofs_reads_the_chunk_length():
    import ttt_proofs.symbolic.linear_attention as attention
    import ttt_proofs.symbolic.theory as theory

    for module in (attention, theory):
        with open(module.__file__) as file:  # noqa: PTH123
            tree = ast.parse(file.read())
        assert "chunk" not in {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


i, j, s, t = sp.symbols("i j s t", integer=True)
eta, alpha = sp.IndexedBase("eta"), sp.IndexedBase("alpha")


def beta(first, last):
    """`Π_{s=first+1..last} α_s`."""
    return sp.Product(alpha[s], (s, first + 1, last))


RIGHT = sp.Sum(eta[j] * beta(i, j), (j, i, t))
WRONG = {
    "sign": -RIGHT,
    "doubled": 2 * RIGHT,
    "rate inside": eta[i] * sp.Sum(beta(i, j), (j, i, t)),
    "earlier mask": eta[i] * beta(i, t),
    "no momentum": eta[i],
    "sum from i + 1": sp.Sum(eta[j] * beta(i, j), (j, i + 1, t)),
    "sum to t - 1": sp.Sum(eta[j] * beta(i, j), (j, i, t - 1)),
    "sum to t + 1": sp.Sum(eta[j] * beta(i, j), (j, i, t + 1)),
    "product from i": sp.Sum(eta[j] * beta(i - 1, j), (j, i, t)),
    "product to j - 1": sp.Sum(eta[j] * beta(i, j - 1), (j, i, t)),
    "product to t": sp.Sum(eta[j] * beta(i, t), (j, i, t)),
    "rate at t": eta[t] * sp.Sum(beta(i, j), (j, i, t)),
    "rate shifted": sp.Sum(eta[j + 1] * beta(i, j), (j, i, t)),
    "one added": RIGHT + 1,
    "zero": sp.Integer(0),
}


def refused(goal: Equation, proof: Proof) -> None:
    """The record ends with the goal, and the checker does not accept it."""
    assert proof.steps[-1].conclusion.equation == goal
    with pytest.raises(CheckerError):
        Theorem(proof)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_coefficient_is_refused(name):
    part = attention_part(InnerLoop(Features(), AbstractLoss(), STEP), coefficient=WRONG[name])
    refused(part.statement, part.proof)


def test_the_right_coefficient_is_accepted():
    part = attention_part(InnerLoop(Features(), AbstractLoss(), STEP), coefficient=RIGHT)
    Theorem(part.proof)


@pytest.mark.parametrize("scale", [1, 2 * sp.Symbol("eta"), -sp.Symbol("eta"), eta[i]], ids=str)
def test_a_wrong_scale_is_refused(scale):
    loop = InnerLoop(Features(), AbstractLoss())
    for part in (
        attention_part(loop, coefficient=sp.Integer(1), scale=scale),
        single_step_part(loop, scale=scale),
    ):
        refused(part.statement, part.proof)
    Theorem(single_step_part(loop, scale=sp.Symbol("eta")).proof)


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ({}, {"update": GradientStep(ascent=True)}),
        ({}, {"schedule": Schedule(1, "before_update")}),
        ({}, {"net": Linear()}),
        ({}, {"loss": Frobenius()}),
        ({}, {"trained": "last"}),
        ({}, {"update": GradientStep("per_step")}),
        ({}, {"update": GradientStep(momentum="constant")}),
        ({"update": STEP}, {"update": GradientStep("per_step", "inside", "per_step")}),
        ({"loss": SquaredError()}, {"loss": Frobenius()}),
    ],
    ids=str,
)
def test_the_form_of_another_loop_is_refused(mine, other):
    plain = {"net": MLP(2, "act"), "loss": AbstractLoss()}
    loop, stranger = InnerLoop(**(plain | mine)), InnerLoop(**(plain | mine | other))
    goal = claim(linear_attention(stranger))
    try:
        proof = prove_claim(loop, goal)
    except CheckerError:
        return
    refused(goal, proof)


def test_pieces_of_the_form():
    loop = InnerLoop(Features(), AbstractLoss(), STEP)
    form = linear_attention(loop)
    assert symbols(form.query) == {"q"} and symbols(form.key) == {"k"}
    assert symbols(form.value) == {"k", "v", "W"} and symbols(form.start) == {"W_0"}
    assert symbols(form.coefficient) == {"eta", "alpha"}
    query_times = {app.ix[0] for app in inside(form.query, App) if app.fn == "phi"}
    key_times = {app.ix[0] for app in inside(form.key, App) if app.fn == "phi"}
    now, past = Var("t", TIME), Var("i", TIME)
    assert query_times == {ix(now, 1)} and key_times == {ix(past)}  # φ_{t+1}(q), φ_i(k)
    assert form.last == ix(now)


def test_reading_before_the_update_sees_one_step_less():
    loop = InnerLoop(Features(), AbstractLoss(), STEP, READS[1])
    form = linear_attention(loop)
    now = Var("t", TIME)
    assert form.last == ix(now, -1)
    assert {a.ix[0] for a in inside(form.query, App) if a.fn == "phi"} == {ix(now)}


def test_frozen_features_carry_no_time():
    loop = InnerLoop(Features(), AbstractLoss(), trained="last")
    form = linear_attention(loop)
    for term in (form.query, form.key):
        (app,) = inside(term, App)
        assert len(app.ix) == 1 and app.ix[0].vars[0].sort != TIME


def test_ascent_turns_the_values():
    down = linear_attention(InnerLoop(Linear(), Frobenius()))
    up = linear_attention(InnerLoop(Linear(), Frobenius(), GradientStep(ascent=True)))
    assert down.value != up.value and down.coefficient == up.coefficient
    assert down.key == up.key and down.query == up.query


def test_a_single_step_starts_from_the_state():
    form = single_step(InnerLoop(Features(), AbstractLoss()), 1)
    assert form.last is None and symbols(form.start) == {"W"}
    assert not [term for term in inside(form.term, Sum) if term.var.sort == TIME]


def test_momentum_is_proved_for_state_and_accumulator_together():
    assert len(predicate(InnerLoop(Linear(), Frobenius()))) == 1
    both = predicate(InnerLoop(Linear(), Frobenius(), STEP))
    assert [part.left.name for part in both] == ["M_W", "W"]


def test_steps_are_of_all_kinds():
    rules = {type(step.rule) for step in proved(ABSTRACT[-1]).proof.steps}
    assert {Calculate, Definition, Induction} <= rules


CAUSAL = Schedule(2, "causal")
STATIC = InnerLoop(Features(), Frobenius(), STEP, trained="last")
TAKEN_FIRST = {
    "after": STATIC,
    "before": replace(STATIC, loss=SquaredError(), schedule=READS[1]),
    "causal": replace(STATIC, loss=AbstractLoss(), schedule=CAUSAL),
    "gate": InnerLoop(GLU("act"), Frobenius(), GradientStep(momentum="per_step")),
    "convolution": InnerLoop(DepthwiseConv(3, 2, 3), SquaredError(), STEP, Schedule(6, "causal")),
}


@pytest.mark.parametrize("name", TAKEN_FIRST)
def test_queries_times_keys_may_come_first(name):
    loop = TAKEN_FIRST[name]
    part = attention_part(loop, scores=True)
    assert Theorem(part.proof).statement.equation == part.statement
    assert part.statement.right != attention_part(loop).statement.right
    wrong = attention_part(loop, scores=True, coefficient=RIGHT * 2)
    refused(wrong.statement, wrong.proof)


def seen_backwards(term):
    """The term with the roles of the seeing token and the seen one exchanged."""
    if isinstance(term, Atom) and term.name == "visible":
        return Atom("visible", term.ix[::-1])
    return rebuild(term, seen_backwards)


def test_who_sees_whom_matters():
    """A causal form with `visible` transposed, or left out, is refused."""
    loop = TAKEN_FIRST["causal"]
    for scores in (False, True):
        part = attention_part(loop, scores=scores)
        wrong = seen_backwards(part.statement.right)
        assert wrong != part.statement.right
        *steps, last = part.proof.steps
        equation = replace(part.statement, right=wrong)
        step = replace(
            last,
            rule=replace(last.rule, term=wrong),
            conclusion=replace(last.conclusion, equation=equation),
        )
        refused(equation, Proof(part.proof.definitions, (*steps, step)))
    whole = claim(linear_attention(replace(loop, schedule=READS[0])))
    with pytest.raises(CheckerError):
        Theorem(prove_claim(loop, whole))


MUON = GradientStep("per_step", "outside", "per_step", orthogonal="muon")


def test_the_operator_is_taken_of_the_whole_chunk_and_of_the_accumulator():
    """On each token's outer product, as Eq. (1) prints it, it is another form."""
    for update, schedule in (
        (MUON, Schedule(single=True)),
        (replace(MUON, momentum=None), Schedule(2)),
        (MUON, Schedule(2)),
    ):
        loop = InnerLoop(Features(), AbstractLoss(), update, schedule)
        Theorem(attention_part(loop).proof)
        part = outer_products_part(loop)
        refused(part.statement, part.proof)
    alone = replace(MUON, momentum=None, place="inside")
    part = outer_products_part(InnerLoop(Features(), AbstractLoss(), alone, Schedule(single=True)))
    Theorem(part.proof)


NORMED = GradientStep("per_step", "outside", "per_step", weight_norm="n")


def test_a_norm_gate_one_step_late_is_refused():
    loop = InnerLoop(Features(), AbstractLoss(), NORMED)
    part = attention_part(loop)
    Theorem(part.proof)
    n = sp.IndexedBase("N")
    for shift in (-1, 0, 1):
        gates = sp.Product(n[s + 1 + shift], (s, j + 1, t))
        weight = sp.Sum(n[j + 1 + shift] * eta[j] * beta(i, j) * gates, (j, i, t))
        claimed = attention_part(loop, coefficient=weight)
        if shift == 0:
            Theorem(claimed.proof)
        else:
            refused(claimed.statement, claimed.proof)
    refused(
        *(lambda p: (p.statement, p.proof))(attention_part(loop, like=replace(loop, update=STEP)))
    )


def test_rates_per_token_are_in_the_values():
    update = GradientStep("per_token", "inside", "per_step")
    loop = InnerLoop(MLP(2, "act"), AbstractLoss(), update)
    form = linear_attention(loop)
    assert "eta_W2" in symbols(form.value) and "eta_W1" not in symbols(form.term)
    assert symbols(form.coefficient) == {"alpha"}
    plain = linear_attention(replace(loop, update=GradientStep(None, momentum="per_step")))
    refused(claim(plain), prove_claim(loop, claim(plain)))
