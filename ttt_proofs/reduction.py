"""`reduce(loop)`: the linear-attention form of an inner loop, proved, and ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from html import escape
from types import MappingProxyType
from typing import Literal

import sympy as sp
from torch import Tensor

from .kernel.proof import Theorem
from .kernel.terms import Add, App, Atom, Mul, Prod, Term, parts, symbols
from .loops import GradientStep, InnerLoop, Loss, Net
from .loops.loop import NEXT_M, M, Train
from .parallel import forms
from .parallel.inputs import Number, Outputs, Weights, check_inputs
from .render import latex, text
from .symbolic.assumptions import assumptions
from .symbolic.derivation import gradient_part
from .symbolic.linear_attention import Form, claim, linear_attention, prove_claim
from .symbolic.records import digest
from .symbolic.torch_code import loop_code

Parallel = Literal["additive", "gated", "affine", "composed", "sequential"]


class NotParallelError(ValueError):
    """The loop has no parallel form; the message names the obstruction."""


class NotCoveredError(ValueError):
    """The theorems do not cover the loop; the message names the assumption that it breaks."""


@dataclass(frozen=True)
class Reduction:
    """A loop as linear attention: `o_t = query (state0 + Σ_i coefficient · keyᵀ value)`.

    `query`, `key`, `value`, `coefficient`, `state0` are kernel terms (`str(...)` of a
    reduction, `.latex()` and notebooks show them). `static` says whether the kernel φ is the
    same at all times. `gates` is the transition matrix of (accumulator, state), or of the
    state alone; `parallel` is the parallel class and `reason` says why it is that.
    `theorem` is what all this rests on; `gradients` are the theorems about each weight's
    gradient, which the recurrence uses. Source: Section 5 of arXiv 2602.21204.
    """

    loop: InnerLoop
    form: Form
    theorem: Theorem
    gradients: Mapping[str, Theorem]
    static: bool
    parallel: Parallel
    reason: str

    @property
    def query(self) -> Term:
        """The effective query q̂, `[l, h]`: features of the query."""
        return self.form.query

    @property
    def key(self) -> Term:
        """The effective key k̂ of step i, `[m, h]`: features of the key."""
        return self.form.key

    @property
    def value(self) -> Term:
        """The effective value v̂ of step i, `[m, c]`."""
        return self.form.value

    @property
    def coefficient(self) -> Term:
        """The weight of step i in the output at time t."""
        return self.form.coefficient

    @property
    def state0(self) -> Term:
        """The initial state, `[h, c]`."""
        return self.form.start

    @cached_property
    def assumptions(self) -> tuple[str, ...]:
        """What the theorems about the form and the gradients assume, in sentences."""
        theorems = (self.theorem, *self.gradients.values())
        return tuple(dict.fromkeys(line for t in theorems for line in assumptions(t.proof)))

    @cached_property
    def gates(self) -> sp.Matrix:
        """The 1×1 or 2×2 SymPy matrix that takes (accumulator, state) one step on, without G."""
        return transition(self.loop)

    def recurrent(self, q: Tensor, k: Tensor, v: Tensor, *, weights: Weights,
                  rate: Number, momentum: Number | None = None) -> Outputs:  # fmt: skip
        """Outputs `[B, T, H, V]` and final weights `[B, H, rows, cols]`, step after step.

        q, k `[B, T, H, K]`, v `[B, T, H, V]`, weights `[H, rows, cols]`, all of one floating
        dtype; rate and momentum are numbers, or `[B, N, H]` if per step, N = ceil(T / chunk).
        The final weights are those of all the net, trained or not. Raises `ValueError` or
        `TypeError` in one sentence if shapes, dtypes or numbers are off. Source: Section 3.
        """
        check_inputs(self.loop, q, k, v, weights, rate, momentum)
        return forms.recurrent(self.loop, q, k, v, weights, rate, momentum)

    def parallel_form(self, q: Tensor, k: Tensor, v: Tensor, *, weights: Weights,
                      rate: Number, momentum: Number | None = None) -> Outputs:  # fmt: skip
        """The same outputs and final weights without a loop over time in the heavy part.

        Masked attention for the additive and gated classes (Section 6.2, Appendix H), a scan of
        affine maps for the affine one.
        Raises `NotParallelError`, with the obstruction, for a sequential loop; otherwise as
        `recurrent`.
        """
        if self.parallel == "sequential":
            raise NotParallelError(f"a parallel form is required; this loop is sequential: "
                                   f"{self.reason}. Use .recurrent.")  # fmt: skip
        check_inputs(self.loop, q, k, v, weights, rate, momentum)
        run = forms.scanned if self.parallel == "affine" else forms.masked
        return run(self.loop, q, k, v, weights, rate, momentum)

    def attention(self, q: Tensor, k: Tensor, *, weights: Weights, rate: Number,
                  momentum: Number | None = None) -> Tensor:  # fmt: skip
        """The effective attention matrix `[B, H, T, T]`: what v̂ of token s weighs in output t.

        `O = Φ(Q) S_0 + A V̂`, with V̂ minus the loss' gradient in the outputs (plus, for ascent):
        for the Frobenius loss and descent V̂ is V itself. For loops whose values do not depend on
        the state (additive or gated); raises `NotParallelError` for the others, and as
        `recurrent` for wrong inputs. Source: Section 6.2, Appendix H.
        """
        if self.parallel not in ("additive", "gated"):
            raise NotParallelError(f"an attention matrix needs values that do not depend on the "
                                   f"state; {self.reason}. Use .recurrent.")  # fmt: skip
        last = weights.get(self.loop.net.last.name) if isinstance(weights, Mapping) else None
        wide = last.shape[-1] if isinstance(last, Tensor) and last.ndim else 1
        v = k[..., :1].expand(*k.shape[:-1], wide) if isinstance(k, Tensor) and k.ndim else k
        check_inputs(self.loop, q, k, v, weights, rate, momentum)
        return forms.attention(self.loop, q, k, weights, rate, momentum)

    def code(self) -> str:
        """The PyTorch text of the loop's pieces, written from the proved expressions."""
        return loop_code(self.loop)

    @property
    def last(self) -> str:
        """The last step that the output at t reads: t, or t-1."""
        return f"t{self.form.last.shift or ''}" if self.form.last else "t"

    def pieces(self) -> tuple[tuple[str, str, Term], ...]:
        """Each piece of the form: what it is, its name, its term."""
        return (
            ("query", r"\hat q", self.query),
            ("key", r"\hat k_i", self.key),
            ("value", r"\hat v_i", self.value),
            ("coefficient", "C_{ti}", self.coefficient),
            ("state0", "S_0", self.state0),
        )

    def latex(self) -> str:
        """The form and its pieces as an `aligned` block of LaTeX, without dollar signs."""
        lines = [rf"o_t &= \hat q \Bigl(S_0 + \sum_{{i=0}}^{{{self.last}}} C_{{ti}}\, "
                 r"\hat k_i^\top \hat v_i\Bigr)"]  # fmt: skip
        lines += [f"{name} &= {latex(term)}" for _, name, term in self.pieces()]
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def _repr_html_(self) -> str:
        """For notebooks, which typeset what stands between dollar signs."""
        return f"<p>{escape(self.summary())}</p>\n$$\n{self.latex()}\n$$\n"

    def summary(self) -> str:
        """Kernel, parallel class and proof in one line."""
        features = "static" if self.static else "dynamic"
        assumed = " ".join(self.assumptions) or "nothing but the definitions."
        return (f"features {features} | parallel {self.parallel}: {self.reason} | proved in "
                f"{len(self.theorem.proof.steps)} steps, digest {digest(self.theorem.proof)[:12]}"
                f" | assuming {assumed}")

    def __str__(self) -> str:
        form = f"o[t] = query · (state0 + Σ_{{i=0}}^{{{self.last}}} coefficient · keyᵀ value)"
        pieces = [f"  {what:<12}{text(term)}" for what, _, term in self.pieces()]
        return "\n".join([form, *pieces, *self.summary().split(" | ")])

    __repr__ = summary


