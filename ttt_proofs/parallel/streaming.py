"""A sequence in pieces: whatever the cuts, the outputs are those of the whole.

What is kept between pieces is the state after the last whole chunk and the tokens of the chunk
that is open, fewer than `chunk`: a constant size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..loops import InnerLoop, Recurrence
from ..symbolic.step_loop import Runnable, runnable
from .calls import tied
from .chunks import Outputs
from .inputs import DTYPES, Coefficients, Weights, wide
from .pieces import Piece
from .state import State, copied

Run = Callable[..., Outputs]


@dataclass(frozen=True, eq=False)
class Stream:
    """Where sequences stand: `state` after their whole chunks, and the tokens of the `open` one.

    Both are None at the start. After a `last` piece that ends with a
    short chunk the stream is `closed`. A stream never changes: each method returns another one.
    Copies are deep as those of tensors are; those of tensors with a history stay in the graph.
    """

    state: State | None = None
    open: Piece | None = None
    closed: bool = False

    def map(self, function: Callable[[Tensor], Tensor]) -> Stream:
        """The stream with a function of each tensor in its place.

        Tensors have the batch first: those of the state are `[B, H, rows, cols]`, those of the
        open chunk `[B, tokens, H, width]`, its coefficients `[B, tokens or 1, H, *]`.
        """
        state = None if self.state is None else self.state.map(function)
        piece = None if self.open is None else self.open.map(function)
        return Stream(state, piece, self.closed)

    def detach(self) -> Stream:
        """The stream without its history, as to train on a long sequence by parts."""
        return self.map(Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> Stream:
        """The stream on another device or of another dtype; arguments are those of `Tensor.to`.

        The state stays float32 where tokens are shorter. Raises `TypeError` unless the dtype is
        a floating one, and as `Tensor.to` does.
        """
        dtype = torch.empty(0).to(*args, **kwargs).dtype
        if dtype not in DTYPES:
            raise TypeError(f"a stream must have a floating dtype; got {dtype}. Choose another.")

        def widened(x: Tensor) -> Tensor:
            like = x.new_empty(0).to(*args, **kwargs)
            return x.to(like.device, wide(like.dtype))

        state = None if self.state is None else self.state.map(widened)
        piece = None if self.open is None else self.open.map(lambda x: x.to(*args, **kwargs))
        return Stream(state, piece, self.closed)

    def reorder(self, indices: Tensor | Sequence[int]) -> Stream:
        """The stream of the sequences `indices` of the batch, in that order, as a beam search asks.

        indices: integers in [0, B), of which some may be left out or there several times; as many
        as the new batch has. Raises `TypeError` or `ValueError` for what is no list of integers,
        `IndexError` for those out of range.
        """
        picked = torch.as_tensor(indices)
        picked = picked.long() if picked.numel() == 0 else picked
        if picked.dtype not in (torch.int64, torch.int32) or picked.ndim != 1:
            raise TypeError(
                "`indices` must be a list of integers; got shape "
                f"{tuple(picked.shape)} of {picked.dtype}. Pass one for each new sequence."
            )
        return self.map(lambda x: x.index_select(0, picked.to(x.device)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        return self.map(lambda x: copied(x, memo))

    def __repr__(self) -> str:
        closed = ", closed" if self.closed else ""
        return f"Stream({self.state}, {self.waiting} tokens in an open chunk{closed})"

    @property
    def waiting(self) -> int:
        """How many tokens the open chunk has."""
        return 0 if self.open is None else self.open.k.shape[1]


def must_be_whole(loop: InnerLoop | Recurrence) -> str | None:
    """Why pieces must end with a chunk; None where they may end anywhere."""
    if isinstance(loop, Recurrence) or loop.schedule.chunk == 1:
        return None
    if loop.net.tokens:
        return "an image is read whole"
    if loop.schedule.read == "after_update" and not loop.schedule.by_token:
        return "its tokens are read after the update by all of them"
    means = [name for name, c in loop.coefficients.items() if c.mean]
    if loop.schedule.read == "causal" and means:
        return f"its {means[0]} is the mean over all its tokens"
    return None


def feed(
    loop: InnerLoop | Recurrence | Runnable,
    run: Run,
    stream: Stream,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weights: Weights,
    coefficients: Coefficients | None = None,
    last: bool = False,
) -> tuple[Tensor, Stream]:
    """The outputs of the next tokens, `[B, T, H, V]`, and where the sequence then stands.

    run: a form of the loop, such as `Reduction.recurrent`. q, k, v, weights and coefficients as
    it has them; numbers per step are those of the chunks that begin in this piece. A piece
    may end anywhere, unless a chunk's outputs need all of its tokens (`must_be_whole`): then it
    must end with a chunk, or be the `last`; else `ValueError`, as for lengths that do not match.
    """
    code = runnable(loop)
    schedule, waiting = code.schedule, stream.waiting
    length = schedule.chunk
    early = schedule.read == "before_update" and not schedule.by_token
    tokens = waiting + q.shape[1]
    whole = tokens // length * length
    reason = must_be_whole(code.loop)
    if tokens > whole and reason and not last:
        raise ValueError(
            f"a piece must end with a chunk of {length} tokens, for {reason}; got "
            f"{tokens - whole} tokens more. Feed whole chunks, or set last=True."
        )
    piece = Piece(q, k, v, coefficients or {})
    check_lengths(code, stream, piece)
    if stream.open is not None:
        piece = piece.map(lambda new, old: torch.cat([old, new], dim=1), stream.open)
    outputs, state = [], stream.state
    # What is read before the update of an open chunk needs no token of it but those asked for.
    done = skipped = waiting if whole == 0 and early and not last else 0
    for stop in dict.fromkeys((whole, tokens)):
        if stop > done:
            part = piece.cut(done, stop, code)
            made, after = run(
                part.q,
                part.k,
                part.v,
                weights=weights,
                coefficients=part.coefficients,
                initial_state=state,
            )
            outputs.append(made)
            state = after if stop == whole or last else state
            done = stop
    found = torch.cat(outputs, dim=1)[:, waiting - skipped :] if outputs else v[:, :0]
    found, _ = tied(found, None, q, k, v, weights, coefficients, stream.state)
    open_ = None if tokens == whole or last else piece.cut(whole, tokens, code).kept(code)
    return found, Stream(state, open_, stream.closed or (last and tokens > whole))


def check_lengths(code: Runnable, stream: Stream, piece: Piece) -> None:
    """Raise `ValueError` unless all tensors have the tokens, or the new chunks, of one piece."""
    tokens, chunk = piece.q.shape[1], code.schedule.chunk
    if stream.closed and tokens:
        raise ValueError(
            "a stream must not go on after its last piece, which ended with a short "
            f"chunk; got {tokens} tokens more. Begin anew."
        )
    begun = -(-(stream.waiting + tokens) // chunk) - (stream.waiting > 0)
    lengths = {"token": tokens, "step": begun}
    tensors: list[tuple[str, object, int]] = [("k", piece.k, tokens), ("v", piece.v, tokens)]
    for name, c in code.coefficients.items():
        if c.every in lengths:
            x = piece.coefficients.get(name)
            tensors.append((f"coefficients[{name!r}]", x, lengths[c.every]))
    for name, x, length in tensors:
        if not (isinstance(x, Tensor) and x.ndim > 1 and x.shape[1] == length):
            got = tuple(x.shape) if isinstance(x, Tensor) else x
            raise ValueError(
                f"`{name}` must have {length} entries along time for {tokens} tokens "
                f"that begin {begun} chunks; got {got}. Match the piece."
            )
