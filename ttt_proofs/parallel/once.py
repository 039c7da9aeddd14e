"""Functions of autograd that have a first derivative and refuse a second one.

`torch.autograd.function.once_differentiable` lets a second derivative pass in silence wherever
another path of the graph supplies one: its error has edges neither to the function's inputs, so
that no search for them finds it, nor to gradients that do not require one. Here the gradients have
edges to all of both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class _Refused(Function):
    """The first `count` tensors, with edges to all of them; its backward raises."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: Tensor | None) -> Any:
        """Aliases, so that nothing is copied or kept; None stays None."""
        ctx.name = name
        return tuple(None if x is None else x.detach() for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raise the error of a second derivative."""
        raise RuntimeError(
            f"{ctx.name} must be differentiated once; got a second derivative. "
            "Take it through the recurrent or the parallel form, which are plain PyTorch."
        )


def _edges(name: str, inputs: tuple[Any, ...]) -> Tensor | None:
    """An empty tensor that depends on every input with a gradient and holds none of their data."""
    leading = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    if not leading:
        return None
    with torch.enable_grad():
        return _Refused.apply(name, 1, leading[0].new_empty(0), *leading)[0]  # type: ignore


def once(name: str) -> Callable[[type[Function]], type[Function]]:
    """Decorate a `Function`: its second derivatives raise RuntimeError, whatever the graph is.

    name: what the error names, such as "`delta_rule`". `backward` runs without a graph; under
    `create_graph=True` the gradients that it returns depend on all tensors that `forward` was
    given as arguments of its own, and on the gradients that `backward` was given, through a node
    that raises. Nothing is saved for it, and without `create_graph=True` no node is run.
    """

    def decorate(function: type[Function]) -> type[Function]:
        forward, backward = function.forward, function.backward

        def watched(ctx: Any, *inputs: Any) -> Any:
            ctx.edges = _edges(name, inputs)
            return forward(ctx, *inputs)

        def refusing(ctx: Any, *grads: Any) -> Any:
            with torch.no_grad():
                found = backward(ctx, *grads)
            if not torch.is_grad_enabled():
                return found
            found = found if isinstance(found, tuple) else (found,)
            return _Refused.apply(name, len(found), *found, ctx.edges, *grads)

        function.forward, function.backward = staticmethod(watched), staticmethod(refusing)
        return function

    return decorate
