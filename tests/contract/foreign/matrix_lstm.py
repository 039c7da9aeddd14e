"""The states of an mLSTM: a matrix and its normaliser, two gates, an output that divides."""

import torch

from ttt_proofs import Recurrence
from ttt_proofs.loops import Coefficient, outer


def step(C, n, q, k, v, *, forget, write):
    C = torch.sigmoid(forget) * C + write * outer(v, k)
    n = torch.sigmoid(forget) * n + write * k
    return C, n, (C @ q) / (1 + torch.square(n @ q))


GIVEN = {"forget": Coefficient("token", range=(None, None)), "write": Coefficient("token")}
LOOPS = {"step": Recurrence(step, {"C": ("V", "K"), "n": ("K",)}, GIVEN)}
