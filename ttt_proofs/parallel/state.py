"""Where a loop stands between two tokens: all that the past leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class State(Mapping[str, Tensor]):
    """The fast weights after some steps, by name, and the accumulators of those that have one.

    As a mapping it is that of the weights, each `[B, H, rows, cols]`. `accumulators` are the M of
    the update rule, of the same shapes, for each trained weight of a loop with momentum. Its size
    does not depend on how long the past was. float32, or float64 if the inputs are. Copies are
    deep as those of tensors are; those of tensors with a history stay in the graph.
    """

    weights: Mapping[str, Tensor]
    accumulators: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """The state with a function of each tensor in its place, such as `Tensor.detach`."""
        weights, accumulators = (
            {name: function(x) for name, x in all_.items()}
            for all_ in (self.weights, self.accumulators)
        )
        return State(weights, accumulators)

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.map(lambda x: copied(x, memo))

    def __repr__(self) -> str:
        weights, accumulators = (
            ", ".join(f"{name} {tuple(x.shape)}" for name, x in all_.items()) or "none"
            for all_ in (self.weights, self.accumulators)
        )
        return f"State(weights: {weights}; accumulators: {accumulators})"


def copied(x: Tensor, memo: dict[int, Any]) -> Tensor:
    """A copy of a tensor, of one with a history too, which PyTorch's own `deepcopy` refuses."""
    return deepcopy(x, memo) if x.is_leaf else x.clone()
