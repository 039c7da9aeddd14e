"""Recurrences on tensors: token after token, or as scans of their states' entries.

Both work out the operations that were read off the step, for a token or for all at once. Outside,
q, k `[B, T, H, K]`, v `[B, T, H, V]`; inside, heads before time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..loops.recurrence import Recurrence
from ..program.operations import Abstract
from ..program.steps import FUNCTIONS, SINGLE, Axes, Contraction, Operation, View
from ..symbolic.plan import TILE, NotParallelError
from ..symbolic.step_maps import Mapped
from ..symbolic.step_plan import Scanned, step_plan
from .inputs import (
    Coefficients,
    check_layout,
    check_number,
    check_shape,
    check_tensor,
    check_tile,
    listed,
    shown,
    wide,
)
from .maps import Along, by_tile, fold
from .maps import scan as scan_maps
from .states import scan_entries

Known = dict[int, Tensor]
States = Mapping[str, Tensor]
Result = tuple[Tensor, dict[str, Tensor]]


def recurrent(
    layer: Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    coefficients: Coefficients | None = None,
    initial_state: States | None = None,
) -> Result:
    """Outputs `[B, T, H, V]` and the final states, token after token.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, all of one floating dtype. coefficients: exactly those of
    `layer.coefficients`, by name: of the loop a number, of each token `[B, T, H]`; those of rows,
    columns or entries have these sizes after H. The final states are a dict of `[B, H, *]` by name,
    in float32 or float64; given as `initial_state`, the next tokens go on from there; without it,
    states begin with zeros. Raises `ValueError` or `TypeError` in one sentence if shapes, dtypes or
    numbers are off, `ValueError` where the step has unknown functions.
    """
    start = checked(layer, q, k, v, coefficients, initial_state)
    operations, step = layer.traced.operations, layer.traced
    given = data(layer, operations, q, k, v, coefficients or {})
    roots = [*(n for _, n in step.states), step.output]
    ahead = before_states(operations, roots, given)
    places = {name: n for n, name in step.old.items()}
    states, outputs = dict(start), []
    for token in range(q.shape[1]):
        known = {n: x[:, :, min(token, x.shape[2] - 1)] for n, x in ahead.items()}
        known |= {places[name]: x for name, x in states.items() if name in places}
        outputs.append(value(operations, known, step.output, 2))
        after = {name: value(operations, known, n, 2) for name, n in step.states}
        states = {name: x.expand_as(states[name]) for name, x in after.items()}
    return finished(v, torch.stack(outputs, 2) if outputs else None, states)


def parallel_form(
    layer: Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    coefficients: Coefficients | None = None,
    initial_state: States | None = None,
    tile: int = TILE,
    along: Along | None = None,
) -> Result:
    """The same outputs and final states by scans, with a state for each token.

    Where a state goes through no matrix, each entry is scanned by itself; otherwise maps of whole
    columns (or rows) are, which takes K times the work. Within about `tile` tokens states are found
    at once; from one tile to the next `along` combines affine maps. Raises `NotParallelError`, with
    the cause, where the plan has no scans; otherwise as `recurrent`.
    """
    plan = step_plan(layer)
    if not plan.scans:
        raise NotParallelError(f"{plan.plan.reason}, so it runs token by token. Use `recurrent`.")
    check_tile(tile)
    start = checked(layer, q, k, v, coefficients, initial_state)
    known = data(layer, plan.operations, q, k, v, coefficients or {})
    if not q.shape[1]:
        return finished(v, None, start)
    step, states = layer.traced, {}
    places = {name: n for n, name in step.old.items()}
    lead = (len(q), q.shape[2], q.shape[1])
    carry = along or fold
    for scan in plan.scans:
        given = (start[scan.state], lead, tile, carry)
        if isinstance(scan, Scanned):
            before, after = scanned(plan.operations, known, scan, *given)
        else:
            before, after = mapped(plan.operations, known, scan, *given)
        if scan.state in places:
            known[places[scan.state]] = before
        known |= {n: after for n, name in step.made.items() if name == scan.state}
        states[scan.state] = after[:, :, -1]
    return finished(v, value(plan.operations, known, step.output, 3), states)


def scanned(
    operations: Sequence[Operation],
    known: Known,
    scan: Scanned,
    start: Tensor,
    lead: tuple[int, int, int],
    tile: int,
    along: Along,
) -> tuple[Tensor, Tensor]:
    """A state before and after each token, `[B, H, T, *]`."""
    sides = (*start.shape[2:], 1, 1)[:2]  # a vector is a matrix of one column

    def matrix(x: Tensor, axes: int) -> Tensor:
        """A value of that many axes with the axes of the state, then as a matrix."""
        x = x[(slice(None),) * 3 + (None,) * (start.ndim - 2 - axes)]
        return x.reshape(*x.shape, *[1] * (4 - start.ndim))

    a = value(operations, known, scan.factor, 3)
    a = matrix(a, len(operations[scan.factor].axes))
    b = start.new_zeros(())
    if scan.shift is not None:
        b = matrix(value(operations, known, scan.shift, 3), len(operations[scan.shift].axes))
    b = b.expand(*lead, *sides)[:, :, :, None]
    first = start.reshape(*lead[:2], 1, *sides)
    before, final = scan_entries(a[..., None, None], b, first, min(tile, lead[2]), along)
    after = torch.cat([before[:, :, 1:], final[:, :, None]], dim=2)
    return tuple(x.reshape(*lead, *start.shape[2:]) for x in (before, after))  # pyright: ignore


def mapped(
    operations: Sequence[Operation],
    known: Known,
    scan: Mapped,
    start: Tensor,
    lead: tuple[int, int, int],
    tile: int,
    along: Along,
) -> tuple[Tensor, Tensor]:
    """A state that goes through a matrix, before and after each token, `[B, H, T, *]`.

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
    a = value(operations, several, scan.linear, 4)
    if scan.apart is not None:
        a = a.select(4 + scan.apart, 0)
    a = a.reshape(*a.shape[:3], count, count).mT.expand(*lead, count, count)
    b = start.new_zeros(())
    if scan.shift is not None:
        b = value(operations, known, scan.shift, 3)
        b = b[(slice(None),) * 3 + (None,) * (len(sizes) - len(operations[scan.shift].axes))]
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
    after = torch.cat([before[:, :, 1:], final[:, :, None]], dim=2)
    back = (x.mT if turned else x.reshape(*lead, *sizes) for x in (before, after))
    return tuple(back)  # pyright: ignore[reportReturnType]


