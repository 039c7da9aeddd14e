"""Differentials, and the definitions that a proof may use: they cannot contradict anything.

A block defines some symbols together, by recursion over time if need be. Each definition
may use the block's symbols only at times and places that come before its own, so that the
values exist and are unique, given those out of range (at negative times), which are arbitrary.
"""

from itertools import takewhile
from math import inf
from typing import Any

from .normal import naturals, normal_form
from .terms import LARGEST_SIDES, TIME, Add, App, Atom, CheckerError, Ix, Lam, Mul, Node, Num
from .terms import Sum, Term, Var, binders, free, inside, ix, put_symbol, record, renamed
from .terms import require, size, substitute, symbols, work

ZERO, ONE = Num(0), Num(1)


def differential(term: Term, param: str, direction: str) -> Term:
    """The derivative of `term` when the symbol `param` moves in `direction` (a new symbol).

    The partial derivatives of a function are functions of their own, told apart by `slots`.
    """
    if param not in symbols(term):
        return ZERO
    if isinstance(term, Atom):
        return Atom(direction, term.ix)
    if isinstance(term, Add):
        return Add(tuple(differential(t, param, direction) for t in term.terms))
    if isinstance(term, Mul):
        slopes = enumerate(differential(factor, param, direction) for factor in term.factors)
        return Add(tuple(Mul((*term.factors[:k], d, *term.factors[k + 1 :])) for k, d in slopes))
    if isinstance(term, Sum):
        return Sum(term.var, term.low, term.high, differential(term.body, param, direction))
    if not isinstance(term, App):
        raise CheckerError(f"`{param}` must not occur in a {type(term).__name__}.")
    moving = (k for k, argument in enumerate(term.args) if param in symbols(argument))
    return Add(tuple(chain(term, k, param, direction) for k in moving))


def chain(term: App, k: int, param: str, direction: str) -> Term:
    """The part of the chain rule that belongs to argument `k`: `Σ_e ∂_{k,e} f · dx_k[e]`."""
    argument = renamed(term.args[k], free(term))
    partial = App(term.fn, term.ix, term.args, (*term.slots, (k, tuple(map(ix, argument.binders)))))
    return sum_over(argument.binders, Mul((partial, differential(argument.body, param, direction))))


def sum_over(variables: tuple[Var, ...], body: Term) -> Term:
    """The sum of `body` over several widths."""
    require(all(v.sort != TIME for v in variables), "no derivative runs over all times.")
    for v in reversed(variables):
        body = Sum(v, None, None, body)
    return body


@record
class Equation(Node):
    """For all indices `every`: left = right."""

    every: tuple[Var, ...]
    left: Term
    right: Term

    def free(self) -> frozenset[Var]:
        """The indices that are not quantified."""
        return free((self.left, self.right)).difference(self.every)

    def put(self, values: dict[Var, Ix]) -> "Equation":
        """Replace free indices."""
        require(free((*values, *values.values())).isdisjoint(self.every), "indices must be free.")
        return Equation(self.every, *substitute((self.left, self.right), values))


def leading_times(every: tuple[Var, ...]) -> tuple[Var, ...]:
    """The times that come first among the indices, two at most: they order the definitions."""
    return tuple(takewhile(lambda v: v.sort == TIME, every[:2]))


@record
class Define(Node):
    """`name[every] = term`; with a `start`, every = (..., t, rest), t the last of the leading
    times: `name[..., t + 1, rest] = term` and `name[..., 0, rest] = start`.
    """

    name: str
    every: tuple[Var, ...]
    term: Term
    start: Term | None = None

    def equation(self, entry: Lam | None, start: bool) -> Equation:
        """The defining equation, or that of the start."""
        require(entry is None, f"`{self.name}` is no gradient and takes no entry.")
        times, values, every = leading_times(self.every), {}, self.every
        if self.start is not None:
            require(times, f"`{self.name}` has a start and needs a time.")
            values = {times[-1]: Ix(()) if start else ix(times[-1], 1)}
        require(self.start or not start, f"`{self.name}` has no start.")
        left = substitute(Atom(self.name, tuple(map(ix, every))), values)
        if start and self.start is not None:
            return Equation(tuple(v for v in every if v not in values), left, self.start)
        return Equation(every, left, self.term)

    def sides(self) -> list[tuple[tuple[Var, ...], tuple[Ix, ...], Any]]:
        """For each equation: its quantified indices, those of the symbol, and the other side."""
        starts = (False,) if self.start is None else (False, True)
        equations = (self.equation(None, start) for start in starts)
        return [(e.every, inside(e.left, Atom)[0].ix, e.right) for e in equations]


