"""Loops on the kernels against the real loop, in float64; what has no kernel; planted faults."""

import importlib.util
import random
import sys
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.conftest import quick_interpreter  # noqa: F401  Triton without a GPU

pytest.importorskip("triton")

from tests.kernels.whole_loops import called, halves, inputs_of, wrong
from tests.loops.random_loops import random_loop
from tests.test_dispatch import ERROR, LOOPS, NONE, OWN, SILU, loop, step
from ttt_proofs import kernel_form as real
from ttt_proofs.dispatch import kernel_plan, obstacle, operator_for
from ttt_proofs.evidence.conditioning import relative_error, relative_errors
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.loops import InnerLoop
from ttt_proofs.parallel import forms

CASES = [(operator, case) for operator, cases in LOOPS.items() for case in cases]


@pytest.mark.parametrize(("operator", "case"), CASES, ids=str)
def test_a_loop_on_its_kernel_is_the_loop(operator, case):
    assert operator_for(kernel_plan(case)) == operator and obstacle(case) is None
    assert wrong(called(real.kernel_form, case), case) == {}


@pytest.mark.parametrize("widths", [{"D_h": 129}, {"D_k": 129}, {"D_k": 129, "D_h": 130}])
def test_swiglu_wider_than_its_kernel_makes_features_first(widths):
    assert wrong(called(real.kernel_form, loop(SILU)), loop(SILU), **widths, T=2, B=1) == {}


def test_random_loops():
    """Those that have a kernel among loops drawn anew."""
    draw = random.Random(0)
    drawn = (random_loop(draw) for _ in range(2000))
    found = list(islice((x for x in drawn if obstacle(x) is None), 8))
    assert len(found) == 8 and len({operator_for(kernel_plan(x)) for x in found}) > 1
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


@pytest.mark.parametrize(("operator", "case"), OWN, ids=str)
def test_a_rule_of_ones_own_on_its_kernel(operator, case):
    assert operator_for(kernel_plan(case)) == operator
    x = random_inputs(case, 0, sizes={"B": 2, "H": 2, "T": 7, "D_k": 3, "D_v": 2})
    given = vars(x).values()
    (o, final), (p, state) = (form(case, *given) for form in (real.kernel_form, forms.recurrent))
    assert relative_error(o, p) <= 1e-12
    assert max(relative_errors(dict(final), dict(state)).values()) <= 1e-12


@pytest.mark.parametrize(("case", "words"), NONE, ids=str)
def test_what_has_no_kernel_is_told_why(case, words):
    assert words in str(obstacle(case))
    x = inputs_of(case, T=4)
    with pytest.raises(ValueError, match=f"this loop has none: .*{words}.* Use the parallel") as e:
        real.kernel_form(case, x.q, x.k, x.v, x.weights, x.coefficients)
    assert str(e.value).count(". ") == 1 and "\n" not in str(e.value)


def copied(folder: Path, old: str, new: str) -> Any:
    """The module `kernel_form`, in a file of its own, with one text replaced."""
    text = Path(str(real.__file__)).read_text("utf-8")
    assert text.count(old) == 1, (text.count(old), old)
    path = folder / "planted_kernel_form.py"
    path.write_text(text.replace(old, new), "utf-8")
    spec = importlib.util.spec_from_file_location("ttt_proofs.planted_kernel_form", path)
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
    (
        "swiglu_features(x, *(weights[name] for name in names))",
        "swiglu_features(x, *(weights[name] for name in names[::-1]))",
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


def test_copy_without_a_fault_passes(tmp_path):
    planted = copied(tmp_path, "-values / slope", "-values / slope")
    assert wrong(called(planted.kernel_form, LOOPS["delta"][3]), LOOPS["delta"][3]) == {}
