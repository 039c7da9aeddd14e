"""A rule that divides by what it has gathered, kept from 0 by a number that no proof could hold."""

import torch

from ttt_proofs.loops import Coefficient, InnerLoop, Linear, SquaredError, Update


def stateless(W, g, *, eta):
    return W - eta * g / ((g * g).sqrt() + 1e-30 + 0.1)


def gathered(W, g, s, *, eta):
    s = s + g * g
    return W - eta * g / (s.sqrt() + 1e-30 + 0.1), s


GIVEN = {"eta": Coefficient("step", range=(0.02, 0.3))}
LOOPS = {
    "stateless": InnerLoop(Linear(), SquaredError(), Update(stateless), coefficients=GIVEN),
    "gathered": InnerLoop(
        Linear(), SquaredError(), Update(gathered, {"s": torch.zeros_like}), coefficients=GIVEN
    ),
}
