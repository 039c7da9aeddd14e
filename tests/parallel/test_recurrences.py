"""Recurrences on tensors: both runs are the layer's own function, token by token."""

import math

import pytest
import torch

from tests.loops.layers import LAYERS, MATRIX
from ttt_proofs import NotParallelError, Recurrence, reduce
from ttt_proofs.loops import outer
from ttt_proofs.parallel.maps import scanned
from ttt_proofs.parallel.recurrences import parallel_form, recurrent
from ttt_proofs.reference import run_recurrence

SIZES = {"plain": (2, 13, 3, 4, 5), "narrow": (1, 7, 1, 1, 3), "square": (2, 5, 2, 3, 3)}
PARALLEL = [name for name, (_, word) in LAYERS.items() if word != "sequential"]
ALONE = [name for name in LAYERS if name not in PARALLEL]


def drawn(layer, sizes, seed=0, dtype=torch.float64):
    """Tokens, coefficients and a state to start from."""
    make = torch.Generator().manual_seed(seed)
    batch, tokens, heads, key, value = sizes
    wide = {"K": key, "V": value}

    def rand(*shape):
        return torch.rand(shape, generator=make, dtype=torch.float64).to(dtype)

    q, k, v = (rand(batch, tokens, heads, n) - 0.3 for n in (key, key, value))
    numbers = {}
    for name, kind in layer.coefficients.items():
        own = [wide[axis] for axis in layer.axes(name) if axis != "1"]
        first = [batch, tokens, heads] if kind.every == "token" else [heads] if own else []
        numbers[name] = rand(*first, *own) if first else rand(1).item()
    start = {n: rand(batch, heads, *(wide[a] for a in axes)) for n, axes in layer.states.items()}
    return q, k, v, numbers, start


def close(one, other, bound=1e-12):
    (o, states), (p, others) = one, other
    assert o.shape == p.shape and set(states) == set(others)
    for a, b in [(o, p), *((states[n], others[n]) for n in states)]:
        assert torch.allclose(a.double(), b.double(), rtol=bound, atol=bound), (a - b).abs().max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_token_after_token_is_the_function_itself(name, size):
    layer = LAYERS[name][0]
    q, k, v, numbers, start = drawn(layer, SIZES[size])
    for first in (None, start):
        given = {"coefficients": numbers, "initial_state": first}
        close(recurrent(layer, q, k, v, **given), run_recurrence(layer, q, k, v, **given))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PARALLEL)
def test_scans_are_the_function_itself(name, size):
    layer = LAYERS[name][0]
    q, k, v, numbers, start = drawn(layer, SIZES[size])
    given = {"coefficients": numbers, "initial_state": start}
    expected = run_recurrence(layer, q, k, v, **given)
    for way in ({}, {"tile": 1}, {"tile": 4}, {"tile": 3, "along": scanned}):
        close(parallel_form(layer, q, k, v, **given, **way), expected)


@pytest.mark.parametrize("name", ALONE)
def test_what_has_no_scan_is_refused_with_the_cause(name):
    layer = LAYERS[name][0]
    q, k, v, numbers, _ = drawn(layer, SIZES["plain"])
    with pytest.raises(NotParallelError, match=r"runs token by token\. Use `recurrent`"):
        parallel_form(layer, q, k, v, coefficients=numbers)


@pytest.mark.parametrize("name", ["row gate", "normalised", "momentum"])
def test_a_reduction_runs_both_ways(name):
    layer = LAYERS[name][0]
    q, k, v, numbers, _ = drawn(layer, SIZES["plain"])
    reduction = reduce(layer)
    one = reduction.recurrent(q, k, v, coefficients=numbers)
    close(one, reduction.parallel_form(q, k, v, coefficients=numbers))


