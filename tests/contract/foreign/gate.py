"""Output gates that read all of a token, behind losses that read the state: no two columns alike.

The gates take weights and widths of their own, so a column by itself has not what they read.
"""

import torch

from ttt_proofs.loops import Coefficient, InnerLoop, Schedule, Update


def softmax(x, U, W):
    return torch.softmax(x @ U, dim=-1) * (x @ W)


def scalar(x, U, W):
    hidden = torch.tanh(x @ U)
    return hidden.sum(-1, keepdim=True) * (hidden @ W)


def input(x, W):
    return x * (x @ W)


def mean(f, v):
    return (f - v).square().mean(-1)


def rule(W, g, M, *, mu, eta):
    M = mu * M + g
    return W - eta * M, M


GIVEN = {"mu": Coefficient("step"), "eta": Coefficient("step", range=(0.02, 0.3))}
UPDATE = Update(rule, {"M": torch.zeros_like})
LOOPS = {
    "softmax": InnerLoop(softmax, mean, UPDATE, coefficients=GIVEN, trained="last", state="W"),
    "scalar": InnerLoop(
        scalar, mean, UPDATE, Schedule(3, "causal"), coefficients=GIVEN, trained="last", state="W"
    ),
    "input": InnerLoop(input, mean, UPDATE, coefficients=GIVEN),
}
