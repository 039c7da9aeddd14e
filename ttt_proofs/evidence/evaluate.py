"""An interpreter of checker terms that shares nothing with the checker's normal form.

It iterates definitions, asks a seeded source for the values of free symbols and of abstract
functions, and takes gradients by dual numbers. It has its own table of derivatives (`codes`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import reduce
from itertools import chain, product
from typing import Any

from ..checker.definitions import Block, Define, DefineGradient
from ..checker.terms import TIME, Add, App, Atom, Lam, Mul, Num, Prod, Sum, Term, Var
from .codes import (
    SLOPES,
    Budget,
    Code,
    Env,
    Numbers,
    Run,
    app_vars,
    connect,
    index_vars,
    indexer,
    known_derivative,
    leading,
    memoised,
    of_a_matrix,
    of_a_number,
    pick,
    union,
    without,
)
from .duals import Duals
from .fields import Extent, Extents, Field, Query, Rationals, Source
from .true_values import UNDIFFERENTIATED, Undefined

LEAP = 8  # steps of a definition that may nest
DEEPEST = 20_000  # calls within each other; Python's own limit is 1000


@contextmanager
def nesting() -> Iterator[None]:
    """Values may be computed within each other more deeply than Python allows by itself."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class Model:
    """Values for everything a term can mention: sizes, definitions, and a source for the rest.

    `sizes` gives each width. A symbol without definition is an infinite family, one draw for each
    index; indices may be any integers. A defined symbol follows its definition; where that says
    nothing (a negative time, an index beyond its width, another number of indices) it is a free
    symbol as well. An abstract
    function is a random oracle: its value depends on its indices and the *values* of its
    arguments; but those functions and operators that have true values in the field take these.
    The source is determined by `seed`; `given` fixes values of some queries. `asked` holds every
    value drawn so far, in order. Models that share `numbers` look at each term only once. `budget`
    limits how many values are computed.
    """

    def __init__(
        self,
        field: Field,
        sizes: Mapping[str, int],
        definitions: tuple[Block, ...],
        seed: int | str,
        given: dict[Query, Any] | None = None,
        numbers: Numbers | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.field = field
        self.sizes = dict(sizes)
        self.defined = {define.name: define for block in definitions for define in block}
        self.source = Source(field, seed, given)
        self.asked: dict[Query, Any] = {}
        self.zero, self.one = (field.number(Fraction(n)) for n in (0, 1))
        self.number = numbers or Numbers()
        self.budget = budget or Budget()
        self._codes: dict[int, Code] = {}
        self._symbols: dict[str, Run] = {}

    def memoised(self, run: Run) -> Run:
        """The function, each value computed once, within the budget."""
        return memoised(run, self.budget)

    def value(self, term: Term, env: Mapping[Var, int]) -> Any:
        """The value of a term whose free indices are in `env`."""
        code = self.code(term)
        with nesting():
            return code.run(tuple(env[v] for v in code.vars))

    def code(self, term: Term) -> Code:
        """The compiled term; equal terms share their values."""
        number = self.number(term)
        if number not in self._codes:
            self._codes[number] = COMPILE[type(term)](self, term)
        return self._codes[number]

    def ask(self, query: Query) -> Any:
        """The value drawn for a query, the same each time."""
        if query.is_beyond:
            return self.zero
        if query.slots and query.name in UNDIFFERENTIATED and isinstance(self.field, Rationals):
            raise Undefined  # the function's values are true ones, and so must be its slopes
        value = self.asked.get(query)
        if value is None:
            value = self.asked[query] = self.source(query)
        return value

    def symbol(self, name: str) -> Run:
        """The family `name`, as a function of its indices."""
        if name not in self._symbols:
            define = self.defined.get(name)
            free = lambda e: self.ask(Query(name, e))  # noqa: E731
            rule = free
            if isinstance(define, Define):
                rule = self.within(define.every, self.follow(define), free)
            elif define is not None:
                rule = self.within(define.every + define.at.binders, self.gradient(define), free)
            self._symbols[name] = self.memoised(rule)
        return self._symbols[name]

    def within(self, every: tuple[Var, ...], rule: Run, free: Run) -> Run:
        """`rule` where the indices are in range, `free` elsewhere."""
        highs = [None if v.sort == TIME else self.sizes[v.sort] for v in every]

        def choose(e: Env) -> Any:
            inside = len(e) == len(highs) and all(
                k >= 0 and (n is None or k < n) for k, n in zip(e, highs, strict=True)
            )
            return rule(e) if inside else free(e)

        return choose

    def follow(self, define: Define) -> Run:
        """A symbol by its definition, one time after another: the last of its leading times."""
        body = connect(self.code(define.term), define.every)
        if define.start is None:
            return body
        n = leading(define.every) - 1
        start = connect(self.code(define.start), define.every[:n] + define.every[n + 1 :])
        reached: dict[Env, int] = {}

        def later(e: Env) -> Any:
            """From earlier values: those LEAP steps apart come first, so that few nest."""
            others = e[:n] + e[n + 1 :]
            for time in range(reached.get(others, 0) + LEAP, e[n], LEAP):
                self.symbol(define.name)((*e[:n], time, *e[n + 1 :]))
                reached[others] = time
            return body((*e[:n], e[n] - 1, *e[n + 1 :]))

        return lambda e: later(e) if e[n] else start(e[:n] + e[n + 1 :])

    def gradient(self, define: DefineGradient) -> Run:
        """A gradient, all its entries in one pass over the loss by dual numbers."""
        n, order = len(define.every), define.every + define.at.binders
        at = connect(self.code(define.at.body), order)

        def entries(outer: Env) -> dict[Env, Any]:
            duals = Duals(self, define, lambda e: at(outer + e))
            return connect(duals.code(define.loss), define.every)(outer)[1]

        every = self.memoised(entries)
        return lambda e: every(e[:n]).get(e[n:], self.zero)

    def span(self, variables: tuple[Var, ...]) -> list[Env]:
        """All values of some widths' indices."""
        if over := [v.name for v in variables if v.sort == TIME]:
            raise ValueError(f"arguments over widths are required; one runs over times, {over}.")
        return list(product(*(range(self.sizes[v.sort]) for v in variables)))

    def argument(self, lam: Lam, order: tuple[Var, ...], code: Code) -> Callable[[Env], list]:
        """The entries of an argument, as a function of the values of `order`."""
        run, cells = connect(code, order + lam.binders), self.span(lam.binders)
        return lambda e: [run(e + cell) for cell in cells]

    def range_of(self, node: Sum | Prod, order: tuple[Var, ...]) -> Callable[[Env], range]:
        """The values of a bound index, given those of `order`."""
        if node.low is None or node.high is None:
            whole = range(self.sizes[node.var.sort])  # pyright: ignore[reportAttributeAccessIssue]
            return lambda e: whole
        ends = indexer((node.low, node.high), order)

        def times(e: Env) -> range:
            low, high = ends(e)
            return range(low, high + 1)

        return times

    def is_known(self, term: App) -> bool:
        """Whether slopes of a term follow from its function's value, by `known_derivative`.

        With slots nothing is assumed of a function, unless the field has its true values: then
        slopes are true as well.
        """
        return of_a_number(term) and term.fn in self.field.functions and term.fn in SLOPES

    def known(self, fn: str, argument: Any) -> Any:
        """The value of a function of a number: true where the field has it, drawn elsewhere.

        It has it over the rationals and the reals, so that counterexamples are true.
        """
        true = self.field.functions.get(fn)
        if true is None:
            return self.ask(Query(fn, (), (), ((self.field.key(argument),),)))
        return true(argument)

    def polynomial(self, coefficients: tuple[int, ...], y: Any) -> Any:
        """The polynomial at y."""
        numbers = [self.field.number(Fraction(c)) for c in reversed(coefficients)]
        return reduce(lambda total, c: total * y + c, numbers or [self.zero])

    def _num(self, term: Num) -> Code:
        value = self.field.number(Fraction(term.top, term.bottom))
        return Code((), lambda e: value)

    def _atom(self, term: Atom) -> Code:
        order, name = index_vars(term.ix), term.name
        get, symbol = indexer(term.ix, order), self.symbol
        if name not in self.defined:
            family = symbol(name)
            return Code(order, lambda e: family(get(e)))
        return Code(order, lambda e: symbol(name)(get(e)))  # found late: it may be recursive

    def _add(self, term: Add) -> Code:
        codes = [self.code(t) for t in term.terms]
        order = union(c.vars for c in codes)
        runs = [connect(c, order) for c in codes]
        return Code(order, self.memoised(lambda e: sum([run(e) for run in runs], self.zero)))

    def _mul(self, term: Mul) -> Code:
        codes = [self.code(t) for t in term.factors]
        order = union(c.vars for c in codes)
        return Code(order, self.memoised(self.multiply([connect(c, order) for c in codes])))

    def multiply(self, runs: list[Run]) -> Run:
        """The product, which stops at a zero where the field asks for that."""
        lazy, is_zero = self.field.lazy, self.field.is_zero

        def times(e: Env) -> Any:
            value = self.one
            for run in runs:
                value = value * run(e)
                if lazy and is_zero(value):
                    return self.zero
            return value

        return times

    def _sum(self, term: Sum) -> Code:
        body = self.code(term.body)
        order = union((index_vars((term.low, term.high)), without(body.vars, (term.var,))))
        run, span = connect(body, (*order, term.var)), self.range_of(term, order)
        return Code(order, self.memoised(lambda e: sum([run((*e, k)) for k in span(e)], self.zero)))

    def _prod(self, term: Prod) -> Code:
        body, bound = self.code(term.factor.body), term.factor.binders
        order = union((index_vars((term.low, term.high)), without(body.vars, bound)))
        run, span = connect(body, order + bound), self.range_of(term, order)

        def times(e: Env) -> Any:
            value = self.one
            for k in span(e):
                value = value * run(e + (k,) * len(bound))
            return value

        return Code(order, self.memoised(times))

    def _app(self, term: App) -> Code:
        codes = [self.code(lam.body) for lam in term.args]
        order = app_vars(term, codes)
        args = [self.argument(lam, order, c) for lam, c in zip(term.args, codes, strict=True)]
        if self.is_known(term):
            poly = known_derivative(term.fn, len(term.slots))
            return Code(
                order,
                self.memoised(lambda e: self.polynomial(poly, self.known(term.fn, args[0](e)[0]))),
            )
        if of_a_number(term) and not term.slots and term.fn in self.field.functions:
            return Code(order, self.memoised(lambda e: self.known(term.fn, args[0](e)[0])))
        if of_a_matrix(term) and not term.slots and term.fn in self.field.operators:
            return Code(order, self.operator(term, order, codes[0]))
        query = self.querier(term, order)
        return Code(order, self.memoised(lambda e: self.ask(query(e, [arg(e) for arg in args]))))

    def operator(self, term: App, order: tuple[Var, ...], body: Code) -> Run:
        """An entry of an operator's result, which is computed once for each argument."""
        (lam,), apply = term.args, self.field.operators[term.fn]
        inner = without(body.vars, lam.binders)
        entries, get, index = (
            self.argument(lam, inner, body),
            pick(inner, order),
            indexer(term.ix, order),
        )
        rows, cols = (self.sizes[v.sort] for v in lam.binders)

        def result(e: Env) -> dict[Env, Any]:
            flat = entries(e)
            made = apply([flat[r * cols : (r + 1) * cols] for r in range(rows)])
            return {(r, c): value for r, row in enumerate(made) for c, value in enumerate(row)}

        whole = self.memoised(result)

        def run(e: Env) -> Any:
            found = whole(get(e)).get(index(e))
            if found is None:  # an entry beyond the matrix, which no operator makes
                raise Undefined
            return found

        return run

    def querier(self, term: App, order: tuple[Var, ...]) -> Callable[[Env, list[list]], Query]:
        """What an application asks for, given the index values and its arguments' entries."""
        index, key = indexer(term.ix, order), self.field.key
        slots = [(k, indexer(i, order)) for k, i in term.slots]
        shapes = tuple(tuple(self.sizes[v.sort] for v in lam.binders) for lam in term.args)
        known = shapes if any(shapes) else ()

        def query(e: Env, values: list[list]) -> Query:
            taken = tuple(sorted((k, get(e)) for k, get in slots))
            entries = tuple(tuple(map(key, v)) for v in values)
            return Query(term.fn, index(e), taken, entries, known)

        return query


COMPILE: dict[type, Callable[[Model, Any], Code]] = {
    Num: Model._num,
    Atom: Model._atom,
    Add: Model._add,
    Mul: Model._mul,
    Sum: Model._sum,
    Prod: Model._prod,
    App: Model._app,
}


class ExtentModel(Model):
    """Extents of the polynomials that another model evaluates at a random point.

    They bound those at these sizes and at all smaller ones: what is defined here may be out of
    range there, where it is free, and all else only grows with the sizes.

    The variables are the values drawn. `queries` counts those drawn for functions: a query that
    two terms make counts twice, so it bounds the number of different ones. `argument_extent`
    bounds all entries of the arguments of functions.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        definitions: tuple[Block, ...],
        numbers: Numbers,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(Extents(), sizes, definitions, seed=0, numbers=numbers, budget=budget)
        self.queries = 0
        self.argument_extent = Extent()

    def within(self, every: tuple[Var, ...], rule: Run, free: Run) -> Run:
        """The bound of both, where a width decides which it is."""
        chosen = super().within(every, rule, free)
        if all(v.sort == TIME for v in every):
            return chosen
        return lambda e: chosen(e).joined(free(e))

    def ask(self, query: Query) -> Extent:
        """A variable; what a function is asked is counted."""
        if query.args is not None:
            self.queries += 1
            self.argument_extent = reduce(Extent.joined, chain(*query.args), self.argument_extent)
        return Extent(1, 0.0)
