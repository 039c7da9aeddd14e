"""`check` of recurrences: right code is told from wrong code, and the oracle from the trace."""

import pickle

import pytest
import torch

from tests.loops.layers import LAYERS, MATRIX
from ttt_proofs import Recurrence, check
from ttt_proofs.loops import outer
from ttt_proofs.parallel.recurrences import parallel_form, recurrent
from ttt_proofs.program.operations import Abstract
from ttt_proofs.reference import run_recurrence


def run(layer):
    return lambda q, k, v, coefficients: recurrent(layer, q, k, v, coefficients=coefficients)


@pytest.mark.parametrize("name", LAYERS)
def test_the_recurrence_agrees_with_itself(name):
    layer, word = LAYERS[name]
    verdict = check(run(layer), layer)
    assert verdict.kind == "exact", verdict
    if word != "sequential":
        assert check(
            lambda q, k, v, coefficients: parallel_form(layer, q, k, v, coefficients=coefficients),
            layer,
        )


def delayed(x):
    """What came a token before."""
    return torch.cat([x[:, :1], x[:, :-1]], dim=1)


TIMED = [n for n, (layer, _) in LAYERS.items() if any(
    c.every == "token" for c in layer.coefficients.values()
)]  # fmt: skip


@pytest.mark.parametrize("name", TIMED)
def test_a_coefficient_one_step_late_is_found(name):
    layer = LAYERS[name][0]

    def late(q, k, v, coefficients):
        moved = {
            n: delayed(x) if layer.coefficients[n].every == "token" else x
            for n, x in coefficients.items()
        }
        return recurrent(layer, q, k, v, coefficients=moved)

    assert check(late, layer).kind == "wrong"


def forgetful(q, k, v):
    """Additive linear attention that loses what is older than 60 tokens."""
    scores = torch.einsum("bthk,bshk->bhts", q, k).tril().triu(-60)
    return torch.einsum("bhts,bshv->bthv", scores, v)


def swapped(q, k, v):
    return torch.einsum("bhts,bshv->bthv", torch.einsum("bthk,bshk->bhts", k, q).tril(), v)


def ahead(q, k, v):
    return torch.einsum("bhts,bshv->bthv", torch.einsum("bthk,bshk->bhts", q, k), v)


def right(q, k, v):
    return torch.einsum("bhts,bshv->bthv", torch.einsum("bthk,bshk->bhts", q, k).tril(), v)


@pytest.mark.parametrize("code", [forgetful, swapped, ahead], ids=lambda code: code.__name__)
def test_wrong_attention_is_found(code):
    layer = LAYERS["additive"][0]
    assert check(right, layer).kind == "exact"
    assert check(code, layer).kind == "wrong"
    if code is forgetful:
        assert check(code, layer).token >= 60


def test_another_recurrence_is_found():
    for one, other in (("scalar gate", "read before"), ("momentum", "late momentum")):
        assert check(run(LAYERS[one][0]), LAYERS[other][0]).kind == "wrong"


def test_the_oracle_needs_the_function_and_known_ones():
    lost = pickle.loads(
        pickle.dumps(Recurrence(lambda S, q, k, v: (S + outer(k, v), q @ S), MATRIX))
    )
    with pytest.raises(ValueError, match="must be a function for an oracle to run"):
        check(run(lost), lost)
    phi = Abstract("phi")
    unknown = Recurrence(lambda S, q, k, v: (S + outer(phi(k), v), q @ S), MATRIX)
    with pytest.raises(ValueError, match="`phi` must be a concrete function"):
        check(right, unknown)


def test_the_oracle_calls_the_function_and_not_what_was_read_off_it():
    seen = []

    def step(S, q, k, v):
        seen.append(type(S))
        return S + outer(k, v), q @ S

    layer = Recurrence(step, MATRIX)
    seen.clear()
    q = torch.ones(1, 2, 1, 3)
    run_recurrence(layer, q, q, q)
    assert seen and all(issubclass(kind, torch.Tensor) for kind in seen)


def test_what_is_no_loop_is_refused():
    with pytest.raises(TypeError, match="`loop` must be an InnerLoop or a Recurrence"):
        check(right, 3)
