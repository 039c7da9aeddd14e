"""Derivations by name: where the files are, and loading them with errors in one sentence."""

from __future__ import annotations

import importlib.util
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from ..symbolic.derivation import Derivation


class RequestError(Exception):
    """What was asked cannot be done; the message is one sentence for the user."""


def folder(directory: Path | None) -> Path:
    """The directory of derivations: the one given, or the package's own."""
    if directory is not None:
        if not directory.is_dir():
            raise RequestError(f"`--derivations` must be a directory; got {directory}. Name one.")
        return directory
    found = importlib.util.find_spec("derivations")
    if found is None or not found.submodule_search_locations:
        raise RequestError(
            "the derivations must be installed beside the package; none are found. "
            "Use --derivations DIR."
        )
    return Path(next(iter(found.submodule_search_locations)))


def names(directory: Path) -> list[str]:
    """The names of all derivations in the directory."""
    return sorted(file.stem for file in directory.glob("*.py") if not file.stem.startswith("_"))


def load_file(file: Path) -> ModuleType:
    """The module in a file; what goes wrong there is told in one sentence."""
    spec = importlib.util.spec_from_file_location(f"_derivation_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise RequestError(f"a Python file is required; got {file}. Name one ending in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"{file.name} must load; it raised {type(error).__name__}: {error}. Mend the file."
        ) from error
    return module


def require_names(directory: Path, wanted: list[str]) -> None:
    """Raise unless each name is that of a derivation; say which ones are close."""
    known = names(directory)
    for name in wanted:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."
            raise RequestError(f"a derivation's name is required; got {name!r}. {hint}")


def load(directory: Path, name: str) -> Derivation:
    """The derivation of that name."""
    require_names(directory, [name])
    module = load_file(directory / f"{name}.py")
    derive = getattr(module, "derive", None)
    if not callable(derive):
        raise RequestError(f"{name}.py must define derive(); it does not. Add it.")
    try:
        derivation = derive()
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"{name}.py must derive its claim; it raised {type(error).__name__}: "
            f"{error}. Mend the file."
        ) from error
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
