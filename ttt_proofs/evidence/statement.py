"""The statement itself against the real loop: what was proved, evaluated in floating point.

The right side of a statement is computed from the inputs alone, by iterating the definitions
that the proof opens with; the left side is what PyTorch's autograd makes of the loop. So a wrong
coefficient shows here, and so does a definition that is not the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import Tensor

from ..kernel.terms import Atom
from ..loops import GradientStep, InnerLoop
from ..reference.oracle import run_loop
from ..symbolic.derivation import Part
from .evaluate import Model
from .exact import Shape
from .fields import Query, Rationals
from .sampling import Inputs, random_inputs
from .tolerances import SMALLEST_SCALE, tolerance
from .types import Observation

STEPS = 3


class Floats(Rationals):
    """Floating-point numbers."""

    def __init__(self) -> None:
        super().__init__(spread=0)

    def number(self, value: Fraction) -> float:
        """The nearest one."""
        return float(value)


def gelu_tanh(order: int, x: float) -> float:
    """GELU in its tanh form, or its first derivative."""
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    y = math.tanh(scale * (x + cubic * x**3))
    if order == 0:
        return x * (1 + y) / 2
    if order == 1:
        return (1 + y) / 2 + x * (1 - y * y) * scale * (1 + 3 * cubic * x * x) / 2
    raise ValueError(f"`gelu_tanh` is known up to its first derivative; got order {order}.")


KNOWN: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "step": lambda x: float(x > 0),
}


class FloatModel(Model):
    """A model in which every value is given, and every function is the real one."""

    def known(self, fn: str, argument: float) -> float:
        """The value of sigmoid, tanh or step."""
        return KNOWN[fn](argument)

    def ask(self, query: Query) -> Any:
        """A given value; `ValueError` for one that is not given, since none may be made up."""
        if query.name == "gelu_tanh" and query.args is not None:
            return gelu_tanh(len(query.slots), query.args[0][0])
        if query not in self.source.given:
            raise ValueError(f"`{query.name}{list(query.place)}` must be given; it is not.")
        return self.source.given[query]


def statement_witness(part: Part, loop: InnerLoop, *, seed: int) -> Observation:
    """Whether a part's statement, about a concrete loop, is what autograd finds, in float64.

    The statement must be about the outputs `o` or about the gradient `G_...` of one weight, which
    is compared at the first step. Sizes: one sequence of three chunks, one head, widths of 2 and
    3. The error is relative to the largest entry; the tolerance is that of `tolerances`.
    Raises `ValueError` for a statement about anything else.
    """
    sizes = {"B": 1, "H": 1, "T": STEPS * loop.schedule.chunk, "D_k": 2, "D_v": 3}
    hidden = {w.cols.name: 2 for w in loop.net.weights if w.cols.name != "D_v"}
    inputs = random_inputs(loop, seed, sizes=sizes | hidden)
    widths = {"L": loop.schedule.chunk, "D_k": 2, "D_v": 3} | hidden
    model = FloatModel(Floats(), widths, part.proof.definitions, 0, given(loop, inputs))
    left = part.statement.left
    name = left.name if isinstance(left, Atom) else ""
    last, expected = 0, Tensor()
    if name == "o":
        outputs, _ = run_loop(loop, inputs.q, inputs.k, inputs.v, weights=inputs.weights,
                              rate=inputs.rate, momentum=inputs.momentum)  # fmt: skip
        last, expected = STEPS - 1, outputs[0, :, 0].reshape(STEPS, loop.schedule.chunk, -1)
    elif name.removeprefix("G_") in inputs.weights:
        expected = first_gradient(loop, inputs, name.removeprefix("G_"))[None]
    else:
        raise ValueError(f"a statement about o or a gradient is required; got one about {name!r}.")
    errors, every = [], part.statement.every
    for place in Shape(widths, last).entries(every):
        found = model.value(part.statement.right, place)
        errors.append(abs(found - expected[tuple(place[v] for v in every)].item()))
    worst = max((e if math.isfinite(e) else math.inf for e in errors), default=math.inf)
    worst /= max(expected.abs().max().item(), SMALLEST_SCALE)
    allowed = tolerance("float64", sizes["T"])
    return Observation(worst <= allowed, worst, allowed, 1, "cpu", "float64",
                       ("statement",), "statement")  # fmt: skip


def first_gradient(loop: InnerLoop, inputs: Inputs, name: str) -> Tensor:
    """The gradient of the first chunk's loss: one plain step at rate 1 goes by minus that."""
    chunk = loop.schedule.chunk
    plain = replace(loop, update=GradientStep())
    q, k, v = (x[:, :chunk] for x in (inputs.q, inputs.k, inputs.v))
    _, final = run_loop(plain, q, k, v, weights=inputs.weights, rate=1.0)
    return inputs.weights[name][0] - final[name][0, 0]


def given(loop: InnerLoop, inputs: Inputs) -> dict[Query, Any]:
    """The inputs under the names that the definitions use."""
    values: dict[Query, Any] = {}
    chunk, trained = loop.schedule.chunk, {weight.name for weight in loop.trained}
    for name, x in (("q", inputs.q), ("k", inputs.k), ("v", inputs.v)):
        for token, row in enumerate(x[0, :, 0].tolist()):
            for d, value in enumerate(row):
                values[Query(name, (token // chunk, token % chunk, d))] = value
    for name, weight in inputs.weights.items():
        for r, row in enumerate(weight[0].tolist()):
            for c, value in enumerate(row):
                values[Query(f"{name}_0" if name in trained else name, (r, c))] = value
                values[Query(name, (0, r, c))] = value  # where only the gradient is defined
    for name, number in (("eta", inputs.rate), ("alpha", inputs.momentum)):
        if isinstance(number, Tensor) and number.ndim:
            for step, value in enumerate(number[0, :, 0].tolist()):
                values[Query(name, (step,))] = value
        elif number is not None:
            values[Query(name, ())] = float(number)
    return values
