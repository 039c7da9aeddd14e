"""The theorems that the rendering is tried on."""

from __future__ import annotations

import pytest

from ttt_proofs.checker.proof import Theorem
from ttt_proofs.loops import (
    GLU,
    MLP,
    AbstractLoss,
    AnyNet,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic import attention_part, gradient_part

PER_STEP = GradientStep(momentum="per_step")
BEFORE = Schedule(read="before_update")
LACT = GradientStep(
    rate="per_token",
    place="inside",
    momentum="per_token",
    orthogonal="muon",
    weight_norm="initial_norm",
)
CUSTOM = GradientStep(momentum="constant", clip="cut", orthogonal="shape", weight_norm="unit")
INSIDE = GradientStep(rate="per_step", place="inside", momentum="constant", ascent=True)
LOOPS = {
    "momentum": InnerLoop(Features(), AbstractLoss(), PER_STEP),
    "mlp": InnerLoop(MLP(3, "act"), SquaredError(), PER_STEP),
    "gelu": InnerLoop(MLP(2, "gelu_tanh"), Frobenius(), trained="last"),
    "relu": InnerLoop(MLP(2, "relu"), SquaredError(), GradientStep(), Schedule(2, "before_update")),
    "swiglu": InnerLoop(SwiGLU(), Frobenius(), INSIDE),
    "linear": InnerLoop(Linear(), SquaredError(), GradientStep()),
    "lact": InnerLoop(SwiGLU(), Frobenius(), LACT, BEFORE),
    "last": InnerLoop(SwiGLU(), Frobenius(), LACT, BEFORE, trained="last"),
    "glu": InnerLoop(GLU(), Frobenius(), GradientStep(clip="column_norm")),
    "conv": InnerLoop(
        DepthwiseConv(), Frobenius(), GradientStep(clip="column_norm"), Schedule(chunk=4)
    ),
    "causal": InnerLoop(
        Features(), AbstractLoss(), PER_STEP, Schedule(read="causal"), trained="last"
    ),
    "custom": InnerLoop(Linear(), Frobenius(), CUSTOM),
}
ANY = InnerLoop(AnyNet(), AbstractLoss(), GradientStep(ascent=True))


@pytest.fixture(scope="session")
def theorems() -> dict[str, Theorem]:
    """Each loop's linear-attention form, and the gradients of each of its weights."""
    found = {name: Theorem(attention_part(loop).proof) for name, loop in LOOPS.items()}
    for name, loop in (*LOOPS.items(), ("any", ANY)):
        for weight in loop.fast_weights:
            part = gradient_part(loop, weight)
            found[f"{name} {weight.name}"] = Theorem(part.proof)
    return found
