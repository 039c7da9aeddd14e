"""The theorems that the rendering is tried on."""

from __future__ import annotations

import pytest

from ttt_proofs.kernel.proof import Theorem
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic.derivation import attention_part, gradient_part

PER_STEP = GradientStep(momentum="per_step")
INSIDE = GradientStep(rate="per_step", place="inside", momentum="constant", ascent=True)
LOOPS = {
    "momentum": InnerLoop(Features(), AbstractLoss(), PER_STEP),
    "mlp": InnerLoop(MLP(3, "act"), SquaredError(), PER_STEP),
    "gelu": InnerLoop(MLP(2, "gelu_tanh"), Frobenius(), GradientStep(trained="last")),
    "relu": InnerLoop(MLP(2, "relu"), SquaredError(), GradientStep(), Schedule(2, "before_update")),
    "swiglu": InnerLoop(SwiGLU(), Frobenius(), INSIDE),
    "linear": InnerLoop(Linear(), SquaredError(), GradientStep()),
}


@pytest.fixture(scope="session")
def theorems() -> dict[str, Theorem]:
    """Each loop's linear-attention form, and the gradients of each of its weights."""
    found = {name: Theorem(attention_part(loop).proof) for name, loop in LOOPS.items()}
    for name, loop in LOOPS.items():
        for weight in loop.trained:
            part = gradient_part(loop, weight)
            found[f"{name} {weight.name}"] = Theorem(part.proof)
    return found
