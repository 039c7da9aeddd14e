"""The statements that derivations are made of, each with the steps that should lead to it."""

from __future__ import annotations

from functools import partial

import sympy as sp

from ..checker.definitions import Equation
from ..checker.terms import TIME, Atom, Var
from ..loops import InnerLoop, Weight
from . import affinity, several_steps, theory
from .bridge import Place, Scope, ends_of, entry, index, place, scalar
from .delta_steps import DeltaRule
from .derivation import Part
from .equality import prove_same_outputs, prove_textbook
from .linear_attention import (
    Form,
    claim,
    each_outer_product,
    linear_attention,
    prove_claim,
    sign,
    single_step,
)
from .linear_attention import scores as scored
from .prover import Prover


def one_step_a_chunk(*loops: InnerLoop) -> None:
    """Raise `ValueError` for a loop of several steps on a chunk, which a part is not about."""
    for loop in loops:
        if loop.schedule.steps > 1:
            raise ValueError(
                f"`steps` must be 1 for this statement; got {loop.schedule.steps}. "
                "Use attention_part."
            )


def attention_form(loop: InnerLoop, label: str = "") -> tuple[Form, Part]:
    """The form found for a loop of one step on a chunk or several, and the part that claims it.

    Raises `NotCoveredError` for updates that are not linear.
    """
    if loop.schedule.steps > 1:
        form = several_steps.linear_attention(loop)
        return form, steps_part(loop, form, label)
    form = linear_attention(loop)
    goal = claim(form)
    return form, Part(label, goal, prove_claim(loop, goal))


def attention_part(
    loop: InnerLoop,
    label: str = "",
    *,
    coefficient: sp.Expr | None = None,
    scale: sp.Expr | int = 1,
    like: InnerLoop | None = None,
    scores: bool = False,
) -> Part:
    """The loop's output as linear attention, for all times: `o_t = q̂ (S_0 + Σ_i C_ti k̂_iᵀ v̂_i)`.

    coefficient: C_ti, a SymPy expression in i and t; by default the one found. scale: a factor,
    in i, of the values. like: another loop, whose form is claimed instead. scores: whether q̂ k̂ᵀ
    is taken first, `o_t = q̂ S_0 + Σ_i C_ti (q̂ k̂_iᵀ) v̂_i`, as Appendix H has it.
    Whether it holds is decided by replaying the part's proof. For several steps on a chunk the
    form found is the one that is claimed: `ValueError` for another. `NotCoveredError` where the
    update is not linear. Source: Theorems 5.2 and 5.3.
    """
    if (coefficient, scale, like, scores) == (None, 1, None, False):
        return attention_form(loop, label)[1]
    if loop.schedule.steps > 1:
        raise ValueError(
            "`coefficient`, `scale`, `like` and `scores` must be left out for a loop "
            f"of several steps on a chunk; got {loop}. Take one step a chunk."
        )
    form = linear_attention(like or loop, coefficient=coefficient, scale=scale)
    goal = scored(form) if scores else claim(form)
    return Part(label, goal, prove_claim(loop, goal))


def steps_part(loop: InnerLoop, form: Form, label: str) -> Part:
    """A form of a loop that makes K update steps on each chunk, for every K."""
    goal = claim(form)
    return Part(label, goal, several_steps.prove_claim(loop, goal))


def summed_rate_part(loop: InnerLoop, label: str = "") -> Part:
    """That K steps on each chunk are one step at the rate K η. Source: Section 5.2, paradox 1."""
    return steps_part(loop, several_steps.one_step(loop), label)


def delta_steps_part(loop: InnerLoop, label: str = "", *, closed: bool) -> Part:
    """K steps of the delta rule on one token: the weight after them, from any weight.

    closed: the form with `1 - (1 - η ‖φ‖²)^K`, multiplied by ‖φ‖² since that may be 0; otherwise
    the sum of powers. The loop must have static features, squared error and `single` tokens.
    """
    rule = DeltaRule(loop)
    goal = rule.closed() if closed else rule.sum()
    return Part(label, goal, rule.prove(goal))


def outer_products_part(loop: InnerLoop, label: str = "") -> Part:
    """The loop's form with its operator on each token's keyᵀ value alone. Source: Eq. (1)."""
    one_step_a_chunk(loop)
    goal = claim(each_outer_product(loop))
    return Part(label, goal, prove_claim(loop, goal))


def same_outputs(loop: InnerLoop) -> Equation:
    """`o = o_b`: the loop's outputs are those of another, at all times."""
    every = (theory.T, *theory.rows(loop), *theory.rows(loop, "D_v"))
    return Equation(every, Atom("o", place(every)), Atom("o_b", place(every)))


