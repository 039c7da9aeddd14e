"""A loop's definitions: iterated as they stand, they are the real loop; those of others are not."""

from dataclasses import replace

import numpy as np
import pytest

from tests.checker.build import at
from tests.symbolic.running import drawn, meaning, outputs
from ttt_proofs.checker.definitions import ONE
from ttt_proofs.checker.terms import Atom, rebuild
from ttt_proofs.loops import (
    GLU,
    MLP,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Schedule,
    SquaredError,
    SwiGLU,
    lact,
)
from ttt_proofs.symbolic import several_steps, theory


def agrees(loop: InnerLoop, x: dict, definitions, tail: tuple[int, ...] = (), name="o") -> bool:
    """Whether the definitions' outputs are those of the reference, at all indices."""
    expected, model = outputs(loop, x), meaning(loop, x, definitions)
    found = np.array([float(model.symbol(name, (*at, *tail))) for at in np.ndindex(expected.shape)])
    scale = np.abs(expected).max()
    return bool(np.abs(found - expected.flatten()).max() <= 1e-9 * scale)


PLAIN = GradientStep()
HELD = GradientStep("per_step", "outside", "per_step")
PAIR = Schedule(2)
CAUSAL = Schedule(2, "causal")
CONV = DepthwiseConv(3, 1, 2)
LACT = lact(PAIR)

