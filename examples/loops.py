"""Loops to start from: `ttt-proofs reduce examples/loops.py:swiglu`."""

from ttt_proofs import InnerLoop
from ttt_proofs.loops import (
    MLP,
    Frobenius,
    GradientStep,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
    lact,
    ladder,
)

# Linear attention with momentum: a linear net, the dot-product loss.
linear = InnerLoop(Linear(), Frobenius(), GradientStep(momentum="constant"))

# The delta rule: the same net with the squared error.
delta = InnerLoop(Linear(), SquaredError(), GradientStep(rate="per_step"))

# LaCT's net with only the last layer trained: its features are a static kernel.
swiglu = InnerLoop(
    SwiGLU(),
    Frobenius(),
    GradientStep(rate="per_step", place="inside", momentum="per_step", trained="last"),
    Schedule(chunk=4, read="before_update"),
)

# Everything trained: the kernel moves, and the loop is sequential.
mlp = InnerLoop(MLP(depth=2, activation="gelu_tanh"), SquaredError(), GradientStep())

# LaCT as released, and the second of the six steps from it to linear attention.
whole = lact()
parallel = ladder()["v2"]
