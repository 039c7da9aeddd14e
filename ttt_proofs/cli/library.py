"""Derivations by name: where the files are, and loading them with errors in one sentence."""

from __future__ import annotations

import importlib.util
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
        raise RequestError("the derivations must be installed beside the package; none are found. "
                           "Use --derivations DIR.")  # fmt: skip
    return Path(next(iter(found.submodule_search_locations)))


def names(directory: Path) -> list[str]:
    """The names of all derivations in the directory."""
    return sorted(file.stem for file in directory.glob("*.py") if not file.stem.startswith("_"))


def load_file(file: Path) -> ModuleType:
    """The module in a file; what goes wrong there is told in one sentence."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise RequestError(f"a Python file is required; got {file}. Name one ending in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RequestError(f"{file.name} must load; it raised {type(error).__name__}: {error}. "
                           "Mend the file.") from error  # fmt: skip
    return module


def load(directory: Path, name: str) -> Derivation:
    """The derivation of that name."""
    known = names(directory)
    if name not in known:
        raise RequestError(f"a derivation's name is required; got {name!r}. "
                           f"Known are {', '.join(known) or 'none'}.")  # fmt: skip
    module = load_file(directory / f"{name}.py")
    derive = getattr(module, "derive", None)
    if not callable(derive):
        raise RequestError(f"{name}.py must define derive(); it does not. Add it.")
    try:
        derivation = derive()
    except Exception as error:
        raise RequestError(f"{name}.py must derive its claim; it raised {type(error).__name__}: "
                           f"{error}. Mend the file.") from error  # fmt: skip
    if not isinstance(derivation, Derivation):
        raise RequestError(f"derive() in {name}.py must return a Derivation; got "
                           f"{type(derivation).__name__}. Return one.")  # fmt: skip
    return derivation
