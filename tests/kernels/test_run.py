"""Loops on the kernels against the real loop, in float64; what has no kernel; planted faults."""

import importlib.util
import random
import sys
from dataclasses import replace
from functools import lru_cache
from inspect import getfullargspec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from tests.kernels.whole_loops import called, halves, inputs_of, wrong
from ttt_proofs.evidence.conditioning import relative_error, relative_errors
from ttt_proofs.evidence.sampling import random_inputs, random_loop
from ttt_proofs.kernels import run as real
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
    zeros_like,
)
from ttt_proofs.parallel import forms


def step(rate: Any = "constant", momentum: Any = None, **rest: Any) -> GradientStep:
    """An update; a rate per token is inside."""
    place = "inside" if rate == "per_token" else "outside"
    return GradientStep(**{"rate": rate, "place": place, "momentum": momentum, **rest})


def loop(
    net: Any = None, update: Any = None, loss: Any = None, trained: Any = "last", **schedule: Any
) -> InnerLoop:
    """A linear net, Frobenius' loss and one token a step, where nothing else is said."""
    parts = (net or Linear(), loss or Frobenius(), update or step(), Schedule(**schedule))
    return InnerLoop(*parts, trained=trained)


SILU, ERROR = SwiGLU("silu"), SquaredError()
LOOPS = {
    "additive": [
        loop(),
        loop(update=step(None)),
        loop(update=step("per_step", ascent=True)),
        loop(update=step("per_step", place="inside"), read="before_update"),
        loop(update=step("per_token"), loss=NegatedValues(Frobenius()), read_with="key"),
        loop(SILU),
        loop(SILU, step("per_token"), read="before_update"),
        loop(SILU, step(place="inside", ascent=True), NegatedValues(Frobenius())),
        loop(SwiGLU("gelu_tanh"), step("per_step")),
        loop(MLP(2, "tanh"), step("per_token")),
        loop(GLU("silu"), step("per_step")),
        loop(GLU("tanh"), step(None), read_with="key"),
        loop(chunk=4, read="causal"),
        loop(SILU, step("per_token"), chunk=4, read="causal"),
        loop(MLP(1, "relu"), step(None), chunk=3, read="causal"),
        loop(chunk=1, read="causal"),
    ],
    "momentum": [
        loop(update=step("constant", "constant")),
        loop(update=step(None, "per_token")),
        loop(update=step("per_step", "per_step", ascent=True), read="before_update"),
        loop(update=step("per_step", "per_token", place="inside"), read_with="key"),
        loop(SILU, step("per_token", "per_step"), NegatedValues(Frobenius())),
        loop(SILU, step("constant", "per_token", place="inside"), read="before_update"),
        loop(MLP(2, "gelu_tanh"), step("per_token", "constant")),
        loop(GLU("silu"), step("per_step", "per_token"), read="causal"),
    ],
    "delta": [
        loop(loss=ERROR),
        loop(loss=ERROR, update=step(None)),
        loop(loss=ERROR, update=step("per_step", ascent=True), read="before_update"),
        loop(loss=NegatedValues(ERROR), update=step("per_token"), read_with="key"),
        loop(SILU, step("per_step", place="inside"), ERROR, read="causal"),
        loop(MLP(2, "tanh"), step("per_token"), ERROR),
    ],
    "features": [
        loop(SILU, chunk=3),
        loop(SILU, step("per_step", "per_token"), chunk=3, read_with="key"),
        loop(SILU, step("per_token"), ERROR, chunk=3, read="before_update"),
        loop(SILU, step("per_step", "per_step", ascent=True), ERROR, chunk=3, steps=2),
        loop(SILU, step(clip="column_norm"), NegatedValues(Frobenius()), chunk=3),
        loop(SILU, step("per_step", "constant", orthogonal="muon"), chunk=3),
        loop(SILU, step("per_step", "per_token"), chunk=3, read="causal"),
    ],
}
CASES = [(operator, case) for operator, cases in LOOPS.items() for case in cases]


@pytest.mark.parametrize(("operator", "case"), CASES, ids=str)
def test_a_loop_on_its_kernel_is_the_loop(operator, case):
    assert real.operator_for(case) == operator and real.obstacle(case) is None
    assert wrong(called(real.kernel_form, case), case) == {}


