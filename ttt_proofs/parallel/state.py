"""Where a loop stands between two tokens: all that the past leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class State(Mapping[str, Tensor]):
    """The fast weights after some steps, by name, and the accumulators of those that have one.

    As a mapping it is that of the weights, each `[B, H, rows, cols]`. `accumulators` are the M of
    the update rule, of the same shapes, for each trained weight of a loop with momentum. Its size
    does not depend on how long the past was. float32, or float64 if the inputs are.
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
