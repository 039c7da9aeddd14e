"""`check` sees faults of long inputs, large values, extreme coefficients and kept states."""

import pytest
import torch
from torch import nn

from tests.evidence.test_check import LINEAR, attention, run_as
from tests.evidence.updates import UPDATES, loop_of, own
from ttt_proofs import check
from ttt_proofs.loops import (
    Coefficient,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
)

DELTA = InnerLoop(Linear(), SquaredError(), GradientStep("per_token", "inside"), Schedule(4))
MUON = GradientStep("per_step", orthogonal="muon")
STEPS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def muon(G):
    """Muon, multiplied from the right whatever the shape."""
    X = G / (torch.linalg.matrix_norm(G, keepdim=True) + 1e-7)
    for a, b, c in STEPS:
        A = X.mT @ X
        X = a * X + X @ (b * A + c * A @ A)
    return X


def reshaping(*, tall):
    """Muon that takes a reshaped matrix for its transpose."""

    def faulty(G):
        rows, cols = G.shape[-2:]
        if rows == cols or (rows > cols) is not tall:
            return muon(G)
        return muon(G.reshape(*G.shape[:-2], cols, rows)).reshape(G.shape)

    return faulty


def by_hand(loop, operator):
    """A linear loop with Muon."""
    before, chunk = loop.schedule.read == "before_update", loop.schedule.chunk

    def mine(q, k, v, weights, coefficients):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        W, outputs = weights["W"].expand(len(q), *weights["W"].shape), []
        for n, start in enumerate(range(0, q.shape[2], chunk)):
            here = slice(start, start + chunk)
            new = W + coefficients["eta"][:, n, :, None, None] * operator(
                k[:, :, here].mT @ v[:, :, here]
            )
            outputs.append(q[:, :, here] @ (W if before else new))
            W = new
        return torch.cat(outputs, 2).transpose(1, 2)

    return mine


@pytest.mark.parametrize("read", ["before_update", "after_update"])
@pytest.mark.parametrize("chunk", [4, 16])
def test_a_reshape_in_place_of_a_transpose_is_seen(read, chunk):
    loop = InnerLoop(Linear(), Frobenius(), MUON, Schedule(chunk, read))
    for seed in range(4):
        assert check(by_hand(loop, muon), loop, seed=seed)
        for tall in (False, True):
            assert check(by_hand(loop, reshaping(tall=tall)), loop, seed=seed).kind == "wrong"


def normalised(chunk):
    """Muon with a momentum, and a weight of constant norm, by hand."""

    def mine(q, k, v, weights, coefficients):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        W = first = weights["W"].expand(len(q), *weights["W"].shape)
        M, outputs = torch.zeros_like(W), []
        for start in range(0, q.shape[2], chunk):
            here = slice(start, start + chunk)
            outputs.append(q[:, :, here] @ W)
            M = coefficients["alpha"] * M - k[:, :, here].mT @ (k[:, :, here] @ W - v[:, :, here])
            W = W + muon(M)
            W = W * first.norm(dim=-2, keepdim=True) / (W.norm(dim=-2, keepdim=True) + 1e-5)
        return torch.cat(outputs, 2).transpose(1, 2)

    return mine


@pytest.mark.parametrize(("chunk", "seeds"), [(8, [763, *range(10)]), (1, [32, 37, 39, *range(8)])])
def test_right_code_is_never_wrong_where_rounding_is_enlarged(chunk, seeds):
    step = GradientStep(None, momentum="constant", orthogonal="muon", weight_norm="initial_norm")
    loop = InnerLoop(Linear(), SquaredError(), step, Schedule(chunk, "before_update"))
    kinds = [check(normalised(chunk), loop, seed=seed).kind for seed in seeds]
    assert "wrong" not in kinds and kinds.count("exact") > len(kinds) // 2


class Streaming(nn.Module):
    """A state that is allocated by its shape, and never reset."""

    def __init__(self):
        super().__init__()
        self.state = None

    def forward(self, q, k, v, weights, coefficients):
        start = weights["W"].expand(len(q), *weights["W"].shape)
        if self.state is None or self.state.shape != start.shape:
            self.state = start.clone()
        made = attention(q, k, v, {"W": 0 * weights["W"]}, coefficients)
        made = made + torch.einsum("bthk,bhkv->bthv", q, self.state)
        kept = torch.einsum("bthk,bthv->bhkv", k, v)
        self.state = self.state + coefficients["eta"] * kept
        return made


