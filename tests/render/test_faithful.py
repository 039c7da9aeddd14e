"""Terms that differ are shown differently: random mutants of a statement never coincide."""

from __future__ import annotations

import random
from contextlib import suppress
from fractions import Fraction
from functools import cache

import pytest

from ttt_proofs.checker.normal import naturals, normal_form
from ttt_proofs.checker.terms import (
    Add,
    App,
    Atom,
    CheckerError,
    Ix,
    Lam,
    Mul,
    Num,
    Prod,
    Sum,
    Term,
    Var,
    check,
    free,
    inside,
    parts,
    rebuild,
)
from ttt_proofs.render import latex, text
from ttt_proofs.render.formula import Writer
from ttt_proofs.render.latex import LatexWriter
from ttt_proofs.render.text import TextWriter

MUTABLE = (Ix, Num, Atom, App, Add, Mul, Sum, Prod)
OTHER = {"root": "inverse", "inverse": "root"}


def mutated(node, rng: random.Random, pool: list[Var]):
    """One change at this node."""
    if isinstance(node, Ix):
        same = [v for v in pool if node.vars and v.sort == node.vars[0].sort]
        if same and rng.random() < 0.5:
            return Ix((rng.choice(same), *node.vars[1:]), node.shift)
        return Ix(node.vars, node.shift + rng.choice((-1, 1)))
    if isinstance(node, Num):
        now = Fraction(node.top, node.bottom)
        value = rng.choice((-now, 2 * now, now + 1, Fraction(1, 2)))
        return Num(*value.as_integer_ratio())
    if isinstance(node, Atom):
        return Atom(node.name, node.ix[::-1]) if rng.random() < 0.5 else Atom("Q", node.ix)
    if isinstance(node, App):
        if node.fn in OTHER and rng.random() < 0.3:
            other = App(OTHER[node.fn], node.ix, node.args, node.slots)
            return rng.choice((other, node.args[0].body))
        if rng.random() < 0.5:
            return App(node.fn, node.ix, node.args[::-1], node.slots)
        slots = node.slots[1:] if node.slots else ((0, tuple(node.ix[-1:])),)
        return App(node.fn, node.ix, node.args, slots)
    if isinstance(node, Mul) and rng.random() < 0.4:
        return regrouped(node)
    if isinstance(node, Add | Mul):
        given = list(parts(node)[0])
        if given and rng.random() < 0.5:
            given.pop(rng.randrange(len(given)))
        else:
            more = [Num(rng.choice((-1, 2, 3))), *given[:1]]
            given = [*given, rng.choice(more)]
        return (
            type(node)(tuple(given))
            if rng.random() < 0.8
            else (Add if isinstance(node, Mul) else Mul)(tuple(given))
        )
    if isinstance(node, Prod):
        return Prod(node.low, Ix(node.high.vars, node.high.shift + 1), node.factor)
    if node.low is not None:
        shift = rng.choice((-1, 1))
        return Sum(node.var, Ix(node.low.vars, node.low.shift + shift), node.high, node.body)
    return Mul((Num(-1), node))


def regrouped(node: Mul):
    """The product as it would be read without its parentheses, where it has some."""
    for k, factor in enumerate(node.factors):
        before, after = node.factors[:k], node.factors[k + 1 :]
        if isinstance(factor, Sum) and after:
            body = Mul((factor.body, *after))
            return Mul((*before, Sum(factor.var, factor.low, factor.high, body)))
        if isinstance(factor, Add) and before and factor.terms:
            first, *others = factor.terms
            return Mul((Add((Mul((*before, first)), *others)), *after))
    return node


def changed(node, place: list, change):
    """`node` with the one node that `place` holds (by identity) changed, where it occurs first."""
    if place and node is place[0]:
        return change(place.pop())
    return rebuild(node, lambda part: changed(part, place, change))


@cache
def mutants(term, count: int) -> tuple:
    """The term, and some that differ from it at one or two places and that a proof could hold."""
    rng = random.Random(7)
    pool = sorted({*inside(term, Var)}, key=lambda v: (v.name, v.sort))
    found = [term]
    for product in inside(term, Mul):
        found.append(changed(term, [product], regrouped))
    for _ in range(count):
        mutant = term
        for _ in range(rng.choice((1, 2))):
            nodes = [n for kind in MUTABLE for n in inside(mutant, kind)]
            mutant = changed(mutant, [rng.choice(nodes)], lambda node: mutated(node, rng, pool))
        with suppress(CheckerError):  # a sum may have its own index in its bounds now
            check(mutant, Term)
            found.append(mutant)
    return tuple(found)


