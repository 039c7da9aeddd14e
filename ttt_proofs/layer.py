"""`TTTLayer`: an inner loop as a layer of a network, in whichever form runs best."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import rms_norm, silu

from .kernels.run import Sizes, kernel_form, obstacle
from .loops import DepthwiseConv, InnerLoop
from .loops.update import Rate
from .parallel import forms
from .parallel.calls import roomy
from .parallel.chunks import Outputs
from .parallel.inputs import Number, Rates, check_state, wide
from .parallel.streaming import Stream, feed
from .reduction import NotParallelError, Reduction, reduce
from .symbolic.torch_code import torch_loop

Form = Literal["recurrent", "parallel", "kernel"]
Mode = Literal["recurrent", "parallel", "kernel", "auto"]


class TTTLayer(nn.Module):
    """Test-time training as a sequence layer: x `[B, T, width]` to y of the same shape and dtype.

        q, k = normalised silu(x W_q), silu(x W_k)     v = silu(x W_v)     y = RMSNorm(o) W_o

    with o the reading of the inner loop, which starts anew for each sequence, from learned weights.
    Numbers of the loop are learned, in (0, 1): a constant one is one number; per token they are
    projected from the token, for each head (rates for each trained weight as well); per step, from
    the chunk's first token. Rates are divided by the chunk's length, as the loss sums over tokens.

    loop: a concrete `InnerLoop` that the theorems cover. width: of x. heads: H. key_width,
    value_width: K and V of a head, width / heads by default. hidden_width: of all hidden layers
    of the net, key_width by default. mode: "recurrent" takes one step after the other; "parallel"
    is the chunked form; "kernel" the Triton kernels, on CUDA or in the interpreter; "auto" the
    form that `mode_for` names, which always runs. The same parameters give the same outputs, to
    rounding, in every mode; LaCT with chunks of one token enlarges that more than 1e7 times
    (`Reduction.amplification`). `mode` may be assigned at any time. tile: tokens that the parallel
    form treats at once.
    Parameters are float32; under `torch.autocast`, or with the layer in another dtype, tokens
    have that one and states float32. Norms are float32 at least, and so is all of the loop where
    tokens would be float16, whose range is too small for sums. A key of zeros stays zero.
    Second derivatives are right in the recurrent and the parallel form; through the kernels they
    raise `RuntimeError`.

    Raises `ValueError` or `TypeError` for sizes or modes that cannot be, `NotParallelError` for
    mode "parallel" with a sequential loop, `NotCoveredError` as `reduce` does.
    Source: Section 3 and Appendix E of arXiv 2602.21204.
    """

    def __init__(
        self,
        loop: InnerLoop,
        width: int,
        *,
        heads: int = 1,
        key_width: int | None = None,
        value_width: int | None = None,
        hidden_width: int | None = None,
        mode: Mode = "auto",
        tile: int = forms.TILE,
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
        if not isinstance(loop, InnerLoop):
            raise TypeError(f"`loop` must be an InnerLoop; got {type(loop).__name__}. Build one.")
        torch_loop(loop)  # it can run, and is covered, or these raise
        reduced(loop)
        if width % heads and not (key_width and value_width):
            raise ValueError(
                f"`width` must be a multiple of `heads` unless key_width and "
                f"value_width are given; got {width} and {heads}. Give them."
            )
        key, value = key_width or width // heads, value_width or width // heads
        if isinstance(loop.net, DepthwiseConv) and key != value:
            raise ValueError(
                f"`key_width` must be value_width for a convolution; got {key} and "
                f"{value}. Make them equal."
            )
        self.loop, self.width, self.heads, self.tile = loop, width, heads, tile
        self.queries = nn.Linear(width, heads * key, bias=False)
        self.keys = nn.Linear(width, heads * key, bias=False)
        self.values = nn.Linear(width, heads * value, bias=False)
        self.norm = nn.RMSNorm(value)
        self.out = nn.Linear(heads * value, width, bias=False)
        sizes = {"D_k": key, "D_v": value, "D_w": getattr(loop.net, "size", 0) ** 2}
        self.weights = nn.ParameterDict()
        self.sizes: dict[str, int] = {}  # of the net's widths, by name
        for weight in loop.net.weights:
            rows, cols = (
                sizes.get(side.name, hidden_width or key) for side in (weight.rows, weight.cols)
            )
            self.weights[weight.name] = nn.Parameter(torch.randn(heads, rows, cols) * rows**-0.5)
            self.sizes |= {weight.rows.name: rows, weight.cols.name: cols}
        kind, kinds = loop.update.rate, len(loop.fast_weights)
        kinds = kinds if kind == "per_token" else 1
        self.rates = Numbers(kind, width, heads, kinds) if kind else None
        kind = loop.update.momentum
        self.momenta = Numbers(kind, width, heads, 1) if kind else None
        self.mode = mode

    @property
    def reduction(self) -> Reduction:
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
        if mode == "parallel":
            self.reduction.must_be_parallel()
        if mode == "kernel" and (reason := obstacle(self.loop, self.sizes)):
            raise NotParallelError(
                f"a kernel is required; this loop has none: {reason}. Use mode='auto'."
            )
        self._mode: Mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """y `[B, T, width]` of whole sequences x `[B, T, width]`."""
        q, k, v, rate, momentum = self.project(x, waiting=0)
        form = self.form(x.is_cuda, q.dtype)
        o, _ = form(self.loop, q, k, v, self.initial(q.dtype), rate, momentum)
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
        q, k, v, rate, momentum = self.project(x, stream.waiting)
        if stream.state is not None:
            check_state(self.loop, stream.state, q, self.initial(q.dtype))

        def run(q: Tensor, k: Tensor, v: Tensor, **given) -> Outputs:
            form = self.form(x.is_cuda, q.dtype) if q.shape[1] > 1 else forms.recurrent
            return form(
                self.loop,
                q,
                k,
                v,
                *(given[name] for name in ("weights", "rate", "momentum", "initial_state")),
            )

        o, stream = feed(
            self.loop,
            run,
            stream,
            q,
            k,
            v,
            weights=self.initial(q.dtype),
            rate=rate,
            momentum=momentum,
            last=last,
        )
        return self.read(o, x), stream

    def step(self, x: Tensor, state: Stream | None = None) -> tuple[Tensor, Stream]:
        """One token of each sequence, x `[B, width]`: y `[B, width]` and the next state."""
        y, state = self.feed(x[:, None], state)
        return y[:, 0], state

    def form(self, cuda: bool, dtype: torch.dtype = torch.float32) -> Callable[..., Outputs]:
        """The form that the mode asks for, on that kind of device, for tokens of that dtype."""
        mode = self.mode
        if mode == "auto":
            mode = mode_for(self.loop, self.sizes, dtype, "cuda" if cuda else "cpu")
        if mode == "recurrent":
            return forms.recurrent
        if mode == "kernel":
            return partial(kernel_form, tile=self.tile)
        return partial(forms.parallel(self.loop), tile=self.tile)

    def initial(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The weights that every sequence starts from, `[H, rows, cols]`."""
        return {name: w.to(dtype) for name, w in self.weights.items()}

    def project(
        self, x: Tensor, waiting: int
    ) -> tuple[Tensor, Tensor, Tensor, Rates, Number | None]:
        """q, k `[B, T, H, K]`, v `[B, T, H, V]` and the loop's numbers, of x.

        waiting: how many tokens of an open chunk came before.
        """
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[-1] != self.width:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"`x` must be [batch, time, {self.width}]; got {got}. "
                "Project it to the layer's width."
            )
        if (size := self.loop.net.tokens) and x.shape[1] % size:
            raise ValueError(
                f"`x` must have whole images of {size} tokens; got {x.shape[1]} "
                "tokens. Complete or drop the last image."
            )
        q, k, v = (
            silu(roomily(each, x)).unflatten(-1, (self.heads, -1))
            for each in (self.queries, self.keys, self.values)
        )
        q, k = (unit(y) for y in (q, k))
        chunk = self.loop.schedule.chunk
        rate: Rates = None
        if self.rates is not None:
            learned = self.rates(x, waiting, chunk) / chunk
            rate = learned[..., 0] if learned.ndim else learned
            if self.rates.kind == "per_token":
                names = [w.name for w in self.loop.fast_weights]
                rate = dict(zip(names, learned.unbind(-1), strict=True))
        momentum = None
        if self.momenta is not None:
            learned = self.momenta(x, waiting, chunk)
            momentum = learned[..., 0] if learned.ndim else learned
        return q, k, v, rate, momentum

    def read(self, o: Tensor, x: Tensor) -> Tensor:
        """y of the loop's outputs `[B, T, H, V]`."""
        dtype, weight = wide(o.dtype), self.norm.weight
        normed = rms_norm(o.to(dtype), weight.shape, weight.to(dtype), self.norm.eps).to(x.dtype)
        return self.out(normed.flatten(-2)).to(x.dtype)

    def extra_repr(self) -> str:
        """What was chosen."""
        return f"{self.loop}, heads={self.heads}, mode={self.mode!r}, {self.reduction.parallel}"


