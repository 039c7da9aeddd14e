"""The ladder's throughput and the training step, at small sizes."""

import pytest
import torch
from torch import nn

from ttt_proofs import loops
from ttt_proofs.bench import lact_ladder, training
from ttt_proofs.bench.benchmark import Settings
from ttt_proofs.bench.lact_ladder import LADDER, rated, sizes_of
from ttt_proofs.bench.training import MIXERS, Model, Size, Step, measure
from ttt_proofs.layer import TTTLayer

QUICK = Settings(quick=True)


def test_each_variant_has_both_forms_beside_the_papers():
    rows = list(LADDER.run(QUICK))
    assert [(r["variant"], r["form"]) for r in rows] == [
        (f"V{n}", form) for n in range(2, 7) for form in ("recurrent", "parallel")
    ]
    for row in rows:
        assert "problem" not in row, row
        assert row["scale"] == "scaled down" and row["error"] < 1e-4
        assert row["mtokens_per_s"] == pytest.approx(64 / row["median_ms"] / 1000)


def test_ratios_of_the_paper_are_those_of_its_table():
    found = rated("v2", "parallel", {"median_ms": 2.0}, {"B": 2, "T": 1000})
    assert found["paper_ratio"] == pytest.approx(2.7387, abs=1e-4)
    assert found["mtokens_per_s"] == 1.0
    assert "mtokens_per_s" not in rated("v2", "parallel", {"problem": "x"}, {"B": 2, "T": 1000})


def test_on_a_gpu_the_layer_is_lacts():
    sizes, chunk = sizes_of(Settings("cuda"))
    assert sizes == {"B": 1, "T": 32768, "H": 4, "D_k": 384, "D_h": 384, "D_v": 384}
    assert chunk == 2048
    assert lact_ladder.scale_of(Settings("cuda")) == "LaCT-760M layer"


def test_a_parallel_form_that_is_wrong_is_a_problem(monkeypatch):
    right = lact_ladder.forms_of

    def wrong(loop, x):
        functions = right(loop, x)
        return functions | {"parallel": lambda *y: functions["parallel"](*y).neg()}

    monkeypatch.setattr(lact_ladder, "forms_of", wrong)
    rows = list(LADDER.run(QUICK))
    assert ["problem" in row for row in rows] == 5 * [False, True]


class Mixer(nn.Module):
    """A stand-in for the package's layer: a running mean of projected tokens."""

    def __init__(self, loop, width, *, heads, mode, faulty=False):
        super().__init__()
        self.map, self.wrong = nn.Linear(width, width), faulty and mode == "parallel"
        assert heads == 2 and loop.schedule.chunk == 8

    def forward(self, x):
        y = self.map(x).cumsum(1)
        return y * 1.1 if self.wrong else y


def test_training_steps_are_timed_for_each_mixer():
    rows = list(measure(QUICK, Mixer))
    assert [row["mixer"] for row in rows] == list(MIXERS)
    for row in rows:
        assert "problem" not in row and row["loss"] > 0
        assert row["tokens_per_s"] == pytest.approx(32000 / row["median_ms"])
    assert rows[0]["ratio"] == 1.0
    assert rows[2]["paper_ratio"] == 1.19 and rows[2]["error"] == 0.0


def test_wrong_gradients_of_the_parallel_mixer_are_a_problem():
    rows = list(measure(QUICK, lambda *a, **k: Mixer(*a, **k, faulty=True)))
    assert ["problem" in row for row in rows] == [False, False, True]


@pytest.mark.parametrize("narrow", [False, True])
def test_a_training_step_trains(narrow):
    seen, size = [], Size.of(QUICK)

    class Looks(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    step = Step(lambda: Looks(size.width, size.width), size, "cpu", narrow)
    step.gradients()
    assert seen.pop() == torch.float32
    assert {x.dtype for x in step.model.parameters()} == {torch.float32}
    losses = [float(step()) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert set(seen) == {torch.bfloat16 if narrow else torch.float32}


@pytest.mark.parametrize(("rung", "mode"), MIXERS.values())
def test_the_packages_layer_trains_in_bfloat16_too(rung, mode):
    size = Size.of(QUICK)
    loop = loops.ladder(loops.Schedule(chunk=size.chunk, read="before_update"))[rung]
    step = Step(lambda: TTTLayer(loop, size.width, heads=size.heads, mode=mode), size, "cpu", True)
    losses = [float(step()) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_the_model_predicts_the_next_token():
    """Its loss is the mean over the tokens that follow, and needs none of them before."""
    size = Size.of(QUICK)
    torch.manual_seed(0)
    model, tokens = Model(size, lambda: nn.Identity()), torch.arange(6)[None]
    alone = [model(tokens[:, n : n + 2]) for n in range(5)]
    assert torch.allclose(model(tokens), torch.stack(alone).mean(), atol=1e-6)


def test_training_runs_on_the_packages_layer():
    rows = list(training.TRAINING.run(QUICK))
    assert [row["mixer"] for row in rows] == list(MIXERS)
    for row in rows:
        assert "problem" not in row, row
    assert 0 < rows[2]["error"] < 1e-4
