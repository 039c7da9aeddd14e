"""The oracle for any loop: the functions that it was made of, run under autograd, in float64.

It knows nothing of what is made of these functions: no program, no table, no generated code.

    loop.net.function(x, *weights)               x [L, K] -> [L, V]; weights [rows, cols]
    loop.loss.function(f, v)                     of one token, [1, V] each -> one number
    loop.update.function(W, g, *buffers, **c)    -> W, or (W, *buffers), as they are next
    loop.update.buffers                          from names to functions W -> the first buffer

A keyword `W_0` of the update is given the weight before the first step. Functions are called on
one sequence of one head at a time, the loss on one token at a time, so nothing can mix;
`torch.vmap` makes these calls at once where it can, to the same effect. Coefficients that tell
rows, columns or entries apart come to the update as `[rows, 1]`, `[1, cols]` and `[rows, cols]`,
others as one number.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ttt_proofs.loops import InnerLoop

from .arguments import Given, Weights

Buffers = dict[str, Weights]  # by the buffer's name, then by the weight's

TOLD = {"row": (..., None), "column": (..., None, slice(None))}  # axes that are not told apart


def check(loop: InnerLoop) -> None:
    """Raise ValueError unless net, loss and update have functions that can be run."""
    for part in ("net", "loss", "update"):
        value = getattr(loop, part)
        if not callable(getattr(value, "function", None)):
            raise ValueError(
                f"`{part}` must have a function for an oracle to run the loop; got {value!r}, "
                "which is abstract, or a copy without it. Put one that has it in its place."
            )


@dataclass
class Each:
    """A function of one item, called on many: arguments and results have an axis of items first.

    `torch.vmap` makes the calls at once; once it cannot, they are made one by one.
    """

    function: Callable[..., Any]
    at_once: bool = True

    def __call__(self, *items: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        """The results, each with the axis of items first."""
        if self.at_once:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop")
                    return torch.vmap(self._call)(items, named)
            except Exception:  # whatever is wrong shows again in the calls one by one
                self.at_once = False
        calls = [
            self._call([x[n] for x in items], {name: x[n] for name, x in named.items()})
            for n in range(len(items[0]))
        ]
        return tuple(torch.stack(results) for results in zip(*calls, strict=True))

    def _call(self, items: Any, named: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """One call, on copies, since a function may change what it is given."""
        own = {name: x.clone() for name, x in named.items()}
        made = self.function(*(x.clone() for x in items), **own)
        made = made if isinstance(made, tuple | list) else (made,)
        for x in made:
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"`{getattr(self.function, '__name__', self.function)}` must return tensors; "
                    f"got {type(x).__name__}. Return what PyTorch computes."
                )
        return tuple(made)


def of_shape(what: str, made: tuple[Tensor, ...], wanted: list[list[int]]) -> tuple[Tensor, ...]:
    """What a function made, or a ValueError where shapes are not those that are wanted."""
    arrived = [list(x.shape[1:]) for x in made]
    if arrived != wanted:
        one, other = (" and ".join(map(str, shapes)) for shapes in (wanted, arrived))
        raise ValueError(f"`{what}` must return {one}; got {other}. Correct the function.")
    return tuple(x.to(torch.float64) for x in made)


@dataclass
class _Loop:
    """The loop on n = B H sequences: tokens `[n, T, K or V]`, weights `[n, rows, cols]`.

    coefficients: the update's at each step, `[N, n, *]`, or at each token, `[T, n, *]`, for those
    in `single`; weighing: by weight, `[n, T]`, what weighs each token's loss.
    """

    given: Given
    q: Tensor
    k: Tensor
    v: Tensor
    coefficients: dict[str, Tensor]
    weighing: Weights
    single: tuple[str, ...] = ()
    net: Each = field(init=False)
    loss: Each = field(init=False)
    update: Each = field(init=False)

    def __post_init__(self) -> None:
        parts: tuple[Any, ...] = (self.given.loop.net, self.given.loop.loss, self.given.loop.update)
        self.net, self.loss, self.update = (Each(part.function) for part in parts)

    def read(self, x: Tensor, weights: Weights) -> Tensor:
        """The net's outputs `[n, L, V]`."""
        names = [weight.name for weight in self.given.loop.net.weights]
        made = self.net(x, *(weights[name] for name in names))
        return of_shape("net", made, [[x.shape[1], self.v.shape[2]]])[0]

    def losses(self, start: int, stop: int, weights: Weights) -> Tensor:
        """The loss of each token, `[n, L]`."""
        values = self.v[:, start:stop]
        made = self.read(self.k[:, start:stop], weights)
        rows = (x.reshape(-1, 1, x.shape[2]) for x in (made, values))
        (losses,) = self.loss(*rows)
        if losses.numel() != values.shape[0] * values.shape[1]:
            raise ValueError(
                "`loss` must return one number for one token; got "
                f"{list(losses.shape[1:])}. Sum over the last axis."
            )
        return losses.reshape(values.shape[:2]).to(torch.float64)

    def slopes(self, start: int, stop: int, count: int, weights: Weights) -> Weights:
        """The gradient in each fast weight of the losses of the first `count` tokens from start."""
        leaves = {
            name: w if w.requires_grad else w.detach().requires_grad_()
            for name, w in weights.items()
        }
        losses = self.losses(start, stop, leaves)
        slopes = {}
        for weight in self.given.loop.fast_weights:
            name, total = weight.name, losses[:, :count]
            if name in self.weighing:
                total = total * self.weighing[name][:, start : start + count]
            slope = None
            if losses.requires_grad:
                (slope,) = torch.autograd.grad(
                    total.sum(),
                    [leaves[name]],
                    create_graph=self.given.outer,
                    retain_graph=True,
                    allow_unused=True,
                )
            slopes[name] = torch.zeros_like(weights[name]) if slope is None else slope
        return slopes

    def start(self) -> Buffers:
        """The buffers before the first step."""
        found: Buffers = {}
        for name, make in self.given.loop.update.buffers.items():
            each = Each(make)
            found[name] = {
                weight.name: each(self.weights[weight.name])[0].to(torch.float64)
                for weight in self.given.loop.fast_weights
            }
        return found

    @property
    def weights(self) -> Weights:
        """All weights at the start."""
        return {name: w.flatten(0, 1) for name, w in self.given.weights.items()}

    def step(
        self, number: int, slopes: Weights, weights: Weights, buffers: Buffers, token: int = 0
    ) -> tuple[Weights, Buffers]:
        """The weights and buffers after an update of the chunk with that number, or of a token."""
        weights, buffers = dict(weights), {name: dict(old) for name, old in buffers.items()}
        for name, slope in slopes.items():
            numbers = {
                name: x[token if name in self.single else number]
                for name, x in self.coefficients.items()
            }
            if "W_0" in inspect.signature(self.update.function).parameters:
                numbers["W_0"] = self.weights[name]
            old = [weights[name], *(each[name] for each in buffers.values())]
            made = self.update(weights[name], slope, *old[1:], **numbers)
            made = of_shape("update", made, [list(x.shape[1:]) for x in old])
            weights[name] = made[0]
            for each, new in zip(buffers.values(), made[1:], strict=True):
                each[name] = new
        return weights, buffers


