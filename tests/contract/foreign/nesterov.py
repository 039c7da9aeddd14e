"""Nesterov momentum, as `torch.optim.SGD(nesterov=True)` has it."""

import torch

from ttt_proofs.loops import Coefficient, Frobenius, InnerLoop, Linear, SquaredError, Update


def rule(W, g, buf, *, mu, lr):
    buf = mu * buf + g
    return W - lr * (g + mu * buf), buf


def nesterov(loss):
    """A linear net under that rule."""
    given = {"mu": Coefficient("step"), "lr": Coefficient("loop", range=(0.02, 0.3))}
    update = Update(rule, {"buf": torch.zeros_like})
    return InnerLoop(Linear(), loss, update, coefficients=given)


LOOPS = {"frobenius": nesterov(Frobenius()), "squared_error": nesterov(SquaredError())}
