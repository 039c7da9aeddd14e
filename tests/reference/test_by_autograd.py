"""Any loop by its own functions: as the oracle written apart has it, and as written out by hand."""

import random
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch

from tests.loops.random_loops import random_loop
from tests.reference.samples import faulty, numbers, sample, sample_coefficients
from ttt_proofs.evidence.autograd import measured
from ttt_proofs.evidence.conditioning import draw_steady, relative_errors
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.evidence.tolerances import allowance
from ttt_proofs.loops import (
    GLU,
    MLP,
    Coefficient,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
    Update,
    column_norm,
    zeros_like,
)
from ttt_proofs.reference import first_gradient, run_functions, run_loop

TOLERANCE = 1e-12
TIMES = (None, "constant", "per_step", "per_token")
GATES = [
    {"clip": clip, "orthogonal": muon, "weight_norm": norm}
    for clip, muon, norm in product((None, "column_norm"), (None, "muon"), (None, "initial_norm"))
]


def steps():
    """Every rate with every momentum, inside and outside, each with one of the gates."""
    choices = product(TIMES, ("inside", "outside"), TIMES, (False, True))
    choices = [each for each in choices if each[:2] != ("per_token", "outside")]
    for number, (rate, place, momentum, ascent) in enumerate(choices):
        yield GradientStep(rate, place, momentum, ascent=ascent, **GATES[number % len(GATES)])


def schedules():
    """Every reading, with queries and with keys, and number of steps."""
    reads = ("after_update", "before_update", "causal")
    for read, read_with, many in product(reads, ("query", "key"), (1, 2)):
        if read != "causal" or many == 1:
            yield Schedule(3, read, read_with, many)


NETS = [
    Linear(),
    MLP(1),
    MLP(3, "gelu_tanh"),
    SwiGLU("tanh"),
    GLU("sigmoid"),
    DepthwiseConv(3, 1, 3),
    DepthwiseConv(1, 3, 1),
]
EACH = GradientStep("per_token", "inside", "per_token")
GRID = [InnerLoop(SwiGLU(), Frobenius(), step, Schedule(2, "before_update")) for step in steps()]
LOSSES = (SquaredError(), NegatedValues(SquaredError()))
GRID += [InnerLoop(Linear(), x, EACH, schedule) for schedule in schedules() for x in LOSSES]
GRID += [
    InnerLoop(net, loss, EACH, Schedule(3), trained=trained)
    for net, loss, trained in product(NETS, (Frobenius(), SquaredError()), ("all", "last"))
]


def distance(run, loop, seed):
    """The largest error of a run: outputs, final weights, and gradients in all that is given."""
    drawn = draw_steady(loop, seed, partial(measured, partial(run_loop, loop), seed))
    found = measured(partial(run, loop), seed, drawn.inputs)
    return max(relative_errors(found, drawn.expected, allowance(loop, 1).scale).values())


@pytest.mark.parametrize("loop", GRID, ids=str)
def test_the_two_oracles_agree_on_every_choice(loop):
    assert distance(run_functions, loop, 1) <= TOLERANCE


@pytest.mark.parametrize("seed", range(60))
def test_the_two_oracles_agree_on_loops_at_random(seed):
    assert (
        distance(run_functions, random_loop(random.Random(seed), most_steps=3), seed) <= TOLERANCE
    )


@pytest.mark.parametrize("loop", GRID[::9], ids=str)
def test_first_gradients_agree(loop, monkeypatch):
    inputs = vars(random_inputs(loop, 3))
    ours = first_gradient(loop, **inputs)
    monkeypatch.setattr("ttt_proofs.reference.library.covers", lambda _: False)
    theirs = first_gradient(loop, **inputs)
    assert ours.keys() == theirs.keys() == {weight.name for weight in loop.fast_weights}
    assert max(relative_errors(theirs, ours).values()) <= TOLERANCE
    assert all(x.abs().max() > 0 for x in ours.values())


