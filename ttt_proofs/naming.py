"""Proposes an order for the bound variables of a monomial. The checker does not trust it.

Two monomials that differ only by a renaming should get one form. So variables are told apart
by how they occur (colour refinement), and where that leaves ties, by trying: the order whose
picture is least wins. The checker numbers the variables in the order that it is given, after a
look that each occurs just once. So a bad order could make equal terms look different, and
nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Label = tuple[str, str, int, int]
Labels = dict[Any, Label]
Colours = dict[Any, int]
Edge = tuple[frozenset, Any]  # a part of the monomial, with the variables that occur in it


def propose(
    sorts: Mapping[Any, str],
    edges: list[Edge],
    picture: Callable[[Any, Labels], tuple],
    level: int = 0,
) -> list[Any]:
    """An order of the variables that depends on how they occur in `edges`, not on their names.

    `sorts` gives each variable's sort; `picture(part, labels)` shows a part of the monomial with
    these labels for the variables, as something that can be compared. Each `level` has labels of
    its own, since a picture may show a monomial in which others are proposed in turn.
    """
    found = Search(sorts, edges, picture, level)
    ends = [found.component(variables) for variables in components(sorts, edges)]
    return [v for _, order in sorted(ends, key=lambda end: end[0]) for v in order]


@dataclass(frozen=True)
class Search:
    """The search for the order of a monomial's variables whose picture is least."""

    sorts: Mapping[Any, str]
    edges: list[Edge]
    picture: Callable[[Any, Labels], tuple]
    level: int

    def labels(self, kind: str, numbers: Colours) -> Labels:
        """Labels that tell apart what the numbers do, and the sorts."""
        return {v: (kind, self.sorts[v], self.level, number) for v, number in numbers.items()}

    def pictures(self, labels: Labels, *near: Any) -> list[tuple]:
        """The edges in which some of these variables occur."""
        return sorted(
            self.picture(part, labels) for v, part in self.edges if not v.isdisjoint(near)
        )

    def twins(self, v: Any, w: Any) -> bool:
        """Whether the edges stay as they are when these two variables are exchanged."""
        each = self.labels("bound", {u: k for k, u in enumerate(self.sorts)})
        exchanged = each | {v: each[w], w: each[v]}
        return self.pictures(each, v, w) == self.pictures(exchanged, v, w)

    def refined(self, colours: Colours) -> Colours:
        """Finer colours, in the order of the coarser ones, until nothing more is told apart."""
        labels, own = self.labels("colour", colours), ("self", "", self.level, 0)
        seen = {v: (c, self.pictures(labels | {v: own}, v)) for v, c in colours.items()}
        order: list = []
        for look in sorted(seen.values()):
            if not order or order[-1] != look:
                order.append(look)
        finer = {v: order.index(look) for v, look in seen.items()}
        if len(order) in (len(set(colours.values())), len(colours)):
            return finer
        return self.refined(finer)

    def choices(self, colours: Colours) -> Iterator[Colours]:
        """Each variable of the first colour that several share put before the others, refined.

        Of twins one is enough.
        """
        ties = [c for c, d in pairwise(sorted(colours.values())) if c == d]
        tied: list[Any] = []
        for v in colours:
            if ties and colours[v] == ties[0] and not any(self.twins(v, w) for w in tied):
                tied.append(v)
        return (self.refined({w: 2 * c + (w != v) for w, c in colours.items()}) for v in tied)

    def leaf(self, colours: Colours) -> tuple[list, list[Any]]:
        """The picture and the order at the end of the first choices."""
        while finer := next(self.choices(colours), None):
            colours = finer
        order = sorted(colours, key=lambda v: colours[v])
        labels = self.labels("bound", {v: k for k, v in enumerate(order)})
        return [[self.sorts[v] for v in order], self.pictures(labels, *order)], order

    def least(self, colours: Colours) -> tuple[list, list[Any]]:
        """The leaf with the least picture, below the choices that look least by their colours."""
        looks = [
            ((sorted(finer.values()), self.pictures(self.labels("colour", finer), *finer)), finer)
            for finer in self.choices(colours)
        ]
        # Where two choices end in one picture, a symmetry takes one to the other (it keeps all
        # colours, since refinement keeps their order): one of them is enough.
        few: list[tuple[list, Colours]] = []
        for look, finer in looks:
            if look == min(look for look, _ in looks):
                end = self.leaf(finer)[0]
                if all(end != other for other, _ in few):
                    few.append((end, finer))
        if not few:
            return self.leaf(colours)
        return min((self.least(finer) for _, finer in few), key=lambda found: found[0])

    def component(self, variables: frozenset) -> tuple[list, list[Any]]:
        """The least picture of some variables that occur with no others, and their order."""
        kinds = sorted({self.sorts[v] for v in variables})
        colours = {v: kinds.index(self.sorts[v]) for v in self.sorts if v in variables}
        if len(kinds) == len(variables):
            return self.leaf(colours)
        return self.least(self.refined(colours))


def components(sorts: Mapping[Any, str], edges: list[Edge]) -> list[frozenset]:
    """The variables, those together that occur together, by way of others or not."""
    parts = [frozenset((v,)) for v in sorts]
    for variables, _ in edges:
        joined = frozenset().union(*(part for part in parts if part & variables))
        parts = [part for part in parts if not part & variables]
        parts.extend([joined] if joined else [])
    return parts
