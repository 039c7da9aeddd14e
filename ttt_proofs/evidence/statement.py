"""The statement itself against the real loop: what was proved, evaluated in floating point.

The right side of a statement is computed from the inputs alone, by iterating the definitions
that the proof opens with; the left side is what PyTorch's autograd makes of the loop. So a wrong
coefficient shows here, and so does a definition that is not the loop's.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..checker.terms import Atom
from ..loops import InnerLoop
from ..program.operations import WHOLE, compiled
from ..reference import first_gradient, run_loop
from ..symbolic.derivation import Part
from ..symbolic.several_steps import K
from .conditioning import draw_steady
from .evaluate import Model
from .exact import Shape
from .fields import Functions, Operators, Query, Rationals
from .sampling import Inputs
from .tolerances import allowance
from .true_values import Matrix
from .types import Observation

STEPS = 3
NEWTON_SCHULZ = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def muon(rows: Matrix) -> Matrix:
    """Five Newton-Schulz steps on `G / (‖G‖_F + 1e-7)`, or on its transpose if that is no taller.

    Source: Appendix E of arXiv 2602.21204; LaCT as released.
    """
    g = torch.tensor(rows, dtype=torch.float64)
    tall = len(rows) >= len(rows[0])
    x = (g.T if tall else g) / (g.square().sum().sqrt() + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return (x.T if tall else x).tolist()


class Floats(Rationals):
    """Floating-point numbers, with the functions and operators that a loop runs with."""

    functions: ClassVar[Functions] = {
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "tanh": math.tanh,
        "step": lambda x: float(x > 0),
        "root": math.sqrt,
        "inverse": lambda x: 1 / x,
    }
    operators: ClassVar[Operators] = {"muon": muon}

    def __init__(self) -> None:
        super().__init__(spread=0)

    def number(self, value: Fraction) -> float:
        """The nearest one."""
        return float(value)


class FloatModel(Model):
    """A model in which every value is given, and every function is the real one."""

    def ask(self, query: Query) -> Any:
        """A given value; `ValueError` for one that is not given, since none may be made up."""
        if query.name in WHOLE and query.args is not None and len(query.slots) < 2:
            row = WHOLE[query.name]
            ((x,),) = query.args
            code = row.slope if query.slots else row.code
            return compiled(code)(torch.tensor(x, dtype=torch.float64)).item()
        if query not in self.source.given:
            raise ValueError(f"`{query.name}{list(query.place)}` must be given; it is not.")
        return self.source.given[query]


def statement_witness(part: Part, loop: InnerLoop, *, seed: int) -> Observation:
    """Whether a part's statement, about a concrete loop, is what autograd finds, in float64.

    The statement must be about the outputs `o` or about the gradient `G_...` of one weight, which
    is compared at the first step. Sizes: one sequence of three whole chunks, one head, widths of
    2 and 3. The error is relative to the largest entry; the tolerance is that of `tolerances`.
    Raises `ValueError` for a statement about anything else.
    """
    left = part.statement.left
    name = left.name if isinstance(left, Atom) else ""
    weight = name.removeprefix("G_")
    if name != "o" and weight not in {w.name for w in loop.net.weights}:
        raise ValueError(f"a statement about o or a gradient is required; got one about {name!r}.")

    def reference(inputs: Inputs) -> dict[str, Tensor]:
        if name != "o":
            return {name: of_first_chunk(loop, inputs, weight)[None]}
        outputs, _ = run_loop(loop, **vars(inputs))
        return {name: outputs[0, :, 0].unflatten(0, (STEPS, *tokens(loop)))}

    sizes, widths = sizes_of(loop)
    drawn = draw_steady(loop, seed, reference, sizes=sizes)
    inputs, found, _ = drawn
    expected, allowed = found[name], allowance(loop, sizes["T"])
    model = FloatModel(Floats(), widths, part.proof.definitions, 0, given(loop, inputs))
    errors, every = [], part.statement.every
    own = tuple(v for v in every if v != K)
    for place in Shape(widths, len(expected) - 1).entries(own):
        value = model.value(part.statement.right, place | {K: loop.schedule.steps})
        errors.append(abs(value - expected[tuple(place[v] for v in own)].item()))
    worst = max((e if math.isfinite(e) else math.inf for e in errors), default=math.inf)
    worst /= max(expected.abs().max().item(), allowed.scale)
    return Observation(
        worst <= allowed.error,
        worst,
        allowed.error,
        1,
        "cpu",
        "float64",
        ("statement",),
        "statement",
        drawn.amplification,
        int(not drawn.steady),
    )


def tokens(loop: InnerLoop) -> tuple[int, ...]:
    """The extents of a chunk's token index: one, none, or the height and width of an image."""
    if loop.net.window:
        return loop.net.window[1:]
    return () if loop.schedule.single else (loop.schedule.chunk,)


