"""Refuses a notebook that nbval would wave through, or that does not read well.

    python tools/notebook_lint.py notebooks

prints one line for each fault and exits 1 if there is any, 2 if there is no notebook.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 15

# The only markers in use. A misspelt one is a comment to nbval; a skipped cell never
# runs; a cell marked as raising passes even when nothing is raised.
MARKERS = {"NBVAL_IGNORE_OUTPUT", "NBVAL_CHECK_OUTPUT"}
MARKER = re.compile(r"nbval|pytest[_-]validate|raises[_-]exception", re.IGNORECASE)

# What gives a verdict, and what a printed verdict looks like.
JUDGES = {"prove", "verify", "check", "refute"}
VERDICT = re.compile(
    r"\b(theorem|evidence|observation|refutation|proved|refuted|holds|fails|agrees?)\b",
    re.IGNORECASE,
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def faults(path: Path) -> Iterator[str]:
    """Each fault of a notebook, as `path: cell n: what is wrong`."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    run = 0
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code":
            run += 1
            for fault in cell_faults(cell, run):
                yield f"{path.as_posix()}: cell {number}: {fault}"


def cell_faults(cell: dict, run: int) -> Iterator[str]:
    """Each fault of a code cell, the `run`-th of its notebook."""
    source = "".join(cell["source"])
    if cell.get("execution_count") is None:
        yield "is not executed; run the notebook from the top and save it"
    elif cell["execution_count"] != run:
        yield f"was executed as number {cell['execution_count']}, not {run}; run from the top"
    if any(output["output_type"] == "error" for output in cell["outputs"]):
        yield "ends in an error"

    lines = [line for line in source.splitlines() if line.strip()]
    if len(lines) > MAX_LINES:
        yield f"has {len(lines)} lines; at most {MAX_LINES}"
    try:
        tree = ast.parse("\n".join(line for line in lines if line[0] not in "%!"))
    except SyntaxError as error:
        yield f"is not Python: {error.msg}"
        return
    for node in ast.walk(tree):
        if isinstance(node, Definition):
            yield f"defines {node.name}; definitions belong in the package"

    markers = set(cell_markers(cell, source))
    for marker in sorted(markers - MARKERS):
        yield f"is marked `{marker}`; the markers in use are {', '.join(sorted(MARKERS))}"
    if "NBVAL_IGNORE_OUTPUT" in markers and (judges(tree) or VERDICT.search(printed(cell))):
        yield "gives a verdict, so its output may not be ignored"


def cell_markers(cell: dict, source: str) -> Iterator[str]:
    """What the comments and tags of a cell say to nbval, tags spelled as comments are."""
    for line in source.splitlines():
        _, hash_sign, comment = line.partition("#")
        if hash_sign and MARKER.search(comment):
            yield line.strip().lstrip("#").strip()
    for tag in cell.get("metadata", {}).get("tags", []):
        if MARKER.search(tag):
            yield tag.replace("-", "_").upper()


def judges(tree: ast.Module) -> bool:
    """Whether a cell calls one of the functions that give a verdict."""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(ast.unparse(function).rpartition(".")[2] in JUDGES for function in called)


def printed(cell: dict) -> str:
    """The text that a cell shows, as plain text."""
    parts = []
    for output in cell["outputs"]:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        parts.append("".join(text))
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Lint the notebooks under the named folders."""
    notebooks = [path for folder in arguments for path in sorted(Path(folder).rglob("*.ipynb"))]
    notebooks = [path for path in notebooks if ".ipynb_checkpoints" not in path.parts]
    if not notebooks:
        print(f"A folder with notebooks is required; found none in: {' '.join(arguments)}")
        return 2
    found = [fault for path in notebooks for fault in faults(path)]
    print(*found, f"notebooks: {len(notebooks)}, faults: {len(found)}", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
