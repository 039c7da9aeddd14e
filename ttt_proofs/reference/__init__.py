"""The oracle: the real inner loop in float64, by `torch.autograd`. Shares no code with the rest."""

from .oracle import first_gradient, run_functions, run_loop

__all__ = ["first_gradient", "run_functions", "run_loop"]