@pytest.mark.parametrize("name", LAYERS)
def test_a_sequence_goes_on_from_its_state(name):
    layer, (q, k, v, numbers, start) = LAYERS[name][0], drawn(LAYERS[name][0], SIZES["plain"])
    runs = [recurrent, *([parallel_form] if name in PARALLEL else [])]
    for run in runs:
        whole = run(layer, q, k, v, coefficients=numbers, initial_state=start)
        outputs, state = [], start
        for part in (slice(0, 5), slice(5, 5), slice(5, 13)):
            per_token = {
                n: x[:, part] if layer.coefficients[n].every == "token" else x
                for n, x in numbers.items()
            }
            tokens = (x[:, part] for x in (q, k, v))
            o, state = run(layer, *tokens, coefficients=per_token, initial_state=state)
            outputs.append(o)
        close((torch.cat(outputs, 1), state), whole)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_function_itself(name):
    layer = LAYERS[name][0]
    q, k, v, numbers, start = drawn(layer, (1, 6, 2, 3, 2))
    tensors = [q, k, v, *start.values()]
    tensors += [x for x in numbers.values() if isinstance(x, torch.Tensor)]
    for x in tensors:
        x.requires_grad_()

    def slopes(run):
        o, state = run(layer, q, k, v, coefficients=numbers, initial_state=start)
        total = (o * torch.arange(o.numel()).view_as(o)).sum()
        total = total + sum(x.sin().sum() for x in state.values())
        return torch.autograd.grad(total, tensors, materialize_grads=True)

    expected = slopes(run_recurrence)
    for run in (recurrent, *([parallel_form] if name in PARALLEL else [])):
        for a, b in zip(slopes(run), expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_float32_for_shorter_tokens(dtype):
    layer = LAYERS["row gate"][0]
    q, k, v, numbers, _ = drawn(layer, SIZES["plain"], dtype=dtype)
    for run in (recurrent, parallel_form):
        o, state = run(layer, q, k, v, coefficients=numbers)
        assert o.dtype == dtype and state["S"].dtype == torch.float32
        close((o, state), run_recurrence(layer, q, k, v, coefficients=numbers), 1e-2)


@pytest.mark.parametrize("sizes", [(0, 4, 2, 3, 2), (2, 0, 2, 3, 2)], ids=["batch", "tokens"])
def test_nothing_gives_nothing(sizes):
    layer = LAYERS["momentum"][0]
    q, k, v, numbers, start = drawn(layer, sizes)
    given = {"coefficients": numbers, "initial_state": start}
    expected = run_recurrence(layer, q, k, v, **given)
    for run in (recurrent, parallel_form):
        close(run(layer, q, k, v, **given), expected)


def test_linear_attention_by_hand():
    layer = LAYERS["row gate"][0]
    q, k, v, numbers, start = drawn(layer, (1, 9, 1, 3, 2))
    a, s = numbers["alpha"][0, :, 0], start["S"][0, 0]
    for t in range(9):
        total = a[: t + 1].prod(0)[:, None] * s
        for i in range(t + 1):
            total = total + a[i + 1 : t + 1].prod(0)[:, None] * torch.outer(k[0, i, 0], v[0, i, 0])
        got, _ = parallel_form(layer, q, k, v, coefficients=numbers, initial_state=start)
        assert torch.allclose(got[0, t, 0], q[0, t, 0] @ total)


def test_zeros_as_factors_are_as_good_as_others():
    layer = LAYERS["momentum"][0]
    q, k, v, numbers, start = drawn(layer, SIZES["plain"])
    numbers = {n: x * (x > 0.6) for n, x in numbers.items()}
    given = {"coefficients": numbers, "initial_state": start}
    close(parallel_form(layer, q, k, v, **given), run_recurrence(layer, q, k, v, **given))


def wrong(layer, q, k, v, numbers, start):
    """By name, inputs that are refused, and words of the message."""
    given = {"q": q, "k": k, "v": v, "coefficients": numbers, "initial_state": start}
    alpha = numbers["alpha"]
    return {
        "rank": (given | {"q": q[0]}, "must be \\[batch, time, heads, width\\]"),
        "keys": (given | {"k": k[..., :2]}, "`q` and `k` must have one shape"),
        "values": (given | {"v": v[:, :3]}, "`v` must have k's batch, time and heads"),
        "NaN": (given | {"q": q * math.nan}, "`q` must be finite"),
        "dtype": (given | {"v": v.float()}, "must be torch.float64"),
        "names": (given | {"coefficients": {}}, "`coefficients` must have alpha; got none"),
        "other": (given | {"coefficients": {"beta": alpha}}, "`coefficients` must have alpha"),
        "shape": (given | {"coefficients": {"alpha": alpha[..., 0]}}, "must be a tensor"),
        "start": (given | {"initial_state": {}}, "`initial_state` must have S; got none"),
        "sizes": (given | {"initial_state": {"S": start["S"].mT}}, "must be \\(2, 3, 4, 5\\)"),
    }


@pytest.mark.parametrize(
    "name",
    ["rank", "keys", "values", "NaN", "dtype", "names", "other", "shape", "start", "sizes"],
)
def test_wrong_inputs_are_refused_in_a_sentence(name):
    layer = LAYERS["row gate"][0]
    given, told = wrong(layer, *drawn(layer, SIZES["plain"]))[name]
    for run in (recurrent, parallel_form):
        with pytest.raises((ValueError, TypeError), match=told) as error:
            run(layer, **given)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="`tile` must be a positive number"):
        parallel_form(layer, *drawn(layer, SIZES["plain"])[:3], tile=0)


def test_a_number_for_each_key_stays_apart_from_one_for_each_value():
    layer = Recurrence(
        lambda S, q, k, v: (S * torch.sigmoid(v) + outer(k, v), (q[:, None] * S).sum(0)), MATRIX
    )
    q, k, v, _, start = drawn(layer, SIZES["square"])
    expected = run_recurrence(layer, q, k, v, initial_state=start)
    for run in (recurrent, parallel_form):
        close(run(layer, q, k, v, initial_state=start), expected)
