"""What derivations say about outputs, written down in NumPy at one size and time.

The symbols have arbitrary values, those of the weights at each time as well, so that a formula is
told apart from any other in the same symbols. Of the derivations on LaCT and ViTTT, and of all
with gates or an operator, the state is computed by its recurrence and not by a closed form.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np

from tests.symbolic.values import Meaning, muon, muon_entry

SIZES = {"L": 2, "D_k": 3, "D_h": 3, "D_v": 2, "Y": 2, "X": 3, "D_y": 3, "D_x": 3}
TIMES, NOW, INNER = 5, 3, 2  # INNER is the number K of steps on a chunk
RNG = np.random.default_rng(0)


def draw(*shape) -> np.ndarray:
    """Random numbers; widths by name."""
    return RNG.normal(size=[SIZES.get(n, n) for n in shape])


Q, K, V = draw(TIMES, "L", "D_k"), draw(TIMES, "L", "D_k"), draw(TIMES, "L", "D_v")
IMAGES = {
    "q": draw(TIMES, 4, 5, "D_v"),
    "k": draw(TIMES, 4, 5, "D_v"),
    "v": draw(TIMES, "Y", "X", "D_v"),
}
W, START, WITHIN = draw(TIMES + 1, "D_h", "D_v"), draw("D_h", "D_v"), draw(TIMES, 4, 3, 2, 4)
WINDOWS, FIRST_WINDOW = draw(TIMES + 1, 3, 3, "D_v"), draw(3, 3, "D_v")
W0, W2 = draw(TIMES + 1, "D_k", "D_h"), draw(TIMES + 1, "D_k", "D_h")
FROZEN = {"W0": draw("D_k", "D_h"), "W2": draw("D_k", "D_h")}
GATES, CLIPS, SEEN = draw(TIMES + 1, "D_v"), draw(TIMES, "D_v"), draw("L", "L")
RATE, RATES, MOMENTA = 0.3, draw(TIMES + 1), draw(TIMES + 1)
EACH = draw(TIMES, "L")  # a rate for each token


def by_rank(*arrays) -> Callable:
    """One name for several families, told apart by the number of their indices."""
    table = {np.ndim(array): np.asarray(array) for array in arrays}

    def value(*at):
        assert min(at, default=0) >= 0
        return float(table[len(at)][at])

    return value


SYMBOLS = {
    **{n: by_rank(x, x[:, 0], IMAGES[n]) for n, x in (("q", Q), ("k", K), ("v", V))},
    "W": by_rank(W, WINDOWS),
    "W_0": by_rank(START, FIRST_WINDOW),
    "W_in": by_rank(WITHIN),
    "W0": by_rank(W0, FROZEN["W0"]),
    "W2": by_rank(W2, FROZEN["W2"]),
    "W1": by_rank(W),
    "W1_0": by_rank(START),
    "eta": by_rank(RATE, RATES),
    "alpha": by_rank(MOMENTA),
    "eta_W": by_rank(EACH),
    "eta_W1": by_rank(EACH),
    "visible": by_rank(SEEN),
    "N_W": by_rank(GATES),
    "N_W1": by_rank(GATES),
    "R_W": by_rank(CLIPS),
    "R_W1": by_rank(CLIPS),
}


def phi(tick: float, rows: np.ndarray) -> np.ndarray:
    """Some φ that changes with time: `[L, D_k]` to `[L, D_h]`."""
    mixed = rows @ np.arange(1.0, 4.0)
    return np.sin(mixed[:, None] * (1 + np.arange(3.0)) + tick)


STATIC = -5.0


def tick(*times: int) -> float:
    """One number for the times of φ: the chunk, the step on it, and the number of steps."""
    parts = zip(times, (1, 0.37, 0.11), strict=False)
    return sum(n * part for n, part in parts) if times else STATIC


def phi_entry(at, arguments, slots):
    """The same, as the checker's terms call it."""
    *times, col = at
    assert not slots
    return phi(tick(*times), arguments[0][None])[0, col]


def slope(f: np.ndarray, v: np.ndarray) -> np.ndarray:
    """`∂/∂f Σ f³ v`."""
    return 3 * f**2 * v


def slope_entry(at, arguments, slots):
    """The same, as the checker's terms call it."""
    ((argument, col),) = slots
    assert argument == 0 and not at
    return slope(*arguments)[col]


def stated(statement) -> np.ndarray:
    """The right side of a statement about outputs, at NOW, for all its other indices."""
    functions = {
        "phi": phi_entry,
        "ell": slope_entry,
        "muon": muon_entry,
        "act": lambda at, arguments, slots: silu(arguments[0].item()),
    }
    meaning, (now, *every) = Meaning(SIZES, SYMBOLS, functions), statement.every
    steps = {v: INNER for v in every if v.name == "K"}
    own = [v for v in every if v not in steps]
    shape = [SIZES[v.sort] for v in own]
    envs = [{now: NOW, **steps, **dict(zip(own, at, strict=True))} for at in np.ndindex(*shape)]
    values = [float(meaning.of(statement.right, env)) for env in envs]
    return np.array(values).reshape(shape)


