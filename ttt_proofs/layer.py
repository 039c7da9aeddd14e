"""`TTTLayer`: an inner loop as a layer of a network, in whichever form runs best."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import rms_norm, silu, softplus

from .dispatch import Sizes, obstacle
from .kernel_form import kernel_form
from .loops import InnerLoop, Recurrence
from .loops.current import must_be_current
from .parallel import forms
from .parallel.calls import nothing, roomy
from .parallel.chunks import Outputs
from .parallel.inputs import DTYPES, Coefficients, asked, check_start, wide
from .parallel.streaming import Stream, feed
from .program.coefficients import Coefficient
from .program.expressions import KEY, VALUE
from .recurrent_reduction import RecurrentReduction
from .reduction import NotCoveredError, NotParallelError, Reduction, reduce
from .symbolic.gains import summed_by
from .symbolic.plan import TILE
from .symbolic.step_loop import runnable

Form = Literal["recurrent", "parallel", "kernel"]
Mode = Literal["recurrent", "parallel", "kernel", "auto"]


class TTTLayer(nn.Module):
    """Test-time training as a sequence layer: x `[B, T, width]` to y of the same shape and dtype.

        q, k = normalised silu(x W_q), silu(x W_k)     v = silu(x W_v)     y = RMSNorm(o) W_o

    with o the reading of the inner loop, which starts anew for each sequence, from learned weights.
    The loop's coefficients are learned, each within its range: one for the loop is one number; per
    token they are projected from the token, for each head; per step, from the chunk's first token.
    Those that scale the gradient (`summed_by`) are divided by the chunk's length, as the loss sums
    over tokens.

    loop: a concrete `InnerLoop`, or a `Recurrence`, whose states begin with zeros. width: of x.
    heads: H. key_width, value_width: K and V of a head, width / heads by default. hidden_width: of
    all hidden layers of the net, key_width by default. mode: "recurrent" takes one step after
    the other; "parallel" is the chunked form; "kernel" the Triton kernels, on CUDA or in the
    interpreter; "auto" the form that `mode_for` names, which always runs. The same parameters give
    the same outputs, to rounding, in every mode; LaCT with chunks of one token enlarges that more
    than 1e7 times (`Reduction.amplification`). `mode` may be assigned at any time. tile: tokens
    that the parallel form treats at once. A loop that the theorems do not cover runs as a
    recurrence; a `Recurrence` that they do not cover runs by scans too, if it has any and mode is
    "parallel".
    Parameters are float32; under `torch.autocast`, or with the layer in another dtype, tokens
    have that one and states float32. Norms are float32 at least, and so is all of the loop where
    tokens would be float16, whose range is too small for sums. A key of zeros stays zero.
    Every parameter takes part in every call, with a gradient of zero where the outputs do not
    depend on it. Second derivatives are right in the recurrent and the parallel form; through the
    kernels they raise `RuntimeError`.

    Raises `ValueError` or `TypeError` for sizes or modes that cannot be, for loops that are
    abstract, and for those whose code has changed since it was read; `NotParallelError` for mode
    "parallel" with a loop that is sequential, or with an `InnerLoop` that is not covered.
    Source: Section 3 and Appendix E of arXiv 2602.21204.
    """

    def __init__(
        self,
        loop: InnerLoop | Recurrence,
        width: int,
        *,
        heads: int = 1,
        key_width: int | None = None,
        value_width: int | None = None,
        hidden_width: int | None = None,
        mode: Mode = "auto",
        tile: int = TILE,
    ) -> None:
        super().__init__()
        check_sizes(
            width=width,
            heads=heads,
            key_width=key_width,
            value_width=value_width,
            hidden_width=hidden_width,
            tile=tile,
        )
        if not isinstance(loop, InnerLoop | Recurrence):
            got = type(loop).__name__
            raise TypeError(f"`loop` must be an InnerLoop or a Recurrence; got {got}. Build one.")
        must_be_current(loop)
        # All that is symbolic is decided here, and not again when the layer runs.
        self.code, self.uncovered, need = runnable(loop), uncovered(loop), asked(loop)
        if width % heads and not (key_width and value_width):
            raise ValueError(
                f"`width` must be a multiple of `heads` unless key_width and "
                f"value_width are given; got {width} and {heads}. Give them."
            )
        key, value = key_width or width // heads, value_width or width // heads
        if need.together and key != value:
            raise ValueError(
                "`key_width` must be value_width for a net that takes tokens and outputs "
                f"together; got {key} and {value}. Make them equal."
            )
        self.loop, self.width, self.heads, self.tile = loop, width, heads, tile
        self.tokens = need.tokens  # of an image
        self.names = tuple(weight.name for weight in need.weights)
        self.queries = nn.Linear(width, heads * key, bias=False)
        self.keys = nn.Linear(width, heads * key, bias=False)
        self.values = nn.Linear(width, heads * value, bias=False)
        self.norm = nn.RMSNorm(value)
        self.out = nn.Linear(heads * value, width, bias=False)
        sizes = {KEY.name: key, VALUE.name: value}
        for name, size in need.widths.items():  # numbers that the code holds
            if sizes.setdefault(name, size) != size:
                raise ValueError(
                    f"the loop's width {name} must be {size}, as its code has it; got "
                    f"{sizes[name]}. Give the layer that key_width or value_width."
                )
        self.weights = nn.ParameterDict()
        self.sizes: dict[str, int] = {KEY.name: key, VALUE.name: value}  # of widths, by name
        for weight in need.weights:
            rows, cols = (
                sizes.get(side.name, hidden_width or key) for side in (weight.rows, weight.cols)
            )
            first = nn.Parameter(torch.randn(heads, rows, cols) * rows**-0.5)
            self.weights[free(self.weights, weight.name)] = first
            self.sizes |= {weight.rows.name: rows, weight.cols.name: cols}
        rows, cols = (self.sizes.get(side, 1) for side in need.sides)
        summed = () if isinstance(loop, Recurrence) else summed_by(loop)
        self.coefficients = nn.ModuleDict()
        for name, each in loop.coefficients.items():
            share = loop.schedule.summed if name in summed else 1
            made = Numbers(each, width, heads, (rows, cols), share)
            self.coefficients[free(self.coefficients, name)] = made
        self.mode = mode

    @property
    def reduction(self) -> Reduction | RecurrentReduction:
        """The loop as linear attention, with its theorem."""
        return reduced(self.loop)

    @property
    def mode(self) -> Mode:
        """In which form the layer runs."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        """Choose another form; `ValueError` or `NotParallelError` where the loop has it not."""
        if mode not in get_args(Mode):
            raise ValueError(
                f"`mode` must be one of {', '.join(get_args(Mode))}; got {mode!r}. Use 'auto'."
            )
        if mode in ("parallel", "kernel") and self.uncovered and isinstance(self.loop, InnerLoop):
            raise NotParallelError(
                f"a loop that the theorems cover is required for mode {mode!r}; "
                f"{self.uncovered.removesuffix('.')}. Or use mode='auto'."
            )
        if mode == "parallel":
            forms.parallel(self.code)
        if mode == "kernel" and (reason := obstacle(self.loop, self.sizes)):
            raise NotParallelError(
                f"a kernel is required; this loop has none: {reason}. Use mode='auto'."
            )
        self._mode: Mode = mode
        self._forms: dict[tuple[str, torch.dtype], Form] = {
            (device, dtype): mode_for(self.loop, self.sizes, dtype, device)
            if mode == "auto"
            else mode
            for device in ("cpu", "cuda")
            for dtype in DTYPES
        }

    def forward(self, x: Tensor) -> Tensor:
        """y `[B, T, width]` of whole sequences x `[B, T, width]`."""
        q, k, v, coefficients = self.project(x, waiting=0)
        form = self.form(x.is_cuda, q.dtype)
        o, _ = form(self.code, q, k, v, self.initial(q.dtype), coefficients)
        return self.read(o, x)

    def feed(
        self, x: Tensor, state: Stream | None = None, *, last: bool = False
    ) -> tuple[Tensor, Stream]:
        """The next tokens x `[B, T, width]` of sequences: y, and the state to go on from.

        The state has a constant size (`parallel.streaming.Stream`); its methods `detach`, `to` and
        `reorder`, as a beam search asks, return another one. Pieces may end anywhere where
        a token's output needs no later one, else with a chunk or with the `last` token: see there,
        and the `ValueError`; a state is for the same batch. Single tokens go by the recurrence,
        in whatever mode. In a causal chunk each piece reads the chunk's tokens again.
        """
        stream = Stream() if state is None else state
        if not isinstance(stream, Stream):
            raise TypeError(
                f"`state` must be what step or feed has returned; got "
                f"{type(stream).__name__}. Pass None to begin."
            )
        q, k, v, coefficients = self.project(x, stream.waiting)
        weights = self.initial(q.dtype)
        if stream.state is not None:
            check_start(self.loop, stream.state, q, v, weights)

        def run(q: Tensor, k: Tensor, v: Tensor, **given) -> Outputs:
            form = self.form(x.is_cuda, q.dtype) if q.shape[1] > 1 else forms.stepwise(self.code)
            names = ("weights", "coefficients", "initial_state")
            return form(self.code, q, k, v, *(given[name] for name in names))

        o, stream = feed(
            self.code, run, stream, q, k, v, weights=weights, coefficients=coefficients, last=last
        )
        return self.read(o, x), stream

    def step(self, x: Tensor, state: Stream | None = None) -> tuple[Tensor, Stream]:
        """One token of each sequence, x `[B, width]`: y `[B, width]` and the next state."""
        y, state = self.feed(x[:, None], state)
        return y[:, 0], state

    def form(self, cuda: bool, dtype: torch.dtype = torch.float32) -> Callable[..., Outputs]:
        """The form that the mode asks for, on that kind of device, for tokens of that dtype."""
        mode = self._forms["cuda" if cuda else "cpu", dtype]
        if mode == "recurrent":
            return forms.stepwise(self.code)
        if mode == "kernel":
            return partial(kernel_form, tile=self.tile)
        return partial(forms.parallel(self.code), tile=self.tile)

    def initial(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The weights that every sequence starts from, `[H, rows, cols]`."""
        return {
            name: w.to(dtype) for name, w in zip(self.names, self.weights.values(), strict=True)
        }

    def project(self, x: Tensor, waiting: int) -> tuple[Tensor, Tensor, Tensor, Coefficients]:
        """q, k `[B, T, H, K]`, v `[B, T, H, V]` and the loop's coefficients, of x.

        waiting: how many tokens of an open chunk came before.
        """
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[-1] != self.width:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"`x` must be [batch, time, {self.width}]; got {got}. "
                "Project it to the layer's width."
            )
        if (size := self.tokens) and x.shape[1] % size:
            raise ValueError(
                f"`x` must have whole images of {size} tokens; got {x.shape[1]} "
                "tokens. Complete or drop the last image."
            )
        q, k, v = (
            silu(roomily(each, x)).unflatten(-1, (self.heads, -1))
            for each in (self.queries, self.keys, self.values)
        )
        q, k = (unit(y) for y in (q, k))
        chunk, learned = self.code.schedule.chunk, self.coefficients.values()
        coefficients = {
            name: each(x, waiting, chunk)
            for name, each in zip(self.code.coefficients, learned, strict=True)
        }
        return q, k, v, coefficients

    def read(self, o: Tensor, x: Tensor) -> Tensor:
        """y of the loop's outputs `[B, T, H, V]`."""
        dtype, weight, zero = wide(o.dtype), self.norm.weight, nothing(*self.parameters())
        weight = weight if zero is None else weight + zero.to(weight.dtype)
        normed = rms_norm(o.to(dtype), weight.shape, weight.to(dtype), self.norm.eps).to(x.dtype)
        return self.out(normed.flatten(-2)).to(x.dtype)

    def extra_repr(self) -> str:
        """What was chosen."""
        runs = self.code.plan.word
        if self.uncovered:
            told = runs if self.mode == "parallel" else "so recurrent"
            runs = f"not covered, {told}: {self.uncovered}"
        return f"{self.loop}, heads={self.heads}, mode={self.mode!r}, {runs}"


