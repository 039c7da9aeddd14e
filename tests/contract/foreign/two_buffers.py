"""Two buffers, the second an average of the first."""

import torch

from ttt_proofs.loops import Coefficient, Frobenius, InnerLoop, Linear, Schedule, Update


def rule(W, g, fast, slow, *, b1, b2, eta):
    fast = b1 * fast + g
    slow = b2 * slow + fast
    return W - eta * slow, fast, slow


GIVEN = {
    "b1": Coefficient("step"),
    "b2": Coefficient("loop"),
    "eta": Coefficient("step", range=(0.02, 0.3)),
}
UPDATE = Update(rule, {"fast": torch.zeros_like, "slow": torch.zeros_like})
LOOPS = {
    name: InnerLoop(Linear(), Frobenius(), UPDATE, schedule, coefficients=GIVEN)
    for name, schedule in (("tokens", Schedule()), ("chunks", Schedule(3, "before_update")))
}