def reduce(loop: InnerLoop) -> Reduction:
    """The linear-attention form of the loop, with its theorem and its parallel class.

    Raises `NotCoveredError` for a loop outside the theorems, naming the assumption.

    >>> from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
    >>> reduce(InnerLoop(Linear(), Frobenius(), GradientStep())).parallel
    'additive'
    """
    if not isinstance(loop, InnerLoop):
        raise TypeError(f"`loop` must be an InnerLoop; got {type(loop).__name__}. Build one.")
    if loop.net.obstacle:
        raise NotCoveredError(f"the theorems assume that {loop.net.obstacle}; "
                              f"got {loop.net}. Change the net.")  # fmt: skip
    form = linear_attention(loop)
    theorem = Theorem(prove_claim(loop, claim(form)))
    gradients = gradient_theorems(loop.net, loop.loss, loop.update.trained)
    parallel, reason = classify(loop, form)
    return Reduction(loop, form, theorem, gradients, is_static(loop), parallel, reason)


@cache
def gradient_theorems(net: Net, loss: Loss, trained: Train) -> Mapping[str, Theorem]:
    """The gradient of each trained weight; neither rates nor the schedule enter it."""
    loop = InnerLoop(net, loss, GradientStep(trained=trained))
    found = {w.name: Theorem(gradient_part(loop, w).proof) for w in loop.trained}
    return MappingProxyType(found)


def is_static(loop: InnerLoop) -> bool:
    """Whether the features do not change: nothing before the last layer is trained."""
    return loop.update.trained == "last" or not loop.net.program


def classify(loop: InnerLoop, form: Form) -> tuple[Parallel, str]:
    """The parallel class, and the reason for it, read off the proved form."""
    if not is_static(loop):
        return "sequential", "the kernel's parameters are updated, so φ depends on the state"
    degree = degree_in(form.value, {weight.name for weight in loop.trained})
    if degree is None:
        return "sequential", "the value is an unknown function of the state, perhaps not affine"
    if degree > 1:
        return "sequential", "the value is not affine in the state"
    if degree == 1:
        return "affine", "the value is affine in the state: S ← A S + B"
    if loop.update.momentum is None:
        return "additive", "neither features nor values depend on the state: S ← S + U"
    return "gated", "momentum couples accumulator and state by a 2×2 gate; values depend on neither"


def degree_in(term: Term, names: set[str]) -> int | None:
    """A bound on the degree of the term in these symbols; None inside an unknown function."""
    if isinstance(term, Atom):
        return int(term.name in names)
    if isinstance(term, App | Prod):
        return None if symbols(term) & names else 0
    inner = [degree_in(part, names) for part in parts(term) if isinstance(part, Term)]
    if isinstance(term, Add | Mul):
        inner = [degree_in(part, names) for part in parts(term)[0]]
    known = [d for d in inner if d is not None]
    if len(known) < len(inner):
        return None
    return sum(known) if isinstance(term, Mul) else max(known, default=0)


def transition(loop: InnerLoop) -> sp.Matrix:
    """How the states (accumulator first) depend on those of the step before."""
    rule = dict(loop.update.recurrence)
    if M in rule:
        rule = {s: sp.expand(e.subs(NEXT_M, rule[M])) for s, e in rule.items()}
    states = list(rule)
    return sp.Matrix([[sp.expand(rule[a]).coeff(b) for b in states] for a in states])

