"""Which operator runs a loop: on a grid of plans, of loops, and with planted faults."""

import importlib.util
import sys
from dataclasses import replace
from inspect import getfullargspec
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from ttt_proofs import dispatch as real
from ttt_proofs.dispatch import KernelPlan, Refusal, kernel_plan, operator_for
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
from ttt_proofs.symbolic.plan import Plan


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


def idle(W, g, M, *, alpha):
    """A buffer that the weight does not read."""
    return W - g, alpha * M + g


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


ADDS = "kernels add a gradient, or one momentum buffer, to a weight that does not decay"
NONE += [
    *(
        (ruled(rule), ADDS)
        for rule in (decayed, half_decayed, nesterov, twice, remembers, grows, idle)
    ),
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


SIZES = [None, {"D_h": 256, "D_v": 300}, {"D_h": 257, "D_v": 3}]
TYPES = [None, torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int32]
DEVICES = [None, "cuda", "cpu", "mps"]
PLANS = [
    KernelPlan(Plan(word, "", shape), *parts, "D_h")
    for word, shape, *parts in product(
        *(("additive", "affine"), ("scalar", "row"), (None, "tiles", "states")),
        *((False, True), (False, True), range(3), (False, True)),
        *((None, "gradient", "momentum"), (None, ("W0", "W2"))),
    )
]


def wanted(plan: KernelPlan, sizes: Any, dtype: Any, device: Any) -> set[str]:
    """The operators that can run the plan at these sizes, one by one, by what each computes."""
    if plan.way is None or plan.windowed or dtype is torch.int32 or device == "mps":
        return set()
    kept = (plan.written, plan.buffers, plan.plan.word == "affine")
    whole = plan.plan.shape == "scalar"
    runs = {
        "additive": kept == ("gradient", 0, False),
        "momentum": kept == ("momentum", 1, False),
        "delta": kept == ("gradient", 0, True) and not plan.gated,
    }
    found = {name for name, can in runs.items() if can and plan.single and whole}
    if not found:
        return {"features"} if plan.swiglu else set()
    return found if sizes is None or sizes["D_h"] <= 256 else set()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_operator_of_every_plan(sizes, dtype, device):
    """A pure function: no such device is needed to ask, and no Triton."""
    assert len(PLANS) == 3 * 2**4 * 3 * 2 * 3 * 2
    for plan in PLANS:
        found = operator_for(plan, sizes, dtype, device)
        able = wanted(plan, sizes, dtype, device)
        assert (set() if isinstance(found, Refusal) else {found}) == able, plan


def test_every_operator_and_every_reason_is_met():
    found = {operator_for(*each) for each in product(PLANS, SIZES, TYPES, DEVICES)}
    assert found >= set(get_args(real.Operator))
    reasons = {x.reason for x in found if isinstance(x, Refusal)}
    words = (
        "scan",
        "convolution",
        "plain step",
        "whole matrices",
        "output gate",
        "momentum buffer",
    )
    words += ("do not take torch.int32", "do not run on mps", "of at most 256")
    assert len(reasons) == len(words)
    assert all(sum(word in reason for reason in reasons) >= 1 for word in words)
    assert all(reason and "." not in reason.replace("torch.int32", "") for reason in reasons)


CASES = [(operator, case) for operator, cases in LOOPS.items() for case in cases] + OWN


@pytest.mark.parametrize(("operator", "case"), CASES, ids=str)
def test_the_operator_of_a_loop(operator, case):
    assert operator_for(kernel_plan(case)) == operator


@pytest.mark.parametrize(("case", "words"), NONE, ids=str)
def test_a_loop_without_an_operator_is_told_why(case, words):
    found = operator_for(kernel_plan(case))
    assert isinstance(found, Refusal) and words in found.reason


def test_a_plan_says_which_weights_make_features():
    assert kernel_plan(loop(SILU)).swiglu == ("W0", "W2")
    assert kernel_plan(loop(SwiGLU("tanh"))).swiglu is None
    assert kernel_plan(loop(SILU)).width == "D_h" and kernel_plan(loop()).width == "D_k"
    turned = loop(lambda x, a, b, c: ((x @ a) * torch.nn.functional.silu(x @ b)) @ c)
    assert kernel_plan(turned).swiglu == ("b", "a")


def copied(folder: Path, old: str, new: str) -> Any:
    """The module `dispatch`, in a file of its own, with one text replaced."""
    text = Path(str(real.__file__)).read_text("utf-8")
    assert text.count(old) == 1, (text.count(old), old)
    path = folder / "planted_dispatch.py"
    path.write_text(text.replace(old, new), "utf-8")
    spec = importlib.util.spec_from_file_location("ttt_proofs.planted_dispatch", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


FAULTS = [
    ("if plan.way is None:", "if False:"),
    ("if plan.windowed:", "if False:"),
    ("and not code.buffers and not code.affine", "and not code.affine"),
    ("and not code.buffers and not code.affine", "and not code.buffers"),
    ('all(c.every == "loop" for c in numbers)', "True"),
    ("and schedule.steps == 1", ""),
    ('and all(x.kind == "state" for x in code.lines)', ""),
    ("(plan.buffers or plan.gated)", "plan.gated"),
    ("(plan.buffers or plan.gated)", "plan.buffers"),
    ("if not plan.single:", "if False:"),
    ('if plan.plan.shape != "scalar":', "if False:"),
    ('affine = plan.plan.word == "affine"', "affine = False"),
    ('== "gradient" and not plan.buffers', '== "gradient"'),
    ("sp.expand(line - W - line.coeff(source) * source) == 0", "True"),
    ("sp.expand(first - own * G - kept * buffers[0]) == 0", "True"),
    ('and gate.function(x) == ACTIVATIONS["silu"](x)', ""),
    ("return names[gate.expr], names[up]", "return names[up], names[gate.expr]"),
]


def suspected(module: Any) -> bool:
    """Whether a module says something else of the loops above."""

    def says(case: InnerLoop) -> str:
        try:
            return str(module.operator_for(module.kernel_plan(case)))
        except (IndexError, ValueError):
            return "broken"

    wrong = any(words not in says(case) for case, words in NONE)
    wrong |= any(says(case) != operator for operator, case in CASES)
    return wrong or module.kernel_plan(loop(SILU)).swiglu != ("W0", "W2")


@pytest.mark.parametrize(("old", "new"), FAULTS)
def test_planted_fault_is_seen(old, new, tmp_path):
    assert suspected(copied(tmp_path, old, new))


def test_copy_without_a_fault_passes(tmp_path):
    assert not suspected(copied(tmp_path, "if plan.windowed:", "if plan.windowed:"))