# Each a change to this oracle's source that the other one must notice.
PLANTED = [
    ("in (made, values))", "in (made, values.neg()))"),
    ("if name in self.weighing:", "if False:"),
    ("self.weighing[name][:, start :", "next(iter(self.weighing.values()))[:, start :"),
    ("[:, start : start + count]", "[:, :count]"),
    ("losses[:, :count]", "losses"),
    ("create_graph=self.given.outer", "create_graph=False"),
    ("here = value[:, number]", "here = value[:, 0]"),
    ("here = value[:, chunk].mean(dim=1)", "here = value[:, chunk].sum(dim=1)"),
    ("here = value[:, chunk].mean(dim=1)", "here = value[:, chunk][:, 0]"),
    ('numbers["W_0"] = self.weights[name]', 'numbers["W_0"] = weights[name]'),
    ("old[1:], **numbers)", "(torch.zeros_like(x) for x in old[1:]), **numbers)"),
    ("range(schedule.steps)", "range(1)"),
    ('"key": loop.k', '"key": loop.q'),
    ("stop, token + 1, before[0])", "stop, token, before[0])"),
    ("stop, token + 1, before[0])", "stop, stop - start, before[0])"),
    ("stop, token + 1, before[0])", "stop, token + 1, weights)"),
    ("slopes, *before)", "slopes, before[0], buffers)"),
    ('"before_update": before[0]', '"before_update": weights'),
    ('before[0], "after_update": weights', 'before[0], "after_update": before[0]'),
    ("[:, token, None]", "[:, 0, None]"),
]


@pytest.mark.parametrize(("sound", "fault"), PLANTED)
def test_a_planted_fault_is_noticed(sound, fault, tmp_path):
    with faulty(tmp_path, "by_autograd", sound, fault, "run_functions") as run:
        assert any(departs(run, loop) for loop in GRID[:60:7] + GRID[55:90])


def test_a_sound_copy_is_not_suspected(tmp_path):
    with faulty(
        tmp_path,
        "by_autograd",
        "range(schedule.steps)",
        "range(0 + schedule.steps)",
        "run_functions",
    ) as run:
        assert not any(departs(run, loop) for loop in GRID[:60:7] + GRID[55:90])


def departs(run, loop):
    """Whether a faulty oracle is away from the other, or breaks down."""
    try:
        return not distance(run, loop, 1) <= TOLERANCE
    except (RuntimeError, ValueError, IndexError):
        return True


def loop_of(update, given=None, net=None, loss=None, chunk=2, weights=None, **schedule):
    """A loop with an update of one's own."""
    return InnerLoop(
        net or Linear(),
        loss or Frobenius(),
        update,
        Schedule(chunk, **schedule),
        coefficients=given or {},
        loss_weights=weights or {},
    )


def decayed(W, g, M, *, alpha, eta, theta):
    """Titans: momentum and weight decay."""
    M = eta * M - theta * g
    return (1 - alpha) * W + M, M


TITANS = Update(decayed, {"M": zeros_like})
GIVEN = {name: Coefficient("step") for name in ("alpha", "eta", "theta")}


def test_a_rule_of_ones_own_by_hand():
    """Frobenius, f = k W: the chunks' gradients are -(1·2 + 2·1), -(1·3); W = 1."""
    given = {"alpha": (0.5, 0.25), "eta": (0.5, 0.75), "theta": (1.0, 0.5)}
    m = [4.0, 0.75 * 4 + 0.5 * 3]
    w = [1.0, 0.5 + m[0]]
    w.append(0.75 * w[1] + m[1])
    for read, seen in (("after_update", w[1:]), ("before_update", w[:2])):
        o, final = run_loop(
            loop_of(TITANS, GIVEN, read=read),
            *map(numbers, ((1, 2, 4), (1, 2, 1), (2, 1, 3))),
            weights={"W": torch.ones(1, 1, 1)},
            coefficients={name: numbers(x)[..., 0] for name, x in given.items()},
        )
        assert o.flatten().tolist() == [seen[0], 2 * seen[0], 4 * seen[1]]
        assert final["W"].item() == w[2]


SHAPED = {
    "row": lambda c: c[..., :, None],
    "column": lambda c: c[..., None, :],
    "entry": lambda c: c,
}


@pytest.mark.parametrize("every", ["loop", "step"])
@pytest.mark.parametrize("shape", list(SHAPED))
def test_coefficients_of_rows_columns_and_entries(shape, every):
    """Gated linear attention, written out: S ← α ⊙ S + Σ kᵀ v."""
    kind = Coefficient(every, shape)
    loop = loop_of(Update(lambda W, g, *, alpha: alpha * W - g), {"alpha": kind}, chunk=2)
    (q, k, v), weights = sample(loop, length=5, key=3, value=3)
    told = {"row": (3,), "column": (3,), "entry": (3, 3)}[shape]
    alpha = torch.rand((2, *told) if every == "loop" else (2, 3, 2, *told), dtype=torch.float64)
    o, final = run_loop(loop, q, k, v, weights=weights, coefficients={"alpha": alpha})
    state = weights["W"].expand(2, 2, 3, 3)
    for number, start in enumerate(range(0, 5, 2)):
        here = slice(start, start + 2)
        kept = SHAPED[shape](alpha if every == "loop" else alpha[:, number])
        state = kept * state + torch.einsum("blhk,blhv->bhkv", k[:, here], v[:, here])
        torch.testing.assert_close(o[:, here], torch.einsum("blhk,bhkv->blhv", q[:, here], state))
    torch.testing.assert_close(final["W"], state)


