"""Closed forms of linear recurrences, by variation of constants.

A state follows `x ← a_t x + b_t`, where b_t is linear in inputs (the gradient G, what an operator
made, a token's write) and in the states solved before x, their new values or their old ones. Then
after u + 1 steps `x = Σ_y d_y(u) y_0 + Σ_input Σ_{i=0..u} K_input(i, u) input_i`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import sympy as sp

from ..program.coefficients import t
from ..program.rules import G, Line, Rule, following

Kernel = Callable[[sp.Expr, sp.Expr], sp.Expr]
i, s = (sp.Symbol(name, integer=True) for name in "is")


class NotCoveredError(ValueError):
    """The theorems do not cover the loop; the message names the assumption that it breaks."""


@dataclass(frozen=True)
class LinearLine:
    """`state ← own · state + Σ direct[input] · input + Σ through[y, lag] · y`, at step t.

    y are states solved before; lag 0 reads the value after its step, lag 1 that before it.
    """

    state: sp.Symbol
    own: sp.Expr
    direct: Mapping[sp.Symbol, sp.Expr]
    through: Mapping[tuple[sp.Symbol, int], sp.Expr] = field(default_factory=dict)


@dataclass(frozen=True)
class Closed:
    """After step u, `starts[y](u)` multiplies y_0, `weights[input](i, u)` the input of step i.

    depth: how many sums over times are nested in these; late: how many of the values that lead
    from an input to the state, one after another, are old ones.
    """

    state: sp.Symbol
    starts: Mapping[sp.Symbol, Callable[[sp.Expr], sp.Expr]]
    weights: Mapping[sp.Symbol, Kernel]
    depth: int = 0
    late: int = 0

    @property
    def decay(self) -> Callable[[sp.Expr], sp.Expr]:
        """What multiplies the state's own start."""
        return self.starts[self.state]

    @property
    def input(self) -> sp.Symbol:
        """The only input."""
        (found,) = self.weights
        return found

    @property
    def weight(self) -> Kernel:
        """What the only input weighs."""
        return self.weights[self.input]


def solve(recurrence: Rule) -> dict[sp.Symbol, Closed]:
    """The closed form of each state, in order; `NotCoveredError` for a rule that is not linear."""
    solved: dict[sp.Symbol, Closed] = {}
    for line in recurrence.of_kind("state"):
        solved[line.target] = unrolled(linear(line, recurrence, solved), solved)
    return solved


def linear(line: Line, rule: Rule, solved: Mapping[sp.Symbol, Closed]) -> LinearLine:
    """A line of an update as a linear map; `NotCoveredError` where it is none of a single input."""
    state, expression = line.target, sp.expand(line.expression)
    inputs = [G, *(x.target for x in rule.of_kind("operator"))]
    new = {s: expression.coeff(following(s)) for s in solved}
    old = {s: expression.coeff(s) for s in solved}
    direct = {x: expression.coeff(x) for x in inputs}
    factors = {state: expression.coeff(state)} | direct | old
    factors |= {following(s): factor for s, factor in new.items()}
    later = [x.target for x in rule.of_kind("state") if x.target not in factors]
    rest = expression - sum(factor * x for x, factor in factors.items())
    every = sp.Tuple(*factors.values())  # no sum: one could cancel another
    used = [solved[s].input for s in solved if (new[s], old[s]) != (0, 0)]
    sources = list(dict.fromkeys([*(x for x in inputs if direct[x] != 0), *used])) or [G]
    reason = None
    if expression.has(*later):
        reason = f"which depends on {next(filter(expression.has, later))}, a state after it"
    elif sp.expand(rest) != 0 or every.has(*factors, *later):
        reason = "which is not linear"
    elif len(sources) > 1:
        reason = f"which has several inputs, {' and '.join(x.name for x in sources)}"
    if reason:
        raise NotCoveredError(
            f"the update must be linear in its states, one after another, and in one input, the "
            f"gradient or what an operator makes; {state} becomes {expression}, {reason}. "
            "Use a linear rule."
        )
    through = {}
    for by in solved:
        through |= {(by, lag): f for lag, f in ((0, new[by]), (1, old[by])) if f != 0}
    return LinearLine(state, factors[state], {sources[0]: direct[sources[0]]}, through)


def unrolled(line: LinearLine, solved: Mapping[sp.Symbol, Closed]) -> Closed:
    """The closed form of one state, given those of the states that it reads."""
    read = [solved[state] for state, _ in line.through]
    depth = max((closed.depth + 1 for closed in read), default=0)
    late = max((solved[state].late + lag for state, lag in line.through), default=0)
    j = sp.Symbol("j" if depth < 2 else f"j{depth}", integer=True)

    def kept(first: sp.Expr, last: sp.Expr) -> sp.Expr:
        """`Π_{s=first..last} a_s`."""
        own = line.own
        return sp.Integer(1) if own == 1 else sp.Product(own.subs(t, s), (s, first, last))

    def passed(lag: int, factor: sp.Expr, held: sp.Expr, first: sp.Expr, last: sp.Expr) -> sp.Expr:
        """What is left after step `last` of what comes in, from `first` on, through a state."""
        return sp.Sum(factor.subs(t, j) * held * kept(j + 1, last), (j, first + lag, last))

    def start(origin: sp.Symbol) -> Callable[[sp.Expr], sp.Expr]:
        def found(last: sp.Expr) -> sp.Expr:
            total = kept(sp.Integer(0), last) if origin == line.state else sp.Integer(0)
            for (state, lag), factor in line.through.items():
                if origin in solved[state].starts:
                    held = solved[state].starts[origin](j - lag)
                    total += passed(0, factor, held, sp.Integer(0), last)
            return total

        return found

    def weight(source: sp.Symbol) -> Kernel:
        def found(step: sp.Expr, last: sp.Expr) -> sp.Expr:
            direct = line.direct.get(source, sp.Integer(0))
            total = direct.subs(t, step) * kept(step + 1, last)
            for (state, lag), factor in line.through.items():
                if source in solved[state].weights:
                    held = solved[state].weights[source](step, j - lag)
                    total += passed(lag, factor, held, step, last)
            return total

        return found

    origins = dict.fromkeys([line.state, *(y for closed in read for y in closed.starts)])
    sources = dict.fromkeys([*line.direct, *(x for closed in read for x in closed.weights)])
    return Closed(
        line.state,
        {origin: start(origin) for origin in origins},
        {source: weight(source) for source in sources},
        depth,
        late,
    )
