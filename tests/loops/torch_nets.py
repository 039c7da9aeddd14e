"""The nets and the activations once more, in plain PyTorch."""

import torch
from torch.nn import functional

from ttt_proofs.loops import Net, SwiGLU

TORCH = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


def random_arrays(net: Net, seed: int):
    """X and the weights, at random sizes."""
    generator = torch.Generator().manual_seed(seed)
    sorts = sorted({"L", "D_k", *(s.name for w in net.weights for s in (w.rows, w.cols))})
    size = {s: int(torch.randint(1, 6, (), generator=generator)) for s in sorts}
    shapes = {"X": ("L", "D_k")} | {w.name: (w.rows.name, w.cols.name) for w in net.weights}
    return {
        name: torch.randn([size[s] for s in shape], generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def features_of(net: Net, x: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the net's features should be, in PyTorch."""
    if isinstance(net, SwiGLU):
        return TORCH[net.activation](x["X"] @ x["W0"]) * (x["X"] @ x["W2"])
    h = x["X"]
    for k in range(1, getattr(net, "depth", 1)):
        h = TORCH[net.activation](h @ x[f"W{k}"])
    return h
