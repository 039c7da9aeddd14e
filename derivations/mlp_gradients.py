"""Back-propagation through two- and three-layer nets, for every weight.

The activations and the loss are abstract; SymPy's matrix calculus finds the gradients.
"""

from ttt_proofs.loops import MLP, AbstractLoss, Frobenius, GradientStep, InnerLoop, SquaredError
from ttt_proofs.symbolic import Derivation, Part, gradient_part


def derive() -> Derivation:
    """One statement for each weight of each net."""
    update = GradientStep()
    layers = {2: "two layers", 3: "three layers"}

    def restate(loop: InnerLoop) -> tuple[Part, ...]:
        weights = loop.net.weights
        label = layers[len(weights)]
        return tuple(gradient_part(loop, w, f"{label}, {w.name}") for w in weights)

    abstract = (InnerLoop(MLP(depth, "act"), AbstractLoss(), update) for depth in layers)
    return Derivation(
        name="mlp_gradients",
        title="Gradients of multi-layer nets",
        source="Section 5, Appendix B (the gradient used there)",
        parts=tuple(part for loop in abstract for part in restate(loop)),
        restate=restate,
        loops=(
            InnerLoop(MLP(2, "silu"), SquaredError(), update),
            InnerLoop(MLP(3, "gelu_tanh"), Frobenius(), update),
        ),
    )
