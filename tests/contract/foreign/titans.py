"""Titans' rule: momentum, decay, a gate for each token; gradients at the start of a chunk."""

import torch

from ttt_proofs.loops import Coefficient, InnerLoop, Linear, Schedule, SquaredError, Update


def rule(W, g, S, *, alpha, eta, theta):
    S = eta * S - theta * g
    return (1 - alpha) * W + S, S


def titans(every, schedule):
    """A linear memory under that rule, its gates given so often."""
    given = {
        "alpha": Coefficient(every),
        "eta": Coefficient(every),
        "theta": Coefficient(every, range=(0.02, 0.3)),
    }
    update = Update(rule, {"S": torch.zeros_like})
    return InnerLoop(Linear(), SquaredError(), update, schedule, coefficients=given)


LOOPS = {
    "by_chunk": titans("step", Schedule(3)),
    "by_token": titans("token", Schedule(4, update="token")),
}
