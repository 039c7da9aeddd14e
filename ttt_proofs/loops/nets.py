"""Fast-weight nets `f(x) = γ(x; Θ) ⊙ (φ(x; Θ) W)`: short programs of matrix assignments.

Tokens are rows. A net lists its weights, the last of which is the W of the last layer, and
the assignments that lead from the input X to the features φ(X). Most have no output gate γ.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import sympy as sp

from ..program.expressions import (
    CHUNK,
    HIDDEN,
    KEY,
    VALUE,
    RowFunction,
    activate,
    check_name,
    shown,
    width,
)


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
X = sp.MatrixSymbol("X", CHUNK, KEY)


@dataclass(frozen=True, repr=False)
class Net:
    """What all nets share: weights, and a program from X to the features."""

    __repr__ = shown

    @property
    def weights(self) -> tuple[Weight, ...]:
        """All weights, hidden ones first, the last layer's last."""
        raise NotImplementedError

    @property
    def program(self) -> tuple[Assignment, ...]:
        """Assignments from X `[L, D_k]`; the last one's symbol holds the features."""
        raise NotImplementedError

    @property
    def features(self) -> sp.MatrixExpr:
        """The symbol of the features φ(X), `[L, D_h]`; X itself where there is no program."""
        return self.program[-1][0] if self.program else X

    @property
    def last(self) -> Weight:
        """The last layer's weight, `[D_h, D_v]`."""
        return self.weights[-1]

    @property
    def gate(self) -> sp.MatrixExpr | None:
        """The symbol of a gate γ(X), `[L, D_v]`, on the outputs; None where there is none."""
        return None

    @property
    def outputs(self) -> sp.MatrixExpr:
        """What the last layer makes of the features, `[L, D_v]`, before any gate."""
        return self.features * self.last.symbol

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Widths that are products of others, such as a chunk of pixels: height times width."""
        return {}

    @property
    def has_static_features(self) -> bool:
        """Whether φ has no parameters."""
        return not self.program

    @property
    def tokens(self) -> int | None:
        """How many tokens a chunk must have; None where any number will do."""
        return None

    @property
    def window(self) -> tuple[int, int, int] | None:
        """Size of a window of pixels, height and width of an image; None for any other net."""
        return None

    @property
    def obstacle(self) -> str | None:
        """Why the theorems do not cover this net; None where they do."""
        return None


@dataclass(frozen=True, repr=False)
class Linear(Net):
    """`f(x) = x W`, W `[D_k, D_v]`: the kernel φ is the identity.

    Source: variant 3 of Section 6.1, Table 2.
    """

    @property
    def weights(self) -> tuple[Weight, ...]:
        """W alone."""
        return (Weight("W", KEY, VALUE),)

    @property
    def program(self) -> tuple[Assignment, ...]:
        """Nothing to compute."""
        return ()


@dataclass(frozen=True, repr=False)
class Features(Net):
    """`f(x) = φ(x; Θ) W`, W `[D_h, D_v]`, for an abstract φ: what the theorems are about.

    If all weights are trained, φ_t is another function at each step; if only the last layer is,
    φ is one function. Such a loop is proved, not run. Raises `ValueError` unless `name` is one.
    Source: Section 5, Theorems 5.1 to 5.3.
    """

    name: str = "phi"

    def __post_init__(self) -> None:
        check_name("name", self.name)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """W; the parameters Θ stay inside φ."""
        return (Weight("W", HIDDEN, VALUE),)

    @property
    def program(self) -> tuple[Assignment, ...]:
        """φ of each row."""
        return ((sp.MatrixSymbol("Phi", CHUNK, HIDDEN), RowFunction(self.name, X, HIDDEN)),)


@dataclass(frozen=True, repr=False)
class MLP(Net):
    """`f(x) = act(... act(x W1) ...) W_depth`, no biases.

    Weights: W1 `[D_k, D_1]`, W2 `[D_1, D_2]`, ..., W_depth `[D_{depth-1}, D_v]`.
    `activation` is a name in `ACTIVATIONS`, or any other name for an abstract entrywise
    function. `bias` and `output_activation` describe nets outside the theorems.
    Raises `ValueError` for a depth below 1 or a name that is none.
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
    def weights(self) -> tuple[Weight, ...]:
        """W1 to W_depth; hidden widths are D_1, D_2, ..."""
        widths = [KEY, *(width(f"D_{k}") for k in range(1, self.depth)), VALUE]
        pairs = pairwise(widths)
        return tuple(Weight(f"W{k}", a, b) for k, (a, b) in enumerate(pairs, start=1))

    @property
    def program(self) -> tuple[Assignment, ...]:
        """`Z_k = H_{k-1} W_k`, `H_k = act(Z_k)`."""
        lines: list[Assignment] = []
        above: sp.MatrixExpr = X
        for k, weight in enumerate(self.weights[:-1], start=1):
            z, h = (sp.MatrixSymbol(f"{letter}{k}", CHUNK, weight.cols) for letter in "ZH")
            lines += [(z, above * weight.symbol), (h, activate(self.activation, z))]
            above = h
        return tuple(lines)

    @property
    def obstacle(self) -> str | None:
        """Biases and nonlinear outputs are outside the theorems."""
        if self.bias:
            return "the last layer must have no bias"
        if self.output_activation != "identity":
            return "the last layer must be linear"
        return None


@dataclass(frozen=True, repr=False)
class AnyNet(Net):
    """`f(x; Θ)`, any differentiable function of the input and all its parameters.

    Theta `[D_p, D_r]` is a matrix that holds every parameter. Such a loop is proved, not run,
    and it has no linear last layer. Raises `ValueError` unless `name` is a name.
    Source: Section 5.2 (gradient ascent, for any net).
    """

    name: str = "f"

    def __post_init__(self) -> None:
        check_name("name", self.name)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Theta alone."""
        return (Weight("Theta", width("D_p"), width("D_r")),)

    @property
    def program(self) -> tuple[Assignment, ...]:
        """Nothing is known."""
        return ()

    @property
    def outputs(self) -> sp.MatrixExpr:
        """f of each row."""
        return RowFunction(self.name, X, VALUE, self.last.symbol)

    @property
    def has_static_features(self) -> bool:
        """No: all is one function."""
        return False

    @property
    def obstacle(self) -> str | None:
        """Nothing says that the last layer is linear."""
        return "the last layer must be linear"
