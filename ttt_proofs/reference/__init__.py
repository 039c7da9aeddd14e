"""The oracle: the real inner loop in float64, by `torch.autograd`. Shares no code with the rest."""

from .oracle import first_gradient, run_functions, run_loop
from .token_by_token import run_recurrence

__all__ = ["first_gradient", "run_functions", "run_loop", "run_recurrence"]
