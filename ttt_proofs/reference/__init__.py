"""The oracle: the real inner loop in float64, by `torch.autograd`. Shares no code with the rest."""

from .oracle import run_loop

__all__ = ["run_loop"]