@pytest.mark.parametrize("widths", [{"D_h": 129}, {"D_k": 129}, {"D_k": 129, "D_h": 130}])
def test_swiglu_wider_than_its_kernel_makes_features_first(widths):
    assert wrong(called(real.kernel_form, loop(SILU)), loop(SILU), **widths, T=2, B=1) == {}


def test_random_loops():
    """Those that have a kernel among loops drawn anew."""
    draw = random.Random(0)
    drawn = (random_loop(draw) for _ in range(2000))
    found = list(islice((x for x in drawn if real.obstacle(x) is None), 8))
    assert len(found) == 8 and len({real.operator_for(x) for x in found}) > 1
    for case in found:
        assert wrong(called(real.kernel_form, case), case, T=2 * case.schedule.chunk + 1) == {}


CONTINUED = [cases[n] for cases in LOOPS.values() for n in (0, 2, 4)]
CONTINUED += [LOOPS["additive"][13], LOOPS["features"][5]]


@pytest.mark.parametrize("case", CONTINUED, ids=str)
def test_the_second_half_continues_the_first(case):
    at = 4 if case.schedule.chunk in (1, 4) else 3
    assert wrong(halves(real.kernel_form, case, at), case, B=1) == {}


@pytest.mark.parametrize("case", [*LOOPS["momentum"], LOOPS["features"][1]], ids=str)
def test_the_buffers_are_those_of_the_recurrence(case):
    x = inputs_of(case)
    given = (case, x.q, x.k, x.v, x.weights, x.coefficients)
    _, found = real.kernel_form(*given)
    _, expected = forms.recurrent(*given)
    last = case.net.last.name
    assert set(found.buffers["M"]) == set(expected.buffers["M"]) == {last}
    assert max(relative_errors(found.buffers["M"], expected.buffers["M"]).values()) <= 1e-12
    assert set(real.kernel_form(*given)[1]) == set(expected)


def test_without_momentum_there_are_no_buffers():
    x = inputs_of(loop())
    assert real.kernel_form(loop(), x.q, x.k, x.v, x.weights, x.coefficients)[1].buffers == {}


SCAN, PLAIN = "its state is no scan of maps that data alone give", "kernels take one plain step"
NONE = [
    (loop(SILU, trained="all"), SCAN),
    (loop(MLP(2, "tanh"), trained="all"), SCAN),
    (loop(SILU, step(weight_norm="initial_norm")), SCAN),
    (loop(update=step(weight_norm="initial_norm")), SCAN),
    (loop(DepthwiseConv(3, 2, 2), chunk=4), "a convolution has small matrices for each channel"),
    (loop(chunk=2), PLAIN),
    (loop(steps=2), PLAIN),
    (loop(loss=ERROR, steps=2), PLAIN),
    (loop(update=step(orthogonal="muon")), PLAIN),
    (loop(update=step(clip="column_norm")), PLAIN),
    (loop(GLU("silu"), chunk=3), PLAIN),
    (loop(SwiGLU("gelu_tanh"), chunk=3), PLAIN),
    (loop(update=step(momentum="constant"), chunk=3, read="causal"), PLAIN),
    (loop(update=step("per_step"), chunk=3, read="causal"), PLAIN),
    (loop(loss=ERROR, chunk=3, read="causal"), PLAIN),
    (loop(SILU, step(clip="column_norm"), ERROR), SCAN),
    (loop(SILU, step(orthogonal="muon"), ERROR), SCAN),
    (loop(loss=ERROR, update=step(momentum="constant")), "neither momentum nor an output gate"),
    (loop(GLU("silu"), loss=ERROR), "neither momentum nor an output gate"),
]


def decayed(W, g, *, alpha):
    return alpha * W - g


def half_decayed(W, g, M, *, alpha):
    return W / 2 - g + M, alpha * M - g


def nesterov(W, g, M, *, alpha):
    M = alpha * M + g
    return W - (alpha * M + g), M


def twice(W, g, M, P, *, alpha):
    M, P = alpha * M + g, alpha * P + g
    return W - M - P, M, P


def remembers(W, g, M, *, alpha):
    """The buffer's value of the step before."""
    return W - M, alpha * M + g


def grows(W, g, M, *, alpha):
    """A buffer that is fed by the weight."""
    M = alpha * M + g + W / 10
    return W - M, M


def plain(W, g, *, alpha):
    return W - alpha * g


def heavy(W, g, M, *, alpha, beta):
    M = alpha * M - beta * g
    return W + 2 * M, M


