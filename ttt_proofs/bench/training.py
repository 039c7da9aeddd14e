"""One training step of a small language model: LaCT's recurrence against V2 in parallel form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..layer import TTTLayer
from ..loops import InnerLoop, Schedule, ladder
from .benchmark import Benchmark, Case, Plot, Settings, error_row, relative_error
from .timing import Row, clock_of, interleaved

PAPER_RATIO = 1.19  # training speed with V2 in parallel form, arXiv 2602.21204, Section 6.2

# What is compared: a rung of `loops.ladder`, and how it is run. The first is what ratios are to.
MIXERS = {
    "LaCT, recurrent": ("baseline", "recurrent"),
    "V2, recurrent": ("v2", "recurrent"),
    "V2, parallel": ("v2", "parallel"),
}

Mixer = Callable[..., nn.Module]


@dataclass(frozen=True)
class Size:
    """What a model and its batch are made of."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    tokens: int
    chunk: int

    @classmethod
    def of(cls, settings: Settings) -> Size:
        """Six layers of width 768 on a GPU, a small model on a CPU, a tiny one for a dry run."""
        if settings.quick:
            return cls(layers=1, width=16, heads=2, vocabulary=32, tokens=32, chunk=8)
        if settings.device == "cpu":
            return cls(layers=2, width=128, heads=2, vocabulary=1024, tokens=2048, chunk=256)
        return cls(layers=6, width=768, heads=4, vocabulary=32000, tokens=32768, chunk=2048)


class Block(nn.Module):
    """A token mixer and a SwiGLU perceptron, each after a norm and beside an identity."""

    def __init__(self, mixer: nn.Module, width: int) -> None:
        super().__init__()
        self.mixer, hidden = mixer, 8 * width // 3
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` to the same."""
        x = x + self.mixer(self.norms[0](x))
        y = self.norms[1](x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Model(nn.Module):
    """Embedding, blocks, norm, and the embedding's transpose for the next token's scores."""

    def __init__(self, size: Size, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        nn.init.normal_(self.embedding.weight, std=size.width**-0.5)
        self.blocks = nn.ModuleList(Block(make(), size.width) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean loss of each next token, for tokens `[B, T + 1]`."""
        x = self.embedding(tokens[:, :-1])
        for block in self.blocks:
            x = block(x)
        scores = self.norm(x) @ self.embedding.weight.T
        return functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())


class Step:
    """A model with its optimiser; called, it takes one training step and returns the loss."""

    def __init__(
        self, make: Callable[[], nn.Module], size: Size, device: str, narrow: bool
    ) -> None:
        torch.manual_seed(0)  # the same initial weights for every mixer that has the same ones
        self.model = Model(size, make).to(device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.autocast = partial(torch.autocast, device, torch.bfloat16, enabled=narrow)
        self.tokens = torch.randint(size.vocabulary, (1, size.tokens + 1), device=device)

    def __call__(self) -> Tensor:
        """Forward, backward, AdamW; weights and their updates are float32."""
        self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.model(self.tokens)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def gradients(self) -> Tensor:
        """All gradients of the loss, in float32 and as one vector; the weights stay."""
        found = torch.autograd.grad(self.model(self.tokens), list(self.model.parameters()))
        return torch.cat([g.flatten() for g in found])


def measure(settings: Settings, mixer: Mixer = TTTLayer) -> Iterator[Row]:
    """One row for each mixer, steps in turns; a loss that is not finite is a problem."""
    size = Size.of(settings)
    steps: dict[str, Step] = {}
    for name, (rung, mode) in MIXERS.items():
        loop: InnerLoop = ladder(Schedule(chunk=size.chunk, read="before_update"))[rung]
        make: Any = partial(mixer, loop, size.width, heads=size.heads, mode=mode)
        steps[name] = Step(make, size, settings.device, narrow=settings.device == "cuda")
    # In float32: bfloat16 changes these gradients by far more than the form does.
    parallel, same = (steps[name].gradients() for name in ("V2, parallel", "V2, recurrent"))
    error = error_row(relative_error(parallel, same), torch.float32)
    times = interleaved(
        steps,
        settings.pick(20 if settings.device == "cuda" else 7, 1),
        clock_of(settings.device),
        warmup=settings.pick(3, 1),
    )
    first = next(iter(MIXERS))
    for name, step in steps.items():
        row = {"mixer": name, **vars(size), **times.row(name), "ratio": times.ratio(first, name)}
        if "problem" not in row:
            row |= {"tokens_per_s": 1000 * size.tokens / row["median_ms"], "loss": float(step())}
        if name == "V2, parallel":
            row = error | row | {"paper_ratio": PAPER_RATIO}
        yield row


def cases(settings: Settings) -> Iterator[Case]:
    """One case: all mixers, so that they take turns."""
    dtype = "bfloat16 autocast" if settings.device == "cuda" else "float32"
    yield Case({"dtype": dtype}, partial(measure, settings))


TRAINING = Benchmark(
    "training_step",
    "Forward, backward and AdamW of a small language model, one sequence a step. Ratio: how many "
    "times faster than LaCT's recurrence; the paper's is for a larger model. Error: of V2's first "
    "gradients in parallel form, against its recurrence, in float32.",
    ("cpu", "cuda"),
    cases,
    (
        ("mixer", "mixer"),
        ("layers", "layers"),
        ("width", "width"),
        ("heads", "heads"),
        ("tokens", "T"),
        ("chunk", "chunk"),
        ("dtype", "dtype"),
        ("median_ms", "ms"),
        ("spread_ms", "IQR ms"),
        ("repeats", "repeats"),
        ("tokens_per_s", "tok/s"),
        ("ratio", "× LaCT"),
        ("paper_ratio", "paper × LaCT"),
        ("error", "error"),
    ),
    Plot("bars", ("mixer",), "dtype", (("median_ms", "milliseconds"),)),
)
