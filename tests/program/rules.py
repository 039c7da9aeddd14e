"""Update rules as users write them, each with its buffers and coefficients."""

from __future__ import annotations

import torch

from ttt_proofs.loops import (
    Coefficient,
    Frobenius,
    InnerLoop,
    Linear,
    Loss,
    Net,
    Schedule,
    Update,
    column_norm,
    operator,
    zeros_like,
)
from ttt_proofs.program.coefficients import Clock, Shape


def decay(W, g, *, alpha, eta):
    return (1 - alpha) * W - eta * g


def titans(W, g, M, *, alpha, eta, theta):
    M = eta * M - theta * g
    return (1 - alpha) * W + M, M


def nesterov(W, g, M, *, mu, lr):
    M = mu * M + g
    return W - lr * (g + mu * M), M


def two_buffers(W, g, M1, M2, *, b1, b2, eta):
    M1 = b1 * M1 + g
    M2 = b2 * M2 + M1
    return W - eta * M2, M1, M2


def old_buffer(W, g, M, *, mu, eta):
    return W + mu * M - eta * g, mu * M + g


def old_buffers(W, g, A, B, *, a, b, eta):
    return W + eta * B - g, a * A + g, b * B + A


def muon_decay(W, g, M, *, mu, lr, wd):
    M = mu * M + g
    return (1 - lr * wd) * W - lr * operator("muon")(M), M


def muon_nesterov(W, g, M, *, mu, lr):
    M = mu * M + g
    return W - lr * operator("muon")(g + mu * M), M


def muon_of_two(W, g, M1, M2, *, b1, b2, lr):
    M1 = b1 * M1 + g
    M2 = b2 * M2 + M1
    return W - lr * operator("muon")(M2), M1, M2


def muon_of_old(W, g, A, B, *, a, b, lr):
    return W + lr * operator("muon")(a * A - b * B + g), a * A + g, b * B + A


def buffer_of_muon(W, g, M, *, mu, lr):
    M = mu * M + operator("muon")(g)
    return W - lr * M, M


def clipped_buffer(W, g, M, *, mu, eta):
    M = mu * M + g
    return W - eta * M / (M.norm(dim=-2, keepdim=True) + 1), M


def clipped_twice(W, g, *, lam, eta):
    g = g / (torch.linalg.vector_norm(g, dim=-2, keepdim=True) + 1)
    step = eta * g
    return lam * W - step / (column_norm(step) + column_norm(W) + 1)


def restored(W, g, *, W_0, eta):
    new = W - eta * g
    return new * (column_norm(W_0) / (column_norm(new) + 1e-5))


def implicit(W, g, *, lam, eta):
    return (W - eta * g) / (1 + lam)


def forgetful(W, g, M, *, eta):
    return W - eta * M, g


# By name: the function, its buffers and coefficients.
RULES = {
    "decay": (decay, "", "alpha eta"),
    "titans": (titans, "M", "alpha eta theta"),
    "nesterov": (nesterov, "M", "mu lr"),
    "two buffers": (two_buffers, "M1 M2", "b1 b2 eta"),
    "old buffer": (old_buffer, "M", "mu eta"),
    "old buffers": (old_buffers, "A B", "a b eta"),
    "muon, decay": (muon_decay, "M", "mu lr wd"),
    "muon, nesterov": (muon_nesterov, "M", "mu lr"),
    "muon of two": (muon_of_two, "M1 M2", "b1 b2 lr"),
    "muon of old": (muon_of_old, "A B", "a b lr"),
    "buffer of muon": (buffer_of_muon, "M", "mu lr"),
    "clipped buffer": (clipped_buffer, "M", "mu eta"),
    "clipped twice": (clipped_twice, "", "lam eta"),
    "restored": (restored, "", "eta"),
    "implicit": (implicit, "", "lam eta"),
    "forgetful": (forgetful, "M", "eta"),
}


def ruled(
    name: str,
    every: Clock = "step",
    shape: Shape = "scalar",
    *,
    net: Net | None = None,
    loss: Loss | None = None,
    schedule: Schedule | None = None,
) -> InnerLoop:
    """A loop with the rule of that name, all its coefficients of that kind.

    A linear net, Frobenius' loss and single tokens where nothing else is said; with a shape, the
    last layer alone moves.
    """
    function, buffers, names = RULES[name]
    return InnerLoop(
        net or Linear(),
        loss or Frobenius(),
        Update(function, dict.fromkeys(buffers.split(), zeros_like)),
        schedule or Schedule(),
        coefficients={n: Coefficient(every, shape) for n in names.split()},
        trained="all" if shape == "scalar" else "last",
    )