def mode_for(loop: InnerLoop | Recurrence, sizes: Sizes, dtype: torch.dtype, device: str) -> Form:
    """The form that runs a loop best, of those that can: what mode "auto" is.

    The kernels on CUDA where the loop has one for its widths and dtype, else the parallel form
    where the loop has one that pays (one with a matrix for each token does not), else the
    recurrence, which also runs what the theorems do not cover. sizes: of the net's widths, by
    name. device: a device type, such as "cuda"; no such device is needed to ask.
    """
    if uncovered(loop) or runnable(loop).way in (None, "matrices"):
        return "recurrent"
    return "kernel" if device == "cuda" and obstacle(loop, sizes, dtype) is None else "parallel"


def free(taken: nn.Module, name: str) -> str:
    """The name, or the name and underscores where the module has such an attribute itself."""
    while hasattr(type(taken), name):
        name += "_"
    return name


def unit(x: Tensor) -> Tensor:
    """x over its norm along the last dimension, in its own dtype; 0 where x is 0.

    Whatever the scale of x: neither its square nor an epsilon leaves the range of float32.
    """
    y = x.to(wide(x.dtype))
    largest = y.detach().abs().amax(-1, keepdim=True)  # the direction does not depend on it
    y = y / torch.where(largest > 0, largest, 1)
    square = y.square().sum(-1, keepdim=True)
    return (y / torch.where(largest > 0, square, 1).sqrt()).to(x.dtype)