def prepared(given: Given) -> _Loop:
    """Sequences of all heads in a row, and the numbers of each step."""
    loop, length = given.loop, given.q.shape[2]
    check(loop)
    q, k, v = (x.flatten(0, 1) for x in (given.q, given.k, given.v))
    weighing = {
        weight: given.coefficients[name].transpose(1, 2).flatten(0, 1)
        for weight, name in loop.loss_weights.items()
    }
    own = list(loop.update_coefficients)
    chunks = [
        slice(start, start + loop.schedule.chunk) for start in range(0, length, loop.schedule.chunk)
    ]
    kinds, each = loop.coefficients, loop.schedule.update == "token"
    single = [n for n in own if each and kinds[n].every == "token" and not kinds[n].mean]
    tokens = [slice(token, token + 1) for token in range(length)]
    numbers = {
        name: torch.stack(of_steps(given, name, tokens if name in single else chunks))
        for name in own
        if chunks
    }
    return _Loop(given, q, k, v, numbers, weighing, tuple(single))


def of_steps(given: Given, name: str, chunks: list[slice]) -> list[Tensor]:
    """A coefficient at each step, `[B H, *]`."""
    kind, value = given.loop.coefficients[name], given.coefficients[name]
    batch, heads = given.q.shape[:2]
    made = []
    for number, chunk in enumerate(chunks):
        if kind.every == "step":
            here = value[:, number]
        elif kind.every == "loop":
            here = value.expand(batch, heads, *value.shape[1:])
        elif kind.mean or given.loop.schedule.update == "token":
            here = value[:, chunk].mean(dim=1)
        else:
            raise ValueError(
                f"`{name}` must be one for each loop or step, or take the mean over a chunk, to "
                "enter an update of chunks; got one for each token. Let it weigh the loss."
            )
        made.append(here.flatten(0, 1)[TOLD.get(kind.shape, ...)])
    return made