def scanned_in_tiles(
    a: Tensor, b: Tensor, start: Tensor, tile: int, along: Along
) -> tuple[Tensor, Tensor]:
    """The states before each map and after all: a parallel scan in each tile, `along` the tiles."""
    count = b.shape[-3]
    gates, shifts = scan_maps(*by_tile(a, b, min(tile, count)))
    first, final = along(gates[..., -1, :, :], shifts[..., -1, :, :], start)
    after = gates @ first[..., None, :, :] + shifts
    before = torch.cat([first[..., None, :, :], after[..., :-1, :, :]], dim=-3)
    return before.flatten(-4, -3)[..., :count, :, :], final


def before_states(operations: Sequence[Operation], roots: Sequence[int], given: Known) -> Known:
    """What data alone give of what is asked for, for all tokens at once: vectors and numbers.

    Matrices are left, for one of each token takes more room than it saves time.
    """
    known, moving = dict(given), set()
    for n, operation in enumerate(operations):
        if operation.does == "state" or moving.intersection(operation.args):
            moving.add(n)
        elif sum(axis != SINGLE for axis in operation.axes) < 2:
            value(operations, known, n, 3)
    read = {a for n, op in enumerate(operations) if n not in given for a in op.args} | set(roots)
    return {n: x for n, x in known.items() if n in read}


def value(operations: Sequence[Operation], known: Known, n: int, lead: int) -> Tensor:
    """The value of an operation, after `lead` leading dimensions; added to what is known."""
    if n not in known:
        operation = operations[n]
        args = [value(operations, known, a, lead) for a in operation.args]
        axes = [operations[a].axes for a in operation.args]
        known[n] = made(operation, args, axes, lead)
    return known[n]


