"""The table of operations: what each is in SymPy, how PyTorch writes it, which names mean it.

Operations are called in the functions that define nets and losses: on tensors they compute, while a
function is read they are recorded, and on SymPy expressions they give the expression.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sympy as sp

from . import functions


def perform(operation: Any, *arguments: Any) -> Any:
    """An operation on what it is called with: recorded where one is being traced, else run."""
    for argument in arguments:
        if record := getattr(type(argument), "__record__", None):
            return record(operation, arguments)
    torch = sys.modules.get("torch")  # whoever has tensors has imported it
    if torch is None or not all(isinstance(x, torch.Tensor) for x in arguments):
        kinds = ", ".join(type(x).__name__ for x in arguments)
        raise TypeError(f"`{operation.name}` must be called on tensors; got {kinds}. Convert them.")
    return operation.run(torch, *arguments)


@cache
def compiled(code: str) -> Callable[..., Any]:
    """The function of x that a row's PyTorch code is."""
    return eval(f"lambda x: {code.format('x')}", {"torch": sys.modules["torch"]})


@dataclass(frozen=True)
class AtLeast:
    """The values of an option that change nothing of what is computed: from the least one on."""

    least: float


@dataclass(frozen=True)
class Entrywise:
    """A function of each entry.

    value: in SymPy. code: in PyTorch, with `{0}` for the argument. slope: the derivative of a
    function that is kept whole, in PyTorch; of the others it follows from `value`. meant: the
    names by which PyTorch calls it. options: what else PyTorch's functions of that name take, by
    position, with the one value that is meant here.
    """

    name: str
    value: Any
    code: str
    slope: str = ""
    meant: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()

    def __call__(self, x: Any) -> Any:
        """The function of a tensor, of a traced matrix or of a SymPy expression."""
        return self.value(x) if isinstance(x, sp.Basic) else perform(self, x)

    def run(self, torch: Any, x: Any) -> Any:
        """The function of each entry of a tensor."""
        return compiled(self.code)(x)


@dataclass(frozen=True)
class Rowwise:
    """A function of each row, with as many outputs; proofs need no more than its derivative."""

    name: str
    code: str
    meant: tuple[str, ...] = ()

    def __call__(self, x: Any) -> Any:
        """The function of each row of a tensor or of a traced matrix."""
        return perform(self, x)

    def run(self, torch: Any, x: Any) -> Any:
        """The function of each row of a tensor `[..., rows, cols]`."""
        return compiled(self.code)(x)


@dataclass(frozen=True)
class Depthwise:
    """A convolution of each channel with a window of its own, on images of a fixed size.

    `Σ_d x[p + d, c] W[d, c]` for x `[..., height · width, C]`, the pixels of an image row by row,
    and W `[..., size², C]`, a window's offsets row by row; the image is zero outside.
    """

    size: int
    height: int
    width: int
    name: str = "depthwise"

    def __call__(self, x: Any, window: Any) -> Any:
        """The convolution of tensors or of traced matrices."""
        return perform(self, x, window)

    def run(self, torch: Any, x: Any, window: Any) -> Any:
        """The convolution, as a sum over the window's offsets."""
        margin, lead, channels = self.size // 2, x.shape[:-2], x.shape[-1]
        image = x.reshape(*lead, self.height, self.width, channels)
        wide = torch.nn.functional.pad(image, (0, 0, margin, margin, margin, margin))
        total = torch.zeros_like(image)
        for offset in range(self.size**2):
            down, right = divmod(offset, self.size)
            seen = wide[..., down : down + self.height, right : right + self.width, :]
            total = total + seen * window[..., offset, None, None, :]
        return total.reshape(x.shape)


Kind = Literal["entrywise", "row", "loss"]


@dataclass(frozen=True)
class Abstract:
    """An unknown function, called in code as a known one is.

    With a `width` it is a function of each row with that many outputs, and a second argument are
    its parameters; with `scalar` a loss of two rows, one number a token; with neither a function
    of each entry. It is proved about, not run: on tensors it raises `ValueError`.

    >>> phi = Abstract("phi", width="D_h")
    >>> def net(x, W): return phi(x) @ W
    """

    name: str
    width: str | None = None
    scalar: bool = False

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.name in OPERATIONS:
            raise ValueError(
                f"`name` must be no known operation's; got {self.name!r}. Call that, or rename it."
            )

    @property
    def kind(self) -> Kind:
        """What it is a function of."""
        return "loss" if self.scalar else "entrywise" if self.width is None else "row"

    def value(self, x: Any) -> Any:
        """The unknown function of an entry, in SymPy."""
        return sp.Function(self.name)(x)

    def __call__(self, *arguments: Any) -> Any:
        """The unknown function of what is traced."""
        if self.kind == "entrywise" and isinstance(arguments[0], sp.Basic):
            return self.value(*arguments)
        return perform(self, *arguments)

    def run(self, torch: Any, *arguments: Any) -> Any:
        """Nothing: there is nothing to run."""
        raise ValueError(
            f"`{self.name}` must be a concrete function for a loop to be run; got an abstract "
            "one. Put a function in its place."
        )