def silu(x):
    """`x / (1 + exp(-x))`."""
    return x / (1 + np.exp(-x))


def swiglu(frozen: bool, time: int, rows: np.ndarray) -> np.ndarray:
    """The features of LaCT's net."""
    gate, content = (FROZEN["W0"], FROZEN["W2"]) if frozen else (W0[time], W2[time])
    return silu(rows @ gate) * (rows @ content)


def stored(i: int, frozen: bool = False) -> np.ndarray:
    """`φ_i(k_i)ᵀ g_i(k_i)` without the rate: `g = -∂ℓ/∂f` at `f = φ_i(k_i) W_i`."""
    keys = phi(STATIC if frozen else i, K[i])
    return keys.T @ -slope(keys @ W[i], V[i])


def beta(i: int, j: int) -> float:
    """`β_i^j = Π_{s=i+1..j} α_s`."""
    return float(np.prod(MOMENTA[i + 1 : j + 1]))


def sum_of_products(i: int, last: int = NOW) -> float:
    """`Σ_{j=i..last} β_i^j`."""
    return sum(beta(i, j) for j in range(i, last + 1))


def rates_outside(i: int, last: int = NOW) -> float:
    """`Σ_{j=i..last} η_j β_i^j`."""
    return sum(RATES[j] * beta(i, j) for j in range(i, last + 1))


def output(state: np.ndarray, time: int = NOW + 1) -> np.ndarray:
    """`φ_time(q_t) S`."""
    return phi(time, Q[NOW]) @ state


def unrolled(coefficient) -> np.ndarray:
    """`φ_{t+1}(q_t) (W_0 + Σ_{i=0..t} C(i) φ_i(k_i)ᵀ g_i(k_i))`."""
    return output(START + sum(coefficient(i) * stored(i) for i in range(NOW + 1)))


def before(coefficient) -> np.ndarray:
    """`φ_t(q_t) (W_0 + Σ_{i=0..t-1} C(i) φ_i(k_i)ᵀ g_i(k_i))`."""
    return output(START + sum(coefficient(i) * stored(i) for i in range(NOW)), NOW)


def recurred(
    each,
    *,
    steps: int = NOW + 1,
    momentum: bool = False,
    operator: bool = False,
    norm: bool = False,
    outside=lambda i: 1.0,
) -> np.ndarray:
    """The state after some steps from W_0, where step i puts `each(i)` into the accumulator."""
    state, held = START, np.zeros_like(START)
    for i in range(steps):
        held = each(i) + (MOMENTA[i] * held if momentum else 0)
        state = state + outside(i) * (muon(held) if operator else held)
        state = GATES[i + 1] * state if norm else state
    return state


def lact(momentum: bool, operator: bool, norm: bool, frozen: bool, early: bool) -> np.ndarray:
    """LaCT with some of its options, by the recurrence."""

    def each(i):
        return swiglu(frozen, i, K[i]).T @ (EACH[i][:, None] * V[i])

    state = recurred(
        each, steps=NOW if early else NOW + 1, momentum=momentum, operator=operator, norm=norm
    )
    return swiglu(frozen, NOW if early else NOW + 1, Q[NOW]) @ state


def lact_label(momentum: bool, operator: bool, norm: bool, frozen: bool, early: bool) -> str:
    """What a combination of options is called."""
    flags = (("momentum", momentum), ("Muon", operator), ("weight norm", norm))
    which = "last layer only" if frozen else "all weights"
    names = [name for name, on in flags if on] or ["plain"]
    return ", ".join([*names, which, f"read {'before' if early else 'after'} the update"])


LACT = {
    lact_label(*options): partial(lact, *options) for options in product((False, True), repeat=5)
}


def linear(early: bool, *, rated: bool = False, **options) -> np.ndarray:
    """A linear net, Frobenius: `q (W_0 + ...)`, what is stored being kᵀv."""

    def each(i):
        return K[i].T @ ((EACH[i][:, None] if rated else 1) * V[i])

    return Q[NOW] @ recurred(each, steps=NOW if early else NOW + 1, **options)


