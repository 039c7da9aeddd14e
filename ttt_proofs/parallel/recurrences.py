"""Recurrences on tensors: token after token, or as scans of their states' entries.

Both work out the operations that were read off the step, for a token or for all at once. Outside,
q, k `[B, T, H, K]`, v `[B, T, H, V]`; inside, heads before time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..loops.recurrence import Recurrence
from ..program.steps import Axes, Contraction, Operation, View
from ..symbolic.plan import TILE, NotParallelError
from ..symbolic.step_loop import StepLoop, step_loop
from ..symbolic.step_maps import Mapped
from ..symbolic.step_plan import Scanned
from .calls import form
from .chunks import Outputs
from .inputs import Coefficients, Weights, check_inputs, check_tile, state_shapes, wide
from .maps import Along, by_tile, fold
from .maps import scan as scan_maps
from .state import State
from .states import scan_entries

Known = dict[int, Tensor]


def recurrent(
    layer: Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    coefficients: Coefficients | None = None,
    initial_state: Mapping[str, Tensor] | None = None,
) -> Outputs:
    """Outputs `[B, T, H, V]` and the final states, token after token.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, all of one floating dtype. coefficients: exactly those of
    `layer.coefficients`, by name: of the loop a number, of each token `[B, T, H]`; those of rows,
    columns or entries have these sizes after H. The final `State` maps the names of the states to
    `[B, H, *]`, in float32 or float64; given as `initial_state`, the next tokens go on from there;
    without it, states begin with zeros. Raises `ValueError` or `TypeError` in one sentence if
    shapes, dtypes or numbers are off, `ValueError` where the step has unknown functions.
    """
    check_inputs(layer, q, k, v, {}, coefficients, initial_state)
    return by_token(layer, q, k, v, {}, coefficients, initial_state)


def parallel_form(
    layer: Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    coefficients: Coefficients | None = None,
    initial_state: Mapping[str, Tensor] | None = None,
    tile: int = TILE,
    along: Along | None = None,
) -> Outputs:
    """The same outputs and final states by scans, with a state for each token.

    Where a state goes through no matrix, each entry is scanned by itself; otherwise maps of whole
    columns (or rows) are, which takes K times the work. Within about `tile` tokens states are found
    at once; from one tile to the next `along` combines affine maps. Raises `NotParallelError`, with
    the cause, where the plan has no scans; otherwise as `recurrent`.
    """
    must_scan(layer)
    check_tile(tile)
    check_inputs(layer, q, k, v, {}, coefficients, initial_state)
    given = (coefficients, initial_state)
    return by_scans(layer, q, k, v, {}, *given, tile=tile, along=along or fold)


def must_scan(layer: Recurrence | StepLoop) -> StepLoop:
    """A recurrence made ready; `NotParallelError`, with the cause, where it has no scans."""
    code = step_loop(layer)
    if not code.scans:
        raise NotParallelError(f"{code.plan.reason}, so it runs token by token. Use `recurrent`.")
    return code


@form
def by_token(
    layer: Recurrence | StepLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients | None = None,
    initial_state: Mapping[str, Tensor] | None = None,
) -> Outputs:
    """`recurrent` with a form's arguments, which are not checked again; weights are none."""
    code = step_loop(layer)
    given = data(code, q, k, v, coefficients or {})
    ahead = {n: value(code, given, n, 3) for n in code.ahead}
    states, outputs = start(code, q, v, initial_state), []
    for token in range(q.shape[1]):
        known = {n: x[:, :, min(token, x.shape[2] - 1)] for n, x in ahead.items()}
        known |= {n: states[name] for name, n in code.old.items()}
        outputs.append(value(code, known, code.output, 2))
        after = {name: value(code, known, n, 2) for name, n in code.states}
        states = {name: x.expand_as(states[name]) for name, x in after.items()}
    return finished(v, torch.stack(outputs, 2) if outputs else v.transpose(1, 2), states)


