"""The kernels' operators: inputs for them, their plain forms, and what they are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..loops import Frobenius, GradientStep, InnerLoop, Linear, SquaredError, SwiGLU
from ..parallel import forms
from ..parallel.calls import in_own_precision
from ..reduction import Reduction, reduce
from .benchmark import NotRunError, Settings

Function = Callable[..., Tensor]
Pass = Literal["forward", "both"]

PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Sizes:
    """B sequences of T tokens, H heads, and one width d for keys, features and values."""

    B: int
    H: int
    T: int
    d: int

    @property
    def rows(self) -> int:
        """Rows of width d in one tensor of tokens."""
        return self.B * self.T * self.H


@dataclass(frozen=True)
class Operator:
    """An operator of `ttt_proofs.kernels`, with all that a benchmark needs to know of it.

    make: random inputs from sizes, dtype, device and seed. names: what these are. plain: the same
    function of the same inputs in PyTorch, the parallel form. exact: the same by the recurrence.
    rivals: others that compute the same, by name, each found when it is used. tensors: how many
    tensors of tokens must be moved, by pass; numbers: likewise those of one float32 per token;
    weights: likewise those of a matrix per head. Inputs are read once by each pass, and results
    written once.
    """

    name: str
    names: tuple[str, ...]
    make: Callable[[Sizes, torch.dtype, str, int], tuple[Tensor, ...]]
    plain: Function
    exact: Function
    tensors: dict[Pass, int]
    numbers: dict[Pass, int] = field(default_factory=lambda: {"forward": 0, "both": 0})
    weights: dict[Pass, int] = field(default_factory=lambda: {"forward": 0, "both": 0})
    rivals: dict[str, Callable[[], Function]] = field(default_factory=dict)

    def ours(self) -> Function:
        """The operator's output as a function of inputs such as `make` returns.

        Looked up here, so that neither timing nor torch.compile sees imports.
        """
        function = getattr(kernels(), self.name)

        def run(*args: Tensor) -> Tensor:
            made = function(*args)
            return made if isinstance(made, Tensor) else made[0]

        return run

    def compulsory_bytes(self, sizes: Sizes, which: Pass, item: int) -> int:
        """The fewest bytes that a pass can move, elements being of `item` bytes."""
        tokens = self.tensors[which] * sizes.rows * sizes.d * item
        weights = self.weights[which] * sizes.H * sizes.d**2 * item
        return tokens + weights + 4 * self.numbers[which] * sizes.rows


def kernels() -> Any:
    """The package of kernels; NotRunError where Triton is not installed."""
    if find_spec("triton") is None:
        raise NotRunError("Triton is not installed")
    return import_module(f"{PACKAGE}.kernels")


def require_device(settings: Settings) -> None:
    """Raise NotRunError unless kernels run there: on the CPU in the interpreter, quick only."""
    kernels()
    if settings.device == "cuda":
        return
    requirements = import_module(f"{PACKAGE}.kernels.requirements")
    if not (settings.quick and requirements.INTERPRETED):
        raise NotRunError(
            "the kernels need a GPU; only a quick run with TRITON_INTERPRET=1 goes "
            "through Triton's interpreter"
        )
    if fault := requirements.interpreter_fault():
        raise NotRunError(fault)


def fla(module: str, name: str) -> Callable[[], Function]:
    """An operator of flash-linear-attention, looked up when called."""

    def find() -> Function:
        if find_spec("fla") is None:
            raise NotRunError("not installed")
        function = getattr(import_module(f"fla.ops.{module}"), name)
        options = {"normalize": False} if module == "linear_attn" else {}
        return lambda *args: function(*args, scale=1.0, **options)[0]

    return find


def fla_version() -> str | None:
    """The installed version of flash-linear-attention; None if there is none."""
    if find_spec("fla") is None:
        return None
    for name in ("flash-linear-attention", "fla-core"):
        with suppress(PackageNotFoundError):
            return version(name)
    return "of unknown version"


def tokens_of(sizes: Sizes, dtype: torch.dtype, device: str, seed: int) -> tuple[Tensor, ...]:
    """q, k, v: normal, keys and queries of about unit length."""
    shape, scale = (sizes.B, sizes.T, sizes.H, sizes.d), sizes.d**-0.5
    generator = torch.Generator(device).manual_seed(seed)
    q, k, v = (torch.randn(shape, generator=generator, device=device) for _ in range(3))
    return (q * scale).to(dtype), (k * scale).to(dtype), v.to(dtype)


def numbers_of(sizes: Sizes, dtype: torch.dtype, device: str, seed: int, low: float) -> Tensor:
    """A number of each token in low .. 1: float32, but with a value that the dtype has too."""
    generator = torch.Generator(device).manual_seed(seed + 2**20)
    drawn = torch.rand((sizes.B, sizes.T, sizes.H), generator=generator, device=device)
    wide = torch.promote_types(dtype, torch.float32)
    return (low + (1 - low) * drawn).to(dtype).to(wide)


def momentum_inputs(sizes: Sizes, dtype: torch.dtype, device: str, seed: int) -> tuple[Tensor, ...]:
    """q, k, v, eta, alpha."""
    eta, alpha = (numbers_of(sizes, dtype, device, seed + n, 0.5) for n in range(2))
    return *tokens_of(sizes, dtype, device, seed), eta, alpha


def delta_inputs(sizes: Sizes, dtype: torch.dtype, device: str, seed: int) -> tuple[Tensor, ...]:
    """q, k, v, beta: unit keys, since longer ones make the recurrence grow."""
    q, k, v = tokens_of(sizes, dtype, device, seed)
    k = functional.normalize(k.float(), dim=-1).to(dtype)
    return q, k, v, numbers_of(sizes, dtype, device, seed, 0.1)


def weights_of(sizes: Sizes, dtype: torch.dtype, device: str, seed: int) -> tuple[Tensor, Tensor]:
    """gate and up, `[H, d, d]`, for projections of about the size of their inputs."""
    generator = torch.Generator(device).manual_seed(seed + 2**21)
    shape = (sizes.H, sizes.d, sizes.d)
    gate, up = (torch.randn(shape, generator=generator, device=device) for _ in range(2))
    return (gate * sizes.d**-0.5).to(dtype), (up * sizes.d**-0.5).to(dtype)


def swiglu_inputs(sizes: Sizes, dtype: torch.dtype, device: str, seed: int) -> tuple[Tensor, ...]:
    """q, k, v, gate, up; q and k of unit entries, as after a norm."""
    q, k, v = tokens_of(sizes, dtype, device, seed)
    root = math.sqrt(sizes.d)
    return q * root, k * root, v, *weights_of(sizes, dtype, device, seed)


def features_inputs(sizes: Sizes, dtype: torch.dtype, device: str, seed: int) -> tuple[Tensor, ...]:
    """x, gate, up."""
    q, _, _, gate, up = swiglu_inputs(sizes, dtype, device, seed)
    return q, gate, up


@cache
def reduction_of(name: str) -> Reduction:
    """The loop that the operator of that name runs, reduced."""
    plain, stepped = GradientStep(None), GradientStep("per_step")
    both = GradientStep("per_step", momentum="per_step")
    loops = {
        "linear_attention": InnerLoop(Linear(), Frobenius(), plain),
        "momentum_attention": InnerLoop(Linear(), Frobenius(), both),
        "delta_rule": InnerLoop(Linear(), SquaredError(), stepped),
        "swiglu_attention": InnerLoop(SwiGLU(), Frobenius(), plain, trained="last"),
    }
    return reduce(loops[name])


def by_loop(name: str, form: Literal["parallel", "recurrent"]) -> Function:
    """The operator's function by a form of its loop, from zeros, in the tokens' dtype."""

    def run(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
        reduction = reduction_of(name)
        if name == "swiglu_attention":
            gate, up = rest
            weights = {"W0": gate, "W2": up, "W1": v.new_zeros(*gate.shape[::2], v.shape[3])}
            given = ()
        else:
            weights = {"W": v.new_zeros(k.shape[2], k.shape[3], v.shape[3])}
            given = tuple(x.to(q.dtype) for x in rest)
        numbers = dict(zip(reduction.loop.coefficients, given, strict=True))
        if form == "recurrent":
            return reduction.recurrent(q, k, v, weights=weights, coefficients=numbers)[0]
        plain = in_own_precision(forms.parallel(reduction.loop))
        return plain(reduction.loop, q, k, v, weights, numbers)[0]

    return run


def plain_features(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """`silu(x gate) * (x up)`, each operation PyTorch's own."""
    gated, content = (torch.einsum("bthk,hkd->bthd", x, w) for w in (gate, up))
    return functional.silu(gated) * content


