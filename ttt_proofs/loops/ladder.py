"""LaCT, and the six steps from it to linear attention."""

from __future__ import annotations

from dataclasses import replace

from .loop import InnerLoop, Schedule
from .losses import Frobenius
from .nets import Linear
from .systems import SwiGLU
from .update import GradientStep


def lact(schedule: Schedule | None = None) -> InnerLoop:
    """LaCT's inner loop, by default read before each update, as released.

    Source: Section 5.3, Appendix E of arXiv 2602.21204.
    """
    update = GradientStep(
        rate="per_token",
        place="inside",
        momentum="per_token",
        orthogonal="muon",
        weight_norm="initial_norm",
    )
    return InnerLoop(SwiGLU(), Frobenius(), update, schedule or Schedule(read="before_update"))


def ladder(schedule: Schedule | None = None) -> dict[str, InnerLoop]:
    """The baseline and its six simplifications, each a change to the one before.

    Source: Section 6.1, Table 2.
    """

    def change(**fields: object) -> InnerLoop:
        last = steps[-1]
        return replace(last, update=replace(last.update, **fields))

    steps = [lact(schedule)]
    steps.append(replace(steps[-1], trained="last"))
    steps.append(change(weight_norm=None))
    steps.append(replace(steps[-1], net=Linear()))
    steps.append(change(rate=None))
    steps.append(change(momentum=None))
    steps.append(change(orthogonal=None))
    return dict(zip(("baseline", "v1", "v2", "v3", "v4", "v5", "v6"), steps, strict=True))
