"""Momentum attention against the float64 recurrence: values, states, gradients."""

import pytest
import torch

from tests.kernels.faults import faulty
from tests.kernels.oracles import DEVICE, Case, failures, run, with_gradients
from ttt_proofs import kernels
from ttt_proofs.kernels import linear_attention, momentum_attention

BF16, FP16, FP64 = torch.bfloat16, torch.float16, torch.float64

CASES = [
    Case("momentum", 1, 8, 8),
    Case("momentum", 2, 60, 8, BF16, initial=False, B=4),
    Case("momentum", 63, 8, 60, gates="mixed", exclusive=True, H=1),
    Case("momentum", 64, 1, 8, gates="zero"),
    Case("momentum", 65, 8, 1, gates="one", segments=2, exclusive=True),
    Case("momentum", 130, 8, 8, FP64, gates="mixed", segments=7),
    Case("momentum", 200, 8, 8, FP64, exclusive=True, segments=3, initial=False, H=1),
    Case("momentum", 65, 64, 8, FP16, gates="tiny", strided=True),
    Case("momentum", 130, 8, 64, BF16, segments=2, B=2, H=1),
    Case("momentum", 65, 128, 128, BF16, gates="mixed", H=1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_states_and_gradients(case):
    assert failures(kernels, case) == {}


FAULTS = [
    # the mask counts one step's momentum, not the sum of them
    ("gated", "        mask = tl.cumsum(mask, axis=AXIS)\n", ""),
    # reading does not see the accumulator that enters a tile
    (
        "gated",
        "weight = tl.sum(reach, axis=0)\n        reach = tl.cumsum(reach, axis=0)",
        "weight = tl.sum(reach, axis=0)\n        reach = 0.0 * reach",
    ),
    # W forgets the accumulator that enters a tile, or the tile's own writes
    ("gated", "scaled_rows(v, last), w + weight * m)", "scaled_rows(v, last), w)"),
    ("gated", "scaled_rows(v, last), w + weight * m)", "scaled_rows(v, after), w + weight * m)"),
    # the read of W is dropped
    ("gated", "read = dot(q, narrow(w, q.dtype), read)", "read = read + 0.0"),
    # gradients: of the accumulator through W, of what is written last, of the numbers
    (
        "gated_backward",
        "scaled_rows(z, reach), whole * m + weight * w)",
        "scaled_rows(z, reach), whole * m)",
    ),
    ("gated_backward", "r += last[:, None] * from_w", "r += 0.0 * from_w"),
    ("gated_numbers", "tl.cumsum(pairs, axis=0, reverse=True)", "tl.cumsum(pairs, axis=0)"),
    ("gated_numbers", "d_e = a * product *", "d_e = product *"),
    ("gated_numbers", "outer += last * w_start", "outer += 0.0 * w_start"),
    # segments: W takes in the accumulator at the wrong end, or not at all
    ("scan", "n = int(reverse)", "n = 0"),
    ("scan", "weight[:, s] * (w if reverse else m)", "0.0 * (w if reverse else m)"),
    # the first token of an exclusive reading
    ("gated_backward", "w = add_first(", "w = w + 0.0 * add_first("),
]


@pytest.mark.parametrize(("module", "old", "new"), FAULTS)
def test_planted_fault_is_seen(module, old, new, tmp_path):
    case = Case("momentum", 130, 8, 8, exclusive="add_first" in old, segments=2, H=1)
    with faulty(tmp_path, module, old, new) as planted:
        assert failures(planted, case)


def test_copy_without_a_fault_passes(tmp_path):
    with faulty(tmp_path, "scan", "n = int(reverse)", "n = int(reverse)") as planted:
        for exclusive in (False, True):
            case = Case("momentum", 130, 8, 8, exclusive=exclusive, segments=2, H=1)
            assert failures(planted, case) == {}


def test_two_tokens_by_hand():
    """The docstring's example: o = (1, 2.5), read before the update (0, 1)."""
    one = torch.ones(1, 2, 1, 1, device=DEVICE)
    alpha = torch.full((1, 2, 1), 0.5, device=DEVICE)
    for exclusive, expected in ((False, [1.0, 2.5]), (True, [0.0, 1.0])):
        o, last = momentum_attention(
            one, one, one, one[..., 0], alpha, exclusive=exclusive, output_final_state=True
        )
        assert o.flatten().tolist() == expected
        assert last is not None and [x.item() for x in last] == [2.5, 1.5]


def test_without_momentum_it_is_additive():
    """At alpha = 0 and eta = 1 each write moves W once."""
    case = Case("momentum", 70, 8, 8, gates="one", initial=False)
    x = {name: y.detach() for name, y in case.inputs().items()}
    o, _ = momentum_attention(x["q"], x["k"], x["v"], x["eta"], 0 * x["alpha"])
    expected, _ = linear_attention(x["q"], x["k"], x["v"])
    assert torch.allclose(o, expected, rtol=1e-5, atol=1e-5)


def test_long_sequence_with_gates_at_their_ends():
    case = Case("momentum", 256, 8, 8, H=1)
    x = case.inputs()
    ends = torch.where(torch.arange(256, device=DEVICE) % 2 == 0, 1e-30, 1.0)[None, :, None]
    x["alpha"] = ends.requires_grad_()
    got = with_gradients(lambda y: run(kernels, case, y), x)
    assert all(y.isfinite().all() for y in got.values())


@pytest.mark.parametrize("name", ["q", "k", "v", "eta", "alpha", "w", "m"])
def test_nan_reaches_the_outputs(name):
    case = Case("momentum", 70, 8, 8, H=1)
    x = {n: y.detach() for n, y in case.inputs().items()}
    x[name].view(-1)[-1] = float("nan")
    assert run(kernels, case, x)["o"][:, -1].isnan().any()


def test_nothing_to_do():
    q, gate = torch.randn(2, 0, 3, 4, device=DEVICE), torch.randn(2, 0, 3, device=DEVICE)
    pair = tuple(torch.randn(2, 3, 4, 4, device=DEVICE) for _ in range(2))
    o, last = momentum_attention(q, q, q, gate, gate, initial_state=pair, output_final_state=True)
    assert o.shape == q.shape
    assert last is not None and all(map(torch.equal, last, pair))
    o, last = momentum_attention(q, q, q, gate, gate, output_final_state=True)
    assert last is not None and not any(x.any() for x in last)
    assert momentum_attention(q, q, q, gate, gate)[1] is None


Q = torch.zeros(2, 5, 3, 4, device=DEVICE)
STATE = torch.zeros(2, 3, 4, 4, device=DEVICE)
WRONG = [
    ({"eta": 0.1}, TypeError, "`eta` must be a floating-point tensor; got float. Convert it."),
    ({"alpha": Q}, ValueError, r"`alpha` must be \[batch, time, heads\] = \(2, 5, 3\); got shape"),
    ({"initial_state": STATE}, TypeError, r"must be a pair of tensors \(W, M\); got Tensor. Pass"),
    ({"initial_state": (STATE, None)}, TypeError, r"must be a pair of tensors \(W, M\); got tuple"),
    (
        {"initial_state": (STATE, STATE[..., :3])},
        ValueError,
        r"`initial_state\[1\]` must be \[batch, heads, K, V\] = \(2, 3, 4, 4\); got shape",
    ),
    ({"segments": True}, ValueError, "`segments` must be a positive integer; got True. Leave it"),
]


@pytest.mark.parametrize(("change", "kind", "words"), WRONG)
def test_wrong_inputs_are_refused(change, kind, words):
    given = {"eta": Q[..., 0], "alpha": Q[..., 0]} | change
    with pytest.raises(kind, match=words) as raised:
        momentum_attention(Q, Q, Q, given.pop("eta"), given.pop("alpha"), **given)
    assert "\n" not in str(raised.value)