def parallel(last: int, seen: bool = False) -> np.ndarray:
    """`Φ(Q) W_0 + ((Φ(Q) Φ(K)ᵀ) ⊙ C) V` at one chunk; causal if `seen`."""
    query, keys = phi(STATIC, Q[NOW]), [phi(STATIC, K[i]) for i in range(NOW + 1)]
    whole = NOW if seen else last + 1
    total = query @ START
    for i in range(whole):
        total = total + rates_outside(i, last) * (query @ keys[i].T) @ V[i]
    if seen:
        total = total + RATES[NOW] * (query @ keys[NOW].T * SEEN) @ V[NOW]
    return total


def with_keys(frozen: bool) -> np.ndarray:
    """Reading with k in place of q; with momentum, and a rate that is one number."""

    def each(i):
        return RATE * stored(i, frozen)

    return phi(STATIC if frozen else NOW + 1, K[NOW]) @ recurred(each, momentum=True)


def many_steps(early: bool) -> np.ndarray:
    """`φ(q) (W_0 + η Σ_i Σ_{j<K} φ_ij(k_i)ᵀ g_ij)`."""
    state = START
    for i in range(NOW if early else NOW + 1):
        for j in range(INNER):
            keys = phi(tick(i, j, INNER), K[i])
            state = state - RATE * keys.T @ slope(keys @ WITHIN[i, j, :, :, INNER], V[i])
    return phi(tick(NOW if early else NOW + 1, 0, INNER), Q[NOW]) @ state


def steps_with_momentum() -> np.ndarray:
    """`φ(q) S`, where `M ← α_i M + φ_ijᵀ g_ij` and `S ← S + η_i M`, step after step."""
    state, buffer = START, np.zeros_like(START)
    for i in range(NOW + 1):
        for j in range(INNER):
            keys = phi(tick(i, j, INNER), K[i])
            written = -keys.T @ slope(keys @ WITHIN[i, j, :, :, INNER], V[i])
            buffer = MOMENTA[i] * buffer + written
            state = state + RATES[i] * buffer
    return phi(tick(NOW + 1, 0, INNER), Q[NOW]) @ state


def glu(state: np.ndarray, time: int = NOW + 1) -> np.ndarray:
    """`φ_time(q) ⊙ (q S)`."""
    return silu(Q[NOW] @ W0[time][:, :2]) * (Q[NOW] @ state)


def glu_stored(i: int) -> np.ndarray:
    """`η kᵀ (v ⊙ φ_i(k))`."""
    return RATE * K[i].T @ (V[i] * silu(K[i] @ W0[i][:, :2]))