def same_outputs_part(left: InnerLoop, right: InnerLoop, label: str = "") -> Part:
    """That two loops with the same weights to start from have the same outputs at all times.

    The second loop's symbols end in `_b`; its accumulators are those of the first, or minus
    those where just one of the two ascends and no operator has taken up the sign.
    """
    one_step_a_chunk(left, right)
    goal = same_outputs(left)
    opposite = sign(left) != sign(right) and not left.rule.of_kind("operator")
    return Part(label, goal, prove_same_outputs(left, right, goal, -1 if opposite else 1))


def textbook_part(loop: InnerLoop, label: str = "") -> Part:
    """That a linear net's loop is textbook linear attention, with W_0 as its initial state."""
    one_step_a_chunk(loop)
    goal = same_outputs(loop)
    return Part(label, goal, prove_textbook(loop, goal))


def affine_part(loop: InnerLoop, label: str = "") -> Part:
    """That one step F is affine: `F(S + A + B) + F(S) = F(S + A) + F(S + B)` for all weights."""
    one_step_a_chunk(loop)
    goal = affinity.affine_claim(loop)
    return Part(label, goal, affinity.prove_corners(loop, goal))


def additive_part(loop: InnerLoop, label: str = "") -> Part:
    """That one step adds what does not depend on the state: `F(S + A) = F(S) + A`."""
    one_step_a_chunk(loop)
    goal = affinity.additive_claim(loop)
    return Part(label, goal, affinity.prove_corners(loop, goal, ("", "_a")))


def single_step_part(
    loop: InnerLoop, label: str = "", *, scale: sp.Expr | int = 1, scores: bool = False
) -> Part:
    """The loop's output in terms of the state one step before, for updates without momentum.

    scale: a factor of the value, the rate. scores: as for `attention_part`. Source: Theorem 5.1.
    """
    one_step_a_chunk(loop)
    form = single_step(loop, scale)
    goal = scored(form) if scores else claim(form)
    return Part(label, goal, prove_claim(loop, goal, unroll=False))


def gradient_part(loop: InnerLoop, weight: Weight, label: str = "") -> Part:
    """The gradient of the loss in one weight, as SymPy finds it.

    Raises `CheckerError` if the differential of the loss is not the pairing with it.
    Source: Appendix B, the chain rule that the theorems use.
    """
    define, found = theory.gradient_definition(loop, weight), theory.gradient_entry(loop, weight)
    prover = Prover(((define,),))
    gradient = prover.definition(define.name, entry=found)
    goal = prover.at(gradient).equation
    return Part(label or f"gradient in {weight.name}", goal, prover.claim(gradient, goal))


def running_product(name: str, first: sp.Expr, last: sp.Expr) -> sp.Expr:
    """`Π_{s=first..last} name_s`, 1 where last < first; the paper's β_i^j for (α, i + 1, j)."""
    s = sp.Symbol("s", integer=True)
    return sp.Product(sp.IndexedBase(name)[s], (s, first, last))


def identity_part(
    left: sp.Expr,
    right: sp.Expr,
    times: tuple[sp.Symbol, ...],
    label: str = "",
    *,
    peel: sp.Expr | None = None,
) -> Part:
    """An identity between two scalar expressions, for all `times`.

    `peel`, such as t + 1, is where ranges that reach so far are split at their last step.
    """
    every = tuple(Var(symbol.name, TIME) for symbol in times)
    goal = Equation(every, scalar(left), scalar(right))
    prover = Prover(())
    at = None if peel is None else index(peel)
    return Part(label, goal, prover.claim(prover.begin(every, goal.left), goal, at))


def matrix_identity_part(left: sp.MatrixExpr, right: sp.MatrixExpr, label: str = "") -> Part:
    """An identity between two expressions in matrix symbols, entry by entry, for all widths.

    SymPy forgets how products are grouped; one made with `evaluate=False` keeps it. Raises
    `ValueError` for two shapes.
    """
    if left.shape != right.shape:
        raise ValueError(
            f"both sides must have one shape; got {left.shape} and {right.shape}. "
            "Transpose or multiply one."
        )
    names = {s.name for side in (left, right) for s in side.atoms(sp.MatrixSymbol)}
    scope = Scope({name: partial(symbol_entry, name) for name in names})
    row, col = ends_of(left, scope)
    sides = (entry(side, place(row), place(col), scope) for side in (left, right))
    goal = Equation(row + col, *sides)
    prover = Prover(())
    return Part(label, goal, prover.claim(prover.begin(goal.every, goal.left), goal))


def symbol_entry(name: str, row: Place, col: Place) -> Atom:
    """The entry of a matrix that is a symbol."""
    return Atom(name, row + col)
