"""A derivation: a result by name, its statements, the steps, and loops that instance it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import sympy as sp

from ..kernel.definitions import Equation
from ..kernel.proof import Proof
from ..kernel.terms import TIME, Var
from ..loops import InnerLoop, Weight
from . import theory
from .bridge import index, scalar
from .linear_attention import claim, linear_attention, prove_claim, single_step
from .prover import Prover


@dataclass(frozen=True)
class Part:
    """One statement, and the steps that should lead to it from the definitions."""

    label: str
    statement: Equation
    proof: Proof


@dataclass(frozen=True)
class Derivation:
    """A named result. `expects` says whether it holds, or is claimed and false.

    `loops` are concrete loops that the result is about, and `restate` gives its statements for
    one of them: the autograd witness runs the loop and evaluates them.
    `instead` says what is true where the claim is not.
    Raises `ValueError` where there is no part, or `expects` is neither "holds" nor "fails".
    """

    name: str
    title: str
    source: str
    parts: tuple[Part, ...]
    loops: tuple[InnerLoop, ...] = ()
    restate: Callable[[InnerLoop], tuple[Part, ...]] = lambda loop: ()
    expects: Literal["holds", "fails"] = "holds"
    instead: str = ""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("`parts` must hold at least one statement; got none. Add one.")
        if self.expects not in ("holds", "fails"):
            raise ValueError(f"`expects` must be 'holds' or 'fails'; got {self.expects!r}. "
                             "Choose one.")  # fmt: skip
        if self.expects == "fails" and len(self.parts) > 1:
            # One statement's counterexample must not stand for another's.
            raise ValueError(f"a claim that fails must be one statement; got {len(self.parts)}. "
                             "Write a derivation for each.")  # fmt: skip


def attention_part(loop: InnerLoop, label: str = "", *, coefficient: sp.Expr | None = None,
                   scale: sp.Expr | int = 1) -> Part:  # fmt: skip
    """The loop's output as linear attention, for all times: `o_t = q̂ (S_0 + Σ_i C_ti k̂_iᵀ v̂_i)`.

    coefficient: C_ti, a SymPy expression in i and t; by default the one found. scale: a factor,
    in i, of the values. Whether it holds is decided by replaying the part's proof.
    Source: Theorems 5.2 and 5.3.
    """
    goal = claim(linear_attention(loop, coefficient=coefficient, scale=scale))
    return Part(label, goal, prove_claim(loop, goal))


def single_step_part(loop: InnerLoop, label: str = "", *, scale: sp.Expr | int = 1) -> Part:
    """The loop's output in terms of the state one step before, for updates without momentum.

    scale: a factor of the value. Source: Theorem 5.1.
    """
    goal = claim(single_step(loop, scale))
    return Part(label, goal, prove_claim(loop, goal, unroll=False))


def gradient_part(loop: InnerLoop, weight: Weight, label: str = "") -> Part:
    """The gradient of the loss in one weight, as SymPy finds it.

    Raises `KernelError` if the differential of the loss is not the pairing with it.
    Source: Appendix B, the chain rule that the theorems use.
    """
    define, found = theory.gradient_definition(loop, weight), theory.gradient_entry(loop, weight)
    goal = define.equation(found, False)
    prover = Prover(((define,),))
    gradient = prover.definition(define.name, entry=found)
    return Part(label or f"gradient in {weight.name}", goal, prover.claim(gradient, goal))


def running_product(name: str, first: sp.Expr, last: sp.Expr) -> sp.Expr:
    """`Π_{s=first..last} name_s`, 1 where last < first; the paper's β_i^j for (α, i + 1, j)."""
    s = sp.Symbol("s", integer=True)
    return sp.Product(sp.IndexedBase(name)[s], (s, first, last))


def identity_part(left: sp.Expr, right: sp.Expr, times: tuple[sp.Symbol, ...], label: str = "",
                  *, peel: sp.Expr | None = None) -> Part:  # fmt: skip
    """An identity between two scalar expressions, for all `times`.

    `peel`, such as t + 1, is where ranges that reach so far are split at their last step.
    """
    every = tuple(Var(symbol.name, TIME) for symbol in times)
    goal = Equation(every, scalar(left), scalar(right))
    prover = Prover(())
    at = None if peel is None else index(peel)
    return Part(label, goal, prover.claim(prover.begin(every, goal.left), goal, at))
