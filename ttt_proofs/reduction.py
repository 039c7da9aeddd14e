"""`reduce(loop)`: the linear-attention form of an inner loop, proved, and ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import sympy as sp

from .checker.definitions import ONE, sum_over
from .checker.proof import Theorem
from .checker.terms import CheckerError, Mul, Term
from .loops import InnerLoop, Recurrence
from .loops.copies import Unchanging
from .loops.current import must_be_current
from .program.linearity import linear_weights
from .recurrent_reduction import RecurrentReduction, reduce_recurrence
from .render import latex, text
from .symbolic.assumptions import CHUNKS, assumptions
from .symbolic.closed_forms import NotCoveredError
from .symbolic.linear_attention import Form
from .symbolic.parts import attention_form, gradient_part
from .symbolic.plan import TILE, Parallel, plan_of, transition
from .symbolic.plan import NotParallelError as NotParallelError
from .symbolic.records import digest

if TYPE_CHECKING:
    from torch import Tensor

    from .parallel.chunks import Outputs
    from .parallel.inputs import Coefficients, Weights
    from .parallel.maps import Along
    from .parallel.sharding import Group
    from .parallel.state import State


@dataclass(frozen=True)
class Reduction(Unchanging):
    """A loop as linear attention: `o_t = query (state0 + Σ_i coefficient · keyᵀ value)`.

    `query`, `key`, `value`, `coefficient`, `state0` are checker terms (`str(...)` of a
    reduction, `.latex()` and notebooks show them). Where an operator, an output gate, a causal
    reading, or several steps that weigh differently come in, these show the whole form.
    `static` says whether the kernel φ is the same at all times, and `linear_in` in which other
    weights the net is linear. `gates` is the transition matrix of the buffers and the state;
    `parallel` is the parallel class and `reason` says why it is that.
    `theorem` is what all this rests on; `gradients` are the theorems about each weight's
    gradient, which the recurrence uses. A pickle holds the loop: when it is loaded, all of this
    is derived and proved anew. Source: Section 5 of arXiv 2602.21204.
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
        """What the theorems about the form and the gradients assume, in sentences.

        That all chunks have one length is left out for chunks of one token.
        """
        theorems = (self.theorem, *self.gradients.values())
        lines = dict.fromkeys(line for t in theorems for line in assumptions(t.proof))
        idle = (CHUNKS,) if self.loop.schedule.chunk == 1 else ()
        return tuple(line for line in lines if line not in idle)

    @cached_property
    def linear_in(self) -> tuple[str, ...]:
        """The weights besides that of the last layer in which the net is linear, the others fixed.

        Each of them alone could be such a state; they are read off the net's program.
        """
        found = linear_weights(self.loop.net.traced)
        return tuple(name for name in found if name != self.loop.net.last.name)

    @cached_property
    def gates(self) -> sp.ImmutableMatrix:
        """The SymPy matrix that takes the buffers and the state one step on, without G."""
        return sp.ImmutableMatrix(transition(self.loop.rule))

    def __reduce__(self) -> tuple[Callable[[InnerLoop], Reduction], tuple[InnerLoop]]:
        return reduce, (self.loop,)

    def recurrent(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        weights: Weights,
        coefficients: Coefficients | None = None,
        initial_state: State | None = None,
    ) -> Outputs:
        """Outputs `[B, T, H, V]` and the final state, step after step.

        q, k `[B, T, H, K]`, v `[B, T, H, V]`, weights `[H, rows, cols]`, all of one floating
        dtype. coefficients: exactly those of `loop.coefficients`, by name: a number if there is
        one for the loop, `[B, N, H]` per step, N = ceil(T / chunk), and `[B, T, H]` per token;
        those of rows, columns or entries have these sizes after H.
        The final `State` maps the names of all the net's weights, fast or not, to
        `[B, H, rows, cols]`, and has the buffers; given as `initial_state`, with the same
        `weights`, the next tokens go on from there, at the start of a chunk. Raises `ValueError` or
        `TypeError` in one sentence if shapes, dtypes or numbers are off. Source: Section 3.
        """
        return runs().recurrent(self.loop, q, k, v, weights, coefficients, initial_state)

    def amplification(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        weights: Weights,
        coefficients: Coefficients | None = None,
        initial_state: State | None = None,
        directions: int = 4,
    ) -> float:
        """How much larger, relatively, a small change of these inputs is in the outputs.

        All inputs move, each entry by 1e-7 of itself, up or down at random, in float64; then

            max |Δo| / max |o| / 1e-7,     the largest over `directions` draws, always the same.

        Rounding is such a change. Linear nets without Muon are at 1 to 100; at 1e7, about the most
        that can be seen, no digit of the outputs is determined by inputs in float32. Infinite
        where outputs overflow. Inputs as for `recurrent`, on which it runs, and it raises the same;
        `ValueError` too unless `directions` is a positive integer.
        """
        given = (q, k, v, weights, coefficients, initial_state)
        return runs().amplified(self.loop, *given, directions=directions)

    def parallel_form(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        weights: Weights,
        coefficients: Coefficients | None = None,
        initial_state: State | None = None,
        tile: int = TILE,
        along: Along | None = None,
    ) -> Outputs:
        """The same outputs and final state, without a loop over time in the heavy part.

        Tiles of about `tile` tokens: masked attention within each (Section 6.2, Appendix H), and
        affine maps of the state from one to the next, combined by `along` (of `parallel.maps`; one
        after the other by default); in the composed class, and where coefficients tell rows,
        columns or entries apart or gates scale more than the gradient, scans of a state for each
        step, and operators between them.
        Time and memory grow linearly with T.
        Raises `NotParallelError`, with the obstruction, for a sequential loop; otherwise as
        `recurrent`.
        """
        given = (q, k, v, weights, coefficients, initial_state)
        return runs().parallel_form(self.loop, *given, tile=tile, along=along)

    def sharded(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        weights: Weights,
        coefficients: Coefficients | None = None,
        initial_state: State | None = None,
        tile: int = TILE,
        group: Group = None,
    ) -> Outputs:
        """`parallel_form` of a sequence whose tokens lie, in order, on the ranks of a group.

        Called by all ranks, each with its own tokens and their numbers; loop, sizes, dtype, tile,
        weights, numbers for all steps and initial state are the same on all, bit for bit. Each has
        the outputs of its tokens, the last rank the final state (`parallel.sharding.across`).
        Shards may differ in length, and all but the last have whole chunks. Raises as
        `parallel_form` does, and `ValueError` where ranks differ, on all ranks if on one; a second
        derivative raises `RuntimeError`. Needs `torch.distributed` to be initialised, and ends with
        its error when a rank dies or the group's time-out is over.
        """
        given = (q, k, v, weights, coefficients, initial_state)
        return runs().sharded(self.loop, *given, tile=tile, group=group)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        *,
        weights: Weights,
        coefficients: Coefficients | None = None,
    ) -> Tensor:
        """The effective attention matrix `[B, H, T, T]`: what v̂ of token s weighs in output t.

        `O = Φ(Q) S_0 + A V̂`, with V̂ minus the loss' gradient in the outputs (plus, for ascent):
        for the Frobenius loss and descent V̂ is V itself. Weights of tokens' losses are in A; an
        output gate is not. A convolution has a matrix for each channel: `[B, H · C, T, T]`. For
        loops whose coefficients are of whole matrices and whose
        values do not depend on the state (additive or gated); raises `NotParallelError` for the
        others, and as `recurrent` for wrong inputs. Source: Section 6.2, Appendix H.
        """
        return runs().attention(self.loop, q, k, weights, coefficients)

    def code(self) -> str:
        """The PyTorch text of the loop's pieces, written from the proved expressions."""
        from .symbolic.torch_code import loop_code

        return loop_code(self.loop)

    @property
    def last(self) -> str:
        """The last step that the output at t reads in full: t, or t-1."""
        return f"t{self.form.last.shift or ''}" if self.form.last else "t"

    @property
    def pairs(self) -> bool:
        """Whether a step stores just the sum of keyᵀ value over its tokens."""
        form = self.form
        return form.stored == sum_over(form.tokens, Mul((form.key, form.value)))

    def pieces(self) -> tuple[tuple[str, str, Term], ...]:
        """Each piece of the form: what it is, its name, its term."""
        form = self.form
        found: list[tuple[str, str, Term]] = [
            ("query", r"\hat q", form.query),
            ("key", r"\hat k_i", form.key),
            ("value", r"\hat v_i", form.value),
            ("coefficient", "C_{ti}", form.coefficient),
            ("state0", "S_0", form.start),
        ]
        if not self.pairs:
            found.insert(3, ("stored", "U_i", form.stored))
        if form.newest is not None:
            found.append(("newest", r"\Delta_t", form.newest))
        if form.gate != ONE:
            found.insert(0, ("gate", r"\gamma_t", form.gate))
        return tuple(found)

    def latex(self) -> str:
        """The form and its pieces as an `aligned` block of LaTeX, without dollar signs."""
        stored = r"\hat k_i^\top \hat v_i" if self.pairs else "U_i"
        newest = r" + \Delta_t" if self.form.newest is not None else ""
        gate = r"\gamma_t \odot " if self.form.gate != ONE else ""
        lines = [
            rf"o_t &= {gate}\hat q \Bigl(S_0 + \sum_{{i=0}}^{{{self.last}}} C_{{ti}}\, "
            rf"{stored}{newest}\Bigr)"
        ]
        lines += [f"{name} &= {latex(term)}" for _, name, term in self.pieces()]
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def _repr_html_(self) -> str:
        """For notebooks, which typeset what stands between dollar signs."""
        return f"<p>{escape(self.summary())}</p>\n$$\n{self.latex()}\n$$\n"

    def summary(self) -> str:
        """Kernel, parallel class and proof in one line."""
        features = "static" if self.static else "dynamic"
        told = " ".join(self.assumptions) or "nothing but the definitions."
        assumed = told[0].lower() + told[1:]
        return (
            f"features {features} | parallel {self.parallel}: {self.reason} | proved in "
            f"{len(self.theorem.proof.steps)} steps, digest {digest(self.theorem.proof)[:12]}"
            f" | assuming {assumed}"
        )

    def __str__(self) -> str:
        stored = "keyᵀ value" if self.pairs else "stored"
        newest = " + newest" if self.form.newest is not None else ""
        gate = "gate ⊙ " if self.form.gate != ONE else ""
        form = (
            f"o[t] = {gate}query · (state0 + Σ_{{i=0}}^{{{self.last}}} coefficient · "
            f"{stored}{newest})"
        )
        pieces = [f"  {what:<12}{text(term)}" for what, _, term in self.pieces()]
        if self.linear_in:
            pieces.append(f"linear also in {', '.join(self.linear_in)}, each with the others fixed")
        return "\n".join([form, *pieces, *self.summary().split(" | ")])

    __repr__ = summary