def features_then_fla() -> Function:
    """SwiGLU features by PyTorch, then linear attention by flash-linear-attention."""
    attention = fla("linear_attn", "chunk_linear_attn")()
    return lambda q, k, v, gate, up: attention(
        plain_features(q, gate, up), plain_features(k, gate, up), v
    )


def _operator(
    name: str,
    names: str,
    make: Any,
    tensors: tuple[int, int],
    *,
    numbers: tuple[int, int] = (0, 0),
    weights: tuple[int, int] = (0, 0),
    rivals: dict[str, Callable[[], Function]] | None = None,
) -> Operator:
    """An operator with its counts by pass, and its loop's forms."""
    features = name == "swiglu_features"
    plain, exact = (
        plain_features if features else by_loop(name, form) for form in ("parallel", "recurrent")
    )

    def by_pass(count: tuple[int, int]) -> dict[Pass, int]:
        return {"forward": count[0], "both": count[1]}

    return Operator(
        name,
        tuple(names.split()),
        make,
        plain,
        exact,
        by_pass(tensors),
        by_pass(numbers),
        by_pass(weights),
        rivals or {},
    )


CHUNK = {"fla": fla("linear_attn", "chunk_linear_attn")}
FUSED = {"fla fused_chunk": fla("linear_attn", "fused_chunk_linear_attn")}
DELTA = {"fla": fla("delta_rule", "chunk_delta_rule")}

# Forward moves q, k, v, o; backward q, k, v, do, dq, dk, dv; with the numbers' gradients.
OPERATORS = {
    x.name: x
    for x in (
        _operator("linear_attention", "q k v", tokens_of, (4, 11), rivals=CHUNK | FUSED),
        _operator(
            "momentum_attention", "q k v eta alpha", momentum_inputs, (4, 11), numbers=(2, 6)
        ),
        _operator("delta_rule", "q k v beta", delta_inputs, (4, 11), numbers=(1, 3), rivals=DELTA),
        _operator(
            "swiglu_attention",
            "q k v gate up",
            swiglu_inputs,
            (4, 11),
            weights=(2, 6),
            rivals={"features + fla": features_then_fla},
        ),
        _operator(
            "swiglu_features",
            "x gate up",
            features_inputs,
            (2, 5),
            weights=(2, 6),
            rivals={"PyTorch": lambda: plain_features},
        ),
    )
}