LOOPS = {
    "linear": InnerLoop(Linear(), SquaredError(), PLAIN, PAIR),
    "before": InnerLoop(Linear(), SquaredError(), HELD, Schedule(2, "before_update")),
    "inside": InnerLoop(MLP(2), Frobenius(), replace(HELD, place="inside", ascent=True), PAIR),
    "no rate": InnerLoop(Linear(), SquaredError(), GradientStep(rate=None), PAIR),
    "per token": InnerLoop(MLP(2), SquaredError(), GradientStep("per_token", "inside"), PAIR),
    "momentum per token": InnerLoop(
        Linear(), Frobenius(), GradientStep(momentum="per_token"), Schedule(3)
    ),
    "key and negated": InnerLoop(
        Linear(), NegatedValues(SquaredError()), PLAIN, Schedule(2, read_with="key")
    ),
    "single": InnerLoop(MLP(2), SquaredError(), HELD, Schedule(single=True)),
    "causal": InnerLoop(Linear(), SquaredError(), PLAIN, CAUSAL),
    "causal, momentum": InnerLoop(SwiGLU(), SquaredError(), HELD, CAUSAL, trained="last"),
    "causal, per token": InnerLoop(
        Linear(), Frobenius(), GradientStep("per_token", "inside", "per_token", ascent=True), CAUSAL
    ),
    "glu": InnerLoop(GLU(), SquaredError(), HELD, PAIR),
    "conv": InnerLoop(CONV, SquaredError(), HELD, PAIR),
    "conv, causal": InnerLoop(CONV, Frobenius(), HELD, CAUSAL),
    "conv, clipped": InnerLoop(CONV, SquaredError(), GradientStep(clip="column_norm"), PAIR),
    "clip": InnerLoop(
        MLP(2), SquaredError(), GradientStep(place="inside", clip="column_norm"), PAIR
    ),
    "clip, momentum": InnerLoop(Linear(), SquaredError(), replace(HELD, clip="column_norm"), PAIR),
    "muon": InnerLoop(Linear(), SquaredError(), replace(PLAIN, orthogonal="muon"), PAIR),
    "muon, ascent": InnerLoop(
        Linear(), Frobenius(), replace(HELD, ascent=True, orthogonal="muon"), PAIR
    ),
    "weight norm": InnerLoop(MLP(2), Frobenius(), replace(HELD, weight_norm="initial_norm"), PAIR),
    "all": InnerLoop(
        Linear(),
        SquaredError(),
        GradientStep(
            "per_step",
            "outside",
            "constant",
            clip="column_norm",
            orthogonal="muon",
            weight_norm="initial_norm",
        ),
        PAIR,
    ),
    "lact": LACT,
    "lact, before": lact(Schedule(2, "before_update")),
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_definitions_are_the_loop(name):
    loop = LOOPS[name]
    assert agrees(loop, drawn(loop), theory.definitions(loop))


def changed(name: str, **fields) -> InnerLoop:
    """A loop with some fields of its update or schedule changed."""
    loop, rule = LOOPS[name], {k for k in fields if hasattr(PLAIN, k)}
    return replace(
        loop,
        update=replace(loop.update, **{k: fields[k] for k in rule}),
        schedule=replace(loop.schedule, **{k: fields[k] for k in fields.keys() - rule}),
    )


OTHERS = {
    "read": ("linear", changed("linear", read="before_update")),
    "causal or not": ("causal", changed("causal", read="after_update")),
    "query": ("linear", changed("linear", read_with="key")),
    "values": ("linear", replace(LOOPS["linear"], loss=NegatedValues(SquaredError()))),
    "ascent": ("lact", changed("lact", ascent=True)),
    "trained": ("lact", replace(LACT, trained="last")),
    "place": ("inside", changed("inside", place="outside")),
    "no clip": ("clip, momentum", changed("clip, momentum", clip=None)),
    "no muon": ("muon", changed("muon", orthogonal=None)),
    "no norm": ("weight norm", changed("weight norm", weight_norm=None)),
    "loss": ("glu", replace(LOOPS["glu"], loss=Frobenius())),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_definitions_of_another_loop_are_told_apart(name):
    mine, other = OTHERS[name]
    loop = LOOPS[mine]
    assert not agrees(loop, drawn(loop), theory.definitions(other))


def planted(definitions, name: str, change) -> tuple:
    """The definitions with one of them changed."""
    hit = [d for block in definitions for d in block if d.name == name]
    assert len(hit) == 1
    return tuple(tuple(change(d) if d.name == name else d for d in block) for block in definitions)


def over_atoms(node, change):
    """The node with each atom changed."""
    if isinstance(node, Atom):
        return change(node)
    return rebuild(node, lambda part: over_atoms(part, change))


def sooner(term):
    """Gates and accumulators as they were one step before."""

    def earlier(atom):
        if not atom.name.startswith(("N_", "M_")):
            return atom
        first = replace(atom.ix[0], shift=atom.ix[0].shift - 1)
        return replace(atom, ix=(first, *atom.ix[1:]))

    return over_atoms(term, earlier)


def renamed(term, old: str, new: str):
    """Another symbol for one."""
    return over_atoms(term, lambda a: replace(a, name=new) if a.name == old else a)


def transposed(term):
    """Who sees whom, the other way round."""
    return over_atoms(term, lambda a: replace(a, ix=a.ix[::-1]) if a.name == "visible" else a)


def crossed(term):
    """The first column's gradient for each of them."""
    return over_atoms(
        term, lambda a: replace(a, ix=(*a.ix[:-1], at(0))) if a.name.startswith("G_") else a
    )


FAULTS = {
    "norm gate one step late": ("weight norm", "W2", lambda d: replace(d, term=sooner(d.term))),
    "momentum starts at 1": ("before", "M_W", lambda d: replace(d, start=ONE)),
    "momentum starts at W_0": (
        "before",
        "M_W",
        lambda d: replace(d, start=theory.start(LOOPS["before"], LOOPS["before"].net.last)),
    ),
    "rates of another weight": (
        "per token",
        "G_W1",
        lambda d: replace(d, loss=renamed(d.loss, "eta_W1", "eta_W2")),
    ),
    "visible transposed": ("causal", "G_W_seen", lambda d: replace(d, loss=transposed(d.loss))),
    "clip on the wrong column": ("clip", "R_W2", lambda d: replace(d, term=crossed(d.term))),
    "muon of the step before": ("muon, ascent", "U_W", lambda d: replace(d, term=sooner(d.term))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_in_the_definitions_shows(name):
    which, symbol, change = FAULTS[name]
    loop = LOOPS[which]
    wrong = planted(theory.definitions(loop), symbol, change)
    assert wrong != theory.definitions(loop)
    assert not agrees(loop, drawn(loop), wrong)


STEPPED = {
    "linear": InnerLoop(Linear(), SquaredError(), GradientStep("per_step"), Schedule(2, steps=3)),
    "mlp": InnerLoop(MLP(2), Frobenius(), PLAIN, Schedule(2, steps=2)),
    "before": InnerLoop(
        SwiGLU(),
        SquaredError(),
        GradientStep(ascent=True),
        Schedule(2, "before_update", steps=2),
        trained="last",
    ),
    "per token": InnerLoop(
        SwiGLU(), SquaredError(), GradientStep("per_token", "inside"), Schedule(2, steps=2)
    ),
    "glu": InnerLoop(
        GLU(),
        NegatedValues(SquaredError()),
        GradientStep(rate=None),
        Schedule(1, read_with="key", steps=2),
    ),
    "conv": InnerLoop(
        CONV, SquaredError(), GradientStep("per_token", "inside"), Schedule(2, steps=2)
    ),
}


@pytest.mark.parametrize("name", STEPPED)
def test_the_definitions_with_more_steps_are_the_loop_and_no_others(name):
    """K is the last index of the outputs: K - 1 or K + 1 steps are another loop."""
    loop = STEPPED[name]
    found, x, steps = several_steps.definitions(loop), drawn(loop), loop.schedule.steps
    assert agrees(loop, x, found, (steps,))
    assert not agrees(loop, x, found, (steps - 1,))
    assert not agrees(loop, x, found, (steps + 1,))
    once = replace(loop, schedule=replace(loop.schedule, steps=1))
    assert agrees(once, x, found, (1,))
    assert agrees(once, x, theory.definitions(loop))