def made(operation: Operation, args: list[Tensor], axes: list[Axes], lead: int) -> Tensor:
    """What an operation makes of its arguments, after `lead` leading dimensions."""
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
    row = does if isinstance(does, Abstract) else FUNCTIONS[does]
    return row.run(torch, args[0])


def data(
    layer: Recurrence,
    operations: Sequence[Operation],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    coefficients: Coefficients,
) -> Known:
    """Tokens, coefficients and numbers by the numbers of their operations, `[B, H, T, *]`."""
    tokens, known, dtype = {"q": q, "k": k, "v": v}, {}, wide(q.dtype)
    for n, operation in enumerate(operations):
        if operation.does == "data":
            known[n] = tokens[operation.label].to(dtype).transpose(1, 2)
        elif operation.does == "number":
            known[n] = q.new_full((1, 1, 1), float(operation.factor), dtype=dtype)
        elif operation.does == "coefficient":
            kind = layer.coefficients[operation.label]
            x = torch.as_tensor(coefficients[operation.label], dtype=dtype, device=q.device)
            x = x.transpose(1, 2) if kind.every == "token" else x.reshape(1, -1, 1, *x.shape[1:])
            x = x[..., None] if kind.shape == "row" else x
            known[n] = x.unsqueeze(3) if kind.shape == "column" else x
    return known


def finished(v: Tensor, outputs: Tensor | None, states: States) -> Result:
    """Outputs as they are returned, `[B, T, H, V]`, and a state of its own memory."""
    own = {name: x.clone() for name, x in states.items()}
    if outputs is None:
        return torch.zeros_like(v), own
    batch, tokens, heads, width = v.shape
    whole = outputs.expand(batch, heads, tokens, width).transpose(1, 2).to(v.dtype)
    return whole.contiguous(), own


def checked(
    layer: Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    coefficients: Coefficients | None,
    initial_state: States | None,
) -> dict[str, Tensor]:
    """The states at the start, `[B, H, *]`; raises unless the layer can run on these inputs."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tensor(name, x, q)
    check_layout(q, k, v)
    sizes = {"K": k.shape[3], "V": v.shape[3]}
    given = {} if coefficients is None else coefficients
    if not isinstance(given, Mapping) or set(given) != set(layer.coefficients):
        got = listed(given) if isinstance(given, Mapping) else shown(given)
        raise ValueError(
            f"`coefficients` must have {listed(layer.coefficients)}; got {got}. Pass one for each, "
            "and no others."
        )
    batch, tokens, heads, _ = q.shape
    for name, kind in layer.coefficients.items():
        own = tuple(sizes[axis] for axis in layer.axes(name) if axis != SINGLE)
        first = (batch, tokens) if kind.every == "token" else ()
        if first or own:
            check_shape(
                f"coefficients[{name!r}]", given[name], kind.every, (*first, heads, *own), q
            )
        else:
            check_number(f"coefficients[{name!r}]", given[name], q)
    shapes = {
        name: (batch, heads, *(sizes[axis] for axis in axes)) for name, axes in layer.states.items()
    }
    if initial_state is None:
        return {n: q.new_zeros(shape, dtype=wide(q.dtype)) for n, shape in shapes.items()}
    return check_start(initial_state, shapes, q)


def check_start(
    state: States, shapes: Mapping[str, tuple[int, ...]], q: Tensor
) -> dict[str, Tensor]:
    """The states that a run is given, each as it must be."""
    if not isinstance(state, Mapping) or set(state) != set(shapes):
        got = listed(state) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"`initial_state` must have {listed(shapes)}; got {got}. Pass a state of this layer."
        )
    like = q.new_zeros((), dtype=wide(q.dtype))
    for name, shape in shapes.items():
        check_tensor(f"initial_state[{name!r}]", state[name], like)
        if tuple(state[name].shape) != shape:
            raise ValueError(
                f"`initial_state[{name!r}]` must be {shape}; got {tuple(state[name].shape)}. Pass "
                "a state of the same batch."
            )
    return dict(state)