@record
class DefineGradient(Node):
    """`name[every, entry]` is the gradient of `loss` in the symbol `param`, at the point `at`."""

    name: str
    every: tuple[Var, ...]
    param: str
    loss: Term
    at: Lam

    def equation(self, entry: Lam | None, start: bool) -> Equation:
        """`name = entry at the point`, if `d loss = Σ entry · E` for every direction E."""
        require(not start, f"`{self.name}` is a gradient and has no start.")
        found = entry or Lam((), self.loss)
        sorts = [v.sort for v in self.at.binders]
        same = [v.sort for v in found.binders] == sorts and TIME not in sorts
        require(same, f"the gradient must have indices of the widths {sorts}.")
        small = work(found.body, frozenset((self.param,)), self.at.body) <= LARGEST_SIDES
        require(small, "the gradient grows too large.")
        direction = Atom("$direction", tuple(map(ix, found.binders)))  # a name no record holds
        pairing = sum_over(found.binders, Mul((found.body, direction)))
        change = differential(self.loss, self.param, direction.name)
        known = naturals(free((change, pairing)))
        alike = normal_form(change, known) == normal_form(pairing, known)
        require(alike, "the differential must be the pairing with this gradient; it is not.")
        every, value = self.every + found.binders, put_symbol(found.body, self.param, self.at)
        return Equation(every, Atom(self.name, tuple(map(ix, every))), value)

    def sides(self) -> list[tuple[tuple[Var, ...], tuple[Ix, ...], Any]]:
        """The indices, twice, and what the gradient is made from."""
        return [(self.every, tuple(map(ix, self.every)), (self.loss, self.at))]


Block = tuple[Define | DefineGradient, ...]


def due(block: Block, name: str, index: tuple[Ix, ...], times: tuple, other: float) -> tuple:
    """When `name[index]` is due: by time, then level, then inner time, then place in the block.

    Relative to `times`, those of the definition at hand; an index that does not follow them
    counts as `other`.
    """
    (home,) = (define for define in block if define.name == name)
    level = len(leading_times(home.every))
    shifts = [i.shift if i.vars == (v,) else other for i, v in zip(index, times, strict=False)]
    time, inner = (*shifts[:level], other, other)[:2]
    return time, level, inner if level == 2 else 0, block.index(home)


def admit(blocks: tuple[Block, ...]) -> None:
    """Raise unless each symbol is defined once, in terms of what comes before it."""
    used: frozenset[str] = frozenset()
    for block in blocks:
        names = frozenset(define.name for define in block)
        params = [define.param for define in block if isinstance(define, DefineGradient)]
        new = len(names) == len(block) and used.isdisjoint(names)
        require(new, f"{sorted(names)} must be defined once, and before they are used.")
        for define in block:
            for every, index, term in define.sides():
                determined(block, define, every, index, term)
            if isinstance(define, DefineGradient):
                copied = [(len(m.factors), m) for m in inside(define.loss, Mul)]
                copied += [(len(f.args), f) for f in inside(define.loss, App)]
                copies = sum(many * size(node) for many, node in copied)
                require(copies <= LARGEST_SIDES, "a loss must be small.")
                taken = used.union(names, *(symbols(d) for d in (*block, define.at) if d != define))
                alone = define.param not in taken and params.count(define.param) == 1
                require(alone, f"`{define.param}` must occur in one loss only.")
        used = used.union(names, symbols(block), params)


def determined(block: Block, define: Define | DefineGradient, every, index, term) -> None:
    """Raise unless `term` has its indices among `every` and uses values due before the symbol."""
    bound = {v.name for node in inside(term, Node) for v in binders(node)}
    names, times = {v.name for v in define.every}, leading_times(define.every)
    apart = len(names) == len(define.every) and names.isdisjoint(bound)
    scoped = apart and free(term) <= set(every)
    require(scoped, f"`{define.name}` must be a term in its own indices, each bound once.")
    own, home = due(block, define.name, index, times, -inf), {d.name for d in block}
    for atom in inside(term, Atom):
        earlier = atom.name not in home or due(block, atom.name, atom.ix, times, inf) < own
        require(earlier, f"`{define.name}` must use earlier values; `{atom.name}` is not earlier.")
