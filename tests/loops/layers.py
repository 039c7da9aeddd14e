"""Layers known by their recurrence, as users write them."""

from __future__ import annotations

import torch

from ttt_proofs.loops import Coefficient, Recurrence, outer

TOKEN = Coefficient("token")
MATRIX = {"S": ("K", "V")}


def additive(S, q, k, v):
    S = S + torch.outer(k, v)
    return S, q @ S


def decayed(S, q, k, v, *, alpha):
    S = alpha * S + outer(k, v)
    return S, q @ S


def retention(S, q, k, v):
    S = 0.96875 * S + k[:, None] * v
    return S, torch.einsum("k,kv->v", q, S)


def before(S, q, k, v, *, alpha):
    o = q @ S
    return alpha * S + outer(k, v), o


def state_space(S, q, k, v, *, A, dt, D):
    S = torch.exp(-A * torch.nn.functional.softplus(dt)) * S + dt * outer(k, v)
    return S, q @ S + D * v


def normalised(S, n, q, k, v, *, alpha):
    S = alpha * S + outer(k, v)
    n = alpha * n + k
    return S, n, (q @ S) / (q @ n)


def matrix_lstm(C, n, q, k, v, *, f, i_gate):
    C = torch.sigmoid(f) * C + i_gate * outer(v, k)
    n = torch.sigmoid(f) * n + i_gate * k
    return C, n, (C @ q) / (1 + torch.square(n @ q))


def momentum(S, M, q, k, v, *, eta, theta, alpha):
    M = eta * M + theta * outer(k, v)
    S = alpha * S + M
    return S, M, q @ S


def late_momentum(S, M, q, k, v, *, eta, theta, alpha):
    old = M
    M = eta * M + theta * outer(k, v)
    S = alpha * S + theta * old - outer(k, v * v)
    return S, M, q @ S


def vector(n, q, k, v, *, alpha):
    n = alpha * n + v
    return n, (q @ k) * n


def number(c, q, k, v, *, alpha):
    c = alpha * c + k @ k
    return c, v * c


def gated_delta(S, q, k, v, *, alpha, beta):
    S = alpha * (S - beta * outer(k, k @ S)) + beta * outer(k, v)
    return S, q @ S


def squashed(S, q, k, v):
    S = torch.tanh(S) + outer(k, v)
    return S, q @ S


def crossed(A, B, q, k, v, *, alpha):
    A, B = A + alpha * B + outer(k, v), B - alpha * A
    return A, B, q @ A


def through(S, n, q, k, v, *, alpha):
    n = alpha * n + k
    S = torch.sigmoid(n)[:, None] * S + outer(n, v)
    return S, n, q @ S


def multiplied(S, q, k, v):
    S = S * S + outer(k, v)
    return S, q @ S


def shift_register(n, m, q, k, v):
    return v, n, (q @ k) * m


def token_shift(S, n, q, k, v, *, alpha):
    S = alpha * S + outer(0.5 * (k + n), v)
    return S, k, q @ S


def last_key(S, n, q, k, v, *, alpha):
    S = alpha * S + outer(k, v)
    return S, k, q @ S + (q @ n) * v


def spread(S, n, q, k, v, *, alpha):
    n = alpha * n + v
    return alpha * S + n, n, q @ S


def overwritten(S, q, k, v):
    S = outer(k, v)
    return S, q @ S


def kept(S, n, q, k, v):
    n = n + v * (q @ k)
    return S, n, q @ S + n


def delta_by_rows(C, q, k, v, *, beta):
    C = C - beta * outer(C @ k - v, k)
    return C, C @ q


def reflected(n, S, q, k, v, *, beta):
    n = n - 2 * beta * (n @ k) * k + q
    S = S - beta * torch.einsum("k,l,lv->kv", k, k, S) + outer(n, v)
    return n, S, q @ S


def two_sided(S, q, k, v):
    S = S - 0.1 * outer(k, v) * (k @ S @ v) + outer(k, v)
    return S, q @ S


def leaning(S, q, k, v):
    S = S - 0.5 * outer(k, (k @ S) * v) + outer(k, v)
    return S, q @ S


def crossed_squashed(A, B, q, k, v):
    A = A + B
    B = B - torch.tanh(A) + outer(k, v)
    return A, B, q @ A


def weighed(S, q, k, v):
    S = S - 0.5 * torch.einsum("k,l,lv,v->kv", k, k, S, v) + outer(k, v)
    return S, q @ S


def turned(S, q, k, v):
    S = 0.5 * S + 0.1 * S.T + outer(k, q)
    return S, (q @ S @ k) * v


