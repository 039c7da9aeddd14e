"""Files that commands write: through what is there, whole, and never in its place."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from .requests import RequestError


class Target:
    """The file that an option names, shown to be writable before the work begins.

    A device, a pipe, a link and a file's mode stay what they are. Raises `RequestError`, here if
    nothing can be written there, and by `write` if something prevents it later.
    """

    def __init__(self, path: Path, option: str = "--json") -> None:
        self.option = option
        try:
            self.path = path.expanduser()
            self.file = self.tried()
        except (OSError, RuntimeError, ValueError) as error:
            raise self.refusal(error) from error

    def refusal(self, error: Exception) -> RequestError:
        """The sentence on a file that cannot be written."""
        path, why = getattr(self, "path", "a home that is not known"), str(error)
        if isinstance(error, OSError):
            why = error.strerror or why
        return RequestError(
            f"`{self.option}` must be a file that can be written; got {path} ({why}). Name another."
        )

    def tried(self) -> Path:
        """The file to open, for which opening was tried; nothing is left there or changed."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            # Through a link to nothing, its target is made.
            file = Path(os.path.realpath(self.path)) if self.path.is_symlink() else self.path
            try_to_make(file)
            return file
        if self.is_output:
            return self.path
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(0, "it is a directory")
        if stat.S_ISSOCK(found.st_mode):
            raise OSError(0, "it is a socket")
        if stat.S_ISREG(found.st_mode):
            os.close(os.open(self.path, os.O_WRONLY))
        elif not os.access(self.path, os.W_OK):  # to open a pipe may wait, or end its reader
            raise PermissionError(0, "permission denied")
        return self.path

    @property
    def is_file(self) -> bool:
        """Whether it is, or will be, a file of its own, in a folder, to be written again."""
        return not self.is_output and (self.file.is_file() or not self.file.exists())

    @property
    def is_output(self) -> bool:
        """Whether it is the pipe or file that standard output goes to, as /dev/stdout is."""
        with suppress(OSError, ValueError, AttributeError):
            here, there = os.fstat(sys.stdout.fileno()), self.path.stat()
            return os.path.samestat(here, there) and not stat.S_ISCHR(here.st_mode)
        return False

    def write(self, text: str) -> None:
        """Write the whole text as UTF-8, in place of what the file held."""
        try:
            if self.is_output:  # opened anew, what was appended to would be lost
                sys.stdout.flush()
                write_all(sys.stdout.fileno(), text.encode())
                return
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_through(self.file, text.encode())
        except BrokenPipeError:
            pass  # its reader has read enough
        except OSError as error:
            raise self.refusal(error) from error


def try_to_make(file: Path) -> None:
    """Make the file, or the first folder that lacks on the way to it, and remove it again."""
    if file.parent.is_dir():
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        file.unlink()
        return
    missing = file.parent
    while not os.path.lexists(missing.parent):
        missing = missing.parent
    missing.mkdir()
    missing.rmdir()


def write_through(file: Path, data: bytes) -> None:
    """Replace what the file holds; where there is no room for all of it, change nothing."""
    new = not file.exists()
    number = os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            write_all(number, data)
            return
        try:
            reserve(number, len(data))
        except OSError:
            os.ftruncate(number, found.st_size)
            if new:
                file.unlink()
            raise
        write_all(number, data)
        os.ftruncate(number, len(data))
    finally:
        os.close(number)


def reserve(number: int, size: int) -> None:
    """Have room for so many bytes, where the system can tell; raise `OSError` if there is none."""
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, 0, size)


def write_all(number: int, data: bytes) -> None:
    """Write all bytes; a pipe may take them in pieces."""
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
