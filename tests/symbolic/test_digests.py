"""The proofs are, byte for byte, those on record: derivations, and a grid of loops.

What writes definitions and steps may be rewritten; what it writes must not change unseen. Where it
is to change, `python -m tests.symbolic.test_digests` records anew, and the difference is read.
"""

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ttt_proofs.cli.catalogue import folder, load, names
from ttt_proofs.loops import (
    GLU,
    MLP,
    AbstractLoss,
    AnyNet,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Net,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.symbolic.closed_forms import NotCoveredError
from ttt_proofs.symbolic.parts import attention_form, gradient_part
from ttt_proofs.symbolic.records import digest

pytestmark = pytest.mark.all_cases

RECORD = Path(__file__).with_name("digests.json")
NETS = {
    "linear": Linear(),
    "mlp_silu": MLP(2, "silu"),
    "mlp_relu_3": MLP(3, "relu"),
    "mlp_abstract": MLP(2, "act"),
    "mlp_gelu": MLP(2, "gelu_tanh"),
    "swiglu": SwiGLU(),
    "glu_tanh": GLU("tanh"),
    "convolution": DepthwiseConv(3, 2, 2),
    "features": Features(),
    "any": AnyNet(),
}
EACH = 40


def loops(net: Net, seed: str) -> Iterator[InnerLoop]:
    """Loops of one net, their options drawn; what cannot be is drawn again."""
    rng = random.Random(seed)
    choose, found = rng.choice, 0
    while found < EACH:
        rate = choose((None, "constant", "per_step", "per_token"))
        update = {
            "rate": rate,
            "place": "inside" if rate == "per_token" else choose(("inside", "outside")),
            "momentum": choose((None, "constant", "per_step", "per_token")),
            "ascent": choose((True, False)),
        }
        trained = choose(("all", "last"))
        update |= {
            "clip": choose((None, None, "column_norm", "shrink")),
            "orthogonal": choose((None, None, "muon")),
            "weight_norm": choose((None, None, "initial_norm", "rescale")),
        }
        schedule = {
            "chunk": net.tokens or choose((1, 3)),
            "read": choose(("after_update", "before_update", "causal")),
            "read_with": choose(("query", "key")),
        }
        negated = choose((True, False))
        schedule |= {
            "steps": choose((1, 1, 1, 3)),
            "single": choose((True, False, False)),
        }
        loss = choose((Frobenius(), SquaredError(), AbstractLoss()))
        loss = NegatedValues(loss) if negated else loss
        try:
            step, when = GradientStep(**update), Schedule(**schedule)
            yield InnerLoop(net, loss, step, when, trained=trained)
        except ValueError:
            continue
        found += 1


def of_loop(loop: InnerLoop) -> str:
    """The digests of the form's proof and of each gradient's, shortened; "" where not covered."""
    try:
        proofs = [attention_form(loop)[1].proof]
    except NotCoveredError:
        proofs = []
    proofs += [gradient_part(loop, weight).proof for weight in loop.fast_weights]
    return " ".join(digest(proof)[:12] for proof in proofs)


def of_derivation(name: str) -> list[str]:
    """The digest of each part."""
    return [digest(part.proof) for part in load(folder(None), name).parts]


@cache
def recorded() -> dict:
    """What is on record."""
    return json.loads(RECORD.read_text())


@pytest.mark.parametrize("name", names(folder(None)))
def test_the_proofs_of_a_derivation_are_those_on_record(name):
    assert of_derivation(name) == recorded()["derivations"][name]


@pytest.mark.parametrize("name", NETS)
def test_the_proofs_about_loops_are_those_on_record(name):
    assert [of_loop(loop) for loop in loops(NETS[name], name)] == recorded()["loops"][name]


def test_nothing_else_is_on_record():
    assert set(recorded()["derivations"]) == set(names(folder(None)))
    assert set(recorded()["loops"]) == set(NETS)


if __name__ == "__main__":
    RECORD.write_text(
        json.dumps(
            {
                "derivations": {name: of_derivation(name) for name in names(folder(None))},
                "loops": {
                    name: [of_loop(x) for x in loops(net, name)] for name, net in NETS.items()
                },
            },
            indent=1,
        )
        + "\n"
    )
