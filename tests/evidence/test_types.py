"""What witnesses say is data that cannot contradict itself, and tolerances are what they are."""

import math
from dataclasses import FrozenInstanceError, replace

import pytest

from ttt_proofs.evidence.tolerances import PLAIN_FACTOR, tolerance
from ttt_proofs.evidence.types import Evidence, Observation, Refutation

EVIDENCE = Evidence(True, 4, (2**61 - 1, 2**61 - 31), -200.0, 0)
OBSERVATION = Observation(True, 1e-15, 1e-12, 3, "cpu", "float64", ("outputs",), "outputs")
REFUTATION = Refutation((("η_1", "1"), ("η_2", "2")), "1", "2", (("T", 2),))


@pytest.mark.parametrize("said", [EVIDENCE, OBSERVATION, REFUTATION])
def test_what_was_said_stays(said):
    assert hash(said) == hash(replace(said))
    with pytest.raises(FrozenInstanceError):
        said.agrees = True


def test_agreement_rests_on_something():
    for lack in ({"trials": 0}, {"primes": ()}):
        with pytest.raises(ValueError, match="must rest on at least one trial and one prime"):
            replace(EVIDENCE, **lack)
        assert not replace(EVIDENCE, agrees=False, **lack).agrees


@pytest.mark.parametrize(
    "change",
    [
        {"max_relative_error": 1e-11},
        {"max_relative_error": math.nan},
        {"max_relative_error": math.inf},
        {"tolerance": math.nan},
        {"trials": 0},
        {"what": ()},
    ],
)
def test_an_observation_agrees_only_within_its_tolerance(change):
    with pytest.raises(ValueError, match="`agrees` must be False"):
        replace(OBSERVATION, **change)
    assert not replace(OBSERVATION, agrees=False, **change).agrees
    with pytest.raises(ValueError, match="`agrees` must be True"):
        replace(OBSERVATION, agrees=False)


def test_equal_sides_refute_nothing():
    with pytest.raises(ValueError, match="`left` and `right` must differ"):
        replace(REFUTATION, right="1")


def test_tolerances():
    assert tolerance("float64", 1) == tolerance("float64", 1024) == 1e-12
    assert tolerance("float64", 4096) == 4e-12
    assert tolerance("float32", 0) == pytest.approx(5.4e-4, rel=0.01)
    assert PLAIN_FACTOR == 2.0


@pytest.mark.parametrize(
    ("precision", "length"), [("bfloat16", 1), ("float64", -1), ("float64", 1.0)]
)
def test_tolerances_are_not_made_up(precision, length):
    with pytest.raises(ValueError, match=r"must be .*; got .*\. (Compare|Count)"):
        tolerance(precision, length)


def test_no_environment_variable_loosens_a_tolerance():
    from ttt_proofs.evidence import autograd, tolerances

    for module in (autograd, tolerances):
        assert not {"os", "environ", "getenv"} & set(vars(module))