@form
def by_scans(
    layer: Recurrence | StepLoop,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Weights,
    coefficients: Coefficients | None = None,
    initial_state: Mapping[str, Tensor] | None = None,
    *,
    tile: int = TILE,
    along: Along = fold,
) -> Outputs:
    """`parallel_form` with a form's arguments, which are not checked again; weights are none."""
    code = must_scan(layer)
    known = data(code, q, k, v, coefficients or {})
    first, states = start(code, q, v, initial_state), {}
    lead = (len(q), q.shape[2], q.shape[1])
    for scan in code.scans:
        given = (first[scan.state], lead, tile, along)
        run = scanned if isinstance(scan, Scanned) else mapped
        before, final = run(code, known, scan, *given)  # pyright: ignore
        if scan.state in code.old:
            known[code.old[scan.state]] = before
        after = torch.cat([before, final[:, :, None]], dim=2)[:, :, 1:]
        known |= {n: after for n, name in code.made.items() if name == scan.state}
        states[scan.state] = final
    return finished(v, value(code, known, code.output, 3), states)


def scanned(
    code: StepLoop,
    known: Known,
    scan: Scanned,
    start: Tensor,
    lead: tuple[int, int, int],
    tile: int,
    along: Along,
) -> tuple[Tensor, Tensor]:
    """A state before each token, `[B, H, T, *]`, and after all."""
    sides = (*start.shape[2:], 1, 1)[:2]  # a vector is a matrix of one column

    def matrix(x: Tensor, axes: int) -> Tensor:
        """A value of that many axes with the axes of the state, then as a matrix."""
        x = x[(slice(None),) * 3 + (None,) * (start.ndim - 2 - axes)]
        return x.reshape(*x.shape, *[1] * (4 - start.ndim))

    a = value(code, known, scan.factor, 3)
    a = matrix(a, len(code.operations[scan.factor].axes))
    b = start.new_zeros(())
    if scan.shift is not None:
        b = matrix(value(code, known, scan.shift, 3), len(code.operations[scan.shift].axes))
    b = b.expand(*lead, *sides)[:, :, :, None]
    first = start.reshape(*lead[:2], 1, *sides)
    before, final = scan_entries(a[..., None, None], b, first, tile, along)
    return before.reshape(*lead, *start.shape[2:]), final.reshape(start.shape)


def mapped(
    code: StepLoop,
    known: Known,
    scan: Mapped,
    start: Tensor,
    lead: tuple[int, int, int],
    tile: int,
    along: Along,
) -> tuple[Tensor, Tensor]:
    """A state that goes through a matrix, before each token, `[B, H, T, *]`, and after all.

    The matrix is what the linear part of the step makes of unit vectors.
    """
    sizes = start.shape[2:]
    count = sizes[1 - scan.apart] if scan.apart is not None else sizes[0] if sizes else 1
    units = torch.eye(count, dtype=start.dtype, device=start.device).view(1, 1, 1, count, count)
    if scan.apart is not None:  # alike for all of its entries
        units = units.unsqueeze(4 if scan.apart == 0 else 5).expand(1, 1, 1, count, *sizes)
    elif not sizes:
        units = units[..., 0]
    several = {n: x.unsqueeze(3) for n, x in known.items()} | {scan.place: units}
    a = value(code, several, scan.linear, 4)
    if scan.apart is not None:
        a = a.select(4 + scan.apart, 0)
    a = a.reshape(*a.shape[:3], count, count).mT.expand(*lead, count, count)
    b = start.new_zeros(())
    if scan.shift is not None:
        b = value(code, known, scan.shift, 3)
        b = b[(slice(None),) * 3 + (None,) * (len(sizes) - len(code.operations[scan.shift].axes))]
    b = b.expand(*lead, *sizes)
    turned = scan.apart == 0

    def columns(x: Tensor) -> Tensor:
        return (
            x.mT
            if turned
            else x
            if len(sizes) == 2
            else x.reshape(*x.shape[: x.ndim - len(sizes)], count, 1)
        )

    before, final = scanned_in_tiles(a, columns(b), columns(start), tile, along)
    if turned:
        return before.mT, final.mT
    return before.reshape(*lead, *sizes), final.reshape(start.shape)


