"""Terms that differ are shown differently: random mutants of a statement never coincide."""

from __future__ import annotations

import random
from contextlib import suppress
from fractions import Fraction
from functools import cache

import pytest

from ttt_proofs.kernel.normal import naturals, normal_form
from ttt_proofs.kernel.terms import (
    Add,
    App,
    Atom,
    Ix,
    KernelError,
    Mul,
    Num,
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

MUTABLE = (Ix, Num, Atom, App, Add, Mul, Sum)


def mutated(node, rng: random.Random, pool: list[Var]):
    """One change at this node."""
    if isinstance(node, Ix):
        same = [v for v in pool if node.vars and v.sort == node.vars[0].sort]
        if same and rng.random() < 0.5:
            return Ix((rng.choice(same), *node.vars[1:]), node.shift)
        return Ix(node.vars, node.shift + rng.choice((-1, 1)))
    if isinstance(node, Num):
        return Num(rng.choice((-node.value, 2 * node.value, node.value + 1, Fraction(1, 2))))
    if isinstance(node, Atom):
        return Atom(node.name, node.ix[::-1]) if rng.random() < 0.5 else Atom("Q", node.ix)
    if isinstance(node, App):
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
            given = [*given, Num(Fraction(rng.choice((-1, 2, 3))))]
        return type(node)(tuple(given)) if rng.random() < 0.8 else (
            Add if isinstance(node, Mul) else Mul)(tuple(given))  # fmt: skip
    if node.low is not None:
        shift = rng.choice((-1, 1))
        return Sum(node.var, Ix(node.low.vars, node.low.shift + shift), node.high, node.body)
    return Mul((Num(Fraction(-1)), node))


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
        with suppress(KernelError):  # a sum may have its own index in its bounds now
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


@pytest.mark.parametrize("name", ["momentum", "swiglu", "relu", "linear", "mlp W2"])
@pytest.mark.parametrize("render", [text, latex])
def test_different_terms_look_different(name, render, theorems):
    right = theorems[name].statement.equation.right
    tried = mutants(right, 200 if name == "momentum" else 80)
    assert len({*map(render, tried)}) > len(tried) / 2
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


FAULTS = {
    "index shifts dropped": (text, {(Writer, "index"): shiftless}),
    "signs dropped": (text, {(Writer, "SIGN"): "", (Writer, "MINUS"): " + "}),
    "bounds dropped": (text, {(TextWriter, "big"): boundless}),
    "derivatives dropped": (text, {(TextWriter, "function"): slotless}),
    "parentheses dropped": (text, {(TextWriter, "group"): groupless}),
    "parentheses dropped in LaTeX": (latex, {(LatexWriter, "group"): groupless}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unfaithful_renderer_is_caught(fault, theorems, monkeypatch):
    render, patches = FAULTS[fault]
    for (owner, name), replacement in patches.items():
        monkeypatch.setattr(owner, name, replacement)
    right = theorems["momentum"].statement.equation.right
    assert collisions(mutants(right, 200), render)