@cache
def form(term) -> tuple:
    """The normal form."""
    return normal_form(term, naturals(free(term)))


def collisions(terms: tuple, render) -> list:
    """Pairs that look the same and have different normal forms."""
    seen: dict[str, tuple] = {}
    found = []
    for term in terms:
        shown = render(term)
        if seen.setdefault(shown, form(term)) != form(term):
            found.append(shown)
    return found


def defined(theorem, name: str) -> Term:
    """What the theorem's proof defines this symbol as."""
    return next(d.term for block in theorem.proof.definitions for d in block if d.name == name)


def call(name: str, term: Term) -> App:
    """A function of one number."""
    return App(name, (), (Lam((), term),))


H = Var("h", "D_h")
X, Y = (Atom(name, (Ix((H,)),)) for name in "xy")
SMALL = {
    "powers": Add((Mul((X, X, Y)), Mul((Y, Add((X, Y)), Add((X, Y)))))),
    "roots": Mul((call("root", Mul((X, X))), call("inverse", call("root", Add((X, Y)))))),
}


def subject(name: str, theorems) -> Term:
    """The right side of a theorem's statement, or of one of its definitions."""
    if name in SMALL:
        return SMALL[name]
    theorem, _, symbol = name.partition(": ")
    found = theorems[theorem]
    return defined(found, symbol) if symbol else found.statement.equation.right


SUBJECTS = [
    *SMALL,
    "momentum",
    "swiglu",
    "relu",
    "linear",
    "mlp W2",
    "lact",
    "last",
    "conv",
    "causal",
    "custom",
    "glu",
    "any Theta",
    "lact: N_W1",
    "lact: U_W1",
    "lact: W1",
    "glu: R_W1",
    "conv: R_W",
    "custom: N_W",
    "causal: W_seen",
]


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("render", [text, latex])
def test_different_terms_look_different(name, render, theorems):
    tried = mutants(subject(name, theorems), 200 if name in ("momentum", "lact: N_W1") else 80)
    assert len({*map(form, tried)}) > 25
    assert collisions(tried, render) == []


def shiftless(self, index, names) -> str:
    """An index without its constant."""
    return "+".join(names[v] for v in index.vars)


def boundless(self, mark, var, bounds, body) -> str:
    """A sum without its bounds."""
    return f"{mark}_{var} {body}"


def slotless(self, name, indices, slots, arguments) -> str:
    """A function, whichever its derivative."""
    return f"{name}[{indices}]({', '.join(arguments)})"


def groupless(self, formula) -> str:
    """No parentheses."""
    return formula


def entryless(self, matrix, indices) -> str:
    """An operator, whichever the entry."""
    return matrix


def powerless(self, base, count) -> str:
    """A factor once, however often it occurs."""
    return base


def topless(self, top, bottom) -> str:
    """A fraction without what it divides."""
    return f"1 / ({bottom.text})"


def rootless(self, text) -> str:
    """A root as its argument."""
    return f"({text})"


FAULTS = {
    "index shifts dropped": (text, {(Writer, "index"): shiftless}, "momentum"),
    "signs dropped": (text, {(Writer, "SIGN"): "", (Writer, "MINUS"): " + "}, "momentum"),
    "bounds dropped": (text, {(TextWriter, "big"): boundless}, "momentum"),
    "derivatives dropped": (text, {(TextWriter, "function"): slotless}, "momentum"),
    "parentheses dropped": (text, {(TextWriter, "group"): groupless}, "momentum"),
    "parentheses dropped in LaTeX": (latex, {(LatexWriter, "group"): groupless}, "momentum"),
    "entries dropped": (text, {(TextWriter, "entry"): entryless}, "lact: U_W1"),
    "entries dropped in LaTeX": (latex, {(LatexWriter, "entry"): entryless}, "lact: U_W1"),
    "powers dropped": (text, {(TextWriter, "power"): powerless}, "powers"),
    "powers dropped in LaTeX": (latex, {(LatexWriter, "power"): powerless}, "powers"),
    "tops dropped": (text, {(TextWriter, "fraction"): topless}, "lact: N_W1"),
    "tops dropped in LaTeX": (latex, {(LatexWriter, "fraction"): topless}, "lact: N_W1"),
    "roots dropped": (text, {(TextWriter, "root"): rootless}, "roots"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unfaithful_renderer_is_caught(fault, theorems, monkeypatch):
    render, patches, name = FAULTS[fault]
    for (owner, attribute), replacement in patches.items():
        monkeypatch.setattr(owner, attribute, replacement)
    assert collisions(mutants(subject(name, theorems), 200), render)
