"""What a proof is about and does not define: symbols with their shapes, and functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..checker.definitions import Define, DefineGradient
from ..checker.proof import Proof
from ..checker.terms import TIME, App, Atom, Ix, Sum, Var, inside, ix
from .arrange import arranged
from .formula import Writer
from .notation import MEANINGS, NOTES, Names, bind, letter
from .special import bracket_of, is_operator

ARBITRARY = "Lengths and widths are arbitrary. An empty sum is 0, an empty product is 1."
BRACKETS = "Square brackets around a comparison are 1 where it holds, and 0 elsewhere."
SUMMED = (
    "A shape with a sum of widths is read at sums of indices; its entries are arbitrary, so "
    "that zeros around an image are one case."
)
DATA = ("q", "k", "v")  # shown first


class Fact(NamedTuple):
    """A symbol and what it is; or, without a kind, a whole sentence. Notes follow the kind."""

    shown: str
    kind: str = ""
    note: str = ""


class Given:
    """Writes what is given with one `writer`; `wrap` sets a formula into a sentence."""

    def __init__(self, writer: Writer, wrap: Callable[[str], str]) -> None:
        self.writer, self.wrap = writer, wrap

    def facts(self, proof: Proof) -> tuple[Fact, ...]:
        """The symbols and functions that nothing defines, with their shapes."""
        defined = {d.name for block in proof.definitions for d in block}
        defined |= {
            d.param for block in proof.definitions for d in block if isinstance(d, DefineGradient)
        }
        uses: dict[str, list[Atom]] = {name: [] for name in DATA}
        for atom in inside(proof, Atom):
            if atom.name not in defined:
                uses.setdefault(atom.name, []).append(atom)
        calls: dict[str, dict[object, App]] = {}
        for app in inside(shown_terms(proof), App):
            calls.setdefault(app.fn, {})[signature(app)] = app
        found = [self.data(atoms) for atoms in uses.values() if atoms]
        found += [self.function(tuple(apps.values())) for apps in calls.values()]
        if any(len(index.vars) > 1 for index in inside(tuple(map(tuple, uses.values())), Ix)):
            found.append(Fact(SUMMED))
        if any(map(bracket_of, inside(shown_terms(proof), Sum))):
            found.append(Fact(BRACKETS))
        return (*found, Fact(ARBITRARY))

    def data(self, atoms: Sequence[Atom]) -> Fact:
        """A symbol with its shape: as far as it is read."""
        widest = [
            max(same, key=lambda i: len(i.vars))
            for same in zip(*(atom.ix for atom in atoms), strict=True)
        ]
        sorts = list(map(sort_of, widest))
        widths = [
            self.extent(index) for index, sort in zip(widest, sorts, strict=True) if sort != TIME
        ]
        times = self.writer.listed(
            (self.writer.variable(name), False)
            for name, sort in zip("tuvw", sorts, strict=False)
            if sort == TIME
        )
        name = atoms[0].name
        shown = self.wrap(self.writer.symbol(name, times))
        return Fact(shown, self.kind(widths), NOTES.get(name, ""))

    def extent(self, index: Ix) -> str:
        """What an index runs over: a width, or a sum of widths, the image before the window."""
        widths = sorted(index.vars, key=lambda v: (len(letter(v)), v.name))
        shown = self.wrap(self.writer.PLUS.join(self.writer.width(v.sort) for v in widths))
        return f"({shown})" if len(widths) > 1 else shown

    def width(self, sort: str) -> str:
        """The name of a width, in a sentence."""
        return self.wrap(self.writer.width(sort))

    def every(self, variables: Iterable[Var], names: Names) -> str:
        """Indices and what they run over: `step t, number K, h over D_h`."""
        parts = []
        for var in variables:
            shown = self.wrap(self.writer.variable(names[var]))
            word = "step" if names[var].islower() else "number"  # t, and K steps on a chunk
            time = var.sort == TIME
            parts.append(f"{word} {shown}" if time else f"{shown} over {self.width(var.sort)}")
        return ", ".join(parts)

    def kind(self, widths: Sequence[str]) -> str:
        """What has these widths."""
        names = {0: "number", 1: "vector", 2: "matrix"}
        shape = f" of shape {self.shape(widths)}" if widths else ""
        return f"{'a ' + names[len(widths)] if len(widths) in names else 'an array'}{shape}"

    def shape(self, widths: Sequence[str]) -> str:
        """`D_h × D_v`."""
        return " × ".join(widths)

    def function(self, apps: Sequence[App]) -> Fact:
        """A function: what it is, or that it may be any. It may occur with several shapes."""
        app = apps[0]
        note = NOTES.get(app.fn, "")
        if app.fn in MEANINGS:
            return Fact(f"{self.wrap(self.writer.meaning(app.fn))}{note}.")
        if all(map(is_operator, apps)):
            shown = self.wrap(self.writer.function(app.fn, "", (), ()))
            shapes = [self.shape([self.width(v.sort) for v in a.args[0].binders]) for a in apps]
            kind = self.kind([""] * len(app.ix)).split(" of ")[0]
            return Fact(
                f"{shown}, any function that takes {kind} of shape {' or '.join(shapes)} "
                f"to one of the same shape{note}."
            )
        return Fact(f"{'; '.join(map(self.any_function, apps))}{note}.")

    def any_function(self, app: App) -> str:
        """`φ[t,h], any function of a vector of shape D_k, one for every ...`."""
        times = iter("tuvw")
        every = tuple(
            Var(next(times), TIME) if sort == TIME else Var(letter(Var("x", sort)), sort)
            for sort in map(sort_of, app.ix)
        )
        names = bind(every, {})
        kinds = [self.kind([self.width(v.sort) for v in a.binders]) for a in app.args]
        plain = Atom("x", tuple(map(ix, every)))
        shown = self.writer.function(app.fn, self.writer.indices(plain, names), (), ())
        own = f", one for every {self.every(every, names)}" if every else ""
        return f"{self.wrap(shown)}, any function of {' and '.join(kinds)}{own}"


def sort_of(index: Ix) -> str:
    """What an index runs over; a constant is a time."""
    return index.vars[0].sort if index.vars else TIME


def signature(app: App) -> object:
    """The widths that a function is used with."""
    return (
        tuple(map(sort_of, app.ix)),
        tuple(tuple(v.sort for v in argument.binders) for argument in app.args),
    )


def sentences(facts: Iterable[Fact]) -> list[str]:
    """The facts as sentences, symbols of one kind together."""
    together: dict[tuple[str, ...], list[str]] = {}
    for fact in facts:
        key = (fact.kind, fact.note) if fact.kind else fact
        together.setdefault(key, []).append(fact.shown)
    found = []
    for key, shown in together.items():
        if len(key) == 3:  # a sentence
            found.append(shown[0])
        else:
            each = "each " if len(shown) > 1 else ""
            found.append(f"{', '.join(shown)}, {each}{key[0]}{key[1]}.")
    return found


def shown_terms(proof: Proof) -> tuple:
    """Every term of the definitions and steps, as it is shown."""
    found = []
    for define in (d for block in proof.definitions for d in block):
        found += [define.term, define.start] if isinstance(define, Define) else [define.loss]
    for step in proof.steps:
        found += [step.conclusion.equation.left, step.conclusion.equation.right]
    return tuple(arranged(term) for term in found if term is not None)
