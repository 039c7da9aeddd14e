"""Proposes an order for the bound variables of a monomial. The checker does not trust it.

Two monomials that differ only by a renaming should get one form. So variables are told apart
by how they occur (colour refinement), and where that leaves ties, by trying: the order whose
picture is least wins. The checker numbers the variables in the order that it is given, after a
look that each occurs just once. So a bad order could make equal terms look different, and
nothing else.
"""

from collections.abc import Callable, Hashable, Mapping
from itertools import pairwise
from typing import Any

Label = tuple[str, str, int, int]
Edge = tuple[frozenset, Any]  # a part of the monomial, with the variables that occur in it


def propose(
    sorts: Mapping[Any, str], edges: list[Edge], picture: Callable[[Any, dict[Any, Label]], tuple]
) -> list[Any]:
    """An order of the variables that depends on how they occur in `edges`, not on their names.

    `sorts` gives each variable's sort; `picture(part, labels)` shows a part of the monomial with
    these labels for the variables, as something that can be compared.
    """

    def pictures(labels: dict[Any, Label], near: Hashable = None) -> list[tuple]:
        return sorted(picture(part, labels) for v, part in edges if near is None or near in v)

    def refined(colours: dict[Any, int]) -> dict[Any, int]:
        """Finer colours, in the order of the coarser ones, until nothing more is told apart."""
        labels: dict[Any, Label] = {v: ("colour", sorts[v], -1, c) for v, c in colours.items()}
        own: Label = ("self", "", -1, 0)
        seen = {v: (c, pictures(labels | {v: own}, v)) for v, c in colours.items()}
        order: list = []
        for look in sorted(seen.values()):
            if not order or order[-1] != look:
                order.append(look)
        finer = {v: order.index(look) for v, look in seen.items()}
        if len(order) in (len(set(colours.values())), len(colours)):
            return finer
        return refined(finer)

    def choices(colours: dict[Any, int]) -> list[dict[Any, int]]:
        """Each variable of the first colour that several share put before the others, refined."""
        ties = [c for c, d in pairwise(sorted(colours.values())) if c == d]
        tied = [v for v in colours if ties and colours[v] == ties[0]]
        return [refined({w: 2 * c + (w != v) for w, c in colours.items()}) for v in tied]

    def leaf(colours: dict[Any, int]) -> tuple[list, list[Any]]:
        """The picture and the order at the end of the first choices."""
        while more := choices(colours):
            colours = more[0]
        order = sorted(colours, key=lambda v: colours[v])
        labels: dict[Any, Label] = {v: ("bound", sorts[v], -1, k) for k, v in enumerate(order)}
        return [[sorts[v] for v in order], pictures(labels)], order

    def search(colours: dict[Any, int]) -> tuple[list, list[Any]]:
        """The leaf with the least picture."""
        # Where two choices end in one picture, a symmetry takes one to the other (it keeps all
        # colours, since refinement keeps their order): one of them is enough.
        few: list[tuple[list, dict[Any, int]]] = []
        for finer in choices(colours):
            look = leaf(finer)[0]
            if all(look != other for other, _ in few):
                few.append((look, finer))
        if not few:
            return leaf(colours)
        return min((search(finer) for _, finer in few), key=lambda found: found[0])

    kinds = sorted(set(sorts.values()))
    if len(kinds) == len(sorts):
        return sorted(sorts, key=lambda v: sorts[v])
    return search(refined({v: kinds.index(sort) for v, sort in sorts.items()}))[1]
