"""What `run_loop` is given: refused in one sentence, or brought to the shapes of a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ttt_proofs.loops import InnerLoop

from .nets import ENTRYWISE, FORWARD, LOSS, Weights, shapes, trained
from .rule import CLIPS, NORMS, OPERATORS

Rate = float | Tensor | Mapping[str, Tensor] | None


def rates(loop: InnerLoop, rate: Rate, q: Tensor) -> Tensor | Weights | float:
    """The rate in float64: `[B, H, N]`, for each weight `[B, H, T]`, or 1 where there is none."""
    kind = loop.update.rate
    _whether_given("rate", kind, rate)
    if kind is None:
        return 1.0
    if kind != "per_token":
        return _scalars("rate", kind, rate, _steps(loop, q), q.device).transpose(1, 2)
    names = trained(loop)
    if not isinstance(rate, Mapping) or set(rate) != set(names):
        raise ValueError(
            "`rate` must be a dict with a tensor [B, T, H] for each of "
            f"{', '.join(names)}, for the loop's is per_token; got {_shown(rate)}. "
            "Give each trained weight its own."
        )
    given = {
        name: _scalars(f"rate[{name!r}]", kind, rate[name], q.shape[:3], q.device) for name in names
    }
    return {name: x.transpose(1, 2) for name, x in given.items()}


def momenta(loop: InnerLoop, momentum: float | Tensor | None, q: Tensor) -> Tensor | None:
    """The momentum of each step, `[B, H, N]` in float64; None where there is none."""
    kind, chunk = loop.update.momentum, loop.schedule.chunk
    _whether_given("momentum", kind, momentum)
    if kind is None:
        return None
    if kind != "per_token":
        return _scalars("momentum", kind, momentum, _steps(loop, q), q.device).transpose(1, 2)
    each = _scalars("momentum", kind, momentum, q.shape[:3], q.device)
    starts = range(0, q.shape[1], chunk)
    means = [each[:, start : start + chunk].mean(1, keepdim=True) for start in starts]
    return torch.cat([each[:, :0], *means], dim=1).transpose(1, 2)


def _steps(loop: InnerLoop, q: Tensor) -> torch.Size:
    """`[B, N, H]`: how many chunks there are."""
    batch, length, heads, _ = q.shape
    return torch.Size((batch, -(-length // loop.schedule.chunk), heads))


def _whether_given(name: str, kind: str | None, value: object) -> None:
    """Raise ValueError unless there is a value where, and only where, the loop wants one."""
    if (value is None) != (kind is None):
        need = "given, for the loop has one" if value is None else "None, for the loop has none"
        raise ValueError(
            f"`{name}` must be {need}; got {_shown(value)}. Change it, or the loop's GradientStep."
        )


def _scalars(
    name: str, kind: str, value: object, shape: torch.Size, device: torch.device
) -> Tensor:
    """A number, or a tensor of that shape, as a float64 tensor of that shape."""
    wanted = () if kind == "constant" else shape
    number = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    if not number or (value.shape if isinstance(value, Tensor) else ()) != wanted:
        axes = "[B, T, H]" if kind == "per_token" else "[B, N, H]"
        need = "one number" if kind == "constant" else f"a tensor {axes} = {list(shape)}"
        raise ValueError(
            f"`{name}` must be {need}, for the loop's is {kind}; got "
            f"{_shown(value)}. Reshape it, or change GradientStep."
        )
    return torch.as_tensor(value, dtype=torch.float64, device=device).expand(shape)


def check(loop: InnerLoop, q: Tensor, k: Tensor, v: Tensor, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the loop can be run, and names and shapes match."""
    net = loop.net
    _can_be_run(loop)
    ranks = [x.ndim if isinstance(x, Tensor) else None for x in (q, k, v)]
    if ranks != [4, 4, 4] or k.shape != q.shape or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "`q`, `k`, `v` must be [B, T, H, K], [B, T, H, K], [B, T, H, V]; got "
            f"{', '.join(map(_shown, (q, k, v)))}. Reshape them."
        )
    if net.tokens:
        if v.shape != q.shape:
            raise ValueError(
                "`q`, `k`, `v` must have the same channels for a convolution; got "
                f"{', '.join(map(_shown, (q, k, v)))}. Reshape them."
            )
        if q.shape[1] % net.tokens:
            raise ValueError(
                f"`q`, `k`, `v` must hold whole images, T a multiple of {net.tokens}; "
                f"got T = {q.shape[1]}. Pad or cut them."
            )
    wanted = shapes(net, q.shape[3], v.shape[3], weights)
    if set(weights) != set(wanted):
        raise ValueError(
            f"`weights` must be named {', '.join(wanted)}; got "
            f"{', '.join(weights) or 'none'}. Rename them."
        )
    for name, shape in wanted.items():
        if list(weights[name].shape) != [q.shape[2], *shape]:
            raise ValueError(
                f"`weights[{name!r}]` must be [H, rows, cols] = "
                f"{[q.shape[2], *shape]} to match q, k, v and the other weights; got "
                f"{_shown(weights[name])}. Reshape it."
            )


def _can_be_run(loop: InnerLoop) -> None:
    """Raise ValueError for what is abstract, or has a bias."""
    net, rule = loop.net, loop.update
    _known("net", net, type(net), {kind: kind.__name__ for kind in FORWARD})
    _known("loss", loop.loss, type(loop.loss), {kind: kind.__name__ for kind in LOSS})
    for field in ("activation", "output_activation"):
        name = getattr(net, field, "identity")
        _known(field, name, name, {known: known for known in ENTRYWISE})
    for field, table in (("clip", CLIPS), ("orthogonal", OPERATORS), ("weight_norm", NORMS)):
        name = getattr(rule, field)
        _known(field, name, name, {None: "None", **{known: known for known in table}})
    if getattr(net, "bias", False):
        raise ValueError(
            "`bias` must be False for a loop to be run, for its weights name no bias; "
            f"got {net!r}. Drop the bias."
        )


def _known(field: str, value: object, key: object, table: Mapping[object, str]) -> None:
    """Raise ValueError unless the key is one that can be run."""
    if key not in table:
        raise ValueError(
            f"`{field}` must be one of {', '.join(table.values())} for a loop to be "
            f"run; got {value!r}. Put one of these in its place."
        )


def _shown(value: object) -> str:
    """A tensor by its shape, a dict by its names, anything else as it is written."""
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    return str(list(value.shape)) if isinstance(value, Tensor) else repr(value)
