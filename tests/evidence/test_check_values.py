"""`check` sees faults at zeros and at ends of constants, and what calls of one shape leave."""

import re

import pytest
import torch
from torch import nn

from tests.evidence.test_check import LINEAR, attention
from ttt_proofs import Recurrence, check
from ttt_proofs.loops import (
    MLP,
    Coefficient,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    SquaredError,
    Update,
    outer,
    zeros_like,
)

LOOP = Coefficient()


def with_momentum(W, g, M, *, eta, alpha):
    M = alpha * M - g
    return W + eta * M, M


def lingering(W, g, M, *, eta, alpha):
    M = (1 - alpha) * M - g
    return W + eta * M, M


def plain(W, g, *, eta):
    return W - eta * g


def made(rule, *, buffers=("M",), loss=None, **ranges):
    declared = {name: Coefficient(range=x) for name, x in ranges.items()}
    update = Update(rule, dict.fromkeys(buffers, zeros_like))
    return InnerLoop(Linear(), loss or Frobenius(), update, coefficients=declared)


UNIT, SIGNED = (0.0, 1.0), (-1.0, 1.0)
HEAVY = made(with_momentum, eta=UNIT, alpha=UNIT)


def by_hand(loop, change=None, kept=None, live=None):
    """The loop token by token; `change` of its numbers, buffers that are `kept`, `live` keys."""
    affine = isinstance(loop.loss, SquaredError)

    def mine(q, k, v, weights, coefficients):
        numbers = change(dict(coefficients)) if change else coefficients
        W = weights["W"].expand(len(q), *weights["W"].shape)
        buffers = [torch.zeros_like(W) for _ in loop.update.buffers]
        if kept and kept[0].shape == W.shape:
            buffers = list(kept)
        outputs = []
        for t in range(q.shape[1]):
            error = (torch.einsum("bhk,bhkv->bhv", k[:, t], W) if affine else 0) - v[:, t]
            g = torch.einsum("bhk,bhv->bhkv", k[:, t], error)
            extra = {"W_0": W} if isinstance(loop.update, GradientStep) else {}
            after = loop.update.function(W, g, *buffers, **numbers, **extra)
            after = after if isinstance(after, tuple) else (after,)
            if live:
                on = live(k[:, t])[..., None, None]
                after = [torch.where(on, x, y) for x, y in zip(after, (W, *buffers), strict=True)]
            W, *buffers = after
            if kept is not None:
                kept[:] = buffers
            outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], W))
        return torch.stack(outputs, 1)

    return mine


def all_wrong(candidate, loop):
    return all(check(candidate(), loop, seed=seed).kind == "wrong" for seed in range(4))


MOMENTA = {
    f"{type(loss).__name__} {place}": InnerLoop(
        Linear(), loss, GradientStep("constant", place, "constant")
    )
    for loss in (Frobenius(), SquaredError())
    for place in ("inside", "outside")
} | {"lingering": made(lingering, eta=UNIT, alpha=UNIT)}


@pytest.mark.parametrize("name", MOMENTA)
def test_a_buffer_that_is_left_to_the_next_call_of_its_shape_is_seen(name):
    assert check(by_hand(MOMENTA[name]), MOMENTA[name])
    assert all_wrong(lambda: by_hand(MOMENTA[name], kept=[]), MOMENTA[name])


def weight_decay(S, q, k, v, *, d):
    S = (1 - d) * S + outer(k, v)
    return S, q @ S


class Kept(nn.Module):
    """A recurrence whose state is reset when its shape changes."""

    def __init__(self, *, reset):
        super().__init__()
        self.reset, self.state = reset, torch.zeros(0)

    def forward(self, q, k, v, coefficients):
        shape = (len(q), q.shape[2], q.shape[3], v.shape[3])
        if self.reset or self.state.shape != shape:
            self.state = q.new_zeros(shape)
        outputs = []
        for t in range(q.shape[1]):
            added = torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
            self.state = (1 - coefficients["d"]) * self.state + added
            outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], self.state))
        return torch.stack(outputs, 1)


def test_a_state_of_a_recurrence_that_is_left_to_the_next_call_is_seen():
    layer = Recurrence(weight_decay, {"S": ("K", "V")}, {"d": LOOP})
    assert check(Kept(reset=True), layer)
    assert all_wrong(lambda: Kept(reset=False), layer)


def changed(name, function):
    return lambda numbers: numbers | {name: function(numbers[name])}


