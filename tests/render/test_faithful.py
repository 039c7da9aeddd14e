"""Terms that differ are shown differently: random mutants of a statement never coincide."""

from __future__ import annotations

import random
from fractions import Fraction

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
    Var,
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


def changed(node, place: list, rng: random.Random, pool: list[Var]):
    """`node` with the one node that `place` holds (by identity) mutated, at its first place."""
    if place and node is place[0]:
        place.pop()
        return mutated(node, rng, pool)
    return rebuild(node, lambda part: changed(part, place, rng, pool))


def mutants(term, count: int, seed: int) -> list:
    """Terms that differ from `term` at one or two places."""
    rng = random.Random(seed)
    pool = sorted({*inside(term, Var)}, key=lambda v: (v.name, v.sort))
    found = []
    for _ in range(count):
        mutant = term
        for _ in range(rng.choice((1, 2))):
            nodes = [n for kind in MUTABLE for n in inside(mutant, kind)]
            mutant = changed(mutant, [rng.choice(nodes)], rng, pool)
        found.append(mutant)
    return found


def collisions(terms: list, render) -> list:
    """Pairs that look the same and have different normal forms."""
    seen: dict[str, tuple] = {}
    found = []
    for term in terms:
        try:
            form = normal_form(term, naturals(free(term)))
        except (KernelError, ValueError):  # not a term that a proof could hold
            continue
        shown = render(term)
        if seen.setdefault(shown, form) != form:
            found.append(shown)
    return found


@pytest.mark.parametrize("name", ["momentum", "swiglu", "relu", "linear", "mlp W2"])
@pytest.mark.parametrize("render", [text, latex])
def test_different_terms_look_different(name, render, theorems):
    right = theorems[name].statement.equation.right
    tried = [right, *mutants(right, 400, seed=7)]
    assert len({*map(render, tried)}) > 200
    assert collisions(tried, render) == []


FAULTS = {
    "index shifts dropped": (Writer, "index", lambda self, index, names:
                             "+".join(names[v] for v in index.vars)),
    "signs dropped": (Writer, "added", lambda self, term, names: Writer.multiplied(
        self, Mul(term.terms), names)),
    "bounds dropped": (TextWriter, "big", lambda self, mark, var, bounds, body:
                       f"{mark}_{var} {body}"),
    "derivatives dropped": (TextWriter, "function", lambda self, name, indices, slots, arguments:
                            f"{name}[{indices}]({', '.join(arguments)})"),
    "parentheses dropped": (TextWriter, "group", lambda self, text: text),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unfaithful_renderer_is_caught(fault, theorems, monkeypatch):
    owner, name, replacement = FAULTS[fault]
    monkeypatch.setattr(owner, name, replacement)
    right = theorems["momentum"].statement.equation.right
    assert collisions([right, *mutants(right, 400, seed=7)], text)


def test_latex_groups_matter_too(theorems, monkeypatch):
    monkeypatch.setattr(LatexWriter, "group", lambda self, text: text)
    right = theorems["momentum"].statement.equation.right
    assert collisions([right, *mutants(right, 400, seed=7)], latex)
