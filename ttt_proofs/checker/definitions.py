"""Differentials, and the definitions that a proof may use: they cannot contradict anything.

A block defines some symbols together, by recursion over time if need be. Each definition
may use the block's symbols only at times and places that come before its own, so that the
values exist and are unique, given those out of range (at negative times), which are arbitrary.
"""

from fractions import Fraction
from functools import reduce
from math import inf

from .normal import naturals, whole_form
from .terms import TIME, Add, App, Atom, Ix, Lam, Mul, Node, Num, Sum, Term, Var
from .terms import at, binders, free, inside, ix, put_symbol, renamed, require, substitute, symbols

ZERO, ONE, MINUS_ONE = (Num(Fraction(n)) for n in (0, 1, -1))

# Entrywise functions whose derivative is a polynomial in themselves. `step` is 1 for
# positive and 0 for other numbers; its derivative is taken as 0, also at 0 (as PyTorch does).
DERIVATIVES = {
    "sigmoid": lambda y: Mul((y, Add((ONE, Mul((MINUS_ONE, y)))))),
    "tanh": lambda y: Add((ONE, Mul((MINUS_ONE, y, y)))),
    "step": lambda y: ZERO,
}


def differential(term, param: str, direction: str) -> Term:
    """The derivative of `term` when the symbol `param` moves in `direction` (a new symbol).

    Functions without a known derivative are taken as differentiable: their partial
    derivatives are functions of their own, told apart by `slots`.
    """
    if param not in symbols(term):
        return ZERO
    if isinstance(term, Atom):
        return Atom(direction, term.ix)
    if isinstance(term, Add):
        return Add(tuple(differential(t, param, direction) for t in term.terms))
    if isinstance(term, Mul):
        slopes = enumerate(differential(f, param, direction) for f in term.factors)
        return Add(tuple(Mul((*term.factors[:k], d, *term.factors[k + 1 :])) for k, d in slopes))
    if isinstance(term, Sum):
        return Sum(term.var, term.low, term.high, differential(term.body, param, direction))
    require(isinstance(term, App), f"`{param}` must not occur in a {type(term).__name__}.")
    number = not (term.ix or term.slots or len(term.args) != 1 or term.args[0].binders)
    if number and term.fn in DERIVATIVES:
        return Mul((DERIVATIVES[term.fn](term), differential(term.args[0].body, param, direction)))
    return Add(tuple(chain(term, k, param, direction) for k in range(len(term.args))))


def chain(term: App, k: int, param: str, direction: str) -> Term:
    """The part of the chain rule that belongs to argument `k`: `Σ_e ∂_{k,e} f · dx_k[e]`."""
    argument = renamed(term.args[k], free(term))
    partial = App(term.fn, term.ix, term.args, (*term.slots, (k, tuple(map(ix, argument.binders)))))
    return sum_over(argument.binders, Mul((partial, differential(argument.body, param, direction))))


def sum_over(variables, body: Term) -> Term:
    """The sum of `body` over several widths."""
    return reduce(lambda inner, v: Sum(v, None, None, inner), reversed(variables), body)


class Equation(Node):
    """For all indices `every`: left = right."""

    every: tuple[Var, ...]
    left: Term
    right: Term

    def free(self) -> frozenset[Var]:
        """The indices that are not quantified."""
        return free((self.left, self.right)) - set(self.every)

    def put(self, subst: dict[Var, Ix]) -> "Equation":
        """Replace free indices."""
        images = free(tuple(subst.values()))
        require(not (images | set(subst)) & set(self.every), "what is replaced must be free.")
        return Equation(self.every, *substitute((self.left, self.right), subst))


def lead(every: tuple[Var, ...]) -> int:
    """How many times come first among the indices, two at most: they order the definitions."""
    return next((k for k, v in enumerate(every[:2]) if v.sort != TIME), len(every[:2]))


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
        require(entry is None and (self.start or not start), f"`{self.name}` has no such equation.")
        n = lead(self.every)
        now = {v: at(0) if start else ix(v, 1) for v in self.every[n - 1 : n] if self.start}
        left = substitute(Atom(self.name, tuple(map(ix, self.every))), now)
        every = tuple(v for v in self.every if not (start and v in now))
        return Equation(every, left, (start and self.start) or self.term)


