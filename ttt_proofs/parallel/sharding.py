"""One sequence over several ranks of `torch.distributed`: each has some of its chunks, in order.

A rank's tokens are, together, one affine map of the state. The ranks exchange these maps, once;
each then knows the state that enters its own, and goes on as a single process does. Backward, the
gradients of the entering states are exchanged in the same way, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..loops import InnerLoop, Recurrence
from .maps import Along, States, fold, total
from .once import once
from .state import State

Group = Any  # a process group, which torch leaves untyped; None is that of all ranks


def gathered(x: Tensor, group: Group) -> list[Tensor]:
    """The tensors of all ranks, in their order; each must have the same shape."""
    x = x.contiguous()
    found = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, x, group=group)
    return found


@once("`Reduction.sharded`")
class Enter(torch.autograd.Function):
    """The state that enters a rank, of the maps of the ranks before it.

    E_0 = start, E_{r+1} = a_r E_r + b_r. With λ_r the gradient of all that follows in E_r, and
    e_r that of rank r itself: λ_r = e_r + a_rᵀ λ_{r+1}, so db_r = λ_{r+1} and da_r = λ_{r+1} E_rᵀ.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor, group: Group) -> Tensor:
        """a `[..., r, r]`, b and start `[..., r, c]`: the entering state, `[..., r, c]`."""
        rows, rank = a.shape[-1], dist.get_rank(group)
        maps = gathered(torch.cat([a, b], dim=-1), group)
        entering = start
        for each in maps[:rank]:
            entering = each[..., :rows] @ entering + each[..., rows:]
        ctx.group, ctx.rank = group, rank
        ctx.save_for_backward(entering, *(each[..., :rows] for each in maps))
        return entering.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradients in a, b and, on the first rank alone, start."""
        entering, *gates = ctx.saved_tensors
        own = gathered(slopes[0], ctx.group)
        later = torch.zeros_like(entering)
        for r in range(len(own) - 1, ctx.rank, -1):
            later = own[r] + gates[r].mT @ later
        first = slopes[0] + gates[0].mT @ later if ctx.rank == 0 else torch.zeros_like(entering)
        return later @ entering.mT, later, first, None


def across(group: Group = None) -> Along:
    """What `maps.fold` is within a process, for a sequence that lies on the ranks of a group.

    `Reduction.sharded` is `parallel_form` with this, called by all ranks, each with its tokens,
    once they have agreed on their inputs. The outputs are those of its tokens, the final state
    that after them: the last rank has that of the sequence. All ranks must take gradients if one
    does; those in tensors that every rank has, such as the weights, are then to be added up over
    the ranks, as data-parallel training does. Communication is one `all_gather` forward and one
    backward, of the state's size; the time-out is the group's.
    """

    def along(a: Tensor, b: Tensor, start: Tensor) -> States:
        return fold(a, b, Enter.apply(*total(a, b), start, group))

    return along


@dataclass(frozen=True)
class LoopIdentity:
    """A loop as other ranks know it: by the digest of all that equal loops share, not by its text,
    which may round numbers and has names of functions.
    """

    text: str = field(compare=False)
    digest: str

    def __str__(self) -> str:
        return f"{self.text} with digest {self.digest[:16]}"


@dataclass(frozen=True)
class Given:
    """What a rank has been called with: its number of tokens, and what all must have alike.

    alike: by name, numbers and words; tensors by their `digest`.
    """

    tokens: int
    alike: Mapping[str, Any]


def agreed(check: Callable[[], Given], chunk: int, group: Group = None) -> None:
    """Raise on every rank if one refuses its inputs, if they differ where they must not, or if
    one has part of a chunk before the last token.

    So that none waits for a rank that has raised. `check` returns what this rank has been given.
    Raises what it raises, else `ValueError`.
    """
    refusal, mine = None, None
    try:
        mine = check()
    except Exception as error:  # of any kind: the others must not wait
        refusal = error
    all_: list[Given | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(all_, mine, group=group)
    if refusal is not None:
        raise refusal
    given = [x for x in all_ if x is not None]
    if len(given) < len(all_):
        raise ValueError(
            "every rank's inputs must be as the loop requires; "
            f"rank {all_.index(None)} refused its own. See there."
        )
    for rank, other in enumerate(given):
        for name in dict.fromkeys([*given[0].alike, *other.alike]):
            one, another = (x.alike.get(name, "none") for x in (given[0], other))
            if one != another:
                raise ValueError(
                    f"all ranks must have the same {name}; got {one} on rank 0 and {another} on "
                    f"rank {rank}. Make them equal."
                )
    for rank, each in enumerate(given):
        if each.tokens % chunk and any(x.tokens for x in given[rank + 1 :]):
            raise ValueError(
                f"each rank but the last must have whole chunks of {chunk} tokens; "
                f"rank {rank} has {each.tokens} tokens. Cut the sequence elsewhere."
            )


def alike(
    loop: InnerLoop | Recurrence,
    weights: Mapping[str, Tensor],
    coefficients: Mapping[str, Any],
    initial_state: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """What of these all ranks must have alike: numbers for all steps, weights, the first state."""
    constant = {n: coefficients[n] for n, c in loop.coefficients.items() if c.every == "loop"}
    many = {n for n, x in constant.items() if isinstance(x, Tensor) and x.ndim}
    found: dict[str, Any] = {
        f"coefficients[{n!r}]": float(x) for n, x in constant.items() if n not in many
    }
    parts = {"weights": weights, "coefficients": {n: constant[n] for n in many}}
    if initial_state is not None:
        states = initial_state if isinstance(initial_state, State) else State(initial_state, {})
        for what, all_ in states.parts.items():
            parts["initial_state" if what == "weights" else f"initial_state.{what}"] = all_
    tensors = {f"{what}[{n!r}]": x for what, all_ in parts.items() for n, x in all_.items()}
    return found | {name: digest(x) for name, x in sorted(tensors.items())}


def digest(x: Tensor) -> str:
    """A floating tensor's dtype, shape, and 64 bits of all its entries, in their order.

    They are made where the tensor is. If one entry alone differs, they differ; tensors that differ
    otherwise have the same bits with a chance of about 2^-64.
    """
    words = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    x = (x.detach() + 0.0).contiguous()  # 0 for -0
    entries = x.view(words[x.element_size()]).flatten().long()
    places = mixed(torch.arange(1, len(entries) + 1, device=x.device))
    bits = int(mixed(entries ^ places).sum()) % 2**64
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)} with digest {bits:016x}"


def mixed(x: Tensor) -> Tensor:
    """64-bit integers, each mapped to another as if at random: the finaliser of SplitMix64."""
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return x ^ (x >> 31)
