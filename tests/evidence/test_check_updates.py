"""`check` runs the update that a loop was made of, and no other."""

import pytest

from tests.evidence.updates import UPDATES, decay, loop_of, own, titans, written_out
from ttt_proofs import check
from ttt_proofs.loops import Frobenius, GradientStep, SquaredError

LOSSES = [Frobenius(), SquaredError()]


@pytest.mark.parametrize("name", list(UPDATES))
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_loop_with_an_update_of_ones_own_is_that_loop(name, loss):
    loop = loop_of(UPDATES[name], loss)
    seen = check(written_out(loop), loop)
    assert seen.kind == "exact" and seen.error <= 1e-12


def without(name):
    """The same loop, one coefficient of it at 0."""

    def mine(loop):
        right = written_out(loop)

        def wrong(q, k, v, weights, coefficients):
            return right(q, k, v, weights, coefficients | {name: 0 * coefficients[name]})

        return wrong

    return mine


EVERY = [(name, c) for name, update in UPDATES.items() for c in update["coefficients"]]


@pytest.mark.parametrize(("name", "coefficient"), EVERY)
def test_each_coefficient_counts_at_every_seed(name, coefficient):
    """As where the update were plain descent."""
    loop = loop_of(UPDATES[name])
    for seed in range(3):
        assert check(without(coefficient)(loop), loop, seed=seed).kind == "wrong"


def descent(name):
    """Plain descent at the rate of that name."""
    plain = written_out(loop_of(own(lambda W, g, *, eta: W - eta * g, {"eta": RATE})))

    def mine(q, k, v, weights, coefficients):
        return plain(q, k, v, weights, {"eta": coefficients[name]})

    return mine


RATE = UPDATES["decay"]["coefficients"]["eta"]


@pytest.mark.parametrize(
    ("name", "rate"), [("decay", "eta"), ("titans", "theta"), ("nesterov", "eta")]
)
def test_plain_descent_is_not_taken_for_it(name, rate):
    loop = loop_of(UPDATES[name])
    assert all(check(descent(rate), loop, seed=seed).kind == "wrong" for seed in range(3))
    plain = loop_of(GradientStep("per_step"))
    assert check(descent("eta"), plain)


def test_a_rule_that_its_declarations_do_not_show_is_run():
    """Two updates that declare the same, and differ in the code alone."""
    halved = own(lambda W, g, *, alpha, eta: decay(W, g / 2, alpha=alpha, eta=eta), DECLARED)
    same, other = loop_of(UPDATES["decay"]), loop_of(halved)
    assert check(written_out(same), same) and check(written_out(other), other)
    assert check(written_out(same), other).kind == check(written_out(other), same).kind == "wrong"


DECLARED = UPDATES["decay"]["coefficients"]


def test_an_update_that_kept_only_its_lines_is_not_checked():
    whole = loop_of(UPDATES["titans"])
    lines = whole.under(whole.rule)
    assert whole.update.function is titans and lines.update.function is None
    message = r"^`update` must have a function for an oracle .+ a copy without it\. Put .+\.$"
    with pytest.raises(ValueError, match=message):
        check(written_out(whole), lines)
