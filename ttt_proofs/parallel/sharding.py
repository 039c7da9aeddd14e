"""One sequence over several ranks of `torch.distributed`: each has some of its chunks, in order.

A rank's tokens are, together, one affine map of the state. The ranks exchange these maps, once;
each then knows the state that enters its own, and goes on as a single process does. Backward, the
gradients of the entering states are exchanged in the same way, once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .maps import Along, States, fold, total

Group = Any  # a process group, which torch leaves untyped; None is that of all ranks


def gathered(x: Tensor, group: Group) -> list[Tensor]:
    """The tensors of all ranks, in their order; each must have the same shape."""
    x = x.contiguous()
    found = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, x, group=group)
    return found


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


def agreed(
    check: Callable[[], Sequence[Any]], chunk: int, device: torch.device, group: Group = None
) -> None:
    """Raise on every rank if one refuses its inputs, or has part of a chunk before the last token.

    So that none waits for a rank that has raised. `check` returns how many tokens this rank has
    and what must be the same on all. Raises what it raises, else `ValueError`.
    """
    refusal, tokens, rest = None, 0, ()
    try:
        tokens, *rest = check()
    except (TypeError, ValueError) as error:
        refusal = error
    same = zlib.crc32(repr(rest).encode())
    mine = torch.tensor([tokens, refusal is not None, same], device=device)
    lengths, refused, same = torch.stack(gathered(mine, group)).unbind(-1)
    if refusal is not None:
        raise refusal
    if refused.any():
        raise ValueError(
            "every rank's inputs must be as the loop requires; "
            f"rank {int(refused.nonzero()[0])} refused its own. See there."
        )
    if (same != same[0]).any():
        raise ValueError(
            "all ranks must have one batch, heads, widths, dtype and tile; rank "
            f"{dist.get_rank(group)} has {rest}. Make them equal."
        )
    for rank, length in enumerate(lengths.tolist()):
        if length % chunk and lengths[rank + 1 :].any():
            raise ValueError(
                f"each rank but the last must have whole chunks of {chunk} tokens; "
                f"rank {rank} has {length} tokens. Cut the sequence elsewhere."
            )
