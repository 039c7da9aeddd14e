"""Nets and losses that a user writes as code: functions of tensors, or a module of PyTorch.

What is proved of them is read off their code once; the code itself runs the loop. Two are equal if
what was read is, whatever their functions are called.
"""

from __future__ import annotations

import keyword
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from ..program.checks import parameter_names
from ..program.expressions import RowLoss
from ..program.lowering import LossProgram, NetProgram, read_loss, read_net
from ..program.tracing import Proxy
from .copies import Unchanging, importable, path
from .losses import Loss
from .nets import Net


class FromCode(Unchanging):
    """What nets and losses from code share: their code is left behind where it has no path."""

    code: Any
    where: str

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(self.__dict__)
        return kept if importable(self.code) else kept | {"code": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def present(self) -> Any:
        """The code. Raises `ValueError` in a copy that could not take it along."""
        if self.code is None:
            raise ValueError(
                f"`{self.where}` must be at hand for a loop to be run; got a copy without its "
                "code. Define it in a module that can be imported."
            )
        return self.code


def each(function: Callable[..., Any], ranks: Sequence[int], *tensors: Any) -> Any:
    """A function of tensors of these ranks, for each entry of their leading dimensions."""
    torch = sys.modules["torch"]
    leads = [x.shape[: x.ndim - rank] for x, rank in zip(tensors, ranks, strict=True)]
    lead = torch.broadcast_shapes(*leads)
    if not lead:
        return function(*tensors)
    if 0 in lead:  # no entry: a result of the right shape that still hangs on its arguments
        ones = (x.new_zeros(x.shape[x.ndim - r :]) for x, r in zip(tensors, ranks, strict=True))
        nothing = sum(x.sum() for x in tensors) * 0
        found = function(*ones)
        return found.expand(*lead, *found.shape) + nothing
    flat = [
        x.expand(*lead, *x.shape[x.ndim - r :]).reshape(-1, *x.shape[x.ndim - r :])
        for x, r in zip(tensors, ranks, strict=True)
    ]
    found = torch.func.vmap(function)(*flat)
    return found.reshape(*lead, *found.shape[1:])


@dataclass(frozen=True, repr=False)
class TracedNet(Net, FromCode):
    """The net that `code` computes: a function `net(x, W1, W2, ...)` or an `nn.Module`.

    The function takes x `[L, K]` and its weights by position: matrices, or vectors where it adds or
    multiplies them to rows; a parameter with a default is a constant. A module is called on x, and
    its parameters are the weights, dots in their names written as `_`, names that begin with a
    digit after a `p`; a matrix has the shape that the module gives it, outputs by inputs in
    `nn.Linear`. In runs a vector is a weight `[1, cols]`. A last layer whose weight W is applied
    transposed has Wᵀ as its state: the loop's weight is that, inputs by outputs, called `W_T`.

    state: the weight of the last layer; by default the one applied last. Raises `ValueError` in one
    sentence, with the line, for what cannot be read, and `TypeError` for what is no function.
    """

    code: Any = field(compare=False)
    state: str | None = field(default=None, compare=False)
    read: NetProgram = field(init=False)
    where: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.code) or isinstance(self.code, type):
            raise TypeError(f"`net` must be a function or a module; got {self.code!r}. Pass one.")
        object.__setattr__(self, "where", ".".join(path(self.code)))
        module: Any = self.code
        if hasattr(module, "named_parameters"):
            given = dict(module.named_parameters())
            names = tuple(map(plain, given))
            vectors = [plain(name) for name, p in given.items() if p.ndim == 1]
            if wrong := [name for name, p in given.items() if p.ndim not in (1, 2)]:
                raise ValueError(
                    f"`net` must have matrices and vectors as parameters; got {wrong[0]} of "
                    f"shape {list(given[wrong[0]].shape)}. Reshape it."
                )
            read = exchanged(module, tuple(given))
            still = (plain(name) for name, p in given.items() if not p.requires_grad)
            object.__setattr__(self, "frozen", tuple(still))
        else:
            names, vectors, read = parameter_names("net", self.code)[1:], (), self.code
        if not names:
            raise ValueError(f"`net` must have a weight; got {self.where}. Add a parameter.")
        program = read_net(read, names, vectors=vectors, state=self.state)
        object.__setattr__(self, "read", program)

    @property
    def traced(self) -> NetProgram:
        """What was read off the code."""
        return self.read

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the weights, in the order in which `function` takes them."""
        return tuple(symbol.name for symbol in self.traced.weights)

    def function(self, x: Any, *weights: Any) -> Any:
        """The code on tensors: x `[..., L, K]`, weights `[..., rows, cols]`, to `[..., L, V]`."""
        code = self.present()
        if hasattr(code, "named_parameters"):
            code = exchanged(code, tuple(name for name, _ in code.named_parameters()))
        if self.read.turned:
            weights = tuple(
                w.mT if name == self.last.name else w
                for name, w in zip(self.parameters, weights, strict=True)
            )
        if isinstance(x, Proxy):  # it is being read as a part of another net
            return code(x, *weights)
        ranks = [2] * (1 + len(weights))
        given = list(weights)
        for n, weight in enumerate(self.weights):
            if weight.rows.name == "one":
                given[n], ranks[n + 1] = given[n].squeeze(-2), 1
        return each(code, ranks, x, *given)

    def __repr__(self) -> str:
        lines = [*self.traced.assignments, ("F", self.outputs)]
        if self.gate is not None:
            lines[-1:] = [("Z", self.outputs), ("F", f"{self.gate} * Z")]
        return f"TracedNet({self.where}: {'; '.join(f'{a} = {b}' for a, b in lines)})"


def plain(name: str) -> str:
    """A parameter's dotted name as one name."""
    found = name.replace(".", "_")
    return f"p{found}" if found[0].isdigit() or keyword.iskeyword(found) else found


