"""Code that is wrong at some sizes only is found at every seed, with the default trials."""

from dataclasses import replace
from functools import partial

import pytest

from tests.evidence.test_check import EXCLUSIVE, LINEAR, run_as
from ttt_proofs import check
from ttt_proofs.loops import MLP, DepthwiseConv, Frobenius, InnerLoop, Schedule
from ttt_proofs.parallel import forms


def planted(loop, where):
    """The loop's recurrence, its rates doubled where the sizes are in a stratum."""

    def mine(q, k, v, weights, coefficients):
        inner = [w.shape[2] for w in list(weights.values())[:-1]]
        (batch, tokens, heads, key), value = q.shape, v.shape[3]
        hit = where(B=batch, T=tokens, H=heads, K=key, V=value, D=inner, L=loop.schedule.chunk)
        return forms.recurrent(loop, q, k, v, weights, {"eta": (1 + hit) * coefficients["eta"]})[0]

    return mine


STRATA = {
    "B = 1": lambda B, **_: B == 1,
    "B > 1": lambda B, **_: B > 1,
    "H = 1": lambda H, **_: H == 1,
    "H > 1": lambda H, **_: H > 1,
    "B = 1 < H": lambda B, H, **_: B == 1 < H,
    "H = 1 < B": lambda B, H, **_: H == 1 < B,
    "K = 1": lambda K, **_: K == 1,
    "K > 1": lambda K, **_: K > 1,
    "V = 1": lambda V, **_: V == 1,
    "V > 1": lambda V, **_: V > 1,
    "K < V": lambda K, V, **_: K < V,
    "K = V": lambda K, V, **_: K == V,
    "K > V": lambda K, V, **_: K > V,
}
WIDTHS = {
    "1 < K < V": lambda K, V, **_: 1 < K < V,
    "K > V > 1": lambda K, V, **_: K > V > 1,
    "B > 2, many": lambda B, T, L, **_: B > 2 and T > L,
    "B = 2, H = 3": lambda B, H, **_: (B, H) == (2, 3),
}
TOKENS = {
    "one": lambda T, **_: T == 1,
    "late": lambda T, **_: T >= 64,
    "late, K > V": lambda T, K, V, **_: T >= 65 and K > V,
    "one chunk": lambda T, L, **_: T == L,
    "whole chunks": lambda T, L, **_: T > L and T % L == 0,
    "a token more": lambda T, L, **_: T > L and T % L == 1,
    "a half more": lambda T, L, **_: T > L and T % L == L // 2,
    "all but one more": lambda T, L, **_: T > L and T % L == L - 1,
}
TILES = {
    f"whole tiles of {tile}": lambda T, tile=tile, **_: T % tile == 0 for tile in (4, 16, 64, 128)
}
SINGLE = {"some tokens": lambda T, **_: 3 < T < 64, "late, K > V": TOKENS["late, K > V"]} | TILES
INNER = {
    "D = 1": lambda D, **_: min(D) == 1,
    "D > 1": lambda D, **_: max(D) > 1,
    "D < K": lambda D, K, **_: max(D) < K,
    "D > K": lambda D, K, **_: min(D) > K,
    "D < V": lambda D, V, **_: max(D) < V,
    "D > V": lambda D, V, **_: min(D) > V,
    "D < K, V": lambda D, K, V, **_: max(D) < min(K, V),
    "D > K, V": lambda D, K, V, **_: min(D) > max(K, V),
    "D = K": lambda D, K, **_: K in D,
    "D1 < D2": lambda D, **_: D[0] < D[-1],
    "D1 > D2": lambda D, **_: D[0] > D[-1],
}
CHANNELS = {
    "V = 1": STRATA["V = 1"],
    "V > 1": STRATA["V > 1"],
    "V < pixels": lambda V, **_: V < 9,
    "V = pixels": lambda V, **_: V == 9,
    "V > pixels": lambda V, **_: V > 9,
    "an image": lambda T, L, **_: T == L,
    "images": lambda T, L, **_: T > L,
    **{name: STRATA[name] for name in list(STRATA)[:6]},
}
PLANTED = [
    (replace(LINEAR, schedule=Schedule(16)), STRATA | WIDTHS | TOKENS | TILES),
    (EXCLUSIVE, STRATA | WIDTHS | SINGLE),
    (
        replace(EXCLUSIVE, schedule=Schedule(8, "before_update")),
        STRATA | WIDTHS,
    ),  # one chunk shows no update, and so no fault in it
    (InnerLoop(MLP(3, "silu"), Frobenius(), schedule=Schedule(16)), STRATA | WIDTHS | INNER),
    (InnerLoop(DepthwiseConv(3, 2, 3), Frobenius(), schedule=Schedule(6)), CHANNELS),
]


@pytest.mark.parametrize(
    ("loop", "where"),
    [
        pytest.param(loop, where, id=f"{loop}-{name}")
        for loop, strata in PLANTED
        for name, where in strata.items()
    ],
)
def test_code_that_is_wrong_at_some_sizes_only_is_found_at_every_seed(loop, where):
    mine = planted(loop, where)
    assert not [seed for seed in range(20) if check(mine, loop, seed=seed).kind != "wrong"]


@pytest.mark.parametrize("loop", [loop for loop, _ in PLANTED], ids=str)
def test_right_code_passes_at_those_seeds(loop):
    right = planted(loop, lambda **_: False)
    assert all(check(right, loop, seed=seed) for seed in range(20))


@pytest.mark.parametrize("chunk", [1, 7, 24, 40, 100])
def test_long_trials_have_130_and_128_tokens(chunk):
    loop = replace(LINEAR, schedule=Schedule(chunk))
    given = check(partial(run_as, loop), loop, trials=2).drawn
    first, second = (dict(x.sizes)["T"] for x in given)
    assert first >= 130 and second >= 128 and (second // chunk).bit_count() == 1
