"""Back-propagation through two- and three-layer nets, for every weight.

The activations and the loss are abstract; SymPy's matrix calculus finds the gradients.
"""

from ttt_proofs.loops import MLP, AbstractLoss, Frobenius, GradientStep, InnerLoop, SquaredError
from ttt_proofs.symbolic import Derivation, gradient_part


def derive() -> Derivation:
    """One statement for each weight of each net."""
    update = GradientStep()
    nets = {"two layers": MLP(2, "act"), "three layers": MLP(3, "act")}
    loops = {name: InnerLoop(net, AbstractLoss(), update) for name, net in nets.items()}
    return Derivation(
        name="mlp_gradients",
        title="Gradients of multi-layer nets",
        source="Section 5, Appendix B (the gradient used there)",
        parts=tuple(
            gradient_part(loop, weight, f"{name}, {weight.name}")
            for name, loop in loops.items()
            for weight in loop.net.weights
        ),
        loops=(
            InnerLoop(MLP(2, "silu"), SquaredError(), update),
            InnerLoop(MLP(3, "gelu_tanh"), Frobenius(), update),
        ),
    )