def scanned_in_tiles(
    a: Tensor, b: Tensor, start: Tensor, tile: int, along: Along
) -> tuple[Tensor, Tensor]:
    """The states before each map and after all: a parallel scan in each tile, `along` the tiles."""
    count = b.shape[-3]
    gates, shifts = scan_maps(*by_tile(a, b, max(1, min(tile, count))))
    first, final = along(gates[..., -1, :, :], shifts[..., -1, :, :], start)
    after = gates @ first[..., None, :, :] + shifts
    before = torch.cat([first[..., None, :, :], after[..., :-1, :, :]], dim=-3)
    return before.flatten(-4, -3)[..., :count, :, :], final


def value(code: StepLoop, known: Known, n: int, lead: int) -> Tensor:
    """The value of an operation, after `lead` leading dimensions; added to what is known."""
    if n not in known:
        operation = code.operations[n]
        args = [value(code, known, a, lead) for a in operation.args]
        if n in code.functions:
            known[n] = code.functions[n](*args)
        else:
            axes = [code.operations[a].axes for a in operation.args]
            known[n] = made(operation, args, axes, lead)
    return known[n]


def made(operation: Operation, args: list[Tensor], axes: list[Axes], lead: int) -> Tensor:
    """What an operation that is no function makes of its arguments, after `lead` dimensions."""
    does = operation.does
    if does == "scale":
        return args[0] * float(operation.factor)
    if does == "power":
        return args[0] ** int(operation.factor)
    if does in ("add", "multiply"):
        most = len(operation.axes)
        full = [
            x[(slice(None),) * lead + (None,) * (most - len(own))]
            for x, own in zip(args, axes, strict=True)
        ]
        return full[0] + full[1] if does == "add" else full[0] * full[1]
    if isinstance(does, View):
        old = [lead + axis for axis in does.order if axis is not None]
        gone = [axis for axis in range(lead, args[0].ndim) if axis not in old]
        x = args[0].permute(*range(lead), *old, *gone)
        x = x.reshape(x.shape[: lead + len(old)])
        order = tuple(None if axis is None else slice(None) for axis in does.order)
        return x[(slice(None),) * lead + order]
    if isinstance(does, Contraction):
        inside = ",".join(f"...{letters}" for letters in does.operands)
        return torch.einsum(f"{inside}->...{does.out}", *args)
    raise ValueError(f"a step must be made of operations that are known; got {operation}. Add it.")


def data(code: StepLoop, q: Tensor, k: Tensor, v: Tensor, coefficients: Coefficients) -> Known:
    """Tokens, coefficients and numbers by the numbers of their operations, `[B, H, T, *]`."""
    tokens, known, dtype = {"q": q, "k": k, "v": v}, {}, wide(q.dtype)
    for n, operation in enumerate(code.operations):
        if operation.does == "data":
            known[n] = tokens[operation.label].to(dtype).transpose(1, 2)
        elif operation.does == "number":
            known[n] = q.new_full((1, 1, 1), float(operation.factor), dtype=dtype)
        elif operation.does == "coefficient":
            kind = code.coefficients[operation.label]
            x = torch.as_tensor(coefficients[operation.label], dtype=dtype, device=q.device)
            x = x.transpose(1, 2) if kind.every == "token" else x.reshape(1, -1, 1, *x.shape[1:])
            x = x[..., None] if kind.shape == "row" else x
            known[n] = x.unsqueeze(3) if kind.shape == "column" else x
    return known


def start(
    code: StepLoop, q: Tensor, v: Tensor, state: Mapping[str, Tensor] | None
) -> Mapping[str, Tensor]:
    """The states before the first token, `[B, H, *]`: as given, or zeros."""
    if state is not None:
        return state
    shapes = state_shapes(code.loop, q, v)
    return {name: q.new_zeros(shape, dtype=wide(q.dtype)) for name, shape in shapes.items()}


def finished(v: Tensor, outputs: Tensor, states: Mapping[str, Tensor]) -> Outputs:
    """Outputs as they are returned, `[B, T, H, V]`, and states of their own memory."""
    batch, tokens, heads, width = v.shape
    whole = outputs.expand(batch, heads, tokens, width).transpose(1, 2).to(v.dtype)
    return whole.contiguous(), State({name: x.clone() for name, x in states.items()}, {})
