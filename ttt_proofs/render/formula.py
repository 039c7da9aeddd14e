"""From terms to formulas: where parentheses go and what indices are called.

A `Σ`, a `Π` and a `↦` reach as far to the right as they can; what ends in one is *open*, and
stands in parentheses unless it comes last. Subclasses say how things look in one format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import ClassVar, NamedTuple

from ..checker.terms import TIME, Add, App, Atom, Ix, Lam, Mul, Num, Prod, Sum, Term, Var
from .arrange import arranged, split
from .notation import Names, bind, letter, pointwise, scope
from .special import bracket_of, is_operator, norm_of, of_number, powers

SUM, PRODUCT, FACTOR = range(3)


class Piece(NamedTuple):
    """A part of a formula, how tightly it binds, and whether it ends in an open scope."""

    text: str
    level: int = FACTOR
    open: bool = False


class Writer:
    """Writes formulas in one format; the methods that raise are what a format must say."""

    PLUS: ClassVar[str] = " + "
    MINUS: ClassVar[str] = " − "
    SIGN: ClassVar[str] = "−"

    def term(self, term: Term, names: Names | None = None) -> str:
        """The term as one formula; `names` are those of the indices around it."""
        return self.piece(arranged(term), scope(term) if names is None else names).text

    def index(self, index: Ix, names: Names) -> str:
        """One index: variables plus a constant; of a pixel and its offset, the pixel first."""
        ordered = sorted(index.vars, key=lambda v: (len(letter(v)), names[v]))
        variables = "+".join(self.variable(names[v]) for v in ordered)
        if not variables or index.shift:
            mark = self.SIGN if index.shift < 0 else "+" if variables else ""
            variables += f"{mark}{abs(index.shift)}"
        return variables

    def indices(self, node: Atom | App, names: Names, hidden: Sequence[Var] = ()) -> str:
        """All indices of a symbol or function; those in `hidden` are shown as a dot."""
        dots = {Ix((v,)) for v in hidden}
        return self.listed(
            (
                self.dot() if index in dots else self.index(index, names),
                bool(index.vars) and index.vars[0].sort != TIME and not index.shift,
            )
            for index in node.ix
        )

    def piece(self, term: Term, names: Names, hidden: Sequence[Var] = ()) -> Piece:
        """An arranged term; the indices in `hidden` are shown as dots."""
        if isinstance(term, Num):
            value = Fraction(term.top, term.bottom)
            level = FACTOR if value.denominator == 1 and value >= 0 else PRODUCT
            return Piece(self.signed(value), level)
        if isinstance(term, Atom):
            return Piece(self.symbol(term.name, self.indices(term, names, hidden)))
        if isinstance(term, Mul) or of_number(term, "inverse") is not None:
            return self.multiplied(term, names, hidden)
        if isinstance(term, App):
            return Piece(self.applied(term, names, hidden))
        if isinstance(term, Add):
            return self.added(term, names, hidden)
        if compared := bracket_of(term):
            low, mark, high = compared
            return Piece(self.bracket(self.index(low, names), mark, self.index(high, names)))
        if isinstance(term, Sum):
            return self.over("Σ", (term.var,), term, term.body, names)
        return self.over("Π", term.factor.binders, term, term.factor.body, names)

    def signed(self, value: Fraction) -> str:
        """A number with its sign."""
        return (self.SIGN if value < 0 else "") + self.number(abs(value))

    def added(self, term: Add, names: Names, hidden: Sequence[Var]) -> Piece:
        """Terms with plus and minus between them."""
        written, open_end, last = "", False, len(term.terms) - 1
        for k, part in enumerate(term.terms):
            negative, body = split(part)
            piece = self.piece(body, names, hidden)
            grouped = piece.level == SUM or (piece.open and k < last)
            mark = self.MINUS if negative else self.PLUS
            mark = mark if k else self.SIGN if negative else ""
            written += mark + (self.group(piece.text) if grouped else piece.text)
            open_end = piece.open and not grouped
        return Piece(written, SUM, open_end)

    def multiplied(self, term: Term, names: Names, hidden: Sequence[Var]) -> Piece:
        """Factors beside each other, repeated ones as powers, reciprocals below a line."""
        negative, body = split(term)
        factors = body.factors if isinstance(body, Mul) else (body,)
        below = [x for f in factors if (x := of_number(f, "inverse")) is not None]
        above = powers(f for f in factors if of_number(f, "inverse") is None)
        last, written, piece = len(above) - 1, [], Piece("")
        for k, (factor, count) in enumerate(above):
            piece = self.raised(factor, count, self.piece(factor, names, hidden))
            number = k == 0 and isinstance(factor, Num)
            tight = k < last or below
            grouped = not number and (piece.level < FACTOR or (piece.open and tight))
            piece = Piece(self.group(piece.text)) if grouped else piece
            written.append(piece.text)
        text = self.times(written) if written else "1"
        for divisor in below:
            piece = self.piece(divisor, names)
            if isinstance(divisor, Num):  # not to be taken for a rational number
                piece = Piece(self.group(piece.text))
            text, piece = self.fraction(text, piece), Piece("")
        return Piece((self.SIGN if negative else "") + text, PRODUCT, piece.open)

    def raised(self, factor: Term, count: int, piece: Piece) -> Piece:
        """A power of a factor."""
        if count == 1:
            return piece
        bare = piece.level == FACTOR and not piece.open and self.bare(factor)
        return Piece(self.power(piece.text if bare else self.group(piece.text), count))

    def bare(self, factor: Term) -> bool:
        """Whether a power of this factor is clear without parentheses."""
        return not (isinstance(factor, App) and factor.slots)

    def over(
        self, mark: str, variables: Sequence[Var], term: Sum | Prod, body: Term, names: Names
    ) -> Piece:
        """A sum or product over an index; the bounds stand outside of its scope."""
        inside, low, high = bind(variables, names), term.low, term.high
        bounds = (self.index(low, names), self.index(high, names)) if low and high else None
        piece = self.piece(body, inside)
        text = self.group(piece.text) if piece.level == SUM else piece.text
        bound = ",".join(self.variable(inside[v]) for v in variables)
        return Piece(self.big(mark, bound, bounds, text), FACTOR, True)

    def applied(self, term: App, names: Names, hidden: Sequence[Var]) -> str:
        """A function of its arguments, and which derivative of it; norms, roots, operators."""
        if vector := norm_of(term):
            return self.norm(self.piece(vector.body, names, vector.binders).text)
        if (radicand := of_number(term, "root")) is not None:
            return self.root(self.piece(radicand, names).text)
        slots = []
        for argument, entries in term.slots:
            parts = [self.index(entry, names) for entry in entries]
            slots.append([str(argument + 1), *parts] if len(term.args) > 1 else parts)
        arguments = [self.argument(a, names) for a in term.args]
        indices = self.indices(term, names, hidden)
        if is_operator(term):
            return self.entry(self.function(term.fn, "", slots, arguments), indices)
        return self.function(term.fn, indices, slots, arguments)

    def argument(self, argument: Lam, names: Names) -> str:
        """An argument: a number, a row of a symbol, or a vector entry by entry."""
        if not argument.binders:
            return self.piece(argument.body, names).text
        if row := pointwise(argument):
            return self.piece(row, names, argument.binders).text
        inside = bind(argument.binders, names)
        variables = [self.variable(inside[v]) for v in argument.binders]
        return self.mapping(variables, self.piece(argument.body, inside).text)

    def variable(self, name: str) -> str:
        """An index variable."""
        raise NotImplementedError

    def width(self, name: str) -> str:
        """The name of a width."""
        raise NotImplementedError

    def dot(self) -> str:
        """An index left open, as in a row of a matrix."""
        raise NotImplementedError

    def listed(self, indices: Iterable[tuple[str, bool]]) -> str:
        """Indices in a row, each with whether it is a plain index over a width."""
        raise NotImplementedError

    def number(self, value: Fraction) -> str:
        """A number that is not negative."""
        raise NotImplementedError

    def symbol(self, name: str, indices: str) -> str:
        """A symbol with its indices."""
        raise NotImplementedError

    def function(
        self, name: str, indices: str, slots: Sequence[Sequence[str]], arguments: Sequence[str]
    ) -> str:
        """A function of `arguments`, differentiated once for each of `slots`."""
        raise NotImplementedError

    def entry(self, matrix: str, indices: str) -> str:
        """An entry of what an operator makes."""
        raise NotImplementedError

    def power(self, base: str, count: int) -> str:
        """A power of what binds tightly."""
        raise NotImplementedError

    def fraction(self, top: str, bottom: Piece) -> str:
        """A product divided by something."""
        raise NotImplementedError

    def root(self, text: str) -> str:
        """A square root."""
        raise NotImplementedError

    def norm(self, text: str) -> str:
        """The Euclidean norm of what the dots run over."""
        raise NotImplementedError

    def bracket(self, left: str, mark: str, right: str) -> str:
        """1 where two times compare so (`=` or `≤`), 0 elsewhere."""
        raise NotImplementedError

    def group(self, text: str) -> str:
        """Parentheses."""
        raise NotImplementedError

    def times(self, factors: Sequence[str]) -> str:
        """A product."""
        raise NotImplementedError

    def big(self, mark: str, var: str, bounds: tuple[str, str] | None, body: str) -> str:
        """A sum (`Σ`) or product (`Π`) over an index, between bounds if it is a time."""
        raise NotImplementedError

    def mapping(self, variables: Sequence[str], body: str) -> str:
        """A vector given entry by entry."""
        raise NotImplementedError

    def meaning(self, name: str) -> str:
        """What a function with a known meaning is, for names in `notation.MEANINGS`."""
        raise NotImplementedError