def asymmetric(S, q, k, v, *, beta):
    S = S - beta * outer(q, k @ S) + outer(k, v)
    return S, q @ S


TWO = {**MATRIX, "M": ("K", "V")}
WITH_VECTOR = {**MATRIX, "n": ("K",)}
THREE = dict.fromkeys(("eta", "theta", "alpha"), TOKEN)

# By name: the layer, and the word for its plan; first those with sums and products for a form, then
# those whose writes are carried on, then those with none.
PROVED = {
    "additive": (Recurrence(additive, MATRIX), "additive"),
    "scalar gate": (Recurrence(decayed, MATRIX, {"alpha": TOKEN}), "gated"),
    "row gate": (Recurrence(decayed, MATRIX, {"alpha": Coefficient("token", "row")}), "gated"),
    "column gate": (
        Recurrence(decayed, MATRIX, {"alpha": Coefficient("token", "column")}),
        "gated",
    ),
    "entry gate": (Recurrence(decayed, MATRIX, {"alpha": Coefficient("token", "entry")}), "gated"),
    "one gate": (Recurrence(decayed, MATRIX, {"alpha": Coefficient()}), "gated"),
    "one gate of rows": (
        Recurrence(decayed, MATRIX, {"alpha": Coefficient("loop", "row")}),
        "gated",
    ),
    "retention": (Recurrence(retention, MATRIX), "gated"),
    "read before": (Recurrence(before, MATRIX, {"alpha": TOKEN}), "gated"),
    "state space": (
        Recurrence(state_space, MATRIX, {"A": Coefficient(), "dt": TOKEN, "D": Coefficient()}),
        "gated",
    ),
    "normalised": (Recurrence(normalised, WITH_VECTOR, {"alpha": TOKEN}), "gated"),
    "matrix LSTM": (
        Recurrence(matrix_lstm, {"C": ("V", "K"), "n": ("K",)}, {"f": TOKEN, "i_gate": TOKEN}),
        "gated",
    ),
    "momentum": (Recurrence(momentum, TWO, THREE), "gated"),
    "late momentum": (Recurrence(late_momentum, TWO, THREE), "gated"),
    "vector": (Recurrence(vector, {"n": ("V",)}, {"alpha": TOKEN}), "gated"),
    "shift register": (Recurrence(shift_register, {"n": ("V",), "m": ("V",)}), "gated"),
    "last key": (Recurrence(last_key, WITH_VECTOR, {"alpha": TOKEN}), "gated"),
    "overwritten": (Recurrence(overwritten, MATRIX), "gated"),
    "kept": (Recurrence(kept, {**MATRIX, "n": ("V",)}), "additive"),
    "number": (Recurrence(number, {"c": ()}, {"alpha": TOKEN}), "gated"),
}
CARRIED = {
    "delta by rows": (Recurrence(delta_by_rows, {"C": ("V", "K")}, {"beta": TOKEN}), "affine"),
    "reflected": (
        Recurrence(reflected, {"n": ("K",), "S": ("K", "V")}, {"beta": TOKEN}),
        "affine",
    ),
    "asymmetric": (Recurrence(asymmetric, MATRIX, {"beta": TOKEN}), "affine"),
    "weighed": (Recurrence(weighed, MATRIX), "sequential"),
    "turned": (Recurrence(turned, {"S": ("K", "K")}), "sequential"),
    "two-sided": (Recurrence(two_sided, MATRIX), "sequential"),
    "leaning": (Recurrence(leaning, MATRIX), "sequential"),
    "spread": (Recurrence(spread, {**MATRIX, "n": ("V",)}, {"alpha": TOKEN}), "composed"),
    "token shift": (Recurrence(token_shift, WITH_VECTOR, {"alpha": TOKEN}), "composed"),
    "gated delta": (Recurrence(gated_delta, MATRIX, {"alpha": TOKEN, "beta": TOKEN}), "affine"),
    "crossed": (
        Recurrence(crossed, {"A": ("K", "V"), "B": ("K", "V")}, {"alpha": TOKEN}),
        "sequential",
    ),
    "through": (Recurrence(through, WITH_VECTOR, {"alpha": TOKEN}), "composed"),
}
OPEN = {
    "squashed": (Recurrence(squashed, MATRIX), "sequential"),
    "multiplied": (Recurrence(multiplied, MATRIX), "sequential"),
    "crossed and squashed": (
        Recurrence(crossed_squashed, {"A": ("K", "V"), "B": ("K", "V")}),
        "sequential",
    ),
}
LAYERS = PROVED | CARRIED | OPEN
