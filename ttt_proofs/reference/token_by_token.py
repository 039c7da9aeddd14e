"""The oracle for a recurrence: the function that it was made of, run token by token, in float64.

It knows nothing of what was read off the function. The function is called on one token of one
sequence of one head at a time; `torch.vmap` makes these calls at once where it can.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ttt_proofs.loops import Recurrence

from .arguments import EXTRA, Coefficients, shown
from .by_autograd import TOLD, Each, of_shape


def run_recurrence(
    layer: Recurrence,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    coefficients: Coefficients | None = None,
    initial_state: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The outputs `[B, T, H, V]` and the final states `[B, H, *]` of a recurrence, by running it.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`; coefficients: by name, of the loop one number, of each
    token `[B, T, H]`, those of rows, columns or entries with these after H. initial_state: each
    state `[B, H, *]`; zeros if left out. All is converted to float64; so are the results. Gradients
    flow from the results to every argument that requires them. Raises `ValueError` where the layer
    has lost its function or calls unknown ones, and for names and shapes that do not match.

    By hand, S ← ½ S + k v with k = 1, 2; v = 3, 1; q = 1: S becomes 3, then 3/2 + 2.

    >>> from ttt_proofs.loops import Coefficient
    >>> def step(S, q, k, v, *, a): return a * S + k[:, None] * v, q @ (a * S + k[:, None] * v)
    >>> layer = Recurrence(step, {"S": ("K", "V")}, {"a": Coefficient()})
    >>> q, k, v = (torch.tensor(x).view(1, 2, 1, 1) for x in ([1., 1.], [1., 2.], [3., 1.]))
    >>> o, final = run_recurrence(layer, q, k, v, coefficients={"a": 0.5})
    >>> o.flatten().tolist(), final["S"].item()
    ([3.0, 3.5], 3.5)
    """
    if layer.function is None:
        raise ValueError(
            f"`step` must be a function for an oracle to run the layer; got {layer!r}, a copy "
            "without it. Make the layer from its code."
        )
    sizes = check(layer, q, k, v, coefficients or {})
    batch, length, heads, _ = q.shape
    tokens = {n: each(x, q) for n, x in {"q": q, "k": k, "v": v}.items()}
    numbers = {}
    for name, kind in layer.coefficients.items():
        x = torch.as_tensor((coefficients or {})[name], dtype=torch.float64, device=q.device)
        wide = x if kind.every == "token" else x.expand(batch, length, heads, *x.shape[1:])
        numbers[name] = each(wide, q)[TOLD.get(kind.shape, ...)]
    states = beginning(layer, initial_state, q, sizes)
    step, names, outputs = Each(called(layer, list(states), list(tokens))), list(states), []
    for token in range(length if batch * heads else 0):
        here = [x[token] for x in tokens.values()]
        each_number = {name: x[token] for name, x in numbers.items()}
        made = step(*states.values(), *here, **each_number)
        shapes = [list(states[name].shape[1:]) for name in names] + [[sizes["V"]]]
        *after, out = of_shape("step", made, shapes)
        states = dict(zip(names, after, strict=True))
        outputs.append(out)
    found = torch.stack(outputs, 1) if outputs else v.new_zeros(batch * heads, length, v.shape[3])
    final = {name: x.unflatten(0, (batch, heads)) for name, x in states.items()}
    return found.to(torch.float64).unflatten(0, (batch, heads)).transpose(1, 2).contiguous(), final


def called(layer: Recurrence, states: list[str], tokens: list[str]):
    """The step as a function of the states and the token in order, with coefficients by name."""

    def function(*items: Tensor, **numbers: Tensor) -> tuple[Tensor, ...]:
        held = dict(zip(states, items, strict=False))
        here = dict(zip(tokens, items[len(states) :], strict=True))
        after, out = layer.called(held, here, numbers)
        return (*after.values(), out)

    return function


def each(x: Tensor, q: Tensor) -> Tensor:
    """`[B, T, H, *]` as `[T, B H, *]`, in float64."""
    return x.to(q.device, torch.float64).transpose(0, 1).flatten(1, 2)


def beginning(
    layer: Recurrence, given: Mapping[str, Tensor] | None, q: Tensor, sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """The states at the start, `[B H, *]`."""
    if given is not None and set(given) != set(layer.states):
        raise ValueError(
            f"`initial_state` must have {', '.join(layer.states)}; got {shown(given)}. Pass each."
        )
    found = {}
    for name, axes in layer.states.items():
        wanted = (len(q), q.shape[2], *(sizes[axis] for axis in axes))
        x = q.new_zeros(wanted) if given is None else given[name]
        if tuple(x.shape) != wanted:
            raise ValueError(
                f"`initial_state[{name!r}]` must be {list(wanted)}; got {shown(x)}. Reshape it."
            )
        found[name] = x.to(torch.float64).flatten(0, 1)
    return found


def check(
    layer: Recurrence, q: Tensor, k: Tensor, v: Tensor, coefficients: Coefficients
) -> dict[str, int]:
    """The widths; `ValueError` for names and shapes that do not match."""
    ranks = [x.ndim if isinstance(x, Tensor) else None for x in (q, k, v)]
    if ranks != [4, 4, 4] or k.shape != q.shape or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "`q`, `k`, `v` must be [B, T, H, K], [B, T, H, K], [B, T, H, V]; got "
            f"{', '.join(map(shown, (q, k, v)))}. Reshape them."
        )
    if not isinstance(coefficients, Mapping) or set(coefficients) != set(layer.coefficients):
        raise ValueError(
            f"`coefficients` must be a dict of {', '.join(layer.coefficients) or 'nothing'}; got "
            f"{shown(coefficients)}. Give each by its name."
        )
    sizes = {"K": q.shape[3], "V": v.shape[3]}
    for name, kind in layer.coefficients.items():
        own = [sizes[layer.sides[axis]] for axis in EXTRA[kind.shape]]
        first = list(q.shape[:3]) if kind.every == "token" else [q.shape[2]] if own else []
        x = coefficients[name]
        if list(x.shape if isinstance(x, Tensor) else ()) != [*first, *own]:
            raise ValueError(
                f"`coefficients[{name!r}]` must be {[*first, *own] or 'one number'}, one for each "
                f"{kind.every}; got {shown(x)}. Reshape it."
            )
    return sizes
