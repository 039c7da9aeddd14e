"""Recurrences whose states go through matrices: their keys are carried on."""

from ttt_proofs import Recurrence
from ttt_proofs.loops import Coefficient, outer


def columns(S, q, k, v, *, alpha, beta):
    S = alpha * (S - beta * outer(k, k @ S)) + beta * outer(k, v)
    return S, q @ S


def rows(C, q, k, v, *, beta):
    C = C - beta * outer(C @ k - v, k)
    return C, C @ q


TOKEN = Coefficient("token")
LOOPS = {
    "columns": Recurrence(columns, {"S": ("K", "V")}, {"alpha": TOKEN, "beta": TOKEN}),
    "rows": Recurrence(rows, {"C": ("V", "K")}, {"beta": TOKEN}),
}
