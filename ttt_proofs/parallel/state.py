"""Where a loop stands between two tokens: all that the past leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Buffers = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class State(Mapping[str, Tensor]):
    """The weights after some steps, by name, and the buffers of the update rule.

    As a mapping it is that of the weights, each `[B, H, rows, cols]`; of a recurrence it is that of
    its states, each `[B, H, *]`, and there are no buffers. `buffers` has for each
    buffer of the rule, such as M, a tensor for each fast weight, of that weight's shape. Its size
    does not depend on how long the past was. float32, or float64 if the inputs are. Copies are
    deep as those of tensors are; those of tensors with a history stay in the graph.
    """

    weights: Mapping[str, Tensor]
    buffers: Buffers

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def parts(self) -> dict[str, Mapping[str, Tensor]]:
        """The weights and each buffer, by what they are called in messages."""
        return {"weights": self.weights} | {f"buffers[{n!r}]": x for n, x in self.buffers.items()}

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """The state with a function of each tensor in its place, such as `Tensor.detach`."""

        def each(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: function(x) for name, x in tensors.items()}

        return State(each(self.weights), {name: each(x) for name, x in self.buffers.items()})

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.map(lambda x: copied(x, memo))

    def __repr__(self) -> str:
        shown = {
            what: ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items()) or "none"
            for what, tensors in self.parts.items()
        }
        return f"State({'; '.join(f'{what}: {each}' for what, each in shown.items())})"


def copied(x: Tensor, memo: dict[int, Any]) -> Tensor:
    """A copy of a tensor, of one with a history too, which PyTorch's own `deepcopy` refuses."""
    return deepcopy(x, memo) if x.is_leaf else x.clone()
