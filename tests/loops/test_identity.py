"""A loop's digest: the same for equal loops, in every process, and for no others."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from tests.loops.layers import LAYERS, MATRIX
from ttt_proofs import Recurrence
from ttt_proofs.loops import (
    AbstractLoss,
    Coefficient,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    SquaredError,
    Update,
    lact,
    ladder,
    outer,
)
from ttt_proofs.loops.identity import canonical, digest

ROOT = Path(__file__).resolve().parents[2]


def scaled(factor, name="net", top=1.0):
    """A net that is code, of this name, whose steps are scaled by a constant."""

    def net(x, W):
        return x @ W

    net.__qualname__ = name
    given = {"eta": Coefficient("step", range=(0, top))}
    update = Update(lambda W, g, *, eta: W - factor * eta * g)
    return InnerLoop(net, Frobenius(), update, coefficients=given)


def many():
    """Loops and recurrences of all kinds, each in its own way."""
    operators = GradientStep("per_step", momentum="per_step", clip="r", orthogonal="o")
    found = [layer for layer, _ in LAYERS.values()]
    found += [scaled(x, top=top) for x, top in product((0.5, 0.25, 1e-20, 1e-20 + 1e-35), (1, 2))]
    found += [lact(), *ladder().values()]
    found += [InnerLoop(Features(), loss, operators) for loss in (AbstractLoss(), SquaredError())]
    return found


def test_equal_loops_have_equal_digests_and_others_do_not():
    loops = [*many(), *map(deepcopy, many())]
    digests = [digest(loop) for loop in loops]
    for (one, a), (other, b) in product(zip(loops, digests, strict=True), repeat=2):
        assert (one == other) == (a == b), (one, other)


def test_names_of_code_and_ways_to_write_a_number_do_not_count():
    assert digest(scaled(0.5, "one")) == digest(scaled(0.5, "two"))
    assert digest(scaled(0.5, top=1)) == digest(scaled(0.5, top=1.0))
    assert digest(replace(scaled(0.5), loss=SquaredError())) != digest(scaled(0.5))


def normalised(size):
    """A net that holds a width, which its text does not show."""
    return InnerLoop(lambda x, W: torch.rms_norm(x, (size,)) @ W, Frobenius())


def faded(factor):
    """A recurrence with a constant, of which its text shows the name alone."""

    def step(S, q, k, v):
        return factor * S + outer(k, v), q @ S

    return Recurrence(step, MATRIX)


@pytest.mark.parametrize("made", [lambda n: normalised(3 + n), lambda n: faded(1 / (n + 1))])
def test_what_the_text_of_a_loop_hides_counts(made):
    one, other = made(1), made(2)
    assert str(one) == str(other)
    assert one != other and digest(one) != digest(other)


def test_it_is_the_same_in_every_process():
    code = (
        "from tests.loops.test_identity import digest, many\nprint(*map(digest, many()), sep='\\n')"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {"\n".join(map(digest, many())) + "\n"}


def test_what_is_no_data_is_refused():
    with pytest.raises(TypeError, match="must be data; got function"):
        canonical((1, scaled, Linear()))