def roomily(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x); in float32 where it would be float16, in which a projection may overflow."""
    device = x.device.type
    mixed = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if mixed else x.dtype
    if roomy(dtype) == dtype:
        return layer(x)
    with torch.autocast(device, enabled=False):
        parameters = {name: p.to(roomy(dtype)) for name, p in layer.named_parameters()}
        return functional_call(layer, parameters, x.to(roomy(dtype)))


@cache
def reduced(loop: InnerLoop | Recurrence) -> Reduction | RecurrentReduction:
    """`reduce`, once for all layers with that loop; copies of a layer have no proof to carry."""
    return reduce(loop)


@cache
def uncovered(loop: InnerLoop | Recurrence) -> str | None:
    """Why the theorems do not cover the loop; None where they do."""
    try:
        reduced(loop)
    except NotCoveredError as error:
        return str(error)
    return None


def check_sizes(**sizes: int | None) -> None:
    """Raise `ValueError` unless each is a positive integer, or left out."""
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"`{name}` must be a positive integer; got {size!r}. Correct it.")


class Numbers(nn.Module):
    """A coefficient of a loop, learned, within its range; the middle of a range at first or near.

    One number for the loop, or one for each head and each row, column or entry that it tells
    apart; of steps and tokens, projected from tokens. sides: rows and columns of the weight. share:
    what it is divided by.
    """

    def __init__(
        self, of: Coefficient, width: int, heads: int, sides: tuple[int, int], share: int
    ) -> None:
        super().__init__()
        self.every, self.share, self.range = of.every, share, of.range
        own = {"row": sides[:1], "column": sides[1:], "entry": sides}.get(of.shape, ())
        self.shape = (heads, *own)
        if of.every == "loop":
            self.number = nn.Parameter(torch.zeros(self.shape if own else ()))
        else:
            self.projection = nn.Linear(width, torch.Size(self.shape).numel())

    def forward(self, x: Tensor, waiting: int, chunk: int) -> Tensor:
        """Of tokens x `[B, T, width]`, `waiting` of the first one's chunk having come before.

        A number, or `[H, *]`, for the loop; `[B, T, H, *]` per token; `[B, N, H, *]` for the N
        chunks that begin here.
        """
        if self.every == "loop":
            return self.within(self.number)
        x = x[:, -waiting % chunk :: chunk] if self.every == "step" else x
        found = roomily(self.projection, x).unflatten(-1, self.shape)
        return self.within(found.to(wide(found.dtype)))

    def within(self, x: Tensor) -> Tensor:
        """Any numbers as numbers of the range, over the share."""
        low, high = self.range
        if low is not None and high is not None:
            x = low + (high - low) * torch.sigmoid(x)
        elif low is not None:
            x = low + softplus(x)
        elif high is not None:
            x = high - softplus(x)
        return x / self.share