def correlated(image: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`Σ_δ X[p + δ] W[δ]` for each pixel p and channel; the image has a margin of one pixel."""
    found = np.zeros((2, 3, 2))
    for y, x, dy, dx in np.ndindex(2, 3, 3, 3):
        found[y, x] += image[y + dy, x + dx] * window[dy, dx]
    return found


def overlaps(i: int) -> np.ndarray:
    """`η Σ_r (Σ_δ Q[p + δ] K[r + δ]) V[r]`."""
    found = np.zeros((2, 3, 2))
    for y, x, ry, rx, dy, dx in np.ndindex(2, 3, 2, 3, 3, 3):
        meet = IMAGES["q"][NOW][y + dy, x + dx] * IMAGES["k"][i][ry + dy, rx + dx]
        found[y, x] += RATE * meet * IMAGES["v"][i][ry, rx]
    return found


def convolved(window: np.ndarray) -> np.ndarray:
    """The image of queries, correlated."""
    return correlated(IMAGES["q"][NOW], window)


def inside(i: int) -> np.ndarray:
    """What a rate per step inside puts into the accumulator."""
    return RATES[i] * stored(i)


def normalised(momentum: bool) -> np.ndarray:
    """A constant rate and weight normalisation."""
    return output(recurred(lambda i: RATE * stored(i), momentum=momentum, norm=True))


def each_token_alone() -> np.ndarray:
    """One token a chunk: `φ(q) (W_0 + Σ_i M(η_i φᵀ g))`."""
    state = START
    for i in range(NOW + 1):
        key = phi(i, K[i, :1])
        state = state + muon(RATES[i] * key.T @ -slope(key @ W[i], V[i, :1]))
    return (phi(NOW + 1, Q[NOW, :1]) @ state)[0]


def rung(frozen_swiglu: bool, early: bool, **options) -> np.ndarray:
    """A step of the ladder from LaCT to linear attention."""
    if not frozen_swiglu:
        return linear(early, **options)
    return lact(True, True, options.get("norm", False), True, early)


READS = ("read after the update", "read before the update")
RUNGS = {
    "ladder_v1": {"frozen_swiglu": True, "norm": True},
    "ladder_v2": {"frozen_swiglu": True},
    "ladder_v3": {"frozen_swiglu": False, "rated": True, "momentum": True, "operator": True},
    "ladder_v4": {"frozen_swiglu": False, "momentum": True, "operator": True},
    "ladder_v5": {"frozen_swiglu": False, "operator": True},
    "ladder_v6": {"frozen_swiglu": False},
}

# By derivation and label of the part.
FORMULAS: dict[tuple[str, str], Callable[[], np.ndarray]] = {
    ("single_step", ""): lambda: output(W[NOW] + RATE * stored(NOW)),
    ("unrolled", READS[0]): lambda: unrolled(lambda i: RATE),
    ("unrolled", READS[1]): lambda: before(lambda i: RATE),
    ("momentum", READS[0]): lambda: unrolled(lambda i: RATE * sum_of_products(i)),
    ("momentum", READS[1]): lambda: before(lambda i: RATE * sum_of_products(i, NOW - 1)),
    ("momentum_rate_outside", ""): lambda: unrolled(rates_outside),
    ("momentum_rate_inside", "a rate for each step"): lambda: unrolled(
        lambda i: RATES[i] * sum_of_products(i)
    ),
    ("momentum_rate_inside", "a constant rate"): lambda: unrolled(
        lambda i: RATE * sum_of_products(i)
    ),
    **{("lact", label): formula for label, formula in LACT.items()},
    **{
        (name, READS[early]): partial(rung, early=bool(early), **options)
        for name, options in RUNGS.items()
        for early in (0, 1)
    },
    ("lact_muon_on_momentum", "momentum, rate inside"): lambda: output(
        recurred(inside, momentum=True, operator=True)
    ),
    ("lact_muon_on_momentum", "momentum, rate outside"): lambda: output(
        recurred(stored, momentum=True, operator=True, outside=lambda i: RATES[i])
    ),
    ("lact_muon_on_momentum", "no momentum"): lambda: output(recurred(inside, operator=True)),
    (
        "lact_muon_on_momentum",
        "Eq. (1) as printed: no momentum, one token a chunk",
    ): each_token_alone,
    **{
        ("lact_weight_norm", f"{gate}, {'momentum' if momentum else 'no momentum'}"): partial(
            normalised, momentum
        )
        for gate in ("any gate", "initial norms")
        for momentum in (False, True)
    },
    ("parallel_form", READS[0]): lambda: parallel(NOW),
    ("parallel_form", READS[1]): lambda: parallel(NOW - 1),
    ("parallel_form", "read causally"): lambda: parallel(NOW, seen=True),
    ("query_replaced_by_key", "dynamic kernel"): lambda: with_keys(False),
    ("query_replaced_by_key", "static kernel"): lambda: with_keys(True),
    ("inner_steps", READS[0]): lambda: many_steps(False),
    ("inner_steps", READS[1]): lambda: many_steps(True),
    ("inner_steps", "momentum"): steps_with_momentum,
    ("inner_steps", "static kernel, Frobenius: the rate is K η"): lambda: (
        phi(STATIC, Q[NOW])
        @ (START + sum(INNER * RATE * phi(STATIC, K[i]).T @ V[i] for i in range(NOW + 1)))
    ),
    ("vittt_glu", "one step"): lambda: glu(W[NOW] + glu_stored(NOW)),
    ("vittt_glu", "all steps"): lambda: glu(START + sum(map(glu_stored, range(NOW + 1)))),
    ("vittt_depthwise_conv", "one step"): lambda: convolved(WINDOWS[NOW]) + overlaps(NOW),
    ("vittt_depthwise_conv", "all steps"): lambda: (
        convolved(FIRST_WINDOW) + sum(map(overlaps, range(NOW + 1)))
    ),
    **{
        ("vittt", f"gated linear unit, {gate}"): lambda: glu(W[NOW] + CLIPS[NOW] * glu_stored(NOW))
        for gate in ("any gate", "norm + 1")
    },
    **{
        ("vittt", f"convolution, {gate}"): lambda: (
            convolved(WINDOWS[NOW]) + CLIPS[NOW] * overlaps(NOW)
        )
        for gate in ("any gate", "norm + 1")
    },
}

# Parts with one formula: a constant rate may stand anywhere; the ladder's first steps are LaCT
# with fewer options; a gate is a symbol, whatever it is a function of.
SAME = [
    {("momentum", READS[0]), ("momentum_rate_inside", "a constant rate")},
    *(
        {("ladder_v1", read), ("lact", f"momentum, Muon, weight norm, last layer only, {read}")}
        for read in READS
    ),
    *(
        {("ladder_v2", read), ("lact", f"momentum, Muon, last layer only, {read}")}
        for read in READS
    ),
    *(
        {("lact_weight_norm", f"{gate}, {how}") for gate in ("any gate", "initial norms")}
        for how in ("momentum", "no momentum")
    ),
    *(
        {("vittt", f"{half}, {gate}") for gate in ("any gate", "norm + 1")}
        for half in ("gated linear unit", "convolution")
    ),
]