def run(given: Given) -> tuple[Tensor, Weights]:
    """Every chunk in turn: the outputs `[B, H, T, V]`, and the final weights."""
    batch, heads, length, _ = given.q.shape
    if not batch * heads * length:
        try_on_zeros(given)  # since nothing else calls what may be abstract
        return torch.zeros_like(given.v), given.weights
    loop, schedule = prepared(given), given.loop.schedule
    weights, buffers = loop.weights, loop.start()
    read_at = {"query": loop.q, "key": loop.k}[schedule.read_with]
    outputs = []
    for number, start in enumerate(range(0, length, schedule.chunk)):
        stop = min(start + schedule.chunk, length)
        asked, before = read_at[:, start:stop], (weights, buffers)
        if schedule.update == "token":  # all gradients at the weights before the chunk
            for token in range(start, stop):
                slopes = loop.slopes(token, token + 1, 1, before[0])
                held = weights
                weights, buffers = loop.step(number, slopes, weights, buffers, token)
                seen = {"before_update": held, "after_update": weights}[schedule.read]
                outputs.append(loop.read(asked[:, token - start, None], seen))
            continue
        for _ in range(schedule.steps):
            slopes = loop.slopes(start, stop, stop - start, weights)
            weights, buffers = loop.step(number, slopes, weights, buffers)
        if schedule.read == "causal":
            for token in range(stop - start):
                slopes = loop.slopes(start, stop, token + 1, before[0])
                seen, _ = loop.step(number, slopes, *before)
                outputs.append(loop.read(asked, seen)[:, token, None])
        else:
            reader = {"before_update": before[0], "after_update": weights}[schedule.read]
            outputs.append(loop.read(asked, reader))
    final = {name: w.unflatten(0, (batch, heads)) for name, w in weights.items()}
    return torch.cat(outputs, dim=1).unflatten(0, (batch, heads)), final


def try_on_zeros(given: Given) -> None:
    """Run one chunk of zeros, so that what is abstract raises also where there are no tokens."""
    loop, length = given.loop, given.loop.schedule.chunk
    leading = {"loop": (), "step": (1, 1), "token": (1, length)}

    def zeros(x: Tensor, *sizes: int) -> Tensor:
        return x.new_zeros((*sizes, *x.shape[len(sizes) :]))

    numbers = {
        name: zeros(x, *leading[loop.coefficients[name].every])
        for name, x in given.coefficients.items()
    }
    weights = {name: zeros(w, 1) for name, w in given.weights.items()}
    q, k, v = (
        x.new_zeros((1, x.shape[1], length, x.shape[3])) for x in (given.q, given.k, given.v)
    )
    if q.numel():
        run(Given(loop, q, k, v, weights, numbers, False))


def first_gradient(given: Given) -> Weights:
    """The gradient of the first chunk's loss in each fast weight, `[B, H, rows, cols]`."""
    stop = min(given.loop.schedule.chunk, given.q.shape[2])
    loop = prepared(given)
    slopes = loop.slopes(0, stop, stop, loop.weights)
    return {name: slope.unflatten(0, given.q.shape[:2]) for name, slope in slopes.items()}
