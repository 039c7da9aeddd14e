"""Derivations by name: where the files are, and loading them with errors in one sentence."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .requests import PACKAGE, RequestError, blamed, nearest

if TYPE_CHECKING:
    from ..symbolic.derivation import Derivation

__all__ = ["RequestError", "folder", "load", "load_file", "names", "require_names"]

HOME = PACKAGE.parent / "derivations"


def folder(directory: Path | None) -> Path:
    """The directory of derivations: the one given, or that beside the package, and no other.

    By its place: `import derivations` would run another package of that name on the path.
    """
    if directory is None:
        if not HOME.is_dir():
            raise RequestError(
                f"the derivations must be installed beside the package; there is no {HOME}. "
                "Use --derivations DIR."
            )
        return HOME
    found = expanded(directory)
    if not found.is_dir():
        raise RequestError(f"`--derivations` must be a directory; got {directory}. Name one.")
    return found


def expanded(path: Path) -> Path:
    """The path with `~` for the home directory."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise RequestError(f"a path must be that of a file; got {path} ({error}).") from error


def names(directory: Path) -> list[str]:
    """The names of all derivations in the directory."""
    try:
        files = [file for file in directory.glob("*.py") if not file.is_dir()]
    except OSError as error:
        raise RequestError(
            f"`--derivations` must be readable; got {directory} ({error.strerror}). Name another."
        ) from error
    return sorted(file.stem for file in files if not file.stem.startswith("_"))


def load_file(file: Path, package: str = "") -> ModuleType:
    """The module in a file, of a package if one is named; what goes wrong is one sentence."""
    plain = file.stem.replace(".", "_")  # a dot would name a package
    name = f"{package}.{plain}" if package else f"_ttt_proofs_{plain}"
    spec = importlib.util.spec_from_file_location(name, file.absolute())
    if spec is None or spec.loader is None:
        raise RequestError(f"a Python file is required; got {file}. Name one ending in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    importlib.invalidate_caches()  # its neighbours may be new
    with leaving_no_bytecode(), blamed(f"{file.name} must load", file.parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def leaving_no_bytecode() -> Iterator[None]:
    """Write no __pycache__ into folders that are not ours."""
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = kept


def package_of(directory: Path) -> str:
    """The name of the directory as a package, in which files import each other by `from .x`.

    The name is private: it hides no package of the user's, and none is taken for it.
    """
    home = directory.absolute()
    own = home == HOME.absolute()
    digest = sha256(os.fsencode(home)).hexdigest()[:16]
    name = "ttt_proofs._derivations" + ("" if own else f"_{digest}")
    if name not in sys.modules:
        sys.modules[name] = ModuleType(name, "One result a file.")
        sys.modules[name].__path__ = [str(home)]
        if not own:
            sys.path.append(str(home))  # last, since a result may be called `statistics`
    return name


def require_names(directory: Path, wanted: list[str]) -> None:
    """Raise unless each name is that of a derivation; say which ones are close."""
    known = names(directory)
    for name in wanted:
        if name not in known:
            hint = nearest(name, known, "ttt-proofs list")
            raise RequestError(f"a derivation's name is required; got {name!r}. {hint}")


def load(directory: Path, name: str) -> Derivation:
    """The derivation of that name."""
    require_names(directory, [name])
    module = load_file(directory / f"{name}.py", package_of(directory))
    derive = getattr(module, "derive", None)
    if not callable(derive):
        raise RequestError(f"{name}.py must define derive(); it does not. Add it.")
    with blamed(f"{name}.py must derive its claim", directory):
        derivation = derive()
    from ..symbolic.derivation import Derivation

    if not isinstance(derivation, Derivation):
        raise RequestError(
            f"derive() in {name}.py must return a Derivation; got "
            f"{type(derivation).__name__}. Return one."
        )
    if derivation.name != name:
        raise RequestError(
            f"derive() in {name}.py must return the derivation {name!r}; got "
            f"{derivation.name!r}. Rename one of them."
        )
    return derivation
