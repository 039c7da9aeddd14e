"""The nets of the systems that the paper reduces: LaCT's, and the two halves of ViTTT's."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from ..program.expressions import CHUNK, HIDDEN, KEY, VALUE, WINDOW, Windowed, activate, check_name
from .nets import Assignment, Net, Weight, X


@dataclass(frozen=True, repr=False)
class SwiGLU(Net):
    """`f(x) = (silu(x W0) ⊙ (x W2)) W1`, the net of LaCT; other gates by name.

    Weights: W0 and W2 `[D_k, D_h]`, W1 `[D_h, D_v]`, the last layer. Raises `ValueError` unless
    `activation` is a name. Source: Section 5.3, Appendix E.
    """

    activation: str = "silu"

    def __post_init__(self) -> None:
        check_name("activation", self.activation)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """W0 (gate) and W2 (content) hidden, W1 last."""
        return (Weight("W0", KEY, HIDDEN), Weight("W2", KEY, HIDDEN), Weight("W1", HIDDEN, VALUE))

    @property
    def program(self) -> tuple[Assignment, ...]:
        """Gate, content, their entrywise product."""
        gate, content, product = (sp.MatrixSymbol(name, CHUNK, HIDDEN) for name in ("A", "B", "H"))
        w0, w2, _ = (weight.symbol for weight in self.weights)
        gated = sp.HadamardProduct(activate(self.activation, gate), content)
        return ((gate, X * w0), (content, X * w2), (product, gated))


@dataclass(frozen=True, repr=False)
class GLU(Net):
    """`f(x) = silu(x W0) ⊙ (x W1)`, one half of ViTTT; other gates by name.

    Weights: W0 and W1 `[D_k, D_v]`; W1 is the last layer, which has the input as its features,
    and `act(x W0)` gates what it makes. Raises `ValueError` unless `activation` is a name.
    Source: Section 5.4, Appendix F.
    """

    activation: str = "silu"

    def __post_init__(self) -> None:
        check_name("activation", self.activation)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """W0 (gate), W1 last."""
        return (Weight("W0", KEY, VALUE), Weight("W1", KEY, VALUE))

    @property
    def program(self) -> tuple[Assignment, ...]:
        """The gate and its argument."""
        argument = sp.MatrixSymbol("A", CHUNK, VALUE)
        return (
            (argument, X * self.weights[0].symbol),
            (sp.MatrixSymbol("C", CHUNK, VALUE), activate(self.activation, argument)),
        )

    @property
    def features(self) -> sp.MatrixExpr:
        """The input itself."""
        return X

    @property
    def gate(self) -> sp.MatrixExpr:
        """`act(X W0)`."""
        return self.program[-1][0]


@dataclass(frozen=True, repr=False)
class DepthwiseConv(Net):
    """A depthwise convolution, `f(x)[p, c] = Σ_d x[p + d, c] W[d, c]`, the other half of ViTTT.

    Tokens are the pixels p of an image, row by row; d runs over a window of `size` by `size`
    offsets around p, and the image is zero outside. Weight: W `[D_w, D_v]`, one window for each
    channel, rows in the window's row order. Each chunk is an image of `height` by `width`
    pixels; the theorems hold for all sizes of image and window, and what is outside may be
    anything. Raises `ValueError` unless `size` is odd and all are positive.
    Source: Section 5.4, Appendix G.
    """

    size: int = 3
    height: int = 2
    width: int = 2

    def __post_init__(self) -> None:
        for field in ("size", "height", "width"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"`{field}` must be a positive integer; got {value!r}. "
                    "Give the number of pixels."
                )
        if self.size % 2 == 0:
            raise ValueError(
                f"`size` must be odd, so that a window has a middle; got {self.size}. Use 3."
            )

    @property
    def weights(self) -> tuple[Weight, ...]:
        """W alone."""
        return (Weight("W", WINDOW, VALUE),)

    @property
    def program(self) -> tuple[Assignment, ...]:
        """Nothing to compute."""
        return ()

    @property
    def features(self) -> sp.MatrixExpr:
        """The image, a channel a column; the features of a pixel are its window."""
        return sp.MatrixSymbol("X", CHUNK, VALUE)

    @property
    def outputs(self) -> sp.MatrixExpr:
        """The correlation."""
        return Windowed(self.features, self.last.symbol)

    @property
    def tokens(self) -> int:
        """One image."""
        return self.height * self.width

    @property
    def window(self) -> tuple[int, int, int]:
        """As given."""
        return self.size, self.height, self.width

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Pixels and offsets have two coordinates each."""
        return {CHUNK.name: ("Y", "X"), WINDOW.name: ("D_y", "D_x")}