def whole(kind: Any, code: str, slope: str, *options: tuple[str, object]) -> Entrywise:
    """The row of a function that is kept whole."""
    return Entrywise(kind.__name__, kind, code, slope, (kind.__name__,), options)


INPLACE = ("inplace", False)
F = "torch.nn.functional"

ENTRYWISE: dict[str, Entrywise] = {
    row.name: row
    for row in (
        Entrywise("identity", lambda x: x, "{0}", meant=("clone", "contiguous")),
        whole(functions.relu, "torch.relu({0})", "({0} > 0).to({0}.dtype)", INPLACE),
        whole(
            functions.sigmoid,
            "torch.sigmoid({0})",
            "(torch.sigmoid({0}) * (1 - torch.sigmoid({0})))",
        ),
        whole(
            functions.silu,
            f"{F}.silu({{0}})",
            "(torch.sigmoid({0}) * (1 + ({0}) * (1 - torch.sigmoid({0}))))",
            INPLACE,
        ),
        whole(functions.tanh, "torch.tanh({0})", "(1 - torch.tanh({0}) ** 2)"),
        Entrywise(
            "gelu_tanh",
            functions.gelu_tanh,
            f"{F}.gelu({{0}}, approximate='tanh')",
            "(0.5 * (1 + torch.tanh(0.7978845608028654 * (({0}) + 0.044715 * ({0}) ** 3)))"
            " + 0.3989422804014327 * ({0}) * (1 + 0.134145 * ({0}) ** 2)"
            " * (1 - torch.tanh(0.7978845608028654 * (({0}) + 0.044715 * ({0}) ** 3)) ** 2))",
        ),
        whole(
            functions.gelu,
            f"{F}.gelu({{0}})",
            "(0.5 * (1 + torch.erf(0.7071067811865476 * ({0})))"
            " + 0.3989422804014327 * ({0}) * torch.exp(-0.5 * ({0}) ** 2))",
            ("approximate", "none"),
        ),
        whole(functions.exp, "torch.exp({0})", "torch.exp({0})"),
        # Beyond its threshold softplus is the identity; at 40 that is so in float64, at 20, which
        # PyTorch has unless told, to 2e-9. At a lower one it would be another function.
        whole(
            functions.softplus,
            f"{F}.softplus({{0}}, 1.0, 40.0)",
            "torch.sigmoid({0})",
            ("beta", 1),
            ("threshold", AtLeast(20)),
        ),
        whole(
            functions.elu,
            f"{F}.elu({{0}})",
            "torch.exp(({0}).clamp(max=0))",
            ("alpha", 1),
            INPLACE,
        ),
        whole(functions.sin, "torch.sin({0})", "torch.cos({0})"),
        whole(functions.cos, "torch.cos({0})", "(-torch.sin({0}))"),
        Entrywise("square", lambda x: x**2, "torch.square({0})", meant=("square",)),
    )
}

WHOLE = {name: row for name, row in ENTRYWISE.items() if row.slope}  # in proofs as in code

ROWWISE: dict[str, Rowwise] = {
    row.name: row
    for row in (
        Rowwise("layer_norm", f"{F}.layer_norm({{0}}, {{0}}.shape[-1:])"),
        Rowwise("rms_norm", f"{F}.rms_norm({{0}}, {{0}}.shape[-1:])"),
        Rowwise("normalize", f"{F}.normalize({{0}}, dim=-1)"),
        Rowwise("softmax", "torch.softmax({0}, dim=-1)"),
    )
}

OPERATIONS: dict[str, Entrywise | Rowwise] = {**ENTRYWISE, **ROWWISE}
ACTIVATIONS = {
    name: ENTRYWISE[name] for name in ("identity", "relu", "sigmoid", "silu", "tanh", "gelu_tanh")
}

relu, sigmoid, silu, tanh = (ENTRYWISE[name] for name in ("relu", "sigmoid", "silu", "tanh"))
gelu_tanh, gelu, elu = (ENTRYWISE[name] for name in ("gelu_tanh", "gelu", "elu"))
exp, softplus, square = (ENTRYWISE[name] for name in ("exp", "softplus", "square"))
sin, cos = ENTRYWISE["sin"], ENTRYWISE["cos"]
layer_norm, rms_norm = ROWWISE["layer_norm"], ROWWISE["rms_norm"]
normalize, softmax = ROWWISE["normalize"], ROWWISE["softmax"]


def check_name(field: str, value: object) -> None:
    """Raise `ValueError` unless the value can name a function."""
    if not isinstance(value, str) or not value.isidentifier() or value == "step":
        raise ValueError(
            f"`{field}` must be a name; got {value!r}. Known activations are "
            f"{', '.join(ENTRYWISE)}; any other name is abstract."
        )


def named(name: str) -> Entrywise | Abstract:
    """The entrywise operation of that name; a name that is not known is an unknown function."""
    return ENTRYWISE[name] if name in ENTRYWISE else Abstract(name)
