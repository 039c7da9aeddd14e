"""Recurrences: what is read off code, what is refused and how, identity and copies."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.loops import layers
from tests.loops.layers import LAYERS, MATRIX, TOKEN, TWO, WITH_VECTOR
from ttt_proofs import Recurrence, check, reduce
from ttt_proofs.loops import Coefficient, layer_norm, outer, rms_norm

ROOT = Path(__file__).resolve().parents[2]


def read(step, states=MATRIX, **coefficients):
    return Recurrence(step, states, coefficients)


def cut(S, q, k, v):
    return S + outer(k, v)[0], q @ S


def decides(S, q, k, v):
    return (S if k.sum() > 0 else -S), q @ S


def in_place(S, q, k, v):
    S += outer(k, v)
    return S, q @ S


def confused(S, q, k, v):
    return S * k + outer(k, v), q @ S


def mixed(S, q, k, v):
    return S + outer(k, v) + outer(v, k), q @ S


def wide(S, q, k, v):
    return k @ S, q @ S


def keyed(S, q, k, v):
    return S + outer(k, v), k


def sized(S, q, k, v):
    return S / S.shape[0], q @ S


def captured(S, q, k, v):
    return S * torch.ones(1) + outer(k, v), q @ S


def unknown(S, q, k, v):
    return torch.linalg.inv(S), q @ S


def reshaped(S, q, k, v):
    return S.reshape(-1), q @ S


def one(S, q, k, v):
    return S + outer(k, v)


def plain(S, q, k, v):
    return 1.0, q @ S


def divided(S, q, k, v):
    return S / 0, q @ S


def renamed(S, q, k, v, gate):
    return gate * S + outer(k, v), q @ S


def indexed(S, q, k, v):
    return S + k[:, None, None] * v, q @ S


def fixed(S, q, k, v):
    return 0.1e-300 * S, q @ S


def normed(S, q, k, v):
    return S + outer(torch.nn.functional.layer_norm(k, (4,)), v), q @ S


REFUSED = {
    normed: "must leave each width open; got `layer_norm` of a number of entries",
    cut: "must keep each width whole; got `[0]`",
    decides: "must decide nothing by its data; got `>`",
    in_place: "must change nothing in place; got `+=`",
    confused: "must have equal widths on both sides of `*`; got V and K",
    mixed: "must have equal widths on both sides of `+`; got K and V",
    wide: "must return `S` as [K, V]; got [V]",
    keyed: "must return the output as [V]; got [K]",
    sized: "must not depend on sizes, which are unknown when it is read; got `shape`",
    captured: "must get every tensor as an argument; got a tensor of its own",
    unknown: "must be made of known operations; got `linalg_inv`",
    reshaped: "must be made of known operations; got `reshape`",
    plain: "must return a tensor for `S`; got a float",
    divided: "must divide by other numbers than 0; got `/ 0`",
    indexed: "must return `S` as [K, V]",
    fixed: "must have constants that are fractions of integers below 2**53",
}


@pytest.mark.parametrize("step", REFUSED, ids=lambda step: step.__name__)
def test_what_is_no_step_is_refused_in_a_sentence_with_its_line(step):
    with pytest.raises(ValueError) as error:
        read(step)
    told, first = str(error.value), step.__code__.co_firstlineno
    assert REFUSED[step] in told
    assert re.fullmatch(r"`step` must [^\n]+; got [^\n]+\. [A-Z][^\n]*\.", told)
    assert any(f"in line {n} of test_recurrence.py" in told for n in range(first, first + 4))


DECLARED = {
    "returns one": (lambda: read(one), "must return S, the output; got 1"),
    "argument": (lambda: read(renamed), "got `gate` in `renamed` in line "),
    "missing": (
        lambda: read(layers.additive, alpha=TOKEN),
        "`alpha` is none in `additive` in line ",
    ),
    "step": (lambda: read(layers.decayed, alpha=Coefficient("step")), "one for each token or for"),
    "mean": (lambda: read(layers.decayed, alpha=Coefficient("token", mean=True)), "one for each"),
    "shape": (
        lambda: read(layers.vector, {"n": ("V",)}, alpha=Coefficient("token", "row")),
        "must be of matrix states of the same axes; got `alpha` where they are none",
    ),
    "two shapes": (
        lambda: read(layers.crossed, {"A": ("K", "V"), "B": ("V", "K")}, alpha=TOKEN),
        "equal widths",
    ),
    "axes": (lambda: read(layers.additive, {"S": ("N", "V")}), "of the widths 'K' and 'V'"),
    "none": (lambda: read(layers.additive, {}), "must name at least one state"),
    "taken": (lambda: read(layers.additive, {"q": ("K",)}), "a name of its own"),
    "tail": (lambda: read(layers.additive, {**MATRIX, "S_0": ("K",)}), "a name of its own"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_declarations_that_do_not_fit_are_refused(name):
    make, told = DECLARED[name]
    with pytest.raises(ValueError, match=re.escape(told)):
        make()


def test_what_is_not_callable_or_no_coefficient_is_a_type_error():
    with pytest.raises(TypeError, match="must be a Python function"):
        read(3)
    with pytest.raises(TypeError, match="must be a Coefficient"):
        read(layers.decayed, alpha=0.5)


def test_equal_steps_are_equal_whatever_they_are_called():
    def again(S, v, k, q):
        S = torch.outer(k, v) + 0 * S + S - 0 * S
        return S, torch.einsum("a,ab->b", q, S)

    def same(S, q, k, v):
        written = torch.outer(k, v)
        return S + written, torch.einsum("xy,x->y", S + written, q)

    layer = LAYERS["additive"][0]
    assert read(lambda S, q, k, v: (S + outer(k, v), q @ (S + outer(k, v)))) == layer
    assert hash(read(layers.additive)) == hash(layer)
    assert read(again) != layer and read(same) != layer  # other orders are other programs
    assert read(layers.decayed, alpha=TOKEN) != read(layers.decayed, alpha=Coefficient())


@pytest.mark.parametrize("name", LAYERS)
def test_copies_are_equal_and_keep_their_function(name):
    layer = LAYERS[name][0]
    for made in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert made == layer and made.function is layer.function


def test_a_copy_that_cannot_import_its_function_has_what_was_read_off_it():
    layer = read(lambda S, q, k, v: (S + outer(k, v), q @ S))
    made = pickle.loads(pickle.dumps(layer))
    assert made == layer and made.function is None
    assert made.traced == layer.traced


def test_arguments_are_given_by_name_whatever_stands_between_them():
    def after(S, q, k, v, alpha, scale=2.0):
        return alpha * S + outer(k, v), scale * (q @ S)

    def between(S, scale=2.0, q=None, k=None, v=None, alpha=1.0):
        return after(S, q, k, v, alpha, scale)

    def by_place(S, scale=2.0, q=None, /, k=None, v=None, alpha=1.0):
        return after(S, q, k, v, alpha, scale)

    expected = read(after, alpha=TOKEN)
    assert read(between, alpha=TOKEN) == read(by_place, alpha=TOKEN) == expected
    S, q, k, v = torch.ones(2, 3), torch.ones(2), torch.ones(2), torch.ones(3)
    for step in (after, between, by_place):
        given = {"S": S}, {"q": q, "k": k, "v": v}, {"alpha": torch.tensor(0.5)}
        states, output = read(step, alpha=TOKEN).called(*given)
        assert torch.equal(states["S"], torch.full((2, 3), 1.5))
        assert torch.equal(output, torch.full((3,), 4.0))


def test_norms_of_any_width_are_operations_of_steps():
    def normal(S, q, k, v):
        return S + outer(layer_norm(k), rms_norm(v)), q @ S

    def written(q, k, v):
        norm, square = torch.nn.functional.layer_norm, torch.nn.functional.rms_norm
        k, v = norm(k, k.shape[-1:]), square(v, v.shape[-1:])
        held = torch.einsum("bthk,bthv->bthkv", k, v).cumsum(1)
        before = torch.cat([torch.zeros_like(held[:, :1]), held[:, :-1]], 1)
        return torch.einsum("bthk,bthkv->bthv", q, before)

    assert check(written, read(normal)).kind == "exact"
    assert reduce(read(normal)).parallel == "additive"


def test_states_come_in_an_order_of_computation():
    layer = LAYERS["momentum"][0]
    assert [name for name, _ in layer.traced.states] == ["M", "S"]
    assert list(layer.states) == ["S", "M"] == list(TWO)
    assert [name for name, _ in LAYERS["through"][0].traced.states] == ["n", "S"]
    assert list(WITH_VECTOR) == ["S", "n"]


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = sys.modules["flint"] = None
from ttt_proofs.loops import Coefficient, Recurrence, outer
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.symbolic.step_forms import claim, prove_claim, step_form
from ttt_proofs.symbolic.step_plan import step_plan
def step(S, q, k, v, *, a):
    S = a * S + outer(k, v)
    return S, q @ S
layer = Recurrence(step, {"S": ("K", "V")}, {"a": Coefficient("token", "row")})
form = step_form(layer)
print(len(Theorem(prove_claim(form, claim(form))).proof.steps), step_plan(layer).plan.word)
"""


def test_a_recurrence_is_read_and_proved_without_torch():
    command = [sys.executable, "-c", WITHOUT_TORCH]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "12 gated\n"), run.stderr
