"""What every form owes its caller, whatever the form: range, precision, a graph of all inputs.

Under `torch.autocast` products would be shorter than states are, so a form runs without it. float16
has the range for a token and not for sums of tokens: such tokens are computed with in float32.
A form of no tokens or sequences has nothing to read, and still gives each input a gradient: zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import unwrap
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .state import State

Run = TypeVar("Run", bound=Callable[..., Any])


def roomy(dtype: torch.dtype) -> torch.dtype:
    """The dtype that tokens are computed with: float32 for float16, else their own."""
    return torch.float32 if dtype == torch.float16 else dtype


def tensors(*values: Any) -> Iterator[Tensor]:
    """All tensors among the values, those in mappings and states included."""
    for value in values:
        if isinstance(value, State):
            yield from tensors(*value.parts.values())
        elif isinstance(value, Mapping):
            yield from tensors(*value.values())
        elif isinstance(value, Tensor):
            yield value


def nothing(*inputs: Any) -> Tensor | None:
    """A zero that depends on each input with a gradient; None where there is none.

    inputs: tensors, mappings of them, states; what is no tensor is passed over.
    """
    asked = [x for x in tensors(*inputs) if x.requires_grad] if torch.is_grad_enabled() else []
    if not asked:
        return None
    return torch.stack([x[None, ...][:0].sum().float() for x in asked]).sum()  # so NaN stays out


def tied(outputs: Tensor, state: State | None, *inputs: Any) -> tuple[Tensor, State | None]:
    """The same outputs and state, which depend on each input, by zero, if there are no outputs."""
    zero = None if outputs.numel() else nothing(*inputs)
    if zero is None:
        return outputs, state
    tied_state = None if state is None else state.map(lambda x: (x + zero).to(x.dtype))
    return (outputs + zero).to(outputs.dtype), tied_state


def form(run: Run) -> Run:
    """Decorate a form, `run(loop, q, k, [v,] weights, coefficients, ...)`, with all of that."""

    @wraps(run)
    def called(loop: Any, q: Tensor, *inputs: Any, **options: Any) -> Any:
        given = [roomier(x) for x in (q, *inputs)]
        more = {name: roomier(x) for name, x in options.items()}
        with torch.autocast(q.device.type, enabled=False):
            found = run(loop, *given, **more)
            alone = isinstance(found, Tensor)
            outputs, state = (found, None) if alone else found
            outputs, state = tied(outputs.to(q.dtype), state, q, *inputs, options)
            return outputs if alone else (outputs, state)

    return cast(Run, called)


def in_own_precision(run: Run) -> Run:
    """The form without that: what plain PyTorch makes of the tokens in their own dtype.

    The yardstick for kernels, which compute in that dtype as well.
    """
    return cast(Run, unwrap(run))


def roomier(x: Any) -> Any:
    """A tensor, or those in a mapping, in the dtype to compute with; anything else as it is."""
    if isinstance(x, Tensor):
        return x.to(roomy(x.dtype))
    if isinstance(x, Mapping) and not isinstance(x, State):
        return {name: roomier(y) for name, y in x.items()}
    return x
