"""Fast-weight nets `f(x) = γ(x; Θ) ⊙ (φ(x; Θ) W)`, each one function; its program is read off it.

Tokens are rows. A net lists its weights, one of which is the W of the last layer, and the
assignments that lead from the input X to the features φ(X). Most have no output gate γ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import sympy as sp

from ..program.checks import parameter_names
from ..program.expressions import CHUNK, UNIT, WINDOW, shown
from ..program.lowering import NetProgram, read_net
from ..program.operations import Abstract, check_name, named


@dataclass(frozen=True)
class Weight:
    """A weight matrix of shape `[rows, cols]`; the widths are symbols."""

    name: str
    rows: sp.Symbol
    cols: sp.Symbol

    @property
    def symbol(self) -> sp.MatrixSymbol:
        """The weight as a SymPy matrix."""
        return sp.MatrixSymbol(self.name, self.rows, self.cols)


Assignment = tuple[sp.MatrixSymbol, sp.MatrixExpr]


@dataclass(frozen=True, repr=False)
class Net:
    """What all nets share: one function, and what its program says of it."""

    __repr__ = shown

    frozen: tuple[str, ...] = field(init=False, compare=False, default=())
    """Weights that a loop moves only if it names them: a module's without `requires_grad`."""

    names: ClassVar[tuple[Sequence[str], Sequence[str]]] = ((), ())
    """What intermediates are called, and hidden widths, where not H1, Z1, ..., D_1, ...."""

    function: ClassVar[Callable[..., Any]]
    """`function(x, *weights)`: outputs `[..., L, V]` for tokens x `[..., L, K]` and weights
    `[..., rows, cols]`; it raises `ValueError` where part of the net is abstract."""

    def __call__(self, x: Any, *weights: Any) -> Any:
        """`function`, so that nets can be parts of others."""
        return self.function(x, *weights)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the weights, in the order in which `function` takes them."""
        return parameter_names("net", self.function)[1:]

    @property
    def traced(self) -> NetProgram:
        """The net's program, as it is read off its function once."""
        if not hasattr(self, "function"):
            raise NotImplementedError
        return of_library(self)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """All weights, in the order of the function's parameters."""
        return tuple(Weight(w.name, *w.shape) for w in self.traced.weights)

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """Assignments from X `[L, D_k]`, the features and the gate among them."""
        return self.traced.assignments

    @property
    def features(self) -> sp.MatrixExpr:
        """The symbol of the features φ(X), `[L, D_h]`; X itself where there is no program."""
        return self.traced.features

    @property
    def last(self) -> Weight:
        """The last layer's weight, `[D_h, D_v]`."""
        return Weight(self.traced.last.name, *self.traced.last.shape)

    @property
    def gate(self) -> sp.MatrixExpr | None:
        """The symbol of a gate γ(X), `[L, D_v]`, on the outputs; None where there is none."""
        return self.traced.gate

    @property
    def outputs(self) -> sp.MatrixExpr:
        """What the last layer makes of the features, `[L, D_v]`, before any gate."""
        return self.traced.outputs

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Widths that are products of others: pixels and offsets have two coordinates each."""
        if self.window is None:
            return {}
        return {CHUNK.name: ("Y", "X"), WINDOW.name: ("D_y", "D_x")}

    @property
    def has_static_features(self) -> bool:
        """Whether nothing but the last layer has parameters."""
        return self.traced.is_static

    @property
    def tokens(self) -> int | None:
        """How many tokens a chunk must have, those of an image; None where any number will do."""
        return self.window[1] * self.window[2] if self.window else None

    @property
    def window(self) -> tuple[int, int, int] | None:
        """Size of a window of pixels, height and width of an image; None for any other net."""
        return self.traced.window

    @property
    def keys(self) -> sp.Expr:
        """The width of tokens: D_k, or D_v where the net takes tokens and outputs together."""
        return self.traced.input.shape[1]

    @property
    def fixed(self) -> dict[str, int]:
        """The widths of which the net leaves no choice: of a bias, a window, numbers in code."""
        window = {WINDOW.name: self.window[0] ** 2} if self.window else {}
        return {UNIT.name: 1} | window | dict(self.traced.sizes)

    @property
    def obstacle(self) -> str | None:
        """Why the theorems do not cover this net; None where they do."""
        return self.traced.obstacle


@cache
def of_library(net: Net) -> NetProgram:
    """The program of one of the library's nets."""
    names, widths = net.names
    return read_net(net.function, net.parameters, names=names, widths=widths)


