"""The extension contract: what is not in the library, each in a file of its own, in every form.

Each file of `foreign/` has `LOOPS`: nets, losses and updates, or recurrences, as a stranger would
write them. All of them run as a recurrence and are checked; what the theory covers is proved, what
the plan allows runs in parallel, on a kernel, in pieces, in a layer and in shards
(`tests.parallel.shards`); what is refused says why.
"""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.kernels.conftest import quick_interpreter  # noqa: F401  Triton without a GPU
from ttt_proofs import NotCoveredError, NotParallelError, Recurrence, TTTLayer, check, reduce
from ttt_proofs.dispatch import kernel_plan, obstacle, operator_for
from ttt_proofs.evidence.autograd import autograd_witness
from ttt_proofs.evidence.recurrence_inputs import random_inputs as random_tokens
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.kernel_form import kernel_form
from ttt_proofs.parallel import forms
from ttt_proofs.parallel.streaming import Stream, feed
from ttt_proofs.reference import run_loop, run_recurrence
from ttt_proofs.symbolic.step_loop import runnable

pytestmark = pytest.mark.all_cases

FILES = sorted(path.stem for path in (Path(__file__).parent / "foreign").glob("*.py"))
LOOPS = {
    f"{file}.{name}": loop
    for file in FILES
    for name, loop in importlib.import_module(f"tests.contract.foreign.{file}").LOOPS.items()
}

# The word of each plan, the operator that runs it, and for what is not covered the cause.
EXPECTED = {
    "adagrad.gathered": ("sequential", None, "s becomes G\\*\\*2 . s, which is not linear"),
    "adagrad.stateless": ("sequential", None, "which is not linear"),
    "again.around": ("sequential", None, None),
    "again.residual": ("sequential", None, "`\\+` in line .* comes after `W`"),
    "again.tied": ("affine", "delta", None),
    "again.twice": ("sequential", None, None),
    "cubic.cubic": ("sequential", None, None),
    "cubic.quartic": ("sequential", None, None),
    "gated_attention.before": ("gated", None, None),
    "gated_attention.constant": ("gated", None, None),
    "gated_attention.row": ("gated", None, None),
    "gated_delta.columns": ("affine", None, None),
    "gated_delta.rows": ("affine", None, None),
    "gate.input": ("affine", None, None),
    "gate.scalar": ("affine", None, None),
    "gate.softmax": ("affine", None, None),
    "layer_norm.layer_norm": ("sequential", None, "`layer_norm` in line 10 of .* comes after"),
    "matrix_lstm.step": ("gated", None, None),
    "module.all": ("sequential", None, None),
    "module.last": ("affine", "delta", None),
    "nesterov.frobenius": ("gated", None, None),
    "nesterov.squared_error": ("affine", None, None),
    "squashed.crossed": ("sequential", None, None),
    "squashed.function": ("sequential", None, "`tanh` of a state in line"),
    "titans.by_chunk": ("affine", None, None),
    "titans.by_token": ("sequential", None, "gradients at the chunk's start"),
    "two_buffers.chunks": ("gated", None, None),
    "two_buffers.tokens": ("gated", None, None),
    "weight_decay.entry": ("gated", None, None),
    "weight_decay.row": ("gated", None, None),
    "weight_decay.scalar": ("gated", None, None),
}
RECURRENCES = [name for name, loop in LOOPS.items() if isinstance(loop, Recurrence)]
COVERED = [name for name, (_, _, cause) in EXPECTED.items() if cause is None]
PARALLEL = [
    name
    for name, (word, _, _) in EXPECTED.items()
    if word != "sequential" and name in [*COVERED, *RECURRENCES]
]
SIZES = {"B": 2, "T": 11, "H": 2}


def drawn(loop, seed, **sizes):
    """Random inputs of a loop or a recurrence, as the arguments of a form."""
    draw = random_tokens if isinstance(loop, Recurrence) else random_inputs
    return vars(draw(loop, seed, sizes=SIZES | sizes))


def oracle(loop, q, k, v, weights, coefficients):
    """The loop's own functions, by autograd, or a recurrence's own, token by token."""
    if isinstance(loop, Recurrence):
        return run_recurrence(loop, q, k, v, coefficients=coefficients)
    return run_loop(loop, q, k, v, weights=weights, coefficients=coefficients)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether they agree to float64's rounding."""
    return bool((found - expected).abs().max() <= 1e-12 * max(1.0, expected.abs().max().item()))


