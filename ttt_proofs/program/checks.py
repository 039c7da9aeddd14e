"""What code must keep to be read as a net or a loss; all else is refused in one sentence."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Sequence
from typing import Any

from .names import HEADS, OF_WEIGHTS, TAILS, TRANSPOSE
from .operations import Abstract, Rowwise
from .tracing import Node, Source, Trace


def parameter_names(subject: str, function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's tensors: its parameters, but for those that have a default.

    Raises `ValueError` for parameters that have no name, or none by position.
    """
    found = []
    for name, given in inspect.signature(function).parameters.items():
        if given.default is not given.empty:
            continue
        if given.kind not in (given.POSITIONAL_ONLY, given.POSITIONAL_OR_KEYWORD):
            raise ValueError(
                f"`{subject}` must name each tensor that it takes by position; got {given}. "
                "List them."
            )
        found.append(name)
    return tuple(found)


def check_names(weights: Sequence[str]) -> None:
    """Raise `ValueError` for a weight's name that statements or code have another meaning for."""
    taken = set(OF_WEIGHTS)
    for name in weights:
        taken |= {f"d{name}"} | {f"{head}_{name}" for head in HEADS}
        taken |= {f"{name}{tail}" for tail in (*TAILS, TRANSPOSE)}
    for name in weights:
        inverse = name.startswith("inverse_")
        if name in taken or inverse or keyword.iskeyword(name) or weights.count(name) > 1:
            raise ValueError(
                f"`net` must have weights with names of their own; got {name!r}, which "
                "statements and code use for something else. Rename it."
            )


def check_tokens(trace: Trace, nodes: Sequence[Node]) -> None:
    """Refuse what is made of weights alone: each line of a program holds a row for each token."""
    reads = {id(node) for node in nodes if node.does == "input"}
    for node in nodes:
        if any(id(part) in reads for part in node.args):
            reads.add(id(node))
        leaf = node.does in ("input", "weight", "transpose")
        if not leaf and id(node) not in reads and node.shape[0].root.name not in ("L", "1"):
            trace.refuse(
                "apply weights to tokens",
                f"`{node.name}` of weights alone,",
                "Multiply the tokens by each weight in turn.",
                node.source,
            )


def check_output(trace: Trace, out: Node) -> None:
    """Refuse a result that is not `[L, D_v]`."""
    if out.rank != "matrix":
        trace.refuse("return rows [L, D_v]", f"`{out.name}`", "Keep the last axis.", out.source)
    trace.unify(out.shape[0], trace.widths.rows, "outputs have a row for each token")
    trace.unify(out.shape[1], trace.widths.values, "outputs are compared with values")


def check_mixing(trace: Trace, nodes: Sequence[Node]) -> None:
    """Refuse a sum over tokens: a contraction, or a function of a row that holds tokens."""
    tokens = trace.widths.rows
    for node in nodes:
        folds = node.does in ("matmul", "sum", "mean") or (
            isinstance(node.does, Rowwise | Abstract) and getattr(node.does, "kind", "row") == "row"
        )
        if folds and node.args[0].shape[1].root is tokens:
            trace.refuse(
                "read each token alone",
                f"a sum over tokens, `{node.name}`,",
                "Leave mixing to the inner loop.",
                node.source,
            )
        if node.does == "weight" and node.shape[1].root is tokens:
            trace.refuse(
                "have weights of fixed widths",
                f"`{node.label}` with a column for each token",
                "Transpose it.",
                Source(),
            )


def check_use(trace: Trace, nodes: Sequence[Node], given: Sequence[Node]) -> None:
    """Refuse an argument that the result does not depend on."""
    used = set(map(id, nodes))
    for node in given:
        if id(node) not in used:
            name = "x" if node.does == "input" else node.label
            trace.refuse("depend on every argument", f"`{name}` unused", "Drop it.", Source())