def exchanged(module: Any, names: Sequence[str]) -> Callable[..., Any]:
    """The module as a function of x and of its parameters of these names, wherever they are."""
    places: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    everywhere = {each[0]: each for each in places.values()}

    def call(x: Any, *values: Any) -> Any:
        given = zip(names, values, strict=True)
        with parameters(module, {here: x for name, x in given for here in everywhere[name]}):
            return module(x)

    return call


@contextmanager
def parameters(module: Any, values: dict[str, Any]) -> Iterator[None]:
    """The module with these in place of its parameters, which are put back afterwards."""
    held = []
    try:
        for name, value in values.items():
            owner, _, leaf = name.rpartition(".")
            table = module.get_submodule(owner)._parameters
            held.append((table, leaf, table[leaf]))
            table[leaf] = value
        yield
    finally:
        for table, leaf, value in reversed(held):  # a module may be there twice
            table[leaf] = value


@dataclass(frozen=True, repr=False)
class TracedLoss(Loss, FromCode):
    """The loss that `code(f, v)` computes for each token: f and v `[L, V]`, the result `[L]`.

    Raises `ValueError` in one sentence, with the line, for what cannot be read, and `TypeError`
    for what is no function.
    """

    code: Any = field(compare=False)
    read: LossProgram = field(init=False)
    where: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.code) or isinstance(self.code, type):
            raise TypeError(f"`loss` must be a function; got {self.code!r}. Pass one.")
        object.__setattr__(self, "where", ".".join(path(self.code)))
        if len(parameter_names("loss", self.code)) != 2:
            raise ValueError(
                f"`loss` must take outputs and values, f and v; got {self.where}. Write it so."
            )
        object.__setattr__(self, "read", read_loss(self.code))

    @property
    def expression(self) -> sp.Expr:
        """The loss of a chunk."""
        return self.read.expression

    @property
    def fixed(self) -> dict[str, int]:
        """The widths that the code has as numbers, by name."""
        return dict(self.read.sizes)

    def function(self, f: Any, v: Any) -> Any:
        """The code on tensors: f and v `[..., L, V]`, to `[..., L]`."""
        code = self.present()
        return code(f, v) if isinstance(f, Proxy) else each(code, (2, 2), f, v)

    def __repr__(self) -> str:
        return f"TracedLoss({self.where}: {self.expression})"


def from_code(net: Any, loss: Any, state: str | None) -> dict[str, Net | Loss]:
    """What a loop has in place of a net and a loss that are code; nothing for those that are not.

    Raises `ValueError` where `state` is another weight than the last layer of a library's net, and
    `TypeError` for a class that derives from the library's: it could say one thing and run another.
    """
    found: dict[str, Net | Loss] = {}
    for name, part in (("net", net), ("loss", loss)):
        if isinstance(part, Net | Loss) and not is_library(part):
            raise TypeError(
                f"`{name}` must be one of the library's, or code; got {part!r}, of a class derived "
                "from the library's. Write it as a function."
            )
    if is_code(net):
        found["net"] = TracedNet(net, state)
    elif state is not None and isinstance(net, Net) and net.last.name != state:
        raise ValueError(
            f"`state` must be {net.last.name}, the last layer of {net}; got {state!r}. Leave it "
            "out, or write the net as a function."
        )
    if is_code(loss):
        found["loss"] = TracedLoss(loss)
    check_channels(found.get("net", net), found.get("loss", loss))
    return found


def check_channels(net: Any, loss: Any) -> None:
    """Raise `ValueError` for a convolution with a loss that mixes its channels, which run apart.

    An abstract loss, which does not run, may be any.
    """
    if not isinstance(net, Net) or not isinstance(loss, Loss) or loss.expression.has(RowLoss):
        return
    if net.window and not loss.is_entrywise:
        raise ValueError(
            "`loss` must compare entry by entry for a convolution, whose channels are apart; "
            f"got {loss}. Sum a function of each entry."
        )


def is_code(part: Any) -> bool:
    """Whether a part of a loop is a user's function or module."""
    return callable(part) and not isinstance(part, type) and not is_library(part)


def is_library(part: Any) -> bool:
    """Whether a part of a loop is of a class of this package."""
    return type(part).__module__.startswith(f"{__package__}.")