def scaled_error(f, v):
    return 3 * (f - v).square().sum(-1) - (f * v).sum(-1)


def gated_error(f, v):
    return ((f - v).square() + (f * v).square()).sum(-1) / 2


def mean_error(f, v):
    return (f - v).square().mean(-1)


def ruled(rule: Any, every: str = "step", shape: str = "scalar", **rest: Any) -> InnerLoop:
    """A loop with a rule of one's own."""
    arguments = getfullargspec(rule)
    numbers = {n: Coefficient(every, shape) for n in arguments.kwonlyargs}  # pyright: ignore
    buffers = dict.fromkeys(arguments.args[2:], zeros_like)
    return replace(loop(**rest), update=Update(rule, buffers), coefficients=numbers)


ADDS = "kernels add to the weight, which neither decays nor counts a gradient twice"
NONE += [
    *((ruled(rule), ADDS) for rule in (decayed, half_decayed, nesterov, twice, remembers, grows)),
    *((ruled(plain, shape=x), "numbers for whole matrices") for x in ("row", "column", "entry")),
    (ruled(decayed, loss=ERROR), ADDS),
    (ruled(plain, loss=gated_error), SCAN),
]
OWN = [
    ("additive", ruled(plain)),
    ("additive", ruled(plain, "loop", chunk=3, read="causal")),
    ("momentum", ruled(heavy)),
    ("momentum", ruled(heavy, "loop", read="before_update")),
    ("delta", ruled(plain, loss=ERROR)),
    ("delta", ruled(plain, loss=scaled_error)),
    ("delta", ruled(plain, loss=mean_error)),
]


@pytest.mark.parametrize(("operator", "case"), OWN, ids=str)
def test_a_rule_of_ones_own_on_its_kernel(operator, case):
    assert real.operator_for(case) == operator
    x = random_inputs(case, 0, sizes={"B": 2, "H": 2, "T": 7, "D_k": 3, "D_v": 2})
    given = vars(x).values()
    (o, final), (p, state) = (form(case, *given) for form in (real.kernel_form, forms.recurrent))
    assert relative_error(o, p) <= 1e-12
    assert max(relative_errors(dict(final), dict(state)).values()) <= 1e-12


DEVICES_AND_DTYPES = [
    ({"D_k": 256, "D_v": 3}, torch.float16, "cuda", None),
    ({"D_k": 257, "D_v": 3}, torch.float32, "cuda", "of at most 256"),
    ({"D_k": 256, "D_v": 3}, torch.float64, "cpu", None),
    ({"D_k": 256, "D_v": 3}, torch.int32, "cuda", "do not take torch.int32"),
    ({"D_k": 256, "D_v": 3}, torch.float32, "mps", "do not run on mps"),
]


@pytest.mark.parametrize(("sizes", "dtype", "device", "told"), DEVICES_AND_DTYPES, ids=str)
@pytest.mark.parametrize("operator", ["additive", "momentum", "delta"])
def test_sizes_dtypes_and_devices(operator, sizes, dtype, device, told):
    """A pure function: no such device is needed to ask, and no Triton."""
    found = real.operator_for(LOOPS[operator][0], sizes, dtype, device)
    assert found == operator if told is None else told in found.reason
    for case, words in NONE:
        assert words in real.operator_for(case, None, dtype, device).reason


@pytest.mark.parametrize(("case", "words"), NONE, ids=str)
def test_what_has_no_kernel_is_told_why(case, words):
    assert words in str(real.obstacle(case))
    x = inputs_of(case, T=4)
    with pytest.raises(ValueError, match=f"this loop has none: .*{words}.* Use the parallel") as e:
        real.kernel_form(case, x.q, x.k, x.v, x.weights, x.coefficients)
    assert str(e.value).count(". ") == 1 and "\n" not in str(e.value)


