"""Forward-mode differentiation: dual numbers with one infinitesimal for each entry of a symbol."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any

from ..checker.definitions import DefineGradient
from ..checker.terms import Add, App, Atom, Mul, Sum, Term
from .codes import (
    Code,
    Env,
    Run,
    app_vars,
    connect,
    index_vars,
    indexer,
    known_derivative,
    union,
    without,
)

if TYPE_CHECKING:
    from .evaluate import Model

# A value, and for each entry e of the symbol the coefficient of its infinitesimal; absent: 0.
Dual = tuple[Any, dict[Env, Any]]


class Duals:
    """Evaluates terms at `param = point + Σ_e ε_e · (unit at entry e)`, where `ε_e ε_f = 0`."""

    def __init__(self, model: Model, gradient: DefineGradient, point: Run) -> None:
        self.model = model
        self.param, self.indices = gradient.param, len(gradient.at.binders)
        self.point = point
        self._codes: dict[int, Code] = {}

    def code(self, term: Term) -> Code:
        """The term compiled to dual numbers."""
        number = self.model.number(term)
        if number not in self._codes:
            self._codes[number] = self._compile(term)
        return self._codes[number]

    def _compile(self, term: Term) -> Code:
        if self.param not in self.model.number.symbols(term):
            plain = self.model.code(term)
            run = plain.run
            return Code(plain.vars, lambda e: (run(e), {}))
        kind = {Atom: self._atom, Add: self._add, Mul: self._mul, Sum: self._sum, App: self._app}
        if type(term) not in kind:
            raise ValueError(f"`{self.param}` must not occur in a {type(term).__name__}.")
        return kind[type(term)](term)

    def _atom(self, term: Atom) -> Code:
        order, model = index_vars(term.ix), self.model
        get = indexer(term.ix, order)
        if term.name == self.param and len(term.ix) != self.indices:  # another family, at rest
            free = model.symbol(term.name)
            return Code(order, lambda e: (free(get(e)), {}))
        if term.name == self.param:
            return Code(order, lambda e: (self.point(get(e)), {get(e): model.one}))
        raise ValueError(f"`{term.name}` was taken for `{self.param}`.")

    def _add(self, term: Add) -> Code:
        codes = [self.code(t) for t in term.terms]
        order = union(c.vars for c in codes)
        runs = [connect(c, order) for c in codes]
        return Code(order, self.model.memoised(lambda e: self.total([run(e) for run in runs])))

    def _mul(self, term: Mul) -> Code:
        codes = [self.code(t) for t in term.factors]
        order = union(c.vars for c in codes)
        runs = [connect(c, order) for c in codes]
        one: Dual = (self.model.one, {})
        return Code(
            order,
            self.model.memoised(lambda e: reduce(self.product, [run(e) for run in runs], one)),
        )

    def _sum(self, term: Sum) -> Code:
        body = self.code(term.body)
        order = union((index_vars((term.low, term.high)), without(body.vars, (term.var,))))
        run, span = connect(body, (*order, term.var)), self.model.range_of(term, order)
        return Code(
            order, self.model.memoised(lambda e: self.total([run((*e, k)) for k in span(e)]))
        )

    def _app(self, term: App) -> Code:
        codes = [self.code(lam.body) for lam in term.args]
        order = app_vars(term, codes)
        args = [
            self.model.argument(lam, order, code)
            for lam, code in zip(term.args, codes, strict=True)
        ]
        run = (
            self.known(term, args[0])
            if self.model.is_known(term)
            else self.abstract(term, order, args)
        )
        return Code(order, self.model.memoised(run))

    def known(self, term: App, argument: Callable[[Env], list[Dual]]) -> Run:
        """A function with a known derivative: `f(x) + ε f'(x) x'`."""
        n, model = len(term.slots), self.model
        value, slope = (known_derivative(term.fn, order) for order in (n, n + 1))

        def run(e: Env) -> Dual:
            ((x, tangent),) = argument(e)
            y = model.known(term.fn, x)
            result: dict[Env, Any] = {}
            self.accumulate(result, tangent, model.polynomial(slope, y))
            return model.polynomial(value, y), result

        return run

    def abstract(self, term: App, order: tuple, args: list[Callable[[Env], list[Dual]]]) -> Run:
        """An abstract function: `f(x) + ε Σ_{k,cell} ∂_{k,cell} f(x) · x'_k[cell]`."""
        model, query = self.model, self.model.querier(term, order)
        cells = [model.span(lam.binders) for lam in term.args]

        def run(e: Env) -> Dual:
            duals = [arg(e) for arg in args]
            asked = query(e, [[value for value, _ in row] for row in duals])
            result: dict[Env, Any] = {}
            for k, row in enumerate(duals):
                for cell, (_, tangent) in zip(cells[k], row, strict=True):
                    if tangent:
                        slots = tuple(sorted((*asked.slots, (k, cell))))
                        partial = model.ask(asked._replace(slots=slots))
                        self.accumulate(result, tangent, partial)
            return model.ask(asked), result

        return run

    def accumulate(self, into: dict[Env, Any], tangent: dict[Env, Any], factor: Any) -> None:
        """Add `factor · tangent`; zeros are left out where the field asks for that."""
        field = self.model.field
        for entry, slope in tangent.items():
            change = slope * factor
            if not (field.lazy and field.is_zero(change)):
                into[entry] = into[entry] + change if entry in into else change

    def total(self, duals: list[Dual]) -> Dual:
        """The sum."""
        tangent: dict[Env, Any] = {}
        for _, part in duals:
            self.accumulate(tangent, part, self.model.one)
        return sum([value for value, _ in duals], self.model.zero), tangent

    def product(self, a: Dual, b: Dual) -> Dual:
        """The product rule."""
        tangent: dict[Env, Any] = {}
        self.accumulate(tangent, a[1], b[0])
        self.accumulate(tangent, b[1], a[0])
        return a[0] * b[0], tangent
