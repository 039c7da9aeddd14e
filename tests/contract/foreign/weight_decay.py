"""Weight decay: what is stored fades, by one factor, or one for each row, or for each entry."""

from ttt_proofs.loops import Coefficient, Frobenius, InnerLoop, Linear, Update


def rule(W, g, *, keep, eta):
    return keep * W - eta * g


def decaying(shape):
    """A linear net that keeps so much of what it holds at every step."""
    given = {"keep": Coefficient("step", shape), "eta": Coefficient("step", range=(0.02, 0.3))}
    return InnerLoop(Linear(), Frobenius(), Update(rule), coefficients=given)


LOOPS = {shape: decaying(shape) for shape in ("scalar", "row", "entry")}
