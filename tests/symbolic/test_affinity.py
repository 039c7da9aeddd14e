"""Corners of a parallelogram of states: claims about one step, proved or refused, and numbers."""

from dataclasses import replace

import numpy as np
import pytest

from tests.symbolic.values import Iterated, close, muon_entry
from ttt_proofs.checker.definitions import Define
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.checker.terms import Add, CheckerError, symbols
from ttt_proofs.loops import (
    MLP,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    SquaredError,
)
from ttt_proofs.symbolic import additive_part, affine_part
from ttt_proofs.symbolic.affinity import CORNERS, corner

SIZES = {"L": 2, "D_k": 3, "D_h": 3, "D_v": 2, "D_1": 2}
STEP = GradientStep("per_step")

# Loop; is a step affine; is it additive.
CASES = {
    "linear, Frobenius": (InnerLoop(Linear(), Frobenius()), True, True),
    "linear, squared error": (InnerLoop(Linear(), SquaredError()), True, False),
    "static kernel, squared error": (
        InnerLoop(Features(), SquaredError(), STEP, trained="last"),
        True,
        False,
    ),
    "two linear layers": (InnerLoop(MLP(2, "identity"), Frobenius()), True, False),
    "two layers": (InnerLoop(MLP(2, "tanh"), Frobenius()), False, False),
    "two layers, last one trained": (
        InnerLoop(MLP(2, "tanh"), Frobenius(), STEP, trained="last"),
        True,
        True,
    ),
    "clip, Frobenius": (
        InnerLoop(Linear(), Frobenius(), GradientStep(clip="column_norm")),
        True,
        True,
    ),
    "clip, squared error": (
        InnerLoop(Linear(), SquaredError(), GradientStep(clip="column_norm")),
        False,
        False,
    ),
    "muon, Frobenius": (
        InnerLoop(Linear(), Frobenius(), replace(STEP, orthogonal="muon")),
        True,
        True,
    ),
    "muon, squared error": (
        InnerLoop(Linear(), SquaredError(), replace(STEP, orthogonal="muon")),
        False,
        False,
    ),
    "weight norm": (
        InnerLoop(Linear(), Frobenius(), GradientStep(weight_norm="initial_norm")),
        False,
        False,
    ),
}


def phi_entry(at, arguments, slots):
    """A static kernel."""
    return np.sin(arguments[0] @ np.arange(1.0, 4.0) + at[0])


class Families(dict):
    """A random number for each symbol and index."""

    def __missing__(self, name: str):
        return lambda *at: np.random.default_rng([*name.encode(), *at]).normal()


def agrees(part, definitions=None) -> bool:
    """Whether both sides of a claim come to the same, at random values."""
    model = Iterated(
        SIZES,
        Families(),
        {"phi": phi_entry, "muon": muon_entry},
        definitions=definitions or part.proof.definitions,
    )
    every = part.statement.every
    envs = [dict(zip(every, at, strict=True)) for at in np.ndindex(*(SIZES[v.sort] for v in every))]
    return close(
        *(
            [float(model.of(side, env)) for env in envs]
            for side in (part.statement.left, part.statement.right)
        )
    )


def proved(part) -> bool:
    """Whether the kernel accepts the part."""
    try:
        theorem = Theorem(part.proof)
    except CheckerError:
        return False
    return theorem.statement.equation == part.statement and not theorem.statement.hypotheses


@pytest.mark.parametrize("name", CASES)
def test_steps_are_affine_or_not_by_proof_and_in_numbers(name):
    loop, affine, additive = CASES[name]
    for make, true in ((affine_part, affine), (additive_part, additive)):
        part = make(loop, "label")
        assert part.label == "label" and part.statement.every
        assert (proved(part), agrees(part)) == (true, true)


def test_the_corners_start_where_they_should():
    """S, S + A, S + B, and S + A + B; the first has no tail."""
    loop = InnerLoop(MLP(2), Frobenius())
    assert list(CORNERS) == ["", "_a", "_b", "_ab"]
    for tail, letters in CORNERS.items():
        (block,) = corner(loop, tail)
        starts = {d.name: d.start for d in block if isinstance(d, Define) and d.start is not None}
        assert {d.name for d in block} == {f"{n}{tail}" for n in ("W1", "W2", "G_W1", "G_W2")}
        for name in ("W1", "W2"):
            assert symbols(starts[name + tail]) == {f"{letter}_{name}" for letter in letters}


def test_the_norms_to_restore_are_those_of_the_initial_weights():
    loop = InnerLoop(Linear(), Frobenius(), GradientStep(weight_norm="initial_norm"))
    for tail in CORNERS:
        (gate,) = [d for d in corner(loop, tail)[0] if d.name.startswith("N_W")]
        assert {"W_0", "epsilon"} <= symbols(gate.term)
        assert {"W_0"} == {n for n in symbols(gate.term) if n.startswith("W_0")}


@pytest.mark.parametrize("wrong", ["_a", "_b", "_ab", ""])
def test_a_wrong_corner_shows(wrong):
    """A corner with another start: the claim is false there, and the kernel does not accept it."""
    loop = CASES["linear, squared error"][0]
    part = affine_part(loop)
    name = f"W{wrong}"

    def moved(define):
        if define.name != name:
            return define
        return replace(define, start=Add((define.start, *corner_term(loop))))

    blocks = tuple(tuple(map(moved, block)) for block in part.proof.definitions)
    assert blocks != part.proof.definitions
    assert agrees(part) and not agrees(part, blocks)
    with pytest.raises(CheckerError):
        Theorem(replace(part.proof, definitions=blocks))


def corner_term(loop: InnerLoop) -> tuple:
    """Another state to start from: S + C."""
    (block,) = corner(loop, "_a")
    (start,) = [d.start for d in block if d.name == "W_a"]
    return (replace(start.terms[1], name="C_W"),)
