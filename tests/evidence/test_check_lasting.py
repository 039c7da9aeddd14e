"""`check` sees a state, of whatever kind, that is not carried through a whole tile."""

import pytest
import torch

from tests.evidence.updates import UPDATES, loop_of
from tests.loops.layers import LAYERS
from ttt_proofs import Recurrence, check
from ttt_proofs.loops import (
    Coefficient,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Update,
    outer,
    zeros_like,
)

STEP, TOKEN, LOOP = Coefficient("step"), Coefficient("token"), Coefficient()
TOLD = {"row": (..., None), "column": (..., None, slice(None))}


def placed(layer, coefficients, batch, tokens, heads):
    """Coefficients as `[T, B H, *]`, as steps of one sequence take them."""
    made = {}
    for name, kind in layer.coefficients.items():
        x = torch.as_tensor(coefficients[name], dtype=torch.float64)
        x = x if kind.every != "loop" else x.expand(batch, tokens, heads, *x.shape[1:])
        made[name] = x.transpose(0, 1).flatten(1, 2)[TOLD.get(kind.shape, ...)]
    return made


def carried(step, states, tokens, forgotten, tile):
    """Outputs of `step(states, token)`; one state loses at the end of a tile what it came with."""
    own = None
    for token in range(tokens):
        if token % tile == 0 and forgotten:
            if own is not None:
                states = states | {forgotten: own}
            own = torch.zeros_like(states[forgotten])
        after, out = step(states, token)
        if forgotten:
            own = step(states | {forgotten: own}, token)[0][forgotten]
        states = after
        yield out


def of_recurrence(layer, forgotten, tile):
    """A recurrence token by token."""

    def mine(q, k, v, coefficients):
        batch, tokens, heads, _ = q.shape
        data = {n: x.transpose(0, 1).flatten(1, 2) for n, x in {"q": q, "k": k, "v": v}.items()}
        numbers = placed(layer, coefficients, batch, tokens, heads)
        sizes = {"K": q.shape[3], "V": v.shape[3]}
        called = torch.vmap(lambda s, d, n: layer.called(s, d, n))

        def step(states, token):
            here = [{n: x[token] for n, x in y.items()} for y in (data, numbers)]
            return called(states, *here)

        states = {
            name: q.new_zeros(batch * heads, *(sizes[x] for x in axes))
            for name, axes in layer.states.items()
        }
        made = torch.stack([*carried(step, states, tokens, forgotten, tile)], 1)
        return made.unflatten(0, (batch, heads)).transpose(1, 2)

    return mine


def of_loop(loop, forgotten, tile):
    """A linear inner loop with chunks of one token and the Frobenius loss."""
    update = loop.update

    def mine(q, k, v, weights, coefficients):
        batch, tokens, heads, _ = q.shape
        numbers = placed(loop, coefficients, batch, tokens, heads)
        weighing = numbers.pop(loop.loss_weights.get("W"), None)
        q, k, v = (x.transpose(0, 1).flatten(1, 2) for x in (q, k, v))
        v = v if weighing is None else v * weighing[..., None]
        start = weights["W"].repeat(batch, 1, 1)
        states = {"W": start} | dict.fromkeys(update.buffers, 0 * start)
        if isinstance(update, GradientStep):
            numbers["W_0"] = start.expand(tokens, *start.shape)

        def once(states, g, q, given):
            made = update.function(states["W"], g, *[*states.values()][1:], **given)
            states = dict(zip(states, made if isinstance(made, tuple) else (made,), strict=True))
            return states, q @ states["W"]

        def step(states, t):
            given = {n: x[t] for n, x in numbers.items()}
            return torch.vmap(once)(states, -k[t, :, :, None] * v[t, :, None, :], q[t], given)

        made = torch.stack([*carried(step, states, tokens, forgotten, tile)], 1)
        return made.unflatten(0, (batch, heads)).transpose(1, 2)

    return mine