@dataclass(frozen=True, repr=False)
class Linear(Net):
    """`f(x) = x W`, W `[D_k, D_v]`: the kernel φ is the identity.

    Source: variant 3 of Section 6.1, Table 2.
    """

    def function(self, x: Any, W: Any) -> Any:
        """`x W`."""
        return x @ W


@dataclass(frozen=True, repr=False)
class Features(Net):
    """`f(x) = φ(x; Θ) W`, W `[D_h, D_v]`, for an abstract φ: what the theorems are about.

    If all weights are trained, φ_t is another function at each step; if only the last layer is,
    φ is one function. Such a loop is proved, not run; the parameters Θ stay inside φ. Raises
    `ValueError` unless `name` is one. Source: Section 5, Theorems 5.1 to 5.3.
    """

    name: str = "phi"
    names: ClassVar = (("Phi",), ())

    def __post_init__(self) -> None:
        _ = Abstract(self.name)

    def function(self, x: Any, W: Any) -> Any:
        """`φ(x) W`."""
        return Abstract(self.name, width="D_h")(x) @ W


@dataclass(frozen=True, repr=False)
class MLP(Net):
    """`f(x) = act(... act(x W1) ...) W_depth`, no biases.

    Weights: W1 `[D_k, D_1]`, W2 `[D_1, D_2]`, ..., W_depth `[D_{depth-1}, D_v]`.
    `activation` is a name in the table of operations, or any other name for an abstract entrywise
    function. `bias` and `output_activation` describe nets outside the theorems; with biases the
    weights are W1, b1, W2, b2, ..., each b one row. Raises `ValueError` for a depth below 1 or a
    name that is none.
    Source: the nets that Section 5 allows, with the kernel φ of all but the last layer.
    """

    depth: int = 2
    activation: str = "silu"
    bias: bool = False
    output_activation: str = "identity"

    def __post_init__(self) -> None:
        if not isinstance(self.depth, int) or isinstance(self.depth, bool) or self.depth < 1:
            raise ValueError(
                f"`depth` must be a positive integer; got {self.depth!r}. Use 1 for a linear net."
            )
        check_name("activation", self.activation)
        check_name("output_activation", self.output_activation)
        if not isinstance(self.bias, bool):
            raise ValueError(f"`bias` must be True or False; got {self.bias!r}. Choose one.")

    @property
    def parameters(self) -> tuple[str, ...]:
        """W1 to W_depth, each with its bias after it if there are any."""
        kinds = "Wb" if self.bias else "W"
        return tuple(f"{kind}{k}" for k in range(1, self.depth + 1) for kind in kinds)

    def function(self, x: Any, *weights: Any) -> Any:
        """`Z_k = H_{k-1} W_k + b_k`, `H_k = act(Z_k)`."""
        stride = 2 if self.bias else 1
        for k in range(0, len(weights), stride):
            x = x if k == 0 else named(self.activation)(x)
            x = x @ weights[k]
            x = x + weights[k + 1] if self.bias else x
        return x if self.output_activation == "identity" else named(self.output_activation)(x)


@dataclass(frozen=True, repr=False)
class AnyNet(Net):
    """`f(x; Θ)`, any differentiable function of the input and all its parameters.

    Theta `[D_p, D_r]` is a matrix that holds every parameter. Such a loop is proved, not run,
    and it has no linear last layer. Raises `ValueError` unless `name` is a name.
    Source: Section 5.2 (gradient ascent, for any net).
    """

    name: str = "f"

    def __post_init__(self) -> None:
        _ = Abstract(self.name)

    def function(self, x: Any, Theta: Any) -> Any:
        """`f(x; Θ)`."""
        return Abstract(self.name, width="D_v")(x, Theta)
