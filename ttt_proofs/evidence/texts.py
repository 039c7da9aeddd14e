"""Terms in a line of plain text, to name places in them; for reading, see `ttt_proofs.render`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ..checker.terms import Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum

MOST = 60  # characters


def short(node: Any) -> str:
    """The text, cut where it grows too long."""
    text = line(node)
    return text if len(text) <= MOST else text[: MOST - 1] + "…"


def line(node: Any) -> str:
    """The whole text."""
    if isinstance(node, Ix):
        shift = [str(node.shift)] if node.shift or not node.vars else []
        return "+".join([v.name for v in node.vars] + shift).replace("+-", "-")
    if isinstance(node, Num):
        return str(Fraction(node.top, node.bottom))
    if isinstance(node, Atom):
        return node.name + brackets(node.ix)
    if isinstance(node, App):
        slots = "".join(f"∂{k + 1}{brackets(index)} " for k, index in node.slots)
        return f"{slots}{node.fn}{brackets(node.ix)}({', '.join(map(line, node.args))})"
    if isinstance(node, Lam):
        return line(node.body)
    if isinstance(node, Add):
        return f"({' + '.join(map(line, node.terms))})"
    if isinstance(node, Mul):
        *first, last = map(line, node.factors) if node.factors else ("1",)
        closed = [
            f"({text})" if isinstance(factor, Sum | Prod) else text
            for text, factor in zip(first, node.factors, strict=False)
        ]
        return " · ".join([*closed, last])
    if isinstance(node, Sum):
        span = f"={line(node.low)}..{line(node.high)}" if node.low else ""
        return f"Σ_{node.var.name}{span} {line(node.body)}"
    if isinstance(node, Prod):
        (var,) = node.factor.binders
        return f"Π_{var.name}={line(node.low)}..{line(node.high)} {line(node.factor)}"
    raise TypeError(f"a term is required; got {type(node).__name__}.")


def brackets(index: tuple[Ix, ...]) -> str:
    """`[t+1, h]`, or nothing."""
    return f"[{', '.join(map(line, index))}]" if index else ""
