"""The command line `ttt-proofs`: list, show, verify, reduce, bench."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from . import terminal
from .bench import bench
from .reduce import reduce
from .requests import RequestError, Stopped
from .show import list_, show
from .verify import verify

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("list")(list_)
for command in (show, verify, reduce, bench):
    app.command()(command)


def print_version(wanted: bool) -> None:
    """The package's version, and nothing else."""
    if wanted:
        from .. import __version__

        print(f"ttt-proofs {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="The version."),
    ] = False,
) -> None:
    """Test-time training with KV binding is linear attention, executable."""


def main() -> None:
    """Run the command line; a wrong request is one sentence and exit code 2."""
    with terminal.streams(), stopping():
        code = run()
        fault = terminal.output_fault()
        if fault is not None:
            terminal.complain(
                "ttt-proofs: standard output must take what is printed; it did not "
                f"({fault.strerror}). Direct it elsewhere."
            )
            code = 2
    sys.exit(code)


def run() -> int:
    """The exit code of the command that was asked for."""
    try:
        return app(standalone_mode=False) or 0
    except RequestError as error:
        message, code = str(error), 2
    except Stopped as stop:
        signal.signal(stop.number, signal.SIG_IGN)
        message = "interrupted" if stop.number == signal.SIGINT else "terminated"
        code = 128 + stop.number
        gc.freeze()  # else the exit looks through all that PyTorch has made, for a second
    except Exception as error:
        told = getattr(error, "format_message", None)  # Typer's own errors have it
        if told is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(told())
            return 2
        message, code = f"{told().rstrip('.')}. See ttt-proofs --help.", 2
    terminal.complain(f"ttt-proofs: {message}")
    return code


@contextmanager
def stopping() -> Iterator[None]:
    """Let Ctrl-C and a request to terminate raise `Stopped`, where they would end the process."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    if threading.current_thread() is not threading.main_thread():
        ours = []

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual[number])