class Cached(nn.Module):
    """The rate, kept for each length."""

    def __init__(self):
        super().__init__()
        self.rates = {}

    def forward(self, q, k, v, weights, coefficients):
        rates = {"eta": self.rates.setdefault(q.shape, coefficients["eta"])}
        return attention(q, k, v, weights, rates)


@pytest.mark.parametrize("module", [Streaming, Cached])
def test_what_one_call_leaves_to_the_next_of_its_shape_is_seen(module):
    assert all(check(module(), LINEAR, seed=seed).kind == "wrong" for seed in range(5))


def ball(x):
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1)


NARROW = {
    "keys of the unit ball": lambda q, k, v: (q, ball(k), v),
    "queries of the unit ball": lambda q, k, v: (ball(q), k, v),
    "all within 1": lambda q, k, v: tuple(x.clamp(-1, 1) for x in (q, k, v)),
    "values within 2": lambda q, k, v: (q, k, v.clamp(-2, 2)),
}


@pytest.mark.parametrize("loop", [LINEAR, DELTA], ids=str)
@pytest.mark.parametrize("name", NARROW)
def test_code_that_holds_tokens_within_bounds_is_seen(loop, name):
    def mine(q, k, v, weights, coefficients):
        return run_as(loop, *NARROW[name](q, k, v), weights=weights, coefficients=coefficients)[0]

    assert all(check(mine, loop, seed=seed).kind == "wrong" for seed in range(5))


@pytest.mark.parametrize("loop", [LINEAR, DELTA], ids=str)
def test_outputs_within_ten_are_seen(loop):
    def mine(q, k, v, weights, coefficients):
        return run_as(loop, q, k, v, weights, coefficients)[0].clamp(-10, 10)

    assert all(check(mine, loop, seed=seed).kind == "wrong" for seed in range(5))


GATED = loop_of(UPDATES["gated"], Frobenius(), chunk=1)


@pytest.mark.parametrize(("low", "high"), [(1e-9, 2.0), (-1.0, 1 - 1e-9)])
def test_decays_that_are_held_off_an_end_are_seen(low, high):
    def mine(q, k, v, weights, coefficients):
        held = {"alpha": coefficients["alpha"].clamp(low, high)}
        return run_as(GATED, q, k, v, weights, held)[0]

    assert all(check(mine, GATED, seed=seed).kind == "wrong" for seed in range(5))


def test_coefficients_of_either_sign_are_drawn():
    ranges = {"a": (-1.0, 1.0), "e": (None, None)}
    declared = {name: Coefficient("step", range=pair) for name, pair in ranges.items()}
    signed = own(lambda W, g, *, a, e: a * W - e * g, declared)
    loop = loop_of(signed, Frobenius(), chunk=1)
    for name in "ae":

        def mine(q, k, v, weights, coefficients, name=name):
            held = coefficients | {name: coefficients[name].clamp_min(0)}
            return run_as(loop, q, k, v, weights, held)[0]

        assert all(check(mine, loop, seed=seed).kind == "wrong" for seed in range(5))


@pytest.mark.parametrize("tile", [16, 64])
def test_a_state_that_keeps_only_the_last_tile_is_seen(tile):
    def mine(q, k, v, weights, coefficients):
        state, outputs = 0, []
        for start in range(0, q.shape[1], tile):
            Q, K, V = (x[:, start : start + tile] for x in (q, k, v))
            made = attention(Q, K, V, weights, coefficients)
            outputs.append(made + torch.einsum("bthk,bhkv->bthv", Q, state) if start else made)
            state = coefficients["eta"] * torch.einsum("bthk,bthv->bhkv", K, V)
        return torch.cat(outputs, 1)

    assert all(check(mine, LINEAR, seed=seed).kind == "wrong" for seed in range(4))


@pytest.mark.parametrize("name", ["gated", "decay", "forgetting"])
def test_a_window_of_50_tokens_is_seen(name):
    """What decays is drawn so that after 50 tokens something is left."""
    loop = loop_of(UPDATES[name], Frobenius(), chunk=1)

    def mine(q, k, v, weights, coefficients):
        made = run_as(loop, q, k, v, weights, coefficients)[0]
        old = v.clone()
        if q.shape[1] <= 50:
            return made
        old[:, q.shape[1] - 50 :] = 0  # what the last token must have forgotten
        zero = {n: 0 * w for n, w in weights.items()}
        made = made.clone()
        made[:, -1] -= run_as(loop, q, k, old, zero, coefficients)[0][:, -1]
        return made

    assert all(check(mine, loop, seed=seed).kind == "wrong" for seed in range(5))
