"""Losses of higher degree: their gradients are not affine in the state."""

from ttt_proofs.loops import GradientStep, InnerLoop, Linear


def cubic(f, v):
    return ((f - v) ** 3).sum(-1) / 3


def quartic(f, v):
    return ((f - v) ** 4).sum(-1) / 4


LOOPS = {loss.__name__: InnerLoop(Linear(), loss, GradientStep()) for loss in (cubic, quartic)}
