"""Loops on kernels and the real loop, on the same inputs: outputs, final weights, gradients."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch

from tests.kernels.oracles import DEVICE, poisoned
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

    def made(x: Any) -> Any:
        if isinstance(x, Mapping):
            return {name: made(y) for name, y in x.items()}
        return torch.as_tensor(x, dtype=torch.float64, device=DEVICE) if x is not None else None

    return Inputs(**{name: made(x) for name, x in vars(inputs).items()})


def ends_joined(run: Callable) -> Callable:
    """A run whose outputs are followed by its final weights, so that both are differentiated."""

    def joined(q: Any, k: Any, v: Any, **given: Any) -> tuple[torch.Tensor, Any]:
        o, final = run(q, k, v, **given)
        return torch.cat([o.flatten(), *(final[n].flatten() for n in sorted(final))]), final

    return joined


def called(form: Callable, case: InnerLoop) -> Callable:
    """A form of the loop, called as `run_loop` is."""

    def run(q: Any, k: Any, v: Any, *, weights: Any, rate: Any, momentum: Any) -> Any:
        return form(case, q, k, v, weights, rate, momentum)

    return run


def halves(form: Callable, case: InnerLoop, at: int) -> Callable:
    """The same, the tokens from `at` on continuing from the state that those before leave."""

    def run(q: Any, k: Any, v: Any, *, weights: Any, rate: Any, momentum: Any) -> Any:
        def cut(x: Any, of: slice) -> Any:
            if isinstance(x, Mapping):
                return {name: cut(y, of) for name, y in x.items()}
            if not isinstance(x, torch.Tensor) or x.ndim == 0:
                return x
            each = 1 if x.shape[1] == q.shape[1] else case.schedule.chunk  # tokens, or steps
            return x[:, slice(*(n and n // each for n in (of.start, of.stop)))]

        made, state = [], None
        for of in (slice(None, at), slice(at, None)):
            o, state = form(
                case,
                *(cut(x, of) for x in (q, k, v)),
                weights,
                cut(rate, of),
                cut(momentum, of),
                state,
            )
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