class DefineGradient(Node):
    """`name[every, entry]` is the gradient of `loss` in the symbol `param`, at the point `at`."""

    name: str
    every: tuple[Var, ...]
    param: str
    loss: Term
    at: Lam

    def equation(self, found: Lam | None, start: bool) -> Equation:
        """`name = found at the point`, if `d loss = Σ found · E` for every direction E."""
        entry: Lam = renamed(found or Lam((), self.loss), frozenset(self.every))
        sorts = [v.sort for v in self.at.binders]
        same = [v.sort for v in entry.binders] == sorts and TIME not in sorts and not start
        require(same, f"the gradient must have indices of the widths {sorts}.")
        direction = Atom("$direction", tuple(map(ix, entry.binders)))
        pairing = sum_over(entry.binders, Mul((entry.body, direction)))
        change = differential(self.loss, self.param, direction.name)
        a, b = (whole_form(side, naturals(free((change, pairing)))) for side in (change, pairing))
        require(a == b, "the differential must be the pairing with this gradient; it is not.")
        every, value = self.every + entry.binders, put_symbol(entry.body, self.param, self.at)
        return Equation(every, Atom(self.name, tuple(map(ix, every))), value)


Block = tuple[Define | DefineGradient, ...]


def admit(blocks: tuple[Block, ...]) -> None:
    """Raise unless each symbol is defined once, in terms of what comes before it."""
    used: frozenset[str] = frozenset()
    for block in blocks:
        order = {define.name: (lead(define.every), k) for k, define in enumerate(block)}
        new = len(order) == len(block) and used.isdisjoint(order)
        require(new, f"{[*order]} must be defined once, and before they are used.")
        for define, (level, k) in zip(block, order.values(), strict=True):
            if isinstance(define, DefineGradient):
                taken = used.union(order, *(symbols(d) for d in (*block, define.at) if d != define))
                require(define.param not in taken, f"`{define.param}` must occur in one loss only.")
                determined(define, define.every, (define.loss, define.at), (0, level, 0, k), order)
                continue
            shift = 0 if define.start is None else 1
            own = (0, level, shift, k) if level > 1 else (shift, level, 0, k)
            determined(define, define.every, define.term, own, order)
            if define.start:
                fits = level and define.every[level - 1] not in free(define.start)
                require(fits, f"`{define.name}` must have a time, and start without it.")
                determined(define, define.every, define.start, (0, level, -1, k), order)
        used = used.union(order, symbols(block))


def determined(define, every: tuple[Var, ...], term, own: tuple, order: dict) -> None:
    """Raise unless `term` has its indices among `every` and uses values due before `own`."""
    bound = {v.name for node in inside(term, Node) for v in binders(node)}
    names = {v.name for v in every}
    scoped = free(term) <= set(every) and len(names) == len(every) and names.isdisjoint(bound)
    require(scoped, f"`{define.name}` must be a term in its own indices, each bound once.")
    for atom in (a for a in inside(term, Atom) if a.name in order):
        before = moment(atom.ix, every[: lead(every)], *order[atom.name]) < own
        require(before, f"`{define.name}` must use earlier values; `{atom.name}` is not earlier.")


def moment(index: tuple[Ix, ...], times: tuple[Var, ...], level: int, k: int) -> tuple:
    """When a value of the block is due: (t, level, j, number in the block), from the left.

    Symbols of level 1, `name[t, ...]`, are due at t before those of level 2, `name[t, j, ...]`.
    What does not follow `times` is infinitely late.
    """
    late = [i.shift if i.vars == (v,) else inf for i, v in zip(index[:level], times, strict=False)]
    return (*late, inf)[0], level, 0 if level < 2 else (*late, inf, inf)[1], k
