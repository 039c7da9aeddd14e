"""The nets of the systems that the paper reduces: LaCT's, and the two halves of ViTTT's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..program.operations import Depthwise, check_name, named
from .nets import Net


@dataclass(frozen=True, repr=False)
class SwiGLU(Net):
    """`f(x) = (silu(x W0) ⊙ (x W2)) W1`, the net of LaCT; other gates by name.

    Weights: W0 (gate) and W2 (content) `[D_k, D_h]`, W1 `[D_h, D_v]`, the last layer. Raises
    `ValueError` unless `activation` is a name. Source: Section 5.3, Appendix E.
    """

    activation: str = "silu"
    names: ClassVar = (("A", "B", "H"), ("D_h",))

    def __post_init__(self) -> None:
        check_name("activation", self.activation)

    def function(self, x: Any, W0: Any, W2: Any, W1: Any) -> Any:
        """Gate, content, their entrywise product, the last layer."""
        return (named(self.activation)(x @ W0) * (x @ W2)) @ W1


@dataclass(frozen=True, repr=False)
class GLU(Net):
    """`f(x) = silu(x W0) ⊙ (x W1)`, one half of ViTTT; other gates by name.

    Weights: W0 and W1 `[D_k, D_v]`; W1 is the last layer, which has the input as its features,
    and `act(x W0)` gates what it makes. Raises `ValueError` unless `activation` is a name.
    Source: Section 5.4, Appendix F.
    """

    activation: str = "silu"
    names: ClassVar = (("A", "C"), ())

    def __post_init__(self) -> None:
        check_name("activation", self.activation)

    def function(self, x: Any, W0: Any, W1: Any) -> Any:
        """The gate, and what it gates."""
        return named(self.activation)(x @ W0) * (x @ W1)


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

    def function(self, x: Any, W: Any) -> Any:
        """The correlation."""
        return Depthwise(self.size, self.height, self.width)(x, W)
