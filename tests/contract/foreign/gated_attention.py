"""Gated linear attention, a layer known by its recurrence: each row of the state has a decay."""

from ttt_proofs import Recurrence
from ttt_proofs.loops import Coefficient, outer


def row(S, q, k, v, *, decay):
    S = decay * S + outer(k, v)
    return S, q @ S


def before(S, q, k, v, *, decay):
    return decay * S + outer(k, v), q @ S


LOOPS = {
    "row": Recurrence(row, {"S": ("K", "V")}, {"decay": Coefficient("token", "row")}),
    "constant": Recurrence(row, {"S": ("K", "V")}, {"decay": Coefficient("loop", "row")}),
    "before": Recurrence(before, {"S": ("K", "V")}, {"decay": Coefficient("token")}),
}
