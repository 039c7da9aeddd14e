"""Code that has changed since it was read: what was read and proved is not what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .code import TracedLoss, TracedNet
from .loop import InnerLoop
from .recurrence import Recurrence
from .rule import Update


def must_be_current(loop: InnerLoop | Recurrence) -> None:
    """Raise `ValueError` if a loop's code reads otherwise than when the loop was made.

    Constants, such as a number that a module or a closure holds, are read with the code, once: a
    loop, its theorems and all that runs it keep to what was read, and the oracle calls the code as
    it is. A copy that has lost its code cannot have changed.
    """
    for name, code, read, again in readings(loop):
        try:
            same, why = read == again(), "which reads otherwise now"
        except Exception as error:  # a user's code may raise anything
            same, why = False, f"which cannot be read now: {str(error).partition(';')[0]}"
        if not same:
            called = getattr(code, "__qualname__", type(code).__qualname__)
            raise ValueError(
                f"`{name}` must be the code that was read when the loop was made; got "
                f"{called}, {why}. Make the loop anew."
            )


def readings(loop: InnerLoop | Recurrence) -> Iterator[tuple[str, Any, Any, Callable[[], Any]]]:
    """For each part that is code its name, the code, its reading, and the way to read it again."""
    if isinstance(loop, Recurrence):
        if (step := loop.function) is not None:
            yield "step", step, loop, lambda: Recurrence(step, loop.states, loop.coefficients)
        return
    net, loss, update = loop.net, loop.loss, loop.update
    if isinstance(net, TracedNet) and net.code is not None:
        yield "net", net.code, net, lambda: TracedNet(net.code, net.state)
    if isinstance(loss, TracedLoss) and loss.code is not None:
        yield "loss", loss.code, loss, lambda: TracedLoss(loss.code)
    if isinstance(update, Update) and update.function is not None:
        given = loop.update_coefficients
        yield "update", update.function, loop.rule, lambda: update.lines(given)