def mode_for(loop: InnerLoop, sizes: Sizes, dtype: torch.dtype, device: str) -> Form:
    """The form that runs a loop best, of those that can: what mode "auto" is.

    The kernels on CUDA where the loop has one for its widths and dtype, else the parallel form
    where the loop has one, else the recurrence. sizes: of the net's widths, by name. device: a
    device type, such as "cuda"; no such device is needed to ask. Raises as `reduce` does.
    """
    if device == "cuda" and obstacle(loop, sizes, dtype) is None:
        return "kernel"
    return "recurrent" if reduced(loop).parallel == "sequential" else "parallel"


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
def reduced(loop: InnerLoop) -> Reduction:
    """`reduce`, once for all layers with that loop; copies of a layer have no proof to carry."""
    return reduce(loop)


def check_sizes(**sizes: int | None) -> None:
    """Raise `ValueError` unless each is a positive integer, or left out."""
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"`{name}` must be a positive integer; got {size!r}. Correct it.")


class Numbers(nn.Module):
    """A rate or momentum of a loop, learned: numbers in (0, 1), ½ at first or near it.

    kind: "constant", one number; "per_step" or "per_token", projected from tokens: `each` of them
    for every head.
    """

    def __init__(self, kind: Rate, width: int, heads: int, each: int) -> None:
        super().__init__()
        self.kind, self.shape = kind, (heads, each)
        if kind == "constant":
            self.number = nn.Parameter(torch.zeros(()))
        else:
            self.projection = nn.Linear(width, heads * each)

    def forward(self, x: Tensor, waiting: int, chunk: int) -> Tensor:
        """Of tokens x `[B, T, width]`, `waiting` of the first one's chunk having come before.

        A number, `[B, T, H, each]` per token, `[B, N, H, each]` for the N chunks that begin here.
        """
        if self.kind == "constant":
            return torch.sigmoid(self.number)
        x = x[:, -waiting % chunk :: chunk] if self.kind == "per_step" else x
        found = roomily(self.projection, x).unflatten(-1, self.shape)
        return torch.sigmoid(found.to(wide(found.dtype)))
