"""The autograd witness agrees with what is right and with nothing else."""

import math
import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

from tests.evidence.updates import MUON, UPDATES, loop_of
from tests.loops.random_loops import random_loop
from ttt_proofs import NotParallelError
from ttt_proofs.evidence.autograd import autograd_witness
from ttt_proofs.evidence.conditioning import UNITS, draw_steady, moved, relative_error
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.evidence.tolerances import SMALLEST_SCALE
from ttt_proofs.loops import (
    MLP,
    Coefficient,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.parallel import forms
from ttt_proofs.reduction import reduce
from ttt_proofs.reference import run_loop
from ttt_proofs.symbolic.torch_loop import compiled, torch_loop


def same(result, given):
    """No fault."""
    return result


@dataclass(frozen=True)
class Fake:
    """A reduction that runs the reference, with a fault before it or after it."""

    loop: InnerLoop
    parallel: str = "gated"
    before: dict = field(default_factory=dict)  # form -> a change of its arguments
    after: dict = field(default_factory=dict)  # form -> a change of its results

    def run(self, form, q, k, v, **others):
        """The reference with this form's faults."""
        given = {"q": q, "k": k, "v": v, **others}
        change = self.before.get(form, lambda given: given)
        return self.after.get(form, same)(run_loop(self.loop, **change(dict(given))), given)

    def recurrent(self, q, k, v, *, weights, coefficients):
        """Step by step."""
        return self.run("recurrent", q, k, v, weights=weights, coefficients=coefficients)

    def parallel_form(self, q, k, v, *, weights, coefficients):
        """In parallel; here by the same steps."""
        if self.parallel == "sequential":
            raise AssertionError("a sequential loop has no parallel form")
        return self.run("parallel_form", q, k, v, weights=weights, coefficients=coefficients)


BOTH_FORMS = ("recurrent", "parallel_form")
BOTH = GradientStep("per_step", momentum="per_step")
LOOPS = {
    "linear": InnerLoop(Linear(), Frobenius(), BOTH, Schedule(1)),
    "deep": InnerLoop(MLP(2, "tanh"), SquaredError(), BOTH, Schedule(2)),
    "gated": InnerLoop(SwiGLU(), Frobenius(), BOTH, Schedule(3, "before_update")),
}
EACH = GradientStep("per_token", "inside", momentum="per_token")
LACT = InnerLoop(
    SwiGLU(),
    Frobenius(),
    replace(EACH, orthogonal="muon", weight_norm="initial_norm"),
    Schedule(3, "before_update"),
)
TOKENS = {
    "causal": InnerLoop(Linear(), SquaredError(), EACH, Schedule(2, "causal")),
    "LaCT": LACT,
    "image": InnerLoop(
        DepthwiseConv(3, 2, 2), Frobenius(), replace(EACH, clip="column_norm"), Schedule(4)
    ),
}


@pytest.mark.parametrize("seed", range(25))
def test_the_true_reduction_agrees(seed):
    seen = autograd_witness(Fake(random_loop(random.Random(seed))), seed=seed)
    assert seen.agrees and seen.max_relative_error == 0.0
    assert (seen.trials, seen.tolerance, seen.device, seen.dtype) == (3, 1e-12, "cpu", "float64")


def test_everything_is_compared():
    seen = autograd_witness(Fake(LOOPS["deep"]), seed=0, trials=1)
    tensors = ["outputs", "final W1", "final W2"]
    inputs = ("q", "k", "v", "W1", "W2", "coefficient eta", "coefficient alpha")
    tensors += [f"gradient in {name}" for name in inputs]
    assert seen.what == tuple(f"{form}: {name}" for form in BOTH_FORMS for name in tensors)


def test_every_coefficient_has_a_gradient():
    seen = autograd_witness(Fake(LACT), seed=0, trials=1)
    wanted = [f"gradient in coefficient {name}" for name in LACT.coefficients]
    names = [what.removeprefix("recurrent: ") for what in seen.what if "recurrent" in what]
    assert sorted(names[-4:]) == sorted(wanted) and len(wanted) == 4
    constant = InnerLoop(Linear(), Frobenius(), GradientStep(None, momentum="constant"))
    assert not any(
        "coefficient" in x for x in autograd_witness(Fake(constant), seed=0, trials=1).what
    )


def test_a_sequential_class_has_no_parallel_form_to_run():
    seen = autograd_witness(Fake(LOOPS["deep"], "sequential"), seed=0)
    assert seen.agrees and all(name.startswith("recurrent: ") for name in seen.what)


def test_the_seed_fixes_every_draw():
    fake = Fake(LOOPS["linear"], after={"recurrent": outputs(lambda o: o * (1 + 1e-9))})
    first, again, other = (autograd_witness(fake, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.max_relative_error != other.max_relative_error


# Faults in what a form is given. `x - x.detach()` is zero, and has the gradient of x.


def argument(name, change):
    """The form is given something else by that name."""
    return lambda given: given | {name: change(given[name])}


def coefficient(name, change):
    """The form is given another coefficient by that name."""
    return argument("coefficients", lambda given: given | {name: change(given[name])})


def every_weight(change):
    """The form starts from other weights."""
    return argument("weights", lambda weights: {n: change(w) for n, w in weights.items()})


BEFORE = {
    "momentum one step late": coefficient("alpha", lambda a: a.roll(1, dims=1)),
    "momentum one step early": coefficient("alpha", lambda a: a.roll(-1, dims=1)),
    "rate one step late": coefficient("eta", lambda r: r.roll(1, dims=1)),
    "rate of the other sequence": coefficient("eta", lambda r: r.flip(0)),
    "rate of the other head": coefficient("eta", lambda r: r.flip(2)),
    "rate forgotten at the last step": coefficient(
        "eta", lambda r: torch.cat([r[:, :-1], 0 * r[:, -1:]], 1)
    ),
    "keys of the other sequence": argument("k", lambda k: k.flip(0)),
    "weights of the other head": every_weight(lambda w: w.flip(0)),
    "the key is the query": lambda given: given | {"k": given["q"]},
    "single precision": argument("k", lambda k: k.float().double()),
    "q detached": argument("q", torch.Tensor.detach),
    "k detached": argument("k", torch.Tensor.detach),
    "v detached": argument("v", torch.Tensor.detach),
    "weights detached": every_weight(torch.Tensor.detach),
    "gradient in v doubled": argument("v", lambda v: v + (v - v.detach())),
    "gradient in k negated": argument("k", lambda k: 2 * k.detach() - k),
    "gradient in k of one token lost": argument(
        "k", lambda k: torch.cat([k[:, :1].detach(), k[:, 1:]], 1)
    ),
}


# Faults in what a form returns.


def outputs(change):
    """Other outputs, the right final weights."""
    return lambda result, given: (change(result[0]), result[1])


def final(change):
    """The right outputs, other final weights."""
    return lambda result, given: (result[0], {n: change(w) for n, w in result[1].items()})


def poison(tensor, value):
    """One entry, the last, replaced."""
    mask = torch.zeros(tensor.numel(), dtype=torch.bool)
    mask[-1] = True
    return torch.where(mask.view(tensor.shape), value, tensor)


def nan_gradient(result, given):
    """The outputs are right, but √0 has no slope: 0 · ∞ is NaN."""
    return result[0] + 0 * (0 * given["q"]).sqrt().sum(), result[1]


def initial(given):
    """The initial weights, for each sequence."""
    return {name: w.expand(len(given["q"]), *w.shape) for name, w in given["weights"].items()}


AFTER = {
    "sign": outputs(lambda o: -o),
    "scale, slightly": outputs(lambda o: o * (1 + 1e-11)),
    "one entry": outputs(lambda o: poison(o, 0.0)),
    "one token late": outputs(lambda o: o.roll(1, dims=1)),
    "all NaN": outputs(lambda o: o * torch.nan),
    "one NaN": outputs(lambda o: poison(o, torch.nan)),
    "one infinity": outputs(lambda o: poison(o, torch.inf)),
    "shape": outputs(lambda o: o.transpose(1, 2)),
    "shape that broadcasts": outputs(lambda o: o[:, :1]),
    "outputs detached": outputs(torch.Tensor.detach),
    "gradient doubled": outputs(lambda o: o + (o - o.detach())),
    "gradient of another": outputs(lambda o: o.detach() + (o * o - (o * o).detach()) / 2),
    "NaN gradient": nan_gradient,
    "final weights are the initial": lambda result, given: (result[0], initial(given)),
    "final weights negated": final(lambda w: -w),
    "final weights NaN": final(lambda w: poison(w, torch.nan)),
    "final weights transposed": final(lambda w: w.transpose(0, 1)),
    "final weights missing": lambda result, given: (result[0], {}),
    "final weights too many": lambda result, given: (
        result[0],
        result[1] | {"W9": result[0]},
    ),
}

FAULTS = [(name, "before", fault) for name, fault in BEFORE.items()]
FAULTS += [(name, "after", fault) for name, fault in AFTER.items()]


@pytest.mark.parametrize("form", BOTH_FORMS)
@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize(("name", "when", "fault"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_a_planted_fault_is_caught_by_one_trial(name, when, fault, loop, form):
    seen = autograd_witness(Fake(LOOPS[loop], **{when: {form: fault}}), seed=3, trials=1)
    assert not seen.agrees
    assert not seen.max_relative_error <= seen.tolerance
    assert seen.worst.startswith(f"{form}: ")


def each_rate(change):
    """The form is given other rates per token."""

    def changed(given):
        rates = {name: x for name, x in given.items() if name.startswith("eta_")}
        return given | change(rates)

    return argument("coefficients", changed)


PER_TOKEN = {
    "rates one token late": each_rate(lambda r: {n: x.roll(1, dims=1) for n, x in r.items()}),
    "one rate for all weights": each_rate(lambda r: dict.fromkeys(r, next(iter(r.values())))),
    "rates averaged over tokens": each_rate(
        lambda r: {n: x.mean(1, keepdim=True).expand_as(x) for n, x in r.items()}
    ),
    "rates of the other sequence": each_rate(lambda r: {n: x.flip(0) for n, x in r.items()}),
    "rates detached": each_rate(lambda r: {n: x.detach() for n, x in r.items()}),
    "momentum one token late": coefficient("alpha", lambda a: a.roll(1, dims=1)),
    "momentum detached": coefficient("alpha", torch.Tensor.detach),
    "momentum's gradient doubled": coefficient("alpha", lambda a: a + (a - a.detach())),
    "no rate but one": each_rate(lambda r: {n: 0 * x + 1 for n, x in r.items()}),
}


NUMBERS = [
    (name, loop)
    for name in PER_TOKEN
    for loop in TOKENS
    if name != "one rate for all weights" or len(TOKENS[loop].fast_weights) > 1
]


@pytest.mark.parametrize(("name", "loop"), NUMBERS)
def test_a_fault_in_numbers_per_token_is_caught(name, loop):
    fake = Fake(TOKENS[loop], before={"recurrent": PER_TOKEN[name]})
    seen = autograd_witness(fake, seed=3, trials=1)
    assert not seen.agrees and seen.worst.startswith("recurrent: ")


GATES = {
    "epsilon": (LACT, "ttt_proofs.reference.library_update.EPSILON", 1e-6),
    "the constant in Muon": (LACT, "ttt_proofs.reference.library_update.TINY", 1e-6),
    "a coefficient": (
        LACT,
        "ttt_proofs.reference.library_update.NEWTON_SCHULZ",
        ((4.0848, -6.8946, 2.927),),
    ),
}


@pytest.mark.parametrize("name", list(GATES))
def test_another_constant_is_caught(name, monkeypatch):
    """The form runs with another constant than the reference does."""
    loop, where, value = GATES[name]

    def other(given):
        monkeypatch.setattr(where, value)
        return given

    def back(result, given):
        monkeypatch.undo()
        return result

    fake = Fake(loop, "sequential", before={"recurrent": other}, after={"recurrent": back})
    assert not autograd_witness(fake, seed=0, trials=1).agrees


@pytest.mark.parametrize("seed", range(8))
def test_the_tolerance_needs_no_help_from_norms_or_muon(seed):
    """Recurrences derived from the proved expressions are within the tolerance of plain loops."""
    rng = random.Random(seed)
    gates = {"clip": "column_norm", "orthogonal": "muon", "weight_norm": "initial_norm"}
    chosen = {field: name for field, name in gates.items() if rng.random() < 0.7}
    loop = replace(LACT, update=replace(LACT.update, **({"orthogonal": "muon"} | chosen)))
    seen = autograd_witness(reduce(loop), seed=seed, trials=2)
    assert seen.agrees and 0 < seen.max_relative_error <= 1e-12 == seen.tolerance


@pytest.mark.parametrize("loss", [Frobenius(), SquaredError()], ids=str)
@pytest.mark.parametrize("name", list(UPDATES | MUON))
def test_reductions_of_updates_of_ones_own_agree(name, loss):
    loop = loop_of((UPDATES | MUON)[name], loss)
    seen = autograd_witness(reduce(loop), seed=0, trials=2)
    assert seen.agrees and seen.tolerance == 1e-12
    names = {what.split(": ")[1] for what in seen.what}
    numbers = [n for n, kind in loop.coefficients.items() if kind != Coefficient()]
    assert names >= {f"gradient in coefficient {n}" for n in numbers}
    apart = any(kind.shape != "scalar" for kind in loop.coefficients.values())
    parallel = loss == Frobenius() or not (apart or name in MUON)
    assert any("parallel_form" in what for what in seen.what) is parallel


def test_a_reduction_of_another_update_disagrees():
    loop, other = loop_of(UPDATES["decay"]), loop_of(UPDATES["forgetting"])
    found = reduce(other)
    forms = {form: getattr(found, form) for form in ("parallel", *BOTH_FORMS)}
    assert not autograd_witness(SimpleNamespace(loop=loop, **forms), seed=0, trials=1).agrees


def test_inputs_are_redrawn_where_rounding_would_hide_faults():
    """The reference, not the form under test, decides; a loop without norms keeps its draw."""
    calls = []

    def reference(inputs):
        calls.append(inputs)
        shaky = len(calls) <= 4  # two draws of two runs each: the first change is too large
        return {"outputs": inputs.q * (1e6 if shaky and len(calls) % 2 else 1)}

    found = draw_steady(LACT, 5, reference)
    assert found.steady and len(calls) == 5 + len(UNITS) and found.inputs is calls[4]
    calls.clear()
    assert draw_steady(LOOPS["deep"], 5, reference).inputs is calls[0] and len(calls) == 1
    never = draw_steady(LACT, 5, lambda x: {"outputs": torch.rand(3, dtype=torch.float64)})
    assert not never.steady and never.amplification is not None and never.amplification > 1e10
    calls.clear()
    told = draw_steady(LOOPS["deep"], 5, reference, draws=1)
    assert len(calls) == 2 and told.amplification is not None and not told.steady


def test_the_witness_says_where_it_can_tell_nothing(monkeypatch):
    seen = autograd_witness(Fake(LACT), seed=0)
    assert seen.undecided == 0 and seen.amplification is not None and seen.amplification < 300
    assert autograd_witness(Fake(LOOPS["linear"]), seed=0).amplification is None
    monkeypatch.setattr("ttt_proofs.evidence.conditioning.DRAWS", 1)
    single = replace(LACT, schedule=Schedule(1, "before_update"))
    lost = [autograd_witness(Fake(single), seed=seed) for seed in range(6)]
    assert any(seen.undecided and (seen.amplification or 0) > 300 for seen in lost)
    assert all(seen.undecided <= seen.trials == 3 for seen in lost)


def turned(given):
    """Initial weights that are transposed where that keeps the shape."""
    weights = given["weights"].items()
    return given | {"weights": {n: w.mT if w.shape[1] == w.shape[2] else w for n, w in weights}}


@pytest.mark.parametrize("form", BOTH_FORMS)
@pytest.mark.parametrize("loop", [*LOOPS, *TOKENS])
def test_a_transposed_square_is_caught_by_two_trials(loop, form):
    case = (LOOPS | TOKENS)[loop]
    for seed in range(0, 12, 3):
        seen = autograd_witness(Fake(case, before={form: turned}), seed=seed, trials=2)
        assert not seen.agrees and seen.is_finite and seen.worst.startswith(f"{form}: ")


HALF = replace(LACT, update=replace(LACT.update, orthogonal="muon_bfloat16"))


def test_muon_in_bfloat16_on_the_other_side_of_a_square_is_caught(monkeypatch):
    """As where a layer that stores outputs by inputs is copied with its test of the shape."""
    sound = autograd_witness(reduce(HALF), seed=0, trials=2)
    assert sound.agrees
    source = torch_loop(HALF).source
    fault = source.replace("G.shape[-2] >= G.shape[-1]", "G.shape[-2] > G.shape[-1]")
    assert fault != source
    other = compiled(HALF, fault)
    monkeypatch.setattr(forms, "torch_loop", lambda _: other)
    for seed in range(4):
        seen = autograd_witness(reduce(HALF), seed=seed, trials=2)
        assert not seen.agrees and 1e-4 < seen.max_relative_error < math.inf


def test_moved_inputs_differ_by_a_unit_in_the_last_place():
    before = random_inputs(LACT, 0)
    after = moved(before, 1)
    pairs = [
        (before.q, after.q),
        (before.weights["W1"], after.weights["W1"]),
        *((before.coefficients[name], after.coefficients[name]) for name in LACT.coefficients),
    ]
    for a, b in pairs:
        assert isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        assert ((a - b) / a).abs().min() > 0 and ((a - b) / a).abs().max() <= 2**-51


@pytest.mark.parametrize("name", ["all NaN", "one NaN", "one infinity", "final weights NaN"])
def test_what_is_not_finite_counts_as_infinitely_wrong(name):
    seen = autograd_witness(Fake(LOOPS["linear"], after={"recurrent": AFTER[name]}), seed=0)
    assert seen.max_relative_error == math.inf


def test_only_the_gradients_tell_that_something_was_detached():
    fake = Fake(LOOPS["deep"], before={"recurrent": BEFORE["v detached"]})
    assert autograd_witness(fake, seed=0).worst == "recurrent: gradient in v"


def test_nan_on_both_sides_does_not_pass(monkeypatch):
    def broken(*args, **others):
        o, weights = run_loop(*args, **others)
        return o * torch.nan, weights

    monkeypatch.setattr("ttt_proofs.evidence.autograd.run_loop", broken)
    fake = Fake(
        LOOPS["linear"], after={form: outputs(lambda o: o * torch.nan) for form in BOTH_FORMS}
    )
    assert not autograd_witness(fake, seed=0).agrees


def test_a_form_cannot_spoil_what_the_others_are_given():
    def spoil(given):
        numbers = given["coefficients"]
        own = {"coefficients": {name: x.clone() for name, x in numbers.items()}}
        own["weights"] = dict(given["weights"])
        with torch.no_grad():
            numbers["eta"].zero_()
            numbers["alpha"].fill_(torch.nan)
        numbers.clear()
        given["weights"].clear()
        return given | own

    fake = Fake(LOOPS["deep"], before=dict.fromkeys(BOTH_FORMS, spoil))
    assert autograd_witness(fake, seed=0).agrees


def test_what_the_reduction_raises_is_passed_on():
    def refuse(given):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        autograd_witness(Fake(LOOPS["deep"], before={"parallel_form": refuse}), seed=0)


def test_a_form_may_refuse_a_loop_and_no_draw():
    calls = []

    def refuse(given):
        calls.append(1)
        if len(calls) > once:
            raise NotParallelError("there is none")
        return given

    once = 0
    seen = autograd_witness(Fake(LOOPS["linear"], before={"parallel_form": refuse}), seed=0)
    assert seen.agrees and not any("parallel_form" in what for what in seen.what)
    assert len(calls) == 1
    once = 1
    for form in BOTH_FORMS:
        calls.clear()
        with pytest.raises(NotParallelError):
            autograd_witness(Fake(LOOPS["linear"], before={form: refuse}), seed=0)


@pytest.mark.parametrize("trials", [0, -1, 1.0, True])
def test_no_trials_show_nothing(trials):
    with pytest.raises(ValueError, match=r"`trials` must be a positive integer, .*; got .*\. Use"):
        autograd_witness(Fake(LOOPS["linear"]), seed=0, trials=trials)


def test_rounding_alone_passes():
    """The same sums in another order: not equal, and within the tolerance."""

    def reorder(given):
        return given | {"k": given["k"] * 3.0 / 3.0, "v": given["v"] / 7.0 * 7.0}

    seen = [
        autograd_witness(Fake(random_loop(random.Random(n)), before={"recurrent": reorder}), seed=n)
        for n in range(20)
    ]
    assert all(x.agrees for x in seen)
    assert any(x.max_relative_error > 0 for x in seen)


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([-0.0], [0.0], 0.0),
        ([1e-12], [0.0], 1e-12 / SMALLEST_SCALE),
        ([2e-9], [-2e-9], 4e-9 / SMALLEST_SCALE),
        ([], [], 0.0),
        ([1.0], [], math.inf),
        ([1.0], [1.0, 1.0], math.inf),
        ([math.nan], [math.nan], math.inf),
        ([math.inf], [math.inf], math.inf),
        ([1.0, math.nan], [1.0, 1.0], math.inf),
        (None, [1.0], math.inf),
        (None, [], math.inf),
    ],
)
def test_relative_error(actual, expected, error):
    tensor = None if actual is None else torch.tensor(actual, dtype=torch.float64)
    assert relative_error(tensor, torch.tensor(expected, dtype=torch.float64)) == error


def test_a_narrower_result_is_compared_as_it_is():
    third = torch.tensor([1.0], dtype=torch.float64) / 3
    assert 1e-9 < relative_error(third.float(), third) < 1e-7
