"""Loops to start from: `ttt-proofs reduce examples/loops.py:swiglu`."""

from torch.nn.functional import silu

from ttt_proofs import InnerLoop
from ttt_proofs.loops import (
    MLP,
    Coefficient,
    Frobenius,
    GradientStep,
    Linear,
    Recurrence,
    Schedule,
    SquaredError,
    SwiGLU,
    Update,
    lact,
    ladder,
    outer,
    zeros_like,
)

# Linear attention with momentum: a linear net, the dot-product loss.
linear = InnerLoop(Linear(), Frobenius(), GradientStep(momentum="constant"))

# The delta rule: the same net with the squared error.
delta = InnerLoop(Linear(), SquaredError(), GradientStep(rate="per_step"))

# LaCT's net with only the last layer trained: its features are a static kernel.
swiglu = InnerLoop(
    SwiGLU(),
    Frobenius(),
    GradientStep(rate="per_step", place="inside", momentum="per_step"),
    Schedule(chunk=4, read="before_update"),
    trained="last",
)

# Everything trained: the kernel moves, and the loop is sequential.
mlp = InnerLoop(MLP(depth=2, activation="gelu_tanh"), SquaredError(), GradientStep())

# LaCT as released, and the second of the six steps from it to linear attention.
whole = lact()
parallel = ladder()["v2"]


# Code of one's own: a net, the loss of a token, and an update rule with weight decay.
def net(x, W1, W2):
    """Rows [L, K] to rows [L, V]."""
    return silu(x @ W1) @ W2


def loss(f, v):
    """One number for each token."""
    return -(f * v).sum(-1)


def rule(W, g, M, *, alpha, eta, decay):
    """The next weight, and the next of its momentum buffer M."""
    M = alpha * M - g
    return (1 - decay) * W + eta * M, M


numbers = {name: Coefficient("step") for name in ("alpha", "eta", "decay")}
update = Update(rule, {"M": zeros_like})
own = InnerLoop(net, loss, update, Schedule(chunk=4), coefficients=numbers, trained="last")


# A layer known only by its recurrence: gated linear attention, with a gate for each key channel.
def gated(S, q, k, v, *, alpha):
    """The state [K, V] after a token, and the output [V]."""
    S = alpha * S + outer(k, v)
    return S, q @ S


gla = Recurrence(gated, {"S": ("K", "V")}, {"alpha": Coefficient("token", "row")})
