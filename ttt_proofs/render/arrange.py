"""Terms as a person would write them: the same value, better laid out.

Only signs, numbers, the order of factors and the order of terms change. Nothing is multiplied out
and no range is touched, so that what is shown is what the proof has.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from ..checker.terms import TIME, Add, App, Atom, Lam, Mul, Num, Prod, Sum, Term

ZERO, MINUS_ONE = Num(0), Num(-1)


def arranged(term: Term) -> Term:
    """The term with its signs in front, its numbers collected and its scalars first."""
    if isinstance(term, Mul):
        return product(term.factors)
    if isinstance(term, Add):
        return total(term.terms)
    if isinstance(term, Sum):
        negative, body = split(arranged(term.body))
        summed = Sum(term.var, term.low, term.high, body)
        return Mul((MINUS_ONE, summed)) if negative else summed
    if isinstance(term, Prod):
        return Prod(term.low, term.high, inner(term.factor))
    if isinstance(term, App):
        return App(term.fn, term.ix, tuple(map(inner, term.args)), term.slots)
    return term


def inner(argument: Lam) -> Lam:
    """An argument of a function, arranged."""
    return Lam(argument.binders, arranged(argument.body))


def split(term: Term) -> tuple[bool, Term]:
    """Whether the arranged term has a minus in front, and the term without it."""
    first = term.factors[0] if isinstance(term, Mul) else term
    if not isinstance(first, Num) or first.top >= 0:
        return False, term
    number = Num(-first.top, first.bottom)
    if not isinstance(term, Mul):
        return True, number
    return True, rebuilt(Fraction(number.top, number.bottom), term.factors[1:])


def rebuilt(number: Fraction, factors: Iterable[Term]) -> Term:
    """`number · factors`, without a needless 1."""
    kept = tuple(factors)
    every = kept if number == 1 and kept else (Num(*number.as_integer_ratio()), *kept)
    return every[0] if len(every) == 1 else Mul(every)


def flat(factors: Iterable[Term]) -> list[Term]:
    """Factors arranged; products within products are opened, unless they carry a sign."""
    found: list[Term] = []
    for factor in map(arranged, factors):
        if isinstance(factor, Mul) and not split(factor)[0]:
            found += factor.factors
        else:
            found.append(factor)
    return found


def scalar(term: Term) -> int:
    """0 for numbers of the loop, such as a rate at some step; 1 for all else: they come later."""
    times = isinstance(term, Atom) and all(v.sort == TIME for i in term.ix for v in i.vars)
    return 0 if times else 1


def product(given: Iterable[Term]) -> Term:
    """A product, its sign in front; a single minus that a later factor has stays there."""
    factors = sorted(flat(given), key=scalar)
    if len(factors) == 2 and isinstance(factors[0], Add) and isinstance(factors[1], Atom):
        factors.reverse()  # a gate stands before the sum that it gates
    signed = [k for k, factor in enumerate(factors) if split(factor)[0]]
    place = signed[0] if len(signed) == 1 and stays(factors, signed[0]) else None
    number, kept = Fraction(1), []
    for k, factor in enumerate(factors):
        negative, body = (False, factor) if k == place else split(factor)
        number = -number if negative else number
        for part in body.factors if isinstance(body, Mul) and k != place else (body,):
            if isinstance(part, Num):
                number *= Fraction(part.top, part.bottom)
            else:
                kept.append(part)
    if number == -1 and len(kept) == 1 and isinstance(kept[0], Add):
        return total(Mul((MINUS_ONE, term)) for term in kept[0].terms)
    return rebuilt(number, kept)


def stays(factors: list[Term], place: int) -> bool:
    """Whether a minus reads better at its factor: `φ · (-g)`, but not `φ · (-Σ ...)`."""
    _, body = split(factors[place])
    plain = not isinstance(body, Num | Sum) and scalar(body) == 1
    return plain and any(scalar(f) and not isinstance(f, Num) for f in factors[:place])


def total(given: Iterable[Term]) -> Term:
    """A sum of terms without zeros and inner parentheses, and a term without minus first."""
    terms: list[Term] = []
    for term in map(arranged, given):
        terms += term.terms if isinstance(term, Add) else (term,)
    terms = [term for term in terms if term != ZERO]
    if not terms:
        return ZERO
    first = next((k for k, term in enumerate(terms) if not split(term)[0]), 0)
    terms.insert(0, terms.pop(first))
    return terms[0] if len(terms) == 1 else Add(tuple(terms))
