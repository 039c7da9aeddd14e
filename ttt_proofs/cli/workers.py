"""Processes that do one job after another, and end with the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from threading import Thread
from types import ModuleType
from typing import Any

from .requests import RequestError

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
Job = Callable[..., Any]


def answers(job: Job, requests: Sequence[tuple[Any, ...]], count: int) -> Generator[Any]:
    """What `job(*request)` returns for each request, as they are done, by `count` processes.

    The processes end when the iterator is closed. Raises the `RequestError` that a job raises,
    and one where a process ends before its job does.
    """
    waiting, processes, connections = deque(requests), [], []
    try:
        with uninterrupted():
            for _ in range(min(count, len(requests))):
                ours, theirs = get_context("spawn").Pipe()
                processes.append(get_context("spawn").Process(target=serve, args=(theirs, job)))
                with no_script():
                    processes[-1].start()
                theirs.close()  # so that ours ends with the process
                connections.append(ours)
        busy: dict[Any, tuple[Any, ...]] = {}
        for connection in connections:
            busy[connection] = give(connection, waiting)
        while busy:
            for connection in wait([*busy]):
                yield received(connection, busy.pop(connection))
                if waiting:
                    busy[connection] = give(connection, waiting)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def give(connection: Any, waiting: deque[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Give the process its next request, and return that."""
    request = waiting.popleft()
    with lost(request):
        connection.send(request)
    return request


def received(connection: Any, request: tuple[Any, ...]) -> Any:
    """The answer to a request."""
    with lost(request):
        done, value = connection.recv()
    if not done:
        raise RequestError(value)
    return value


@contextmanager
def lost(request: tuple[Any, ...]) -> Iterator[None]:
    """Tell that a process has ended, and at what."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise RequestError(
            f"each derivation must leave its process running; {request[0]!r} ended it. "
            "Mend that file."
        ) from error


def serve(connection: Connection, job: Job) -> None:
    """In the process: answer requests until there are no more."""
    follow_parent()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            found = True, job(*request)
        except RequestError as error:
            found = False, str(error)
        connection.send(found)


def follow_parent() -> None:
    """End this process as soon as its parent ends, by whatever means."""
    parent = parent_process()
    if parent is None:
        return
    if sys.platform == "linux":  # also while a long call holds the interpreter
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let processes start deaf to Ctrl-C, which reaches their parent, and it ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would clear the mask as it starts
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def no_script() -> Iterator[None]:
    """Let a process start without the main script, which need not be safe to run again."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
