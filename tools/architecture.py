"""The budgets and habits that the source must keep, each as one check.

A check takes the root of a source tree and yields one line for each fault,
`path:line: what is wrong`. No fault, no line. `CHECKS` lists them all.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "ttt_proofs"
SOURCES = (PACKAGE, "derivations", "tools")

MODULE_LINES = 500
FUNCTION_LINES = 60
CHECKER_LINES = 650
PUBLIC_NAMES = 20

# Options of the library's updates, and its nets, losses and updates: what reads them, or asks
# which of them something is, is written for them alone. The program says what a loop does.
OPTIONS = {"rate", "momentum", "clip", "orthogonal", "weight_norm", "ascent", "trained"}
KINDS = {"Net", "Loss", "Update", "GradientStep", "Linear", "Features", "AnyNet", "MLP", "SwiGLU"}
KINDS |= {"GLU", "DepthwiseConv", "Frobenius", "SquaredError", "AbstractLoss"}
ROOMS = ("loops", "program", "reference")  # the oracle written apart is for the library's loops

UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"builtins", "ctypes", "importlib", "marshal", "pickle", "shelve"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root\b|work\b|home/\w|tmp/(?:bash_jobs|ipykernel))")


@dataclass(frozen=True)
class Module:
    """One source file: where it is, its dotted name, its text and its syntax tree."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST | None, fault: str) -> str:
        """The fault as a line that an editor can jump to."""
        return f"{self.path.as_posix()}:{getattr(node, 'lineno', 1)}: {fault}"


def modules(root: Path, *folders: str) -> Iterator[Module]:
    """Every Python file under the folders, in order of its path."""
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root)
            parts = path.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = file.read_text(encoding="utf-8")
            yield Module(path, name, text, ast.parse(text, str(path)))


def within(name: str, package: str) -> bool:
    """Whether the dotted name is the package or lies inside it."""
    return name == package or name.startswith(package + ".")


def imports(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Each import from outside the package, at any depth, with the name of what is imported."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node, node.module


def public_surface(root: Path) -> Iterator[str]:
    """`ttt_proofs.__all__` is short, and derivations use nothing besides it."""
    names = None
    for module in modules(root, PACKAGE):
        if module.name == PACKAGE:
            names = exported(module.tree)
            if not 0 < len(names) <= PUBLIC_NAMES:
                yield module.at(None, f"{len(names)} names in __all__; 1 to {PUBLIC_NAMES} allowed")
    if names is None:
        yield f"{PACKAGE}/__init__.py:1: no such file"
        return
    for module in modules(root, "derivations"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
                for alias in node.names:
                    if alias.name not in {*names, "loops"}:
                        yield module.at(node, f"{alias.name} is not a public name of {PACKAGE}")


def exported(tree: ast.Module) -> list[str]:
    """The names in a module's literal `__all__`; none when it has no such line."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def sizes(root: Path) -> Iterator[str]:
    """Modules and functions stay within their number of lines."""
    for module in modules(root, *SOURCES):
        lines = len(module.text.splitlines())
        if lines > MODULE_LINES:
            yield module.at(None, f"{lines} lines; a module has at most {MODULE_LINES}")
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                # Without docstring; a signature is one line, though Triton's list many pointers.
                body = node.body[1 if ast.get_docstring(node) else 0 :] or node.body
                lines = (node.end_lineno or node.lineno) - body[0].lineno + 2
                if lines > FUNCTION_LINES:
                    fault = f"{node.name} has {lines} lines; at most {FUNCTION_LINES}"
                    yield module.at(node, fault)


def code_lines(module: Module) -> int:
    """Lines that hold code: not blank, not comment, not docstring."""
    lines = module.text.splitlines()
    code = {n for n, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(module.tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            quoted = node.body[0]
            code -= set(range(quoted.lineno, (quoted.end_lineno or quoted.lineno) + 1))
    return len(code)


def checker_budget(root: Path) -> Iterator[str]:
    """The trusted checker is there, and short enough to audit in one sitting."""
    total = sum(map(code_lines, modules(root, f"{PACKAGE}/checker")))
    if not 0 < total <= CHECKER_LINES:
        fault = f"{total} lines of code; 1 to {CHECKER_LINES} allowed"
        yield f"{PACKAGE}/checker/__init__.py:1: {fault}"


def checker_habits(root: Path) -> Iterator[str]:
    """The checker raises and never asserts, and runs no code that it was given."""
    for module in modules(root, f"{PACKAGE}/checker"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assert):
                yield module.at(node, "`assert` vanishes under python -O; raise instead")
            if isinstance(node, ast.Name) and node.id in UNSAFE_NAMES:
                yield module.at(node, f"the checker may not use `{node.id}`")
        for node, target in imports(module):
            if target.partition(".")[0] in UNSAFE_MODULES:
                yield module.at(node, f"the checker may not import {target}")


def docstrings(root: Path) -> Iterator[str]:
    """Modules, and public classes, functions and methods, say what they are."""
    for module in modules(root, *SOURCES):
        for node, name in public(module.tree, module.name):
            if not ast.get_docstring(node):
                yield module.at(node, f"{name} has no docstring")


def public(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[Documented, str]]:
    """The node and its public definitions, each with the name to call it by."""
    yield node, name
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child, child.name)
        elif isinstance(child, Function):
            overload = any("overload" in ast.unparse(d) for d in child.decorator_list)
            if not child.name.startswith("_") and not overload:
                yield child, child.name


def machine_paths(root: Path) -> Iterator[str]:
    """No file that git would keep names a path of the machine it was written on."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    for path in filter(None, listed.stdout.decode().split("\0")):
        file = root / path
        if not file.is_file():
            continue
        for number, line in enumerate(file.read_text("utf-8", errors="ignore").splitlines(), 1):
            if found := MACHINE_PATH.search(line):
                yield f"{path}:{number}: names the machine path {found[0]}"


def programs(root: Path) -> Iterator[str]:
    """No read of an update's option, and no question after a kind of net, loss or update."""
    for module in modules(root, PACKAGE):
        if any(within(module.name, f"{PACKAGE}.{room}") for room in ROOMS):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr in OPTIONS:
                yield module.at(node, f"reads the option `{node.attr}`; read the program")
            asked = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
            if asked or isinstance(node, ast.Compare):
                names = (getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node))
                if any(name in KINDS for name in names):
                    yield module.at(node, "asks for a kind of loop; read the program")


CHECKS = (
    programs,
    public_surface,
    sizes,
    checker_budget,
    checker_habits,
    docstrings,
    machine_paths,
)
