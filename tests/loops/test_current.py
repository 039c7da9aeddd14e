"""A loop whose code has changed since it was read: refused wherever code and reading would meet."""

import pickle
import sys
import types

import pytest
import torch
from torch import nn

from ttt_proofs import Recurrence, TTTLayer, check, reduce
from ttt_proofs.evidence.autograd import autograd_witness
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.loops import Frobenius, InnerLoop, Linear, SquaredError, Update, outer


class Scaled(nn.Module):
    """Two layers, a number between them."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.factor = 0.5

    def forward(self, x):
        return self.two(torch.tanh(self.factor * self.one(x)))


class Held:
    """A number that functions read."""

    factor = 0.5


def scaled_net(held):
    return InnerLoop(lambda x, W: torch.tanh(held.factor * x) @ W, Frobenius())


def scaled_loss(held):
    return InnerLoop(Linear(), lambda f, v: -held.factor * (f * v).sum(-1))


def scaled_rule(held):
    return InnerLoop(Linear(), Frobenius(), Update(lambda W, g: W - held.factor * g))


def scaled_step(held):
    def step(S, q, k, v):
        S = held.factor * S + outer(k, v)
        return S, q @ S

    return Recurrence(step, {"S": ("K", "V")})


def scaled_module(held):
    return InnerLoop(held, SquaredError(), trained="last")


CASES = {
    "net": (Held, scaled_net),
    "loss": (Held, scaled_loss),
    "update": (Held, scaled_rule),
    "step": (Held, scaled_step),
    "module": (Scaled, scaled_module),
}


def uses(loop):
    """What reads a loop anew, or runs its code."""
    return {
        "reduce": lambda: reduce(loop),
        "layer": lambda: TTTLayer(loop, 6, heads=2),
        "check": lambda: check(lambda q, k, v: v, loop, trials=1),
    }


@pytest.mark.parametrize("name", CASES)
def test_a_changed_constant_is_refused_by_name(name):
    made, build = CASES[name]
    held = made()
    loop = build(held)
    held.factor = 0.25
    told = "net" if name == "module" else name
    for use in uses(loop).values():
        with pytest.raises(ValueError, match=f"`{told}` must be the code .* Make the loop anew"):
            use()
    held.factor = 0.5  # as it was
    for use in uses(loop).values():
        use()


def test_what_was_made_before_keeps_to_what_was_read_and_is_not_called_right():
    held = Held()
    reduction = reduce(scaled_net(held))
    x = vars(random_inputs(reduction.loop, 0, sizes={"B": 1, "T": 4, "H": 1}))
    expected = reduction.parallel_form(**x)[0]
    held.factor = 0.25
    assert torch.equal(reduction.parallel_form(**x)[0], expected)
    with pytest.raises(ValueError, match="reads otherwise now"):
        autograd_witness(reduction, seed=0, trials=1)


def test_code_that_can_be_read_no_more_is_refused():
    held = Held()
    loop = scaled_net(held)
    held.factor = torch.ones(3)
    with pytest.raises(
        ValueError, match=r"`net` must be the code .*, which cannot be read now: `net` must get"
    ):
        reduce(loop)


def test_a_net_that_changes_itself_when_it_is_called_is_refused():
    class Restless(Scaled):
        def forward(self, x):
            self.factor /= 2
            return super().forward(x)

    with pytest.raises(ValueError, match="Restless, which reads otherwise now"):
        reduce(scaled_module(Restless()))


def test_trained_parameters_and_lost_code_are_no_change():
    module = Scaled()
    loop = scaled_module(module)
    with torch.no_grad():
        module.one.weight += 1
    reduce(loop)
    lost = pickle.loads(pickle.dumps(scaled_net(Held())))
    assert lost.net.code is None
    reduce(lost)


def test_a_copy_that_imports_other_code_is_refused(monkeypatch):
    module = types.ModuleType("nets_of_today")
    exec("import torch\ndef net(x, W):\n    return torch.tanh(0.5 * x) @ W\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "nets_of_today", module)
    kept = pickle.dumps(InnerLoop(module.net, Frobenius()))
    exec("import torch\ndef net(x, W):\n    return torch.tanh(0.25 * x) @ W\n", module.__dict__)
    with pytest.raises(ValueError, match="got net, which reads otherwise now"):
        reduce(pickle.loads(kept))
