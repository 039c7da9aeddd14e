"""The forms that the tests compare: small tiles, so that short sequences have several."""

from dataclasses import replace

import torch

from ttt_proofs.evidence.sampling import Inputs
from ttt_proofs.parallel import forms, maps
from ttt_proofs.parallel.forms import recurrent
from ttt_proofs.parallel.state import State


def way(name: str, form: str, **options):
    """A form with options, under a name; the form is looked up when it runs."""

    def run(*args, module=forms, **more):
        return getattr(module, form)(*args, **(options | more))

    run.__name__ = name
    return run


masked = way("masked", "chunked", tile=10**6)  # one tile for all
tiled = way("tiled", "chunked", tile=6)  # two chunks of three
stepwise = way("stepwise", "chunked", tile=1)
scanned = way("scanned", "chunked", tile=2, along=maps.scanned)
composed = way("composed", "composed", tile=4)
CHUNKED = [masked, tiled, stepwise, scanned]


def changed(x: Inputs, **numbers) -> Inputs:
    """The inputs with some coefficients changed, by a function or to a value."""
    new = {n: y(x.coefficients[n]) if callable(y) else y for n, y in numbers.items()}
    return replace(x, coefficients=x.coefficients | new)


def tensors(x: Inputs) -> dict[str, torch.Tensor]:
    """Every tensor of the inputs, by name."""
    found = {"q": x.q, "k": x.k, "v": x.v}
    found |= {f"weight {n}": w for n, w in x.weights.items()}
    found |= {n: y for n, y in x.coefficients.items() if isinstance(y, torch.Tensor)}
    return found


def leaves(x: Inputs) -> list[torch.Tensor]:
    """Every tensor of the inputs, with a gradient to come."""
    return [y.requires_grad_() for y in tensors(x).values()]


def entries(state: State) -> list[torch.Tensor]:
    """Every tensor of a state."""
    return [y for part in state.parts.values() for y in part.values()]


def cut(loop, x: Inputs, start: int, stop: int, *, begun: bool = False) -> Inputs:
    """Some tokens, with the numbers of the chunks that they touch, or that begin with them."""
    chunk = loop.schedule.chunk
    first = -(-start // chunk) if begun else start // chunk
    along = {"token": slice(start, stop), "step": slice(first, -(-stop // chunk))}
    numbers = {
        n: x.coefficients[n][:, along[c.every]] if c.every in along else x.coefficients[n]
        for n, c in loop.coefficients.items()
    }
    return Inputs(*(y[:, start:stop] for y in (x.q, x.k, x.v)), x.weights, numbers)


__all__ = [
    "CHUNKED",
    "changed",
    "composed",
    "cut",
    "entries",
    "leaves",
    "masked",
    "recurrent",
    "scanned",
    "stepwise",
    "tensors",
    "tiled",
]