def test_loss_weights_of_some_weights_only():
    """W1's losses are weighed, W0's are not."""
    net = GLU("relu")
    some = loop_of(Update(lambda W, g: W - g), net=net, chunk=3, weights={"W1": "lr"})
    (q, k, v), weights = sample(some, length=3)
    lr = torch.rand(2, 3, 2, dtype=torch.float64)
    got = run_loop(some, q, k, v, weights=weights, coefficients={"lr": lr})[1]
    both = loop_of(GradientStep("per_token", "inside"), net=net, chunk=3)
    rates = {"eta_W0": torch.ones_like(lr), "eta_W1": lr}
    wanted = run_loop(both, q, k, v, weights=weights, coefficients=rates)[1]
    library = replace(some, update=GradientStep(None))
    same = run_loop(library, q, k, v, weights=weights, coefficients={"lr": lr})[1]
    for final in (got, same):
        assert max(relative_errors(final, wanted).values()) <= TOLERANCE


BIASED = InnerLoop(MLP(2, "tanh", bias=True), SquaredError(), GradientStep("per_step"), Schedule(2))


def test_biases_are_run_by_the_nets_function():
    """A bias is one row, and moves as a weight does; by the chain rule, written out."""
    x = random_inputs(BIASED, 0, sizes={"B": 2, "T": 5, "H": 2, "D_k": 3, "D_v": 2, "D_1": 4})
    assert x.weights["b1"].shape == (2, 1, 4) and x.weights["b2"].shape == (2, 1, 2)
    o, final = run_loop(BIASED, **vars(x))
    state = {name: w.expand(2, *w.shape) for name, w in x.weights.items()}
    q, k, v = (y.transpose(1, 2) for y in (x.q, x.k, x.v))
    for number, start in enumerate(range(0, 5, 2)):
        here = slice(start, start + 2)
        hidden = torch.tanh(k[:, :, here] @ state["W1"] + state["b1"])
        error = hidden @ state["W2"] + state["b2"] - v[:, :, here]
        back = (error @ state["W2"].mT) * (1 - hidden**2)
        slopes = {"W1": k[:, :, here].mT @ back, "b1": back.sum(2, keepdim=True)}
        slopes |= {"W2": hidden.mT @ error, "b2": error.sum(2, keepdim=True)}
        rate = x.coefficients["eta"][:, number, :, None, None]
        state = {name: w - rate * slopes[name] for name, w in state.items()}
        read = torch.tanh(q[:, :, here] @ state["W1"] + state["b1"]) @ state["W2"] + state["b2"]
        torch.testing.assert_close(o[:, here], read.transpose(1, 2))
    assert max(relative_errors(final, state).values()) <= TOLERANCE


def stand_in(loop, **functions):
    """The loop, its parts exchanged for others that have only a function."""
    made = replace(loop)
    for part, function in functions.items():
        object.__setattr__(made, part, Part(getattr(loop, part), function))
    return made


class Part:
    """What another part is, with another function."""

    def __init__(self, part, function):
        self._part, self.function = part, function

    def __getattr__(self, name):
        return getattr(self._part, name)


def item_by_item(x, W):
    """A net that no transform can be made of: it asks for numbers."""
    return x @ W * (1.0 if float(x.detach().sum()) < 1e9 else 0.0)


def overwriting(W, g, M, *, eta, alpha):
    """A step in place, of the weight, the gradient and the buffer that it is given."""
    g *= eta
    M *= alpha
    M += g
    W -= M
    return W, M


def under_no_axes(x, W):
    """Right for one matrix, and refused for many."""
    return x @ W.t().t()


SAME = {
    "numbers": {"net": item_by_item},
    "in place": {"update": overwriting},
    "no leading axes": {"net": under_no_axes},
    "indices of two axes": {"net": lambda x, W: torch.stack([x[n, :] @ W for n in range(len(x))])},
    "einsum of two axes": {"net": lambda x, W: torch.einsum("lk,kv->lv", x, W)},
    "a loss of a row": {"loss": lambda f, v: ((f - v)[0] ** 2).sum() / 2},
    "a loss that keeps an axis": {"loss": lambda f, v: ((f - v) ** 2).sum(-1, keepdim=True) / 2},
    "a list of results": {
        "update": lambda W, g, M, **c: [
            W - c["eta"] * g - c["alpha"] * M,
            c["eta"] * g + c["alpha"] * M,
        ]
    },
}
INSIDE = InnerLoop(
    Linear(),
    SquaredError(),
    GradientStep("per_step", "inside", "per_step"),
    Schedule(2, "before_update", steps=2),
)