ENDS = {
    "0 taken for a missing momentum": (HEAVY, changed("alpha", lambda x: x or 0.9)),
    "0 taken for a missing rate": (HEAVY, changed("eta", lambda x: x or 0.1)),
    "held below 1": (HEAVY, changed("alpha", lambda x: min(x, 0.999))),
    "held above 0": (HEAVY, changed("alpha", lambda x: max(x, 1e-4))),
    **{
        f"{way} in {between}": (made(with_momentum, eta=UNIT, alpha=between), change)
        for between in (SIGNED, (-1.0, 0.5))
        for way, change in {
            "held below the end": changed("alpha", lambda x, h=between[1]: min(x, h - 1e-3)),
            "held above the end": changed("alpha", lambda x: max(x, -0.999)),
            "no 0": changed("alpha", lambda x: x or 0.5),
        }.items()
    },
    **{
        f"{way} in {between}": (made(plain, buffers=(), eta=between), changed("eta", change))
        for between in (SIGNED, (None, None))
        for way, change in {
            "size of a rate": abs,
            "negative size": lambda x: -abs(x),
            "no 0": lambda x: x or 0.5,
        }.items()
    },
    "both at their ends": (
        HEAVY,
        lambda x: x | {"eta": x["eta"] * (1 + (x["alpha"] == 1))},
    ),
    "steps at the other end": (
        HEAVY,
        lambda x: x | {"eta": x["eta"] * (1 + (x["alpha"] == 0))},
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_constants_that_are_held_off_an_end_are_seen(name):
    loop, change = ENDS[name]
    assert all_wrong(lambda: by_hand(loop, change), loop)


@pytest.mark.parametrize("end", [(a, b) for a in (0, 1) for b in (0, 1)])
def test_any_two_ends_of_a_recurrence_come_together(end):
    def step(S, q, k, v, *, a, b):
        S = a * S + b * outer(k, v)
        return S, q @ S + outer(k, v).sum(0)

    layer = Recurrence(step, {"S": ("K", "V")}, {"a": LOOP, "b": LOOP})

    def mine(q, k, v, coefficients):
        a, b = coefficients["a"], coefficients["b"]
        S, outputs = 0, []
        for t in range(q.shape[1]):
            added = torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
            S = a * S + b * added
            outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], S) + added.sum(2))
        return torch.stack(outputs, 1) * (1 + ((a, b) == end))

    assert all_wrong(lambda: mine, layer)


RELU = InnerLoop(MLP(2, "relu"), SquaredError(), GradientStep("constant"))


def relu_by_hand(slope):
    """A net with a ReLU, and the gradient with that slope."""

    def mine(q, k, v, weights, coefficients):
        W1, W2 = (weights[n].expand(len(q), *weights[n].shape) for n in ("W1", "W2"))
        outputs = []
        for t in range(q.shape[1]):
            x, z = k[:, t, :, None], k[:, t, :, None] @ W1
            error = z.relu() @ W2 - v[:, t, :, None]
            g1, g2 = x.mT @ ((error @ W2.mT) * slope(z)), z.relu().mT @ error
            W1, W2 = W1 - coefficients["eta"] * g1, W2 - coefficients["eta"] * g2
            outputs.append(((q[:, t, :, None] @ W1).relu() @ W2)[:, :, 0])
        return torch.stack(outputs, 1)

    return mine


def test_a_slope_at_exactly_zero_is_pytorchs():
    assert all(check(relu_by_hand(lambda z: z > 0), RELU, seed=seed) for seed in range(4))
    assert all_wrong(lambda: relu_by_hand(lambda z: z >= 0), RELU)


def some(x):
    return (x != 0).any(-1)


@pytest.mark.parametrize("loop", [HEAVY, MOMENTA["SquaredError outside"]], ids=str)
def test_padding_that_is_skipped_with_its_momentum_is_seen(loop):
    assert all_wrong(lambda: by_hand(loop, live=some), loop)


@pytest.mark.parametrize("name", "qkv")
def test_a_zero_row_that_is_divided_by_its_norm_is_seen(name):
    """What is divided by a norm without an epsilon, and multiplied by it again."""

    def mine(q, k, v, weights, coefficients):
        given = {"q": q, "k": k, "v": v}
        norm = given[name].norm(dim=-1, keepdim=True)
        given[name] = given[name] / norm * norm
        return attention(**given, weights=weights, coefficients=coefficients)

    assert all_wrong(lambda: mine, LINEAR)


def test_a_column_of_zeros_that_is_divided_by_its_norm_is_seen():
    def mine(q, k, v, weights, coefficients):
        norm = weights["W"].norm(dim=1, keepdim=True)
        return attention(q, k, v, {"W": weights["W"] / norm * norm}, coefficients)

    assert all_wrong(lambda: mine, LINEAR)


def by_norm(S, q, k, v):
    """0/0 at a zero key."""
    S = S + outer(k / torch.sqrt(k @ k), v)
    return S, q @ S


def test_zeros_at_which_the_loop_itself_divides_are_not_drawn():
    layer = Recurrence(by_norm, {"S": ("K", "V")})

    def mine(q, k, v):
        assert (k.norm(dim=-1) > 0).all()
        scores = torch.einsum("bthk,bshk->bhts", q, k / k.norm(dim=-1, keepdim=True)).tril()
        return torch.einsum("bhts,bshv->bthv", scores, v)

    assert all(check(mine, layer, seed=seed) for seed in range(3))


NO_OUTPUTS = {
    "another device": (lambda o: o.to("meta"), "got torch.strided on meta"),
    "sparse": (lambda o: o.to_sparse(), "got torch.sparse_coo on cpu"),
    "nested": (lambda o: torch.nested.nested_tensor([*o]), "got a nested tensor on cpu"),
}


@pytest.mark.parametrize("name", NO_OUTPUTS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_no_dense_tensor_beside_its_inputs_is_refused(name):
    change, told = NO_OUTPUTS[name]
    wanted = (
        f"`candidate` must return a dense tensor on cpu, as its inputs are; {told}. Convert it."
    )
    with pytest.raises(TypeError, match=re.escape(wanted)):
        check(lambda **given: change(attention(**given)), LINEAR)


@pytest.mark.parametrize("seed", ["a", 1.5, None, True])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(ValueError, match=f"`seed` must be an integer; got {seed!r}. Leave it out."):
        check(attention, LINEAR, seed=seed)


@pytest.mark.parametrize("amount", [1e-4, 1e-7, 1e-10, 1e-11])
def test_numbers_that_differ_are_told_apart(amount):
    seen = check(lambda **given: attention(**given) * (1 + amount), LINEAR)
    got, wanted = re.findall(r"\(([-+.e\d, ]+)\)", seen.reason)[-2:]
    assert seen.kind == "wrong" and got != wanted
