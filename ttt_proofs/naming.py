"""Proposes an order for the bound variables of a monomial. The checker does not trust it.

Two monomials that differ only by a renaming should get one form. So variables are told apart
by how they occur (colour refinement), and where that leaves ties, by trying: the order whose
picture is least wins. The checker numbers the variables in the order that it is given, after a
look that each occurs just once. So a bad order could make equal terms look different, and
nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

Label = tuple[str, str, int, int]
Edge = tuple[frozenset, Any]  # a part of the monomial, with the variables that occur in it


def propose(
    sorts: Mapping[Any, str],
    edges: list[Edge],
    picture: Callable[[Any, dict[Any, Label]], tuple],
    level: int = 0,
) -> list[Any]:
    """An order of the variables that depends on how they occur in `edges`, not on their names.

    `sorts` gives each variable's sort; `picture(part, labels)` shows a part of the monomial with
    these labels for the variables, as something that can be compared. Each `level` has labels of
    its own, since a picture may show a monomial in which others are proposed in turn.
    """

    def pictures(labels: dict[Any, Label], *near: Any) -> list[tuple]:
        return sorted(picture(part, labels) for v, part in edges if not v.isdisjoint(near))

    def refined(colours: dict[Any, int]) -> dict[Any, int]:
        """Finer colours, in the order of the coarser ones, until nothing more is told apart."""
        labels, own = labelled("colour", level, sorts, colours), ("self", "", level, 0)
        seen = {v: (c, pictures(labels | {v: own}, v)) for v, c in colours.items()}
        order: list = []
        for look in sorted(seen.values()):
            if not order or order[-1] != look:
                order.append(look)
        finer = {v: order.index(look) for v, look in seen.items()}
        if len(order) in (len(set(colours.values())), len(colours)):
            return finer
        return refined(finer)

    def choices(colours: dict[Any, int]) -> Iterator[dict[Any, int]]:
        """Each variable of the first colour that several share put before the others, refined."""
        ties = [c for c, d in pairwise(sorted(colours.values())) if c == d]
        tied = [v for v in colours if ties and colours[v] == ties[0]]
        return (refined({w: 2 * c + (w != v) for w, c in colours.items()}) for v in tied)

    def leaf(colours: dict[Any, int]) -> tuple[list, list[Any]]:
        """The picture and the order at the end of the first choices."""
        while finer := next(choices(colours), None):
            colours = finer
        order = sorted(colours, key=lambda v: colours[v])
        labels = labelled("bound", level, sorts, {v: k for k, v in enumerate(order)})
        return [[sorts[v] for v in order], pictures(labels, *order)], order

    def search(colours: dict[Any, int]) -> tuple[list, list[Any]]:
        """The leaf with the least picture, below the choices that look least by their colours."""
        looks = [
            (
                (sorted(finer.values()), pictures(labelled("colour", level, sorts, finer), *finer)),
                finer,
            )
            for finer in choices(colours)
        ]
        # Where two choices end in one picture, a symmetry takes one to the other (it keeps all
        # colours, since refinement keeps their order): one of them is enough.
        few: list[tuple[list, dict[Any, int]]] = []
        for look, finer in looks:
            if look == min(look for look, _ in looks):
                end = leaf(finer)[0]
                if all(end != other for other, _ in few):
                    few.append((end, finer))
        if not few:
            return leaf(colours)
        return min((search(finer) for _, finer in few), key=lambda found: found[0])

    def component(variables: frozenset) -> tuple[list, list[Any]]:
        """The least picture of some variables that occur with no others, and their order."""
        kinds = sorted({sorts[v] for v in variables})
        colours = {v: kinds.index(sorts[v]) for v in sorts if v in variables}
        return leaf(colours) if len(kinds) == len(variables) else search(refined(colours))

    found = [component(variables) for variables in components(sorts, edges)]
    return [v for _, order in sorted(found, key=lambda one: one[0]) for v in order]


def labelled(
    kind: str, level: int, sorts: Mapping[Any, str], numbers: dict[Any, int]
) -> dict[Any, Label]:
    """Labels that tell apart what the numbers do, and the sorts."""
    return {v: (kind, sorts[v], level, number) for v, number in numbers.items()}


def components(sorts: Mapping[Any, str], edges: list[Edge]) -> list[frozenset]:
    """The variables, those together that occur together, by way of others or not."""
    parts = [frozenset((v,)) for v in sorts]
    for variables, _ in edges:
        joined = frozenset().union(*(part for part in parts if part & variables))
        parts = [part for part in parts if not part & variables]
        parts.extend([joined] if joined else [])
    return parts
