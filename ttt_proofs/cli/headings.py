"""What a derivation is called, read off its file: to list all, none is run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

from .catalogue import load

PLACES = ("name", "title", "source", "parts", "loops", "restate", "expects")  # of Derivation


class Heading(NamedTuple):
    """A derivation's name, whether it holds or fails, its title and its source."""

    name: str
    expects: str
    title: str
    source: str


def heading(directory: Path, name: str) -> Heading:
    """The derivation's heading: as it is written in `derive()`, or, computed, by running that."""
    found = written(directory / f"{name}.py")
    if found is not None and found.name == name:
        return found
    derivation = load(directory, name)
    return Heading(derivation.name, derivation.expects, derivation.title, derivation.source)


def written(file: Path) -> Heading | None:
    """The heading, where `derive()` has the one `return Derivation(...)` with literal strings."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # loading the file says it better
    call = returned(tree)
    if call is None or any(isinstance(value, ast.Starred) for value in call.args):
        return None
    given = dict(zip(PLACES, call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if len(given) != len(call.args) + len(call.keywords):  # some by `**`
        return None
    told = {key: literal(given[key]) for key in ("name", "title", "source") if key in given}
    expects = literal(given["expects"]) if "expects" in given else "holds"
    if len(told) < 3 or None in told.values() or expects not in ("holds", "fails"):
        return None
    return Heading(told["name"], expects, told["title"], told["source"])


def literal(node: ast.expr) -> Any:
    """The string that is written there, else None."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None


def returned(tree: ast.Module) -> ast.Call | None:
    """The call of the package's `Derivation` that `derive()` returns, if it can return no other."""
    kept = [name for node in ast.walk(tree) for name in bound(node)]
    derive = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "derive"]
    if kept.count("derive") != 1 or kept.count("Derivation") != 1 or len(derive) != 1:
        return None
    last = derive[0].body[-1]
    value = last.value if isinstance(last, ast.Return) else None
    if derive[0].decorator_list or ways_out(derive[0]) != 1 or not isinstance(value, ast.Call):
        return None
    ours = any(
        isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("ttt_proofs.symbolic")
        and "Derivation" in bound(node)
        for node in tree.body
    )
    called = isinstance(value.func, ast.Name) and value.func.id == "Derivation"
    return value if ours and called else None


def bound(node: ast.AST) -> list[str]:
    """The names that a node binds, in whatever scope."""
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return []


def ways_out(node: ast.AST) -> int:
    """How many `return` and `yield` the function has, not counting those of functions in it."""
    found = 0
    for child in ast.iter_child_nodes(node):
        found += isinstance(child, ast.Return | ast.Yield | ast.YieldFrom)
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += ways_out(child)
    return found