def runs() -> Any:
    """What runs a loop on tensors; PyTorch is imported here and not before."""
    from .parallel import checked

    return checked


@overload
def reduce(loop: InnerLoop) -> Reduction: ...
@overload
def reduce(loop: Recurrence) -> RecurrentReduction: ...
def reduce(loop: InnerLoop | Recurrence) -> Reduction | RecurrentReduction:
    """The linear-attention form of a loop or a recurrence, with its theorem and parallel class.

    Raises `NotCoveredError` for one outside the theorems, naming the assumption or the cause, and
    `ValueError` for one whose code has changed since it was read.

    >>> from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear
    >>> reduce(InnerLoop(Linear(), Frobenius(), GradientStep())).parallel
    'additive'
    """
    if not isinstance(loop, InnerLoop | Recurrence):
        got = type(loop).__name__
        raise TypeError(f"`loop` must be an InnerLoop or a Recurrence; got {got}. Build one.")
    must_be_current(loop)
    if isinstance(loop, Recurrence):
        with accepted(loop):
            return reduce_recurrence(loop)
    if loop.net.obstacle:
        raise NotCoveredError(
            f"the theorems assume that {loop.net.obstacle}; got {loop.net}. Change the net."
        )
    with accepted(loop):
        form, part = attention_form(loop)
        theorem = Theorem(part.proof)
        gradients = gradient_theorems(loop)
    plan = plan_of(loop)
    return Reduction(loop, form, theorem, gradients, loop.is_static, plan.word, plan.reason)


@contextmanager
def accepted(loop: InnerLoop | Recurrence) -> Iterator[None]:
    """Raise `NotCoveredError` where the checker refuses the proof: for a loop of too many terms, or
    with integers that are too large.
    """
    try:
        yield
    except CheckerError as error:
        told = str(error).removesuffix(".")
        raise NotCoveredError(
            f"the theorems need a proof that the checker accepts; it says that {told} for {loop}. "
            "Train fewer weights, shorten numbers, or run it without."
        ) from error


def gradient_theorems(loop: InnerLoop) -> Mapping[str, Theorem]:
    """The gradient of each fast weight; of the update, only the loss weights enter it."""
    return theorems_of(loop.plain)


@cache
def theorems_of(loop: InnerLoop) -> Mapping[str, Theorem]:
    """The gradient theorems, the same for many loops."""
    found = {w.name: Theorem(gradient_part(loop, w).proof) for w in loop.fast_weights}
    return MappingProxyType(found)