def test_every_file_is_asked():
    assert set(LOOPS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_proved_or_refused_with_the_cause(name):
    word, _, cause = EXPECTED[name]
    assert runnable(LOOPS[name]).plan.word == word
    if cause is None:
        reduction = reduce(LOOPS[name])
        assert reduction.parallel == word and reduction.theorem.statement
    else:
        with pytest.raises(NotCoveredError, match=cause):
            reduce(LOOPS[name])


@pytest.mark.parametrize("name", [name for name in COVERED if name not in RECURRENCES])
def test_forms_are_the_loop_that_autograd_runs(name):
    """Outputs, final weights, and gradients in every input and coefficient, at 1e-12."""
    seen = autograd_witness(reduce(LOOPS[name]), seed=0, trials=2)
    assert seen.agrees and seen.tolerance <= 1e-12, seen


@pytest.mark.parametrize("name", RECURRENCES)
def test_forms_of_a_recurrence_are_its_own_function(name):
    """The same of a recurrence."""
    loop, x = LOOPS[name], drawn(LOOPS[name], 3)
    given = {n: y for n, y in x.items() if n in "qkv"} | x["coefficients"]
    leaves = [y.requires_grad_() for y in given.values() if isinstance(y, torch.Tensor)]

    def slopes(run):
        o, state = run(loop, **x)
        total = o.square().sum() + sum(y.sin().sum() for y in state.values())
        return o, *state.values(), *torch.autograd.grad(total, leaves, materialize_grads=True)

    expected = slopes(oracle)
    for run in (forms.stepwise(loop), *([forms.parallel(loop)] if name in PARALLEL else [])):
        assert all(close(a, b) for a, b in zip(slopes(run), expected, strict=True))
    if name in COVERED and name in PARALLEL:
        made = slopes(lambda _, weights, **y: reduce(loop).parallel_form(**y))
        assert all(close(a, b) for a, b in zip(made, expected, strict=True))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_recurrence_runs_whatever_the_theory_lacks(name):
    loop = LOOPS[name]
    x = drawn(loop, 3)
    expected, weights = oracle(loop, **x)
    found, state = forms.stepwise(loop)(loop, **x)
    assert close(found, expected)
    assert all(close(state[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_has_no_parallel_form_says_so(name):
    if name in PARALLEL:
        return
    with pytest.raises(NotParallelError):
        TTTLayer(LOOPS[name], 8, heads=2, mode="parallel")
    if name in COVERED:
        with pytest.raises(NotParallelError):
            given = drawn(LOOPS[name], 3)
            if name in RECURRENCES:
                del given["weights"]
            reduce(LOOPS[name]).parallel_form(**given)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_kernel_runs_it_or_says_why_not(name):
    loop, wanted = LOOPS[name], EXPECTED[name][1]
    x, reason = drawn(loop, 5), obstacle(loop)
    assert wanted == (None if reason else operator_for(kernel_plan(loop)))
    if reason:
        assert len(reason.split()) > 3
        with pytest.raises(ValueError, match=re.escape(reason)):
            kernel_form(loop, **x)
        with pytest.raises(NotParallelError, match="required"):
            TTTLayer(loop, 8, heads=2, mode="kernel")
        return
    made, state = kernel_form(loop, **x)
    expected, weights = run_loop(loop, **x)
    assert close(made, expected) and all(close(state[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_stream_in_pieces_is_the_whole(name):
    loop = LOOPS[name]
    x = drawn(loop, 7, T=12)
    whole, _ = oracle(loop, **x)
    stream, outputs, chunk = Stream(), [], loop.schedule.chunk

    def run(q, k, v, *, weights, coefficients, initial_state):
        return forms.stepwise(loop)(loop, q, k, v, weights, coefficients, initial_state)

    for start in range(0, 12, 4 * chunk if 12 % (4 * chunk) == 0 else chunk):
        stop = min(start + (4 * chunk if 12 % (4 * chunk) == 0 else chunk), 12)
        numbers = {
            key: cut(value, loop.coefficients[key].every, start, stop, chunk)
            for key, value in x["coefficients"].items()
        }
        part = (x[each][:, start:stop] for each in "qkv")
        made, stream = feed(loop, run, stream, *part, weights=x["weights"], coefficients=numbers)
        outputs.append(made)
    assert close(torch.cat(outputs, dim=1), whole)


def cut(value, every, start, stop, chunk):
    """The part of a coefficient that goes with some tokens, whole chunks of them."""
    if every == "loop":
        return value
    ends = (start, stop) if every == "token" else (start // chunk, -(-stop // chunk))
    return value[:, slice(*ends)]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_layer_of_it_is_the_same_in_every_mode(name):
    torch.manual_seed(0)
    layer = TTTLayer(LOOPS[name], 8, heads=2, mode="recurrent").double()
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    expected = layer(x)
    expected.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    modes = ["recurrent", "auto", *(["parallel"] if name in PARALLEL else [])]
    for layer.mode in modes:
        assert close(layer(x), expected)
        size = 4 * LOOPS[name].schedule.chunk
        stream, parts = None, []
        for part in x.split(size if 12 % size == 0 else size // 4, dim=1):
            made, stream = layer.feed(part, stream)
            parts.append(made)
        assert close(torch.cat(parts, dim=1), expected)


@pytest.mark.parametrize("name", EXPECTED)
def test_check_tells_its_code_from_others(name):
    loop = LOOPS[name]

    def right(q, k, v, weights=None, coefficients=None):
        return oracle(loop, q, k, v, weights, coefficients)[0]

    def late(
        q, k, v, weights=None, coefficients=None
    ):  # reads each token with the weights of the last
        if q.shape[1] < 2:
            return right(q, k, v, weights, coefficients)
        out = right(q, k, v, weights, coefficients)
        return torch.cat([out[:, :1], out[:, :-1]], dim=1)

    assert check(right, loop).kind == "exact"
    assert check(late, loop).kind == "wrong"


def test_another_rule_is_another_loop():
    """Updates that differ in one place are not equal, and neither are what they compute."""
    decay = LOOPS["weight_decay.scalar"]
    plain = replace(
        decay, update=replace(decay.update, code=lambda W, g, *, keep, eta: W - eta * g)
    )
    assert plain != decay
    x = drawn(decay, 3)
    assert not close(run_loop(plain, **x)[0], run_loop(decay, **x)[0])


def test_a_layer_keeps_to_the_widths_that_code_holds():
    """A net that normalises over four columns takes no other number of them."""
    with pytest.raises(ValueError, match="width D_v must be 4"):
        TTTLayer(LOOPS["layer_norm.layer_norm"], 12, heads=2)
