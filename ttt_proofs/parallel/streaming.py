"""A sequence in pieces: whatever the cuts, the outputs are those of the whole.

What is kept between pieces is the state after the last whole chunk and the tokens of the chunk
that is open, fewer than `chunk`: a constant size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loops import InnerLoop
from .chunks import Outputs
from .inputs import Number, Rates, Weights
from .pieces import Piece
from .state import State

Run = Callable[..., Outputs]


@dataclass(frozen=True, eq=False)
class Stream:
    """Where a sequence stands: `state` after its whole chunks, and the tokens of the `open` one.

    Both are None at the start. After a `last` piece that ends with a
    short chunk the stream is `closed`.
    """

    state: State | None = None
    open: Piece | None = None
    closed: bool = False

    @property
    def waiting(self) -> int:
        """How many tokens the open chunk has."""
        return 0 if self.open is None else self.open.k.shape[1]


def must_be_whole(loop: InnerLoop) -> str | None:
    """Why pieces must end with a chunk; None where they may end anywhere."""
    if loop.schedule.chunk == 1:
        return None
    if loop.net.tokens:
        return "an image is read whole"
    if loop.schedule.read == "after_update":
        return "its tokens are read after the update by all of them"
    if loop.schedule.read == "causal" and loop.update.momentum == "per_token":
        return "its momentum is the mean over all its tokens"
    return None


def feed(
    loop: InnerLoop,
    run: Run,
    stream: Stream,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Weights,
    rate: Rates = None,
    momentum: Number | None = None,
    last: bool = False,
) -> tuple[Tensor, Stream]:
    """The outputs of the next tokens, `[B, T, H, V]`, and where the sequence then stands.

    run: a form of the loop, such as `Reduction.recurrent`. q, k, v, weights, rate and momentum as
    it has them; numbers per step are those of the chunks that begin in this piece. A piece
    may end anywhere, unless a chunk's outputs need all of its tokens (`must_be_whole`): then it
    must end with a chunk, or be the `last`; else `ValueError`, as for lengths that do not match.
    """
    length, waiting = loop.schedule.chunk, stream.waiting
    early = loop.schedule.read == "before_update"
    tokens = waiting + q.shape[1]
    whole = tokens // length * length
    reason = must_be_whole(loop)
    if tokens > whole and reason and not last:
        raise ValueError(
            f"a piece must end with a chunk of {length} tokens, for {reason}; got "
            f"{tokens - whole} tokens more. Feed whole chunks, or set last=True."
        )
    check_lengths(loop, stream, q, k, v, rate, momentum)
    piece = Piece(q, k, v, rate, momentum)
    if stream.open is not None:
        piece = stream.open.map(lambda x, y: torch.cat([x, y], dim=1), piece)
    outputs, state = [], stream.state
    # What is read before the update of an open chunk needs no token of it but those asked for.
    done = skipped = waiting if whole == 0 and early and not last else 0
    for stop in dict.fromkeys((whole, tokens)):
        if stop > done:
            part = piece.cut(done, stop, length)
            made, after = run(
                part.q,
                part.k,
                part.v,
                weights=weights,
                rate=part.rate,
                momentum=part.momentum,
                initial_state=state,
            )
            outputs.append(made)
            state = after if stop == whole or last else state
            done = stop
    found = torch.cat(outputs, dim=1) if outputs else v[:, :0]
    open_ = None if tokens == whole or last else piece.cut(whole, tokens, length).map(torch.clone)
    closed = stream.closed or (last and tokens > whole)
    return found[:, waiting - skipped :], Stream(state, open_, closed)


def check_lengths(
    loop: InnerLoop,
    stream: Stream,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rate: Rates,
    momentum: Number | None,
) -> None:
    """Raise `ValueError` unless all tensors have the tokens, or the new chunks, of one piece."""
    if stream.closed and q.shape[1]:
        raise ValueError(
            "a stream must not go on after its last piece, which ended with a short "
            f"chunk; got {q.shape[1]} tokens more. Begin anew."
        )
    tokens, chunk, update = q.shape[1], loop.schedule.chunk, loop.update
    begun = -(-(stream.waiting + tokens) // chunk) - (stream.waiting > 0)
    lengths = {"per_token": tokens, "per_step": begun}
    of = dict(rate) if isinstance(rate, Mapping) else {"": rate}
    momenta, rates = (lengths.get(kind or "") for kind in (update.momentum, update.rate))
    tensors = [("k", k, tokens), ("v", v, tokens), ("momentum", momentum, momenta)]
    tensors += [(f"rate {name}".strip(), x, rates) for name, x in of.items()]
    for name, x, length in tensors:
        if length is not None and not (
            isinstance(x, Tensor) and x.ndim > 1 and x.shape[1] == length
        ):
            got = tuple(x.shape) if isinstance(x, Tensor) else x
            raise ValueError(
                f"`{name}` must have {length} entries along time for {tokens} tokens "
                f"that begin {begun} chunks; got {got}. Match the piece."
            )