def lerp(W, g, M, *, a, eta):
    """One number at one end of which M lasts, and W at the other."""
    M = a * M - g
    return (1 - a) * W + eta * M, M


def twofold(W, g, M, *, a, b, c, eta):
    """Ends that are mixed."""
    M = a * (1 - b) * M - g
    return (1 - c) * W + eta * M, M


def cascade(W, g, m, n, *, b1, b2, eta):
    """Two buffers, one after the other."""
    m = b1 * m + g
    n = b2 * n + m
    return W - eta * (m + n), m, n


def declared(kind, *names):
    return dict.fromkeys(names, kind)


M = {"M": zeros_like}
TWO = {"m": zeros_like, "n": zeros_like}
WIDE = Coefficient("step", range=(0.0, 2.0))
LOOPS = {name: loop_of(x, Frobenius(), 1) for name, x in UPDATES.items()} | {
    f"{rule.__name__} by {kind.every}": InnerLoop(
        Linear(), Frobenius(), Update(rule, buffers), coefficients=declared(kind, *names)
    )
    for kind in (STEP, LOOP)
    for rule, buffers, *names in (
        (lerp, M, "a", "eta"),
        (twofold, M, "a", "b", "c", "eta"),
        (cascade, TWO, "b1", "b2", "eta"),
    )
}
LOOPS |= {
    f"momentum {rate} {place}": InnerLoop(Linear(), Frobenius(), GradientStep(rate, place, rate))
    for rate in ("per_step", "constant")
    for place in ("inside", "outside")
}
LOOPS["wide"] = InnerLoop(
    Linear(), Frobenius(), UPDATES["gated"]["update"], coefficients={"alpha": WIDE}
)


@pytest.mark.parametrize(
    ("name", "state"), [(n, s) for n, loop in LOOPS.items() for s in ("W", *loop.update.buffers)]
)
def test_a_state_of_a_loop_that_a_tile_forgets_is_seen(name, state):
    loop = LOOPS[name]
    assert check(of_loop(loop, state, 64), loop).kind == "wrong"


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_forgets_nothing_is_right(name):
    assert check(of_loop(LOOPS[name], None, 64), LOOPS[name], seed=3).kind == "exact"


def weight_decay(S, q, k, v, *, d):
    S = (1 - d) * S + outer(k, v)
    return S, q @ S


def both(S, q, k, v, *, a, d):
    S = a * (1 - d) * S + outer(k, v)
    return S, q @ S


def titans(S, M, q, k, v, *, e, th, al):
    M = e * M + th * outer(k, v)
    S = (1 - al) * S + M
    return S, M, q @ S


def opposed(S, M, q, k, v, *, a):
    M = a * M + outer(k, v)
    S = (1 - a) * S + M
    return S, M, q @ S


MATRIX = {"S": ("K", "V")}
PAIR = {**MATRIX, "M": ("K", "V")}
OWN = {
    f"{step.__name__} by {kind.every}": Recurrence(step, states, declared(kind, *names))
    for kind in (TOKEN, LOOP)
    for step, states, *names in (
        (weight_decay, MATRIX, "d"),
        (both, MATRIX, "a", "d"),
        (titans, PAIR, "e", "th", "al"),
        (opposed, PAIR, "a"),
    )
} | {name: layer for name, (layer, _) in LAYERS.items()}
# Nothing of these is left after a tile, or nothing of them is read: right code need not carry them.
FLEETING = {
    ("kept", "S"),
    ("multiplied", "S"),
    ("turned", "S"),
    ("shift register", "n"),
    ("shift register", "m"),
    ("last key", "n"),
    ("overwritten", "S"),
    ("token shift", "n"),
}


@pytest.mark.parametrize(
    ("name", "state"), [(n, s) for n, layer in OWN.items() for s in layer.states]
)
def test_a_state_of_a_recurrence_that_a_tile_forgets_is_seen(name, state):
    layer = OWN[name]
    kind = check(of_recurrence(layer, state, 64), layer).kind
    assert kind == ("exact" if (name, state) in FLEETING else "wrong")