def copied(folder: Path, old: str, new: str) -> Any:
    """The module `run`, in a file of its own, with one text replaced."""
    text = Path(str(real.__file__)).read_text("utf-8")
    assert text.count(old) == 1, (text.count(old), old)
    path = folder / "planted_run.py"
    path.write_text(text.replace(old, new), "utf-8")
    spec = importlib.util.spec_from_file_location("ttt_proofs.kernels.planted_run", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


BEFORE = loop(read="before_update")
FAULTS = [
    # queries, rates, and what the rule makes of them
    ("        q = k\n", "        pass\n", loop(read_with="key")),
    ("if code.loss_weights else own", "if False else own", loop(update=step("per_token"))),
    ("weighed(values, own * moved)", "weighed(values, own)", loop()),
    ("weighed(values, own * moved)", "weighed(values, moved)", loop(update=step("per_token"))),
    ("weighed(values, own),\n", "values,\n", LOOPS["momentum"][4]),
    ("numbers(moved, q),\n", "numbers(kept, q),\n", LOOPS["momentum"][0]),
    ("-values / slope", "values / slope", loop(loss=ERROR)),
    ("-numbers(own * moved, q)", "-numbers(moved, q)", LOOPS["delta"][3]),
    ("x.expand(like.shape[:3])", "x.detach().expand(like.shape[:3])", LOOPS["delta"][2]),
    ("(values * by).to(", "(values.detach() * by).to(", loop()),
    # when the state is read, and where it starts and ends
    ('== "before_update"', '== "after_update"', BEFORE),
    ("first if initial_state is None else initial_state[last]", "first", BEFORE),
    ("else initial_state.buffers[buffer][last]", "else 0 * state", LOOPS["momentum"][2]),
    ("initial_state=(state, m)", "initial_state=(m, state)", LOOPS["momentum"][0]),
    ("o, (final, m) = found", "o, (m, final) = found", LOOPS["momentum"][0]),
    ("every | {last: final}", "every", loop()),
    (
        "return o, State(every | {last: final}, held)",
        "return o, State({last: final}, held)",
        LOOPS["additive"][9],
    ),
    # the net
    ("if code.gated:\n        o", "if False:\n        o", LOOPS["additive"][10]),
    ('and gate.function(x) == ACTIVATIONS["silu"](x)', "", LOOPS["additive"][8]),
    (
        "return names[gate.expr], names[up]",
        "return names[up], names[gate.expr]",
        LOOPS["momentum"][5],
    ),
    ("swiglu_attention(q, k, v, gate, up", "swiglu_attention(q, k, v, up, gate", loop(SILU)),
    (
        "fused(code, q, weights), fused(code, k, weights), v",
        "fused(code, k, weights), fused(code, k, weights), v",
        LOOPS["additive"][9],
    ),
    ("fused(code, x.squeeze(2)", "fused(code, -x.squeeze(2)", LOOPS["features"][0]),
    ("coefficients, initial_state, tile", "coefficients, None, tile", LOOPS["features"][5]),
]


SMALL = {"B": 1, "T": 5}


@lru_cache
def sound(case: InnerLoop) -> bool:
    """Whether the module itself runs the case, in two parts, as the real loop does."""
    return wrong(halves(real.kernel_form, case, 3), case, **SMALL) == {}


@pytest.mark.parametrize(("old", "new", "case"), FAULTS, ids=str)
def test_planted_fault_is_seen(old, new, case, tmp_path):
    planted = copied(tmp_path, old, new)
    assert sound(case)
    assert wrong(halves(planted.kernel_form, case, 3), case, **SMALL)


FAULTS_OF_PLAN = [
    ("if code.way is None:", "if False:"),
    ("if loop.net.window:", "if False:"),
    ("and not code.buffers and not code.affine", "and not code.affine"),
    ("and not code.buffers and not code.affine", "and not code.buffers"),
    ('all(c.every == "loop" for c in numbers)', "True"),
    ("or schedule.steps > 1", ""),
    ('or any(x.kind != "state" for x in code.steps)', ""),
    ("(code.buffers or code.gated)", "code.gated"),
    ("(code.buffers or code.gated)", "code.buffers"),
    ("not tokens or schedule.steps", "schedule.steps"),
    ('any(c.shape != "scalar" for c in numbers)', "False"),
    ("sp.expand(line - W - line.coeff(source) * source) == 0", "True"),
    ("sp.expand(first - own * G - kept * buffer) == 0", "True"),
]


@pytest.mark.parametrize(("old", "new"), FAULTS_OF_PLAN)
def test_planted_fault_in_the_plan_is_seen(old, new, tmp_path):
    planted = copied(tmp_path, old, new)
    assert any(words not in str(planted.obstacle(case)) for case, words in NONE)


def test_copy_without_a_fault_passes(tmp_path):
    planted = copied(tmp_path, "-values / slope", "-values / slope")
    assert wrong(called(planted.kernel_form, LOOPS["delta"][3]), LOOPS["delta"][3]) == {}
    assert all(words in str(planted.obstacle(case)) for case, words in NONE)
