"""Recurrences that run token by token: a function of the state; states that read each other."""

import torch

from ttt_proofs import Recurrence
from ttt_proofs.loops import Coefficient, outer


def function(S, q, k, v):
    S = torch.tanh(S) + outer(k, v)
    return S, q @ S


def crossed(A, B, q, k, v, *, alpha):
    A, B = A + alpha * B + outer(k, v), B - alpha * A
    return A, B, q @ A


STATES = {"A": ("K", "V"), "B": ("K", "V")}
LOOPS = {
    "function": Recurrence(function, {"S": ("K", "V")}),
    "crossed": Recurrence(crossed, STATES, {"alpha": Coefficient("token", range=(0, 0.2))}),
}
