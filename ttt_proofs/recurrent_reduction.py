"""What `reduce` makes of a recurrence: its form as linear attention, proved, and ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from .checker.definitions import Equation
from .checker.proof import Theorem
from .checker.terms import Atom, Term, ix
from .loops import Recurrence
from .loops.copies import Unchanging
from .program.coefficients import t
from .render import latex, text
from .symbolic.assumptions import assumptions
from .symbolic.plan import TILE, Parallel
from .symbolic.records import digest
from .symbolic.step_forms import CarriedForm, EntryForm, claim, prove_claim, step_form
from .symbolic.step_plan import step_plan
from .symbolic.step_terms import places
from .symbolic.theory import T

if TYPE_CHECKING:
    from torch import Tensor

    from .parallel.chunks import Outputs
    from .parallel.inputs import Coefficients
    from .parallel.maps import Along
    from .parallel.sharding import Group


@dataclass(frozen=True)
class RecurrentReduction(Unchanging):
    """A recurrence by what its states are after t tokens, and what is read of them.

    `output` is the output at t, as a checker term in the starts `S_0` of the states and in what
    each token i writes; `state(name)` is one state after token t. Where states are not affine
    entry by entry, by factors of data alone, both are in starts and writes (or keys) as later
    tokens carry them on, `S_start`, `S_write` and `S_key`, and `carried` has the equations of
    these. `theorem` says that the output is that, for every t and every width; `parallel` is
    the parallel class and `reason` says why it is that. A pickle holds the layer: when it is
    loaded, all of this is derived and proved anew.
    """

    layer: Recurrence
    form: EntryForm | CarriedForm
    theorem: Theorem
    parallel: Parallel
    reason: str

    @property
    def output(self) -> Term:
        """The output at time t, `[c]`."""
        return claim(self.form).right

    def state(self, name: str) -> Term:
        """A state after token t, in its own indices; `KeyError` for a name that is none."""
        return self.form.after(self.form.terms(), name, places(self.layer.states[name]), t)

    @cached_property
    def carried(self) -> tuple[Equation, ...]:
        """The equations of starts and writes as tokens carry them on; none where none are."""
        defines = (define for block in self.form.carried_definitions for define in block)
        return tuple(define.equation(None, start) for define in defines for start in (True, False))

    @cached_property
    def assumptions(self) -> tuple[str, ...]:
        """What the theorem assumes, in sentences."""
        return assumptions(self.theorem.proof)

    def __reduce__(self) -> tuple[Callable[..., RecurrentReduction], tuple[Recurrence]]:
        return reduce_recurrence, (self.layer,)

    def recurrent(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        coefficients: Coefficients | None = None,
        initial_state: Mapping[str, Tensor] | None = None,
    ) -> Outputs:
        """Outputs `[B, T, H, V]` and the final states; see `parallel.recurrences.recurrent`."""
        given = {"coefficients": coefficients, "initial_state": initial_state}
        return runs().recurrent(self.layer, q, k, v, **given)

    def parallel_form(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        coefficients: Coefficients | None = None,
        initial_state: Mapping[str, Tensor] | None = None,
        tile: int = TILE,
        along: Along | None = None,
    ) -> Outputs:
        """The same by scans over time; see `parallel.recurrences.parallel_form`."""
        given = {"coefficients": coefficients, "initial_state": initial_state}
        return runs().parallel_form(self.layer, q, k, v, **given, tile=tile, along=along)

    def sharded(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        coefficients: Coefficients | None = None,
        initial_state: Mapping[str, Tensor] | None = None,
        tile: int = TILE,
        group: Group = None,
    ) -> Outputs:
        """`parallel_form` of a sequence whose tokens lie, in order, on the ranks of a group.

        As `Reduction.sharded`: each rank has the outputs of its tokens, the last one the final
        states.
        """
        from .parallel.checked import sharded

        given = (q, k, v, {}, coefficients, initial_state)
        return sharded(self.layer, *given, tile=tile, group=group)

    def latex(self) -> str:
        """The output and the states as an `aligned` block of LaTeX, without dollar signs."""
        lines = [f"o_t &= {latex(self.output)}"]
        for name, axes in self.layer.states.items():
            after = Atom(name, (ix(T, 1), *places(axes)))
            lines.append(f"{latex(after)} &= {latex(self.state(name))}")
        lines += [f"{latex(e.left)} &= {latex(e.right)}" for e in self.carried]
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def _repr_html_(self) -> str:
        """For notebooks, which typeset what stands between dollar signs."""
        return f"<p>{escape(self.summary())}</p>\n$$\n{self.latex()}\n$$\n"

    def summary(self) -> str:
        """Parallel class and proof in one line."""
        told = " ".join(self.assumptions) or "nothing but the definitions."
        proof = self.theorem.proof
        return (
            f"parallel {self.parallel}: {self.reason} | proved in {len(proof.steps)} steps, digest "
            f"{digest(proof)[:12]} | assuming {told[0].lower()}{told[1:]}"
        )

    def __str__(self) -> str:
        lines = [f"o[t] = {text(self.output)}"]
        lines += [f"  {f'{name}[t+1]':<12}{text(self.state(name))}" for name in self.layer.states]
        lines += [f"  {text(e.left)} = {text(e.right)}" for e in self.carried]
        return "\n".join([*lines, *self.summary().split(" | ")])

    __repr__ = summary


def runs() -> Any:
    """What runs a recurrence on tensors; PyTorch is imported here and not before."""
    from .parallel import recurrences

    return recurrences


def reduce_recurrence(layer: Recurrence) -> RecurrentReduction:
    """The form of a recurrence, with its theorem; `NotCoveredError`, with the cause, for others."""
    form, plan = step_form(layer), step_plan(layer).plan
    theorem = Theorem(prove_claim(form, claim(form)))
    return RecurrentReduction(layer, form, theorem, plan.word, plan.reason)
