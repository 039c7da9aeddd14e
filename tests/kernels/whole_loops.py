"""Loops on kernels and the real loop, on the same inputs: outputs, final weights, gradients."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch

from tests.kernels.oracles import DEVICE, poisoned
from tests.parallel.ways import cut
from ttt_proofs.evidence.autograd import measured
from ttt_proofs.evidence.conditioning import draw_steady, relative_errors
from ttt_proofs.evidence.sampling import Inputs
from ttt_proofs.evidence.tolerances import allowance
from ttt_proofs.loops import InnerLoop
from ttt_proofs.reference import run_loop

WIDTHS = {"B": 2, "H": 2, "T": 7, "D_k": 3, "D_v": 2, "D_h": 4}


def sizes(case: InnerLoop, **changes: int) -> dict[str, int]:
    """Sizes of two sequences on two heads, with a short last chunk."""
    widths = {side.name for w in case.net.weights for side in (w.rows, w.cols)}
    return {n: size for n, size in (WIDTHS | changes).items() if n in widths | {"B", "H", "T"}}


def inputs_of(case: InnerLoop, seed: int = 0, **changes: int) -> Inputs:
    """Inputs at which rounding stays small; numbers that are constant as tensors, `[]`."""
    ends = partial(measured, partial(run_loop, case), 0)
    inputs = draw_steady(case, seed, ends, sizes=sizes(case, **changes)).inputs

    numbers = {
        name: torch.as_tensor(x, dtype=torch.float64, device=DEVICE)
        for name, x in inputs.coefficients.items()
    }
    weights = {name: x.to(DEVICE) for name, x in inputs.weights.items()}
    return Inputs(*(x.to(DEVICE) for x in (inputs.q, inputs.k, inputs.v)), weights, numbers)


def ends_joined(run: Callable) -> Callable:
    """A run whose outputs are followed by its final weights, so that both are differentiated."""

    def joined(q: Any, k: Any, v: Any, **given: Any) -> tuple[torch.Tensor, Any]:
        o, final = run(q, k, v, **given)
        return torch.cat([o.flatten(), *(final[n].flatten() for n in sorted(final))]), final

    return joined


def called(form: Callable, case: InnerLoop) -> Callable:
    """A form of the loop, called as `run_loop` is."""

    def run(q: Any, k: Any, v: Any, *, weights: Any, coefficients: Any) -> Any:
        return form(case, q, k, v, weights, coefficients)

    return run


def halves(form: Callable, case: InnerLoop, at: int) -> Callable:
    """The same, the tokens from `at` on continuing from the state that those before leave."""

    def run(q: Any, k: Any, v: Any, *, weights: Any, coefficients: Any) -> Any:
        made, state = [], None
        for start, stop in ((0, at), (at, q.shape[1])):
            part = cut(case, Inputs(q, k, v, weights, coefficients), start, stop)
            o, state = form(case, *vars(part).values(), state)
            made.append(o)
        return torch.cat(made, dim=1), state

    return run


@lru_cache
def expected(case: InnerLoop, **changes: int) -> tuple[Inputs, dict[str, torch.Tensor]]:
    """Inputs, and what the real loop makes of them."""
    x = inputs_of(case, **changes)
    return x, measured(ends_joined(partial(run_loop, case)), 1, x)


def wrong(run: Callable, case: InnerLoop, **changes: int) -> dict[str, float]:
    """Outputs, final weights and gradients that are not the real loop's, and by how much."""
    allowed, (x, exact) = allowance(case, WIDTHS["T"]), expected(case, **changes)
    with poisoned():
        found = measured(ends_joined(run), 1, x)
    errors = relative_errors(found, exact, allowed.scale)
    assert {"outputs", "gradient in q"} <= set(errors)
    return {name: error for name, error in errors.items() if not error <= allowed.error}
