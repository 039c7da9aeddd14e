"""Requests that cannot be met: one sentence for the user, and exit code 2."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from traceback import walk_tb

HERE = Path(__file__).parent
PACKAGE = HERE.parent
FEW = 8  # names that a hint lists all
NEAREST = 3  # names offered for one that is not known
LONGEST = 500  # characters of another's error message that are repeated


class RequestError(Exception):
    """What was asked cannot be done; the message is one sentence for the user."""


class Stopped(BaseException):
    """A signal asked the command to stop. No `Exception`, so that no user's code keeps it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def nearest(name: str, known: Collection[str], everything: str) -> str:
    """A hint for a name that is not known: the nearest few, or all where there are no more."""
    close = get_close_matches(name, known, NEAREST)
    if close:
        *others, last = close
        return f"Did you mean {', '.join(others) + ' or ' if others else ''}{last}?"
    if len(known) <= FEW:
        return f"Known are {', '.join(known)}." if known else "There is none."
    far = get_close_matches(name, known, NEAREST, cutoff=0)
    return f"The nearest are {', '.join(far)}; `{everything}` lists all."


def told(error: BaseException, folder: Path) -> str:
    """The error's type, its message on one line, and where the code in `folder` raised it.

    Where no code of the folder did, the place is the innermost one.
    """
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_file():
        message, place = error.msg, f"{error.filename}, line {error.lineno}"
    else:
        message, place = message_of(error), place_of(error, folder)
    message = shorten(message, LONGEST, placeholder=" ...").rstrip(".")
    return f"{type(error).__name__}{': ' * bool(message)}{message}" + f" ({place})" * bool(place)


def message_of(error: BaseException) -> str:
    """The error's message, also of an error that cannot show it."""
    try:
        return str(error)
    except Exception:
        return "its message cannot be shown"


def place_of(error: BaseException, folder: Path) -> str:
    """`file, line 3`: the innermost line of the folder's own code, else the innermost of all.

    Lines of the import system and of the command line tell nothing, and are left out.
    """
    found = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    places = [(file, line) for file, line in found if file.is_file() and file.parent != HERE]
    own = [(file, line) for file, line in places if is_own(file, folder.absolute())]
    file, line = (own or places or [(None, 0)])[-1]
    return f"{file}, line {line}" if file else ""


def is_own(file: Path, folder: Path) -> bool:
    """Whether the file is the user's: in the folder, not installed there, and not this package."""
    return (
        file.is_relative_to(folder)
        and not file.is_relative_to(PACKAGE)
        and "site-packages" not in file.relative_to(folder).parts
    )


@contextmanager
def blamed(rule: str, folder: Path) -> Iterator[None]:
    """Tell what the user's code in `folder` raises, exits included, as a broken `rule`."""
    try:
        yield
    except (RequestError, Stopped, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RequestError(f"{rule}; it raised {told(error, folder)}. Mend the file.") from error