@pytest.mark.parametrize("name", list(SAME))
@pytest.mark.parametrize("read", ["before_update", "after_update", "causal"])
def test_however_a_function_is_written_it_sees_one_sequence_of_one_head(name, read):
    loop = replace(INSIDE, schedule=Schedule(2, read, steps=1 if read == "causal" else 2))
    assert distance(
        lambda _, *a, **o: run_loop(stand_in(loop, **SAME[name]), *a, **o), loop, 4
    ) <= (TOLERANCE)


CALLS = [
    ("*(x.clone() for x in items)", "*items"),
    ("torch.vmap(self._call)(items, named)", "self._call(items, named)"),
    ("-1, 1, x.shape[2]", "1, -1, x.shape[2]"),
]


@pytest.mark.parametrize(("sound", "fault"), CALLS)
def test_a_fault_in_how_functions_are_called_is_noticed(sound, fault, tmp_path):
    with faulty(tmp_path, "by_autograd", sound, fault) as run:
        ways = [partial(as_written, run, functions) for functions in SAME.values()]
        assert any(departs(lambda _, *a, **o: way(*a, **o), INSIDE) for way in ways)  # noqa: B023


def as_written(run, functions, *arguments, **others):
    """The loop INSIDE with some functions of its own."""
    return run(stand_in(INSIDE, **functions), *arguments, **others)


def test_what_is_given_is_left_alone():
    loop = stand_in(INSIDE, update=overwriting)
    given = vars(random_inputs(INSIDE, 1))
    tensors = [*(given[n] for n in "qkv"), *given["weights"].values()]
    before = [x.clone() for x in tensors]
    run_loop(loop, **given)
    assert all(map(torch.equal, before, tensors))


REFUSED = [
    ({"net": None}, "`net` must have a function for an oracle .*; got .*Put .*"),
    ({"update": None}, "`update` must have a function for an oracle .*; got .*Put .*"),
    ({"net": lambda x, W: (x @ W).mT}, r"`net` must return \[2, 3\]; got \[3, 2\]. Correct .*"),
    ({"loss": lambda f, v: f * v}, r"`loss` must return one number .*; got \[1, 3\]. Sum .*"),
    ({"update": lambda W, g, M, **_: W}, r"must return \[4, 3\] and \[4, 3\]; got \[4, 3\]. .*"),
    (
        {"update": lambda W, g, M, **_: (W, M[0])},
        r"must return \[4, 3\] and \[4, 3\]; got .* \[3\]",
    ),
]


@pytest.mark.parametrize(("functions", "message"), REFUSED)
@pytest.mark.parametrize("length", [0, 2])
def test_functions_that_do_not_fit_are_refused(functions, message, length):
    loop = stand_in(INSIDE, **functions)
    (q, k, v), weights = sample(INSIDE, length=length, key=4, value=3)
    given = sample_coefficients(INSIDE, length=length)
    with pytest.raises(ValueError, match="^.*" + message):
        run_loop(loop, q, k, v, weights=weights, coefficients=given)


def test_what_a_function_raises_is_passed_on():
    def broken(x, W):
        raise ZeroDivisionError("mine")

    (q, k, v), weights = sample(INSIDE)
    with pytest.raises(ZeroDivisionError, match="mine"):
        run_loop(
            stand_in(INSIDE, net=broken),
            q,
            k,
            v,
            weights=weights,
            coefficients=sample_coefficients(INSIDE),
        )


def test_a_loop_that_kept_only_its_lines_has_no_oracle():
    loop = loop_of(Update(loop_of(TITANS, GIVEN).rule), GIVEN)
    (q, k, v), weights = sample(loop)
    with pytest.raises(ValueError, match=r"^`update` must have a function .*a copy without it.*"):
        run_loop(loop, q, k, v, weights=weights, coefficients=sample_coefficients(loop))


def restored(W, g, *, eta, W_0):
    """Descent that keeps the first norm of each column."""
    W = W - eta * g
    return W * (column_norm(W_0) / (column_norm(W) + 1e-5))


def test_the_first_weight_is_given_at_every_step():
    ours = loop_of(Update(restored), {"eta": Coefficient()}, MLP(2, "tanh"))
    library = replace(ours, update=GradientStep(weight_norm="initial_norm"), coefficients={})
    assert distance(lambda _, *a, **o: run_loop(ours, *a, **o), library, 2) <= TOLERANCE