def window(loop: InnerLoop) -> tuple[int, ...]:
    """The extents of a window, or nothing."""
    return (loop.net.window[0],) * 2 if loop.net.window else ()


def sizes_of(loop: InnerLoop) -> tuple[dict[str, int], dict[str, int]]:
    """The sizes of the inputs, and of the widths that the statement mentions."""
    sizes = {"B": 1, "H": 1, "T": STEPS * loop.schedule.chunk, "D_v": 3}
    if window(loop):
        names = ("Y", "X", "D_y", "D_x")
        return sizes, dict(zip(names, tokens(loop) + window(loop), strict=True)) | {"D_v": 3}
    widths = {loop.net.keys.name: 2, "D_v": 3}
    widths |= {w.cols.name: 2 for w in loop.net.weights if w.cols.name != "D_v"}
    return sizes | widths, widths | {"L": loop.schedule.chunk}


def of_first_chunk(loop: InnerLoop, inputs: Inputs, name: str) -> Tensor:
    """The gradient of the first chunk's loss in a weight; what weighs losses belongs to it."""
    gradient = first_gradient(loop, **vars(inputs))[name][0, 0]
    return gradient.unflatten(0, window(loop)) if window(loop) else gradient


def table(name: str, x: Tensor) -> dict[Query, Any]:
    """The entries of a tensor under a name."""
    places = product(*map(range, x.shape))
    return {Query(name, p): value for p, value in zip(places, x.flatten().tolist(), strict=True)}


def given(loop: InnerLoop, inputs: Inputs) -> dict[Query, Any]:
    """The inputs under the names that the definitions use."""
    by_token = (STEPS, *tokens(loop))
    trained = {weight.name for weight in loop.fast_weights}
    values: dict[Query, Any] = {}
    for symbol, number in loop.rule.constants:
        values |= table(symbol.name, torch.tensor(number, dtype=torch.float64))
    seen = torch.eye(loop.schedule.chunk, dtype=torch.float64).cumsum(dim=0)
    values |= table("visible", seen.reshape(2 * by_token[1:]))
    for name in "qkv":
        x = getattr(inputs, name)[0, :, 0].unflatten(0, by_token)
        if window(loop) and name != "v":
            edge = window(loop)[0] // 2
            x = pad(x, (0, 0, edge, edge, edge, edge))
        values |= table(name, x)
    for name, weight in inputs.weights.items():
        x = weight[0].unflatten(0, window(loop)) if window(loop) else weight[0]
        values |= table(f"{name}_0" if name in trained else name, x)
        values |= table(name, x[None])  # where only the gradient is defined
    for name, number in inputs.coefficients.items():
        values |= table(name, as_indexed(loop, name, number))
    return values


def as_indexed(loop: InnerLoop, name: str, number: Tensor | float) -> Tensor:
    """A coefficient of the one sequence and head, with the indices that it has in statements.

    That is none or a step's, also a token's, and those of the rows and columns that it tells apart.
    """
    kind, x = loop.coefficients[name], torch.as_tensor(number, dtype=torch.float64)
    if kind.every == "loop":
        return x if kind.shape == "scalar" else x[0]
    of_time = x[0, :, 0]
    if kind.mean:
        return of_time.unflatten(0, (STEPS, -1)).mean(dim=1)
    return of_time if kind.every == "step" else of_time.unflatten(0, (STEPS, *tokens(loop)))
