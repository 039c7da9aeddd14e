"""LaCT and its six simplifications: each is one change to the one before."""

from dataclasses import fields, replace

import pytest

from ttt_proofs.loops import (
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SwiGLU,
    lact,
    ladder,
)

NAMES = ["baseline", "v1", "v2", "v3", "v4", "v5", "v6"]

# Table 2: what each step changes, and to what.
STEPS = [
    ("v1", "trained", "all", "last"),
    ("v2", "weight_norm", "initial_norm", None),
    ("v3", "net", SwiGLU(), Linear()),
    ("v4", "rate", "per_token", None),
    ("v5", "momentum", "per_token", None),
    ("v6", "orthogonal", "muon", None),
]


def flat(loop: InnerLoop) -> dict:
    """The loop's choices by name."""
    made = ("update", "rule", "coefficients", "loss_weights")  # of the others
    return {
        f.name: getattr(part, f.name)
        for part in (loop, loop.update)
        for f in fields(part)
        if f.name not in made
    }


def test_lact_is_as_the_paper_has_it():
    loop = lact()
    assert loop.net == SwiGLU("silu") and loop.loss == Frobenius()
    assert loop.update == GradientStep(
        rate="per_token",
        place="inside",
        momentum="per_token",
        ascent=False,
        clip=None,
        orthogonal="muon",
        weight_norm="initial_norm",
    )
    assert loop.trained == "all"
    assert loop.schedule.read == "before_update"  # as released; the appendix reads after
    assert lact(Schedule(3)).schedule == Schedule(3)
    assert replace(lact(Schedule(3)), schedule=loop.schedule) == loop


@pytest.mark.parametrize("schedule", [None, Schedule(2048, "before_update"), Schedule(4)])
def test_each_step_is_one_change(schedule):
    loops = ladder(schedule)
    assert list(loops) == NAMES and loops["baseline"] == lact(schedule)
    for (name, field, old, new), before in zip(STEPS, NAMES, strict=False):
        one, other = flat(loops[before]), flat(loops[name])
        assert {key for key in one if one[key] != other[key]} == {field}, name
        assert (one[field], other[field]) == (old, new)
    assert len({loop.schedule for loop in loops.values()}) == 1


def test_the_last_step_is_linear_attention():
    """`W ← W + kᵀv`: no rate, no momentum, no operator, no norm, a linear net."""
    loop = ladder()["v6"]
    plain = GradientStep(rate=None)
    assert loop == InnerLoop(Linear(), Frobenius(), plain, lact().schedule, trained="last")
