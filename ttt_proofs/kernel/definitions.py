"""Differentials, and the definitions that a proof may use: they cannot contradict anything.

A block defines some symbols together, by recursion over time if need be. Each definition
may use the block's symbols only at times and places that come before its own, so that the
values exist and are unique.
"""

from fractions import Fraction

from .normal import naturals, normal_form
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
        return Add(tuple(
            Mul((*term.factors[:k], differential(f, param, direction), *term.factors[k + 1 :]))
            for k, f in enumerate(term.factors)))  # fmt: skip
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
    for v in reversed(variables):
        body = Sum(v, None, None, body)
    return body


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
        images = {v for image in subst.values() for v in image.vars}
        require(not (images | set(subst)) & set(self.every), "what is replaced must be free.")
        return Equation(self.every, *substitute((self.left, self.right), subst))


class Define(Node):
    """`name[every] = term`; with a `start`, every = (t, rest): `name[t + 1, rest] = term` and
    `name[0, rest] = start`.
    """

    name: str
    every: tuple[Var, ...]
    term: Term
    start: Term | None = None

    def equation(self, entry: Lam | None, start: bool) -> Equation:
        """The defining equation, or that of the start."""
        require(entry is None and (self.start or not start), f"`{self.name}` has no such equation.")
        first, rest = self.every[:1], tuple(map(ix, self.every[1:]))
        if start and self.start:
            return Equation(self.every[1:], Atom(self.name, (at(0), *rest)), self.start)
        now = tuple(ix(time, 1 if self.start else 0) for time in first)
        return Equation(self.every, Atom(self.name, now + rest), self.term)


class DefineGradient(Node):
    """`name[outer, entry]` is the gradient of `loss` in the symbol `param`, at the point `at`."""

    name: str
    outer: tuple[Var, ...]
    param: str
    loss: Term
    at: Lam

    def equation(self, found: Lam | None, start: bool) -> Equation:
        """`name = found at the point`, if `d loss = Σ found · E` for every direction E."""
        entry: Lam = renamed(found or Lam((), self.loss), frozenset(self.outer))
        sorts = [v.sort for v in self.at.binders]
        same = [v.sort for v in entry.binders] == sorts and TIME not in sorts and not start
        require(same, f"the gradient must have indices of the widths {sorts}.")
        direction = Atom("$direction", tuple(map(ix, entry.binders)))
        pairing = sum_over(entry.binders, Mul((entry.body, direction)))
        change = differential(self.loss, self.param, direction.name)
        a, b = (normal_form(side, naturals(free((change, pairing)))) for side in (change, pairing))
        require(a == b, "the differential must be the pairing with this gradient; it is not.")
        left = Atom(self.name, tuple(map(ix, self.outer + entry.binders)))
        value = put_symbol(entry.body, self.param, self.at)
        return Equation(self.outer + entry.binders, left, value)


Block = tuple[Define | DefineGradient, ...]


def admit(blocks: tuple[Block, ...]) -> None:
    """Raise unless each symbol is defined once, in terms of what comes before it."""
    used: frozenset[str] = frozenset()
    for block in blocks:
        order = {define.name: k for k, define in enumerate(block)}
        new = len(order) == len(block) and used.isdisjoint(order)
        require(new, f"{[*order]} must be defined once, and before they are used.")
        for define in block:
            if isinstance(define, DefineGradient):
                taken = used.union(order, *(symbols(d) for d in (*block, define.at) if d != define))
                require(define.param not in taken, f"`{define.param}` must occur in one loss only.")
                determined(define.name, define.outer, (define.loss, define.at), 0, order)
                continue
            determined(define.name, define.every, define.term, define.start is not None, order)
            if define.start:
                determined(define.name, define.every[1:], define.start, 0, {})
                first = symbols(define.start).isdisjoint(order) and define.every[0].sort == TIME
                require(first, f"`{define.name}` must start from symbols defined before it.")
        used = used.union(order, symbols(block))


def determined(name: str, every: tuple[Var, ...], term, shift: int, order: dict) -> None:
    """Raise unless `term` has its indices among `every` and uses earlier values of its block."""
    bound = {v.name for node in inside(term, Node) for v in binders(node)}
    names = {v.name for v in every}
    scoped = free(term) <= set(every) and len(names) == len(every) and names.isdisjoint(bound)
    require(scoped, f"`{name}` must be a term in its own indices, each bound once.")
    for atom in (a for a in inside(term, Atom) if a.name in order):
        index = atom.ix[0] if atom.ix else at(0)
        now = index.vars == every[:1] and [v.sort for v in every[:1]] == [TIME]
        before = now and (index.shift, order[atom.name]) < (shift, order[name])
        require(before, f"`{name}` must use earlier values; `{atom.name}` is not earlier.")
