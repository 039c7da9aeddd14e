"""Gradients of the SwiGLU net of LaCT, `f(x) = (silu(x W0) ⊙ (x W2)) W1`, in every weight."""

from ttt_proofs.loops import AbstractLoss, Frobenius, GradientStep, InnerLoop, SquaredError, SwiGLU
from ttt_proofs.symbolic import Derivation, Part, gradient_part


def derive() -> Derivation:
    """The loss is abstract; of silu the proof needs only that it has a derivative, `silu′`."""

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        return tuple(gradient_part(loop, weight, weight.name) for weight in loop.net.weights)

    return Derivation(
        name="swiglu_gradients",
        title="Gradients of the SwiGLU net",
        source="Section 5.3, Appendix E",
        parts=restate(InnerLoop(SwiGLU(), AbstractLoss(), GradientStep())),
        restate=restate,
        loops=(
            InnerLoop(SwiGLU(), Frobenius(), GradientStep()),
            InnerLoop(SwiGLU(), SquaredError(), GradientStep(momentum="constant")),
        ),
    )
