"""What the kernels are compared with: a float64 recurrence, and plain PyTorch in the same dtype.

A kernel passes if its error against the float64 recurrence is at most twice that of the plain form,
plus 4 units in the last place of float32 (4 · 2^-23), each relative to the largest entry. In
float64, where nothing is plainer, at most 1e-13. Outputs, final states and every gradient count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOOR = 4 * 2.0**-23
FLOAT64 = 1e-13
NAMES = ("q", "k", "v", "eta", "alpha", "w", "m")
Inputs = dict[str, Tensor]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One call. `mode` is additive, decay or momentum; gates: random, zero, one, tiny or mixed."""

    mode: str
    T: int
    K: int
    V: int
    dtype: torch.dtype = torch.float32
    gates: str = "random"
    exclusive: bool = False
    segments: int | None = None
    initial: bool = True
    strided: bool = False
    B: int = 1
    H: int = 2
    scale: float = 0.25

    def inputs(self, seed: int = 0) -> Inputs:
        """Leaves that want gradients, drawn with the seed."""
        draw = torch.Generator().manual_seed(seed)
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        tokens = (self.B, self.T, self.H)

        def normal(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            shape = (*shape[:-1], 2 * shape[-1]) if self.strided else shape
            x = torch.randn(shape, generator=draw, dtype=torch.float64).to(DEVICE, dtype)
            return x[..., ::2] if self.strided else x

        def numbers() -> Tensor:
            x = torch.rand(tokens, generator=draw, dtype=torch.float64)
            kinds = {
                "random": x,
                "zero": 0 * x,
                "one": 0 * x + 1,
                "tiny": 1e-6 * x,
                "mixed": torch.where(x < 0.2, 0, torch.where(x > 0.5, 1, x)),
            }
            return kinds[self.gates].to(DEVICE, wide)

        made = {
            "q": normal(*tokens, self.K),
            "k": normal(*tokens, self.K),
            "v": normal(*tokens, self.V),
        }
        made |= {"alpha": numbers()} if self.mode != "additive" else {}
        made |= {"eta": numbers()} if self.mode == "momentum" else {}
        for name in ("w", "m") if self.mode == "momentum" else ("m",):
            if self.initial:
                made[name] = normal(self.B, self.H, self.K, self.V, dtype=wide)
        return {name: x.detach().requires_grad_() for name, x in made.items()}


def recurrence(case: Case, x: Inputs) -> Outputs:
    """Token by token, as the loop is defined."""
    shape = (case.B, case.H, case.K, case.V)
    zero = torch.zeros(shape, dtype=torch.float64, device=DEVICE)
    w, m, o = x.get("w", zero), x.get("m", zero), []
    for t in range(case.T):
        before = w if case.mode == "momentum" else m
        a = x["alpha"][:, t, :, None, None] if "alpha" in x else 1.0
        m = a * m + x["k"][:, t, :, :, None] * x["v"][:, t, :, None, :]
        if case.mode == "momentum":
            w = w + x["eta"][:, t, :, None, None] * m
        state = before if case.exclusive else (w if case.mode == "momentum" else m)
        o.append(case.scale * torch.einsum("bhk,bhkv->bhv", x["q"][:, t], state))
    outputs = {"o": torch.stack(o, dim=1), "m_last": m}
    return outputs | ({"w_last": w} if case.mode == "momentum" else {})


def plain(case: Case, x: Inputs) -> Outputs:
    """Masked attention over the whole sequence, products and sums in the dtype of q."""
    q, k, v = (x[name].transpose(1, 2) for name in "qkv")
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    t, i = torch.arange(case.T, device=DEVICE)[:, None], torch.arange(case.T, device=DEVICE)
    a = x["alpha"].transpose(1, 2)[..., None] if "alpha" in x else q.new_ones(1, dtype=wide)
    ones = torch.ones(case.T, case.T, dtype=wide, device=DEVICE)
    mask = torch.where(t > i, a * ones, 1.0).cumprod(-2) * (t >= i)
    reach = (a * ones[:, :1]).cumprod(-2)
    to_m, whole = mask[..., -1, :, None], reach[..., -1:, :]
    if case.mode == "momentum":
        eta = x["eta"].transpose(1, 2)[..., None]
        mask, reach = (eta * mask).cumsum(-2), (eta * reach).cumsum(-2)
    to_w, weight = mask[..., -1, :, None], reach[..., -1:, :]
    if case.exclusive:
        mask = torch.cat([torch.zeros_like(mask[..., :1, :]), mask[..., :-1, :]], dim=-2)
        first = torch.zeros_like if case.mode == "momentum" else torch.ones_like
        reach = torch.cat([first(reach[..., :1, :]), reach[..., :-1, :]], dim=-2)
    m = x.get("m", torch.zeros(case.B, case.H, case.K, case.V, dtype=wide, device=DEVICE))
    w = x.get("w", torch.zeros_like(m))
    o = (q @ k.mT * mask.to(q.dtype)) @ v + reach.to(q.dtype) * (q @ m.to(q.dtype))
    if case.mode == "momentum":
        o = o + q @ w.to(q.dtype)
    last = {"m_last": whole * m + k.mT @ (to_m.to(q.dtype) * v)}
    if case.mode == "momentum":
        last["w_last"] = w + weight * m + k.mT @ (to_w.to(q.dtype) * v)
    return {"o": (case.scale * o).transpose(1, 2), **last}


def run(kernels: Any, case: Case, x: Inputs) -> Outputs:
    """The operator of `kernels`, which has `linear_attention` and `momentum_attention`."""
    options = {
        "scale": case.scale,
        "exclusive": case.exclusive,
        "segments": case.segments,
        "output_final_state": True,
    }
    if case.mode == "momentum":
        first = (x["w"], x["m"]) if case.initial else None
        o, (w, m) = kernels.momentum_attention(
            x["q"], x["k"], x["v"], x["eta"], x["alpha"], initial_state=first, **options
        )
        return {"o": o, "m_last": m, "w_last": w}
    o, m = kernels.linear_attention(
        x["q"], x["k"], x["v"], decay=x.get("alpha"), initial_state=x.get("m"), **options
    )
    return {"o": o, "m_last": m}


def with_gradients(form: Callable[[Inputs], Outputs], x: Inputs, seed: int = 1) -> Outputs:
    """The outputs of a form, and the gradients of their sum, weighted at random, in every input."""
    outputs = form(x)
    draw = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(y.shape, generator=draw, dtype=torch.float64).to(y.dtype).to(y)
        for name, y in sorted(outputs.items())
    }
    total = [outputs[name] for name in weights]
    gradients = torch.autograd.grad(total, list(x.values()), list(weights.values()))
    return outputs | {f"d{name}": g for name, g in zip(x, gradients, strict=True)}


def error(got: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest entry; infinite for what is not a number."""
    if got.shape != exact.shape or not got.isfinite().all():
        return float("inf")
    difference = (got.double() - exact).abs().max().item()
    return difference / max(exact.abs().max().item(), 1e-300) if difference else 0.0


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that nothing was written to holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # which fills `torch.empty`
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def failures(kernels: Any, case: Case, seed: int = 0) -> dict[str, tuple[float, float]]:
    """By name, error and allowance of every output and gradient that is too far off."""
    x = case.inputs(seed)
    exact_inputs = {name: y.detach().double().requires_grad_() for name, y in x.items()}
    exact = with_gradients(lambda y: recurrence(case, y), exact_inputs)
    with poisoned():
        got = with_gradients(lambda y: run(kernels, case, y), x)
    reference = with_gradients(lambda y: plain(case, y), x)
    found = {}
    for name, y in exact.items():
        allowed = 2 * error(reference[name], y) + FLOOR
        allowed = FLOAT64 if case.dtype == torch.float64 else allowed
        if not (off := error(got[name], y)) <= allowed:
            found[name] = (off, allowed)
    return found
