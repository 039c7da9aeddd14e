"""`check` agrees with right candidates, and says where wrong ones first depart."""

import copy
import math
import pickle
import re
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from torch import nn

from ttt_proofs import check, reduce
from ttt_proofs.loops import (
    MLP,
    AbstractLoss,
    DepthwiseConv,
    Features,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.parallel import forms
from ttt_proofs.symbolic.torch_loop import compiled, torch_loop

LINEAR = InnerLoop(Linear(), Frobenius())
DELTA = InnerLoop(Linear(), SquaredError(), GradientStep("per_step"))
HEAVY = InnerLoop(
    MLP(2, "tanh"),
    Frobenius(),
    GradientStep("per_step", momentum="per_step"),
    Schedule(2),
    trained="last",
)
EXCLUSIVE = InnerLoop(Linear(), Frobenius(), GradientStep(), Schedule(1, "before_update"))
EACH = GradientStep("per_token", "inside", momentum="per_token")
LACT = InnerLoop(
    SwiGLU(),
    Frobenius(),
    replace(EACH, orthogonal="muon", weight_norm="initial_norm"),
    Schedule(4, "before_update"),
)
IMAGES = InnerLoop(
    DepthwiseConv(3, 2, 3), Frobenius(), GradientStep(None, clip="column_norm"), Schedule(6)
)
LOOPS = [
    LINEAR,
    DELTA,
    HEAVY,
    EXCLUSIVE,
    InnerLoop(SwiGLU(), SquaredError()),
    LACT,
    IMAGES,
    InnerLoop(Linear(), SquaredError(), EACH, Schedule(3, "causal")),
]


def attention(q, k, v, weights, coefficients):
    """Linear attention by hand: `o_t = q_t (W + η Σ_{s<=t} k_sᵀ v_s)`."""
    scores = torch.einsum("bthk,bshk->bhts", q, k).tril()
    start = torch.einsum("bthk,hkv->bthv", q, weights["W"])
    return start + coefficients["eta"] * torch.einsum("bhts,bshv->bthv", scores, v)


def delta_rule(q, k, v, *, weights, coefficients):
    """The delta rule by hand."""
    state = weights["W"].expand(len(q), *weights["W"].shape).clone()
    outputs = []
    for n in range(q.shape[1]):
        error = torch.einsum("bhk,bhkv->bhv", k[:, n], state) - v[:, n]
        rate = coefficients["eta"][:, n, :, None, None]
        state = state - rate * k[:, n, :, :, None] * error[:, :, None]
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, n], state))
    return torch.stack(outputs, dim=1)


class Layer(nn.Module):
    """Linear attention as a module; `faulty` leaves out the present token."""

    def __init__(self, faulty: bool = False) -> None:
        super().__init__()
        self.faulty = faulty

    def forward(self, q, k, v, weights, coefficients):
        scores = torch.einsum("bthk,bshk->bhts", q, k).tril(-1 if self.faulty else 0)
        start = torch.einsum("bthk,hkv->bthv", q, weights["W"])
        return start + coefficients["eta"] * torch.einsum("bhts,bshv->bthv", scores, v), None


@pytest.mark.parametrize(
    ("candidate", "loop"), [(attention, LINEAR), (Layer(), LINEAR), (delta_rule, DELTA)]
)
def test_right_candidates_agree(candidate, loop):
    for seed in range(4):
        seen = check(candidate, loop, seed=seed)
        assert seen and seen.agrees and seen.kind == "exact"
        assert seen.error is not None and seen.error <= seen.tolerance == 1e-12
        assert [x.seed for x in seen.drawn] == [seed + n for n in range(len(seen.drawn))]
        assert len(seen.drawn) >= 9
        assert all(x.tolerance == 1e-12 and x.amplification < 100 for x in seen.drawn)
        assert {name for name, _ in seen.drawn[0].sizes} == {"B", "T", "H", "D_k", "D_v"}


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_a_reduction_passes_for_its_loop(loop):
    found = reduce(loop)
    assert check(found.recurrent, loop, trials=3).agrees
    if found.parallel != "sequential":
        assert check(found.parallel_form, loop, trials=3).agrees


def off(coefficients):
    """All of them a little larger."""
    return {name: x * 1.0001 for name, x in coefficients.items()}


WRONG = [
    (attention, InnerLoop(Linear(), SquaredError())),
    (delta_rule, InnerLoop(Linear(), Frobenius(), GradientStep("per_step"))),
    (attention, InnerLoop(Linear(), Frobenius(), GradientStep(ascent=True))),
    (attention, EXCLUSIVE),
    (Layer(faulty=True), LINEAR),
    (lambda q, k, v: v, LINEAR),
    (lambda q, k, v: torch.zeros_like(v), LINEAR),
    (lambda q, k, v: torch.full_like(v, math.nan), LINEAR),
    (lambda q, k, v: torch.full_like(v, math.inf), LINEAR),
    (lambda q, k, v, weights, coefficients: attention(q, k, v, weights, off(coefficients)), LINEAR),
    (lambda q, k, v, weights, coefficients: attention(k, q, v, weights, coefficients), LINEAR),
    (
        lambda q, k, v, weights, coefficients: attention(q, k, v.flip(2), weights, coefficients),
        LINEAR,
    ),
    (
        lambda q, k, v, weights, coefficients: attention(q, k, v, weights, coefficients).float(),
        LINEAR,
    ),
]


@pytest.mark.parametrize(("candidate", "loop"), WRONG)
def test_wrong_candidates_depart(candidate, loop):
    seen = check(candidate, loop)
    assert seen.kind == "wrong" and not seen and not seen.agrees
    assert seen.error is not None and seen.error > 1e-12


@pytest.mark.parametrize("token", [0, 1, 40])
@pytest.mark.parametrize("amount", [1e-3, -5.0, math.nan, math.inf])
def test_the_first_departing_token_is_found(token, amount):
    """A fault planted from one token on, in the last sequence and head."""
    given = []

    def late(q, k, v, weights, coefficients):
        o = attention(q, k, v, weights, coefficients)
        given.append(o.clone())
        o[-1, token:, -1, 0] += amount
        return o

    for seed in range(3):
        seen = check(late, LINEAR, seed=seed)
        right = given[-1]  # what was right in the trial that departed
        assert seen.kind == "wrong" and seen.error is not None and seen.error > 1e-12
        assert (seen.batch, seen.head) == (len(right) - 1, right.shape[2] - 1)
        assert seen.seed is not None and seen.candidate is not None and seen.expected is not None
        assert seen.token == token and seed <= seen.seed < seed + 8
        assert seen.expected == pytest.approx(right[-1, token, -1].tolist(), rel=1e-12)
        assert seen.candidate[1:] == pytest.approx(seen.expected[1:], rel=1e-12)
        assert seen.candidate[0] != pytest.approx(seen.expected[0])


def test_time_comes_before_batch_and_head():
    """The earliest token is told, not that of the first sequence."""

    def twice(q, k, v, weights, coefficients):
        o = attention(q, k, v, weights, coefficients)
        if len(o) > 1 and o.shape[2] > 1:
            o[0, 3] += 2 * o.abs().max()
            o[1, 2, 1] += 1
        return o

    seen = check(twice, LINEAR, seed=7)
    assert (seen.batch, seen.token, seen.head, seen.seed) == (1, 2, 1, seen.drawn[-1].seed)
    assert seen.error == pytest.approx(2)  # the largest, not that of this token


def test_a_departure_says_where_and_how_to_see_it_again():
    seen = check(Layer(faulty=True), LINEAR, seed=11)
    pattern = (
        r"It departs at token 0 \(batch 0, head 0\): got \(.+\), the loop has \(.+\); seed 11\."
    )
    assert re.fullmatch(pattern, seen.reason) and str(seen) == f"wrong: {seen.reason}"
    assert check(Layer(faulty=True), LINEAR, seed=11) == seen
    assert check(Layer(faulty=True), LINEAR, seed=11, trials=1) == seen


def test_a_fault_that_only_some_trials_show_is_found():
    """Each trial draws its sizes anew."""
    shapes = []

    def at_three_heads(q, k, v, weights, coefficients):
        o = attention(q, k, v, weights, coefficients)
        shapes.append(o.shape)
        return o + (o.shape[2] == 3)

    seen = check(at_three_heads, LINEAR, trials=40)
    assert seen.kind == "wrong" and seen.token == 0
    assert shapes[-1][2] == 3 and all(shape[2] != 3 for shape in shapes[:-1])
    assert len({*shapes}) > 1


def test_only_the_keywords_that_are_named_are_given():
    calls = []

    def two(q, k, v, coefficients):
        calls.append(("two", coefficients))
        return v

    def every(q, k, v, **others):
        calls.append(("every", *sorted(others)))
        return v

    check(two, LINEAR, trials=1)
    check(every, LINEAR, trials=1)
    assert calls[0][1].keys() == {"eta"} and isinstance(calls[0][1]["eta"], float)
    assert calls[1] == ("every", "coefficients", "weights")


def test_a_module_keeps_its_hooks():
    """A module is called, not its forward."""
    layer, seen = Layer(), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    assert check(layer, LINEAR, trials=2).agrees and len(seen) == 2


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        (None, "`candidate` must be callable; got NoneType."),
        (3, "`candidate` must be callable; got int."),
        (torch.ones(2), "`candidate` must be callable; got Tensor."),
        (lambda q, k, v: None, "`candidate` must return a "),
        (lambda q, k, v: [v], "`candidate` must return a "),
        (lambda q, k, v: (None, v), "`candidate` must return a "),
        (lambda q, k, v: v[0], "`candidate` must return ("),
        (lambda q, k, v: v[None], "`candidate` must return ("),
        (lambda q, k, v: v.sum(), "`candidate` must return ("),
    ],
)
def test_what_is_no_candidate_is_one_sentence(candidate, told):
    with pytest.raises(TypeError) as caught:
        check(candidate, LINEAR)
    message = str(caught.value)
    assert message.startswith(told) and "\n" not in message
    assert re.fullmatch(r"`\w+` must .+; got .+\. [A-Z].*\.", message)


@pytest.mark.parametrize(
    "loop",
    [
        InnerLoop(Features(), Frobenius()),
        InnerLoop(MLP(2, "act"), Frobenius()),
        InnerLoop(Linear(), AbstractLoss()),
        InnerLoop(Linear(), Frobenius(), GradientStep(clip="own")),
    ],
    ids=str,
)
def test_a_loop_that_cannot_run_is_one_sentence(loop):
    with pytest.raises(ValueError, match=r"^`\w+` must be .+; got .+\. [A-Z].*\.$"):
        check(lambda q, k, v: v, loop)


def test_what_the_candidate_raises_is_passed_on():
    def broken(q, k, v):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        check(broken, LINEAR)


def test_a_candidate_cannot_spoil_what_the_loop_is_given():
    def spoil(q, k, v, weights):
        v.zero_()
        weights["W"].zero_()
        return torch.zeros_like(v)

    assert not check(spoil, LINEAR).agrees


def weighed(q, k, v, weights, coefficients):
    """Linear attention with rates per token, by hand."""
    scores = torch.einsum("bthk,bshk->bhts", q, k).tril()
    start = torch.einsum("bthk,hkv->bthv", q, weights["W"])
    return start + torch.einsum("bhts,bshv->bthv", scores, coefficients["eta_W"][..., None] * v)


def test_rates_per_token_are_given_by_weight():
    rule = GradientStep("per_token", "inside")
    loop = InnerLoop(Linear(), Frobenius(), rule, Schedule(3, "causal"))
    assert check(weighed, loop).agrees

    def late(q, k, v, weights, coefficients):
        return weighed(q, k, v, weights, {"eta_W": coefficients["eta_W"].roll(1, dims=1)})

    def spoil(q, k, v, weights, coefficients):
        made = weighed(q, k, v, weights, coefficients)
        coefficients["eta_W"].zero_()
        return made

    assert not check(late, loop).agrees and check(spoil, loop).agrees


def convolution(q, k, v, weights, size=3, height=2, width=3):
    """ViTTT's convolution by hand: one step per image, its gradient over its norm plus 1."""
    b, t, h, c = v.shape
    w = weights["W"].transpose(1, 2).reshape(1, h * c, size * size).expand(b, -1, -1)
    outputs = []
    for n in range(0, t, height * width):
        planes = [
            x[:, n : n + height * width].reshape(b, height, width, h * c).permute(0, 3, 1, 2)
            for x in (q, k, v)
        ]
        patches = [
            nn.functional.unfold(x.reshape(-1, 1, height, width), size, padding=size // 2)
            for x in planes[:2]
        ]
        asked, kept = (x.reshape(b, h * c, size * size, -1) for x in patches)
        gradient = -torch.einsum("bcdp,bcp->bcd", kept, planes[2].flatten(2))
        w = w - gradient / (gradient.norm(dim=-1, keepdim=True) + 1)
        made = torch.einsum("bcdp,bcd->bcp", asked, w)
        outputs.append(made.transpose(1, 2).reshape(b, -1, h, c))
    return torch.cat(outputs, dim=1)


def test_a_convolution_by_hand_agrees_on_whole_images():
    assert check(convolution, IMAGES).agrees

    def flipped(q, k, v, weights):
        return convolution(q, k, v, {"W": weights["W"].flip(1)})

    def still(q, k, v, weights):
        return torch.cat(
            [
                convolution(x, y, z, weights)
                for x, y, z in zip(q.split(6, 1), k.split(6, 1), v.split(6, 1), strict=True)
            ],
            1,
        )

    found = check(still, IMAGES)
    assert not check(flipped, IMAGES).agrees
    assert found.token is not None and found.token >= 6


def test_a_slip_in_muon_departs():
    """The recurrence of another loop, with one thing changed."""
    rivals = [
        replace(LACT, update=replace(LACT.update, orthogonal=None)),
        replace(LACT, update=replace(LACT.update, weight_norm=None)),
        replace(LACT, update=replace(LACT.update, ascent=True)),
        replace(LACT, schedule=replace(LACT.schedule, read="after_update")),
        replace(LACT, schedule=replace(LACT.schedule, steps=2)),
    ]

    assert check(partial(run_as, LACT), LACT, trials=1).agrees
    assert not any(check(partial(run_as, rival), LACT, trials=1).agrees for rival in rivals)


def test_keys_that_are_normalised_in_place_are_seen():
    def normalised(q, k, v, weights, coefficients):
        k /= k.norm(dim=-1, keepdim=True)
        return attention(q, k, v, weights, coefficients)

    assert not check(normalised, LINEAR).agrees


@pytest.mark.filterwarnings("ignore")
def test_complex_outputs_do_not_pass():
    with pytest.raises(TypeError, match="`candidate` must return"):
        check(
            lambda q, k, v, weights, coefficients: attention(q, k, v, weights, coefficients) + 7j,
            LINEAR,
        )


def test_every_check_sees_a_second_chunk():
    loop = InnerLoop(Linear(), Frobenius(), GradientStep(), Schedule(4, "before_update"))

    def no_update(q, k, v, weights):
        return torch.einsum("bthk,hkv->bthv", q, weights["W"])

    assert not any(check(no_update, loop, seed=5 * n).agrees for n in range(20))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("loop", lambda: check(attention, None)),  # pyright: ignore
        ("loop", lambda: check(attention, Linear())),  # pyright: ignore
        ("trials", lambda: check(attention, LINEAR, trials=0)),
        ("trials", lambda: check(attention, LINEAR, trials=-1)),
        ("candidate", lambda: check(lambda q, k, v: (), LINEAR)),
    ],
)
def test_wrong_arguments_are_one_sentence(name, call):
    with pytest.raises((TypeError, ValueError), match=rf"^`{name}` must .+; got .+\. [A-Z].*\.$"):
        call()


RIGHT = check(attention, LINEAR, trials=2)
FALSE = check(Layer(faulty=True), LINEAR, trials=2)


@pytest.mark.parametrize("seen", [RIGHT, FALSE, replace(FALSE, kind="undecided", token=None)])
def test_a_verdict_is_its_truth_value_and_plain_data(seen):
    assert bool(seen) is seen.agrees is (seen is RIGHT)
    assert {f.name for f in fields(seen)} == set(vars(seen)) == set(vars(RIGHT))
    assert pickle.loads(pickle.dumps(seen)) == seen == copy.deepcopy(seen)
    assert hash(seen) == hash(copy.copy(seen))
    assert seen.reason in repr(seen) and seen.kind in repr(seen)
    assert re.fullmatch(r"[A-Z][^\n]+\.", seen.reason)


def test_assert_check_fails_for_wrong_code():
    with pytest.raises(AssertionError):
        assert check(lambda q, k, v: v, LINEAR)
    assert check(attention, LINEAR)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "fine"},
        {"error": 1e-11},
        {"error": None},
        {"error": math.nan},
        {"error": math.inf},
        {"drawn": ()},
        {"token": 3},
        {"kind": "wrong"},
    ],
)
def test_a_verdict_cannot_contradict_itself(change):
    with pytest.raises(ValueError, match=r"^`\w+` must .+; got .+\. [A-Z].*\.$|^`kind` must not"):
        replace(RIGHT, **change)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("loop", [LINEAR, DELTA, LACT, IMAGES], ids=str)
def test_the_mode_of_the_caller_does_not_matter(mode, loop):
    def by_autograd(q, k, v, weights, coefficients=None):
        from ttt_proofs.reference import run_loop

        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        return run_loop(loop, q, k, v, weights=weights, coefficients=coefficients)

    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        assert check(reduce(loop).recurrent, loop, trials=2)
        assert check(by_autograd, loop, trials=1)
        assert not check(lambda q, k, v: v, loop, trials=1)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())


@pytest.mark.parametrize("answer", ["the loop's", "NaN", "zero"])
def test_where_the_loop_is_not_finite_nothing_is_said(answer, monkeypatch):
    monkeypatch.setattr("ttt_proofs.evidence.sampling.RATES", (1e12, 1e13))

    def mine(q, k, v, weights, coefficients):
        made = {
            "the loop's": delta_rule(q, k, v, weights=weights, coefficients=coefficients),
            "NaN": math.nan * v,
        }
        return made.get(answer, torch.zeros_like(v))

    seen = check(mine, DELTA, trials=2)
    assert seen.kind == "undecided" and not seen and "NaN or infinity" in seen.reason
    assert seen.error is None and seen.token is None
    assert all(x.error is None and x.tolerance is None for x in seen.drawn)


SINGLE = replace(LACT, schedule=Schedule(1, "before_update"))


def late(amount, loop, from_token=40):
    """The loop's recurrence, off by some amount at late tokens where there are several channels."""

    def mine(q, k, v, weights, coefficients):
        o, _ = forms.recurrent(loop, q, k, v, weights, coefficients)
        wide = all(min(w.shape[1:]) > 1 for w in weights.values())
        o[:, from_token:] += amount * o.abs().max() * wide
        return o

    return mine


@pytest.mark.parametrize("seed", [0, 9])
def test_where_rounding_is_enlarged_too_much_nothing_is_said(seed):
    """Muon of gradients of rank one: after some tokens nothing is left of the inputs' digits."""
    for amount in (0.0, 1e-9):
        seen = check(late(amount, SINGLE), SINGLE, seed=seed)
        assert seen.kind == "undecided" and not seen and seen.token is None
        assert "times as large" in seen.reason and "agrees at the others" in seen.reason
        assert seen.error is not None and seen.error <= 1e-12
        (lost,) = (x for x in seen.drawn if x.tolerance is None)
        assert lost.amplification > 1e7
    steady = replace(SINGLE, update=EACH)
    assert check(late(0.0, steady), steady, seed=seed)
    assert check(late(1e-9, steady), steady, seed=seed).token == 40


def test_an_error_far_beyond_rounding_is_one_wherever_it_is():
    """However much rounding is enlarged later, the first tokens are known."""
    seen = check(late(0.5, SINGLE, from_token=2), SINGLE, seed=1)
    assert seen.kind == "wrong" and seen.token == 2 and seen.drawn[-1].tolerance is None
    half = check(late(1e-5, LACT), LACT)
    assert half.kind == "wrong" and half.token == 40


def transposing(loop):
    """A layer that takes the transpose of a square for the matrix itself."""

    def mine(q, k, v, weights, coefficients):
        turned = {n: w.mT if w.shape[1] == w.shape[2] > 1 else w for n, w in weights.items()}
        return run_as(loop, q, k, v, turned, coefficients)

    return mine


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_a_transposed_square_is_seen_by_every_check(loop):
    assert not any(check(transposing(loop), loop, seed=seed) for seed in (0, 3, 6))


def test_muon_on_the_other_side_of_a_square_is_another_result_in_bfloat16(monkeypatch):
    half = replace(LACT.update, orthogonal="muon_bfloat16", weight_norm=None)
    loop = replace(LACT, update=half, schedule=Schedule(16, "before_update"))
    source = torch_loop(loop).source
    fault = source.replace("G.shape[-2] >= G.shape[-1]", "G.shape[-2] > G.shape[-1]")
    assert fault != source
    assert check(reduce(loop).recurrent, loop)
    other = compiled(loop, fault)
    monkeypatch.setattr(forms, "torch_loop", lambda _: other)
    for seed in range(4):
        seen = check(partial(run_as, loop), loop, seed=seed)
        assert seen.kind == "wrong" and seen.error is not None and seen.error > 1e-4


def run_as(loop, q, k, v, weights, coefficients):
    """The recurrence of a loop."""
    return forms.recurrent(loop, q, k, v, weights, coefficients)


def slicing(loop):
    """A layer that works its last chunk off as `x[:, -r:]`, which for r = 0 is everything."""
    chunk = loop.schedule.chunk

    def mine(q, k, v, weights, coefficients):
        form = partial(forms.recurrent, loop)
        o, _ = form(q, k, v, weights, coefficients)
        if q.shape[1] % chunk == 0:
            o = o.roll(1, dims=1)
        return o

    return mine


def squeezing(loop):
    """A layer that loses a single token."""

    def mine(q, k, v, weights, coefficients):
        o, _ = forms.recurrent(loop, q, k, v, weights, coefficients)
        return o if q.shape[1] > 1 else 0 * o

    return mine


@pytest.mark.parametrize("fault", [slicing, squeezing])
@pytest.mark.parametrize("chunk", [2, 4, 8, 16, 64])
def test_whole_chunks_and_single_tokens_are_drawn_at_every_seed(chunk, fault):
    loop = InnerLoop(Linear(), Frobenius(), GradientStep("per_step"), Schedule(chunk))
    for seed in range(3):
        assert check(fault(loop), loop, seed=seed).kind == "wrong"


def test_a_parameter_with_a_default_is_not_taken_for_a_value():
    loop = InnerLoop(Linear(), Frobenius(), GradientStep("per_step"))

    def scaled(q, k, eps=1.0, *, v, weights, coefficients):
        return forms.recurrent(loop, q, k, v, weights, coefficients)[0] * eps

    def lost(q, k, scale=None, *, v, weights, coefficients):
        return forms.recurrent(loop, q, k, v, weights, coefficients)[0] * (scale is not None)

    def swapped(q, x, v, k, weights, coefficients):
        return forms.recurrent(loop, q, x, v, weights, coefficients)[0]

    assert check(scaled, loop) and check(lost, loop).kind == "wrong"
    with pytest.raises(TypeError, match="'x'"):
        check(swapped, loop)


def test_an_infinite_output_has_an_infinite_error():
    loop = InnerLoop(Linear(), Frobenius(), GradientStep("per_step"))

    def runs_off(q, k, v, weights, coefficients):
        return forms.recurrent(loop, q, k, v, weights, coefficients)[0] + math.inf

    assert check(runs_off, loop).error == math.inf


@pytest.mark.parametrize("loop", [HEAVY, LACT, DELTA], ids=str)
@pytest.mark.parametrize("before", [False, True])
def test_inputs_that_are_overwritten_are_the_candidates_own(loop, before):
    """In the reference, and at the next draw, they are as they were drawn."""

    def mine(q, k, v, weights, coefficients):
        o = run_as(loop, q, k, v, weights, coefficients)[0].clone()
        for x in (q, k, v, *weights.values(), *coefficients.values()):
            x.zero_()
        again = run_as(loop, q, k, v, weights, coefficients)[0]
        return again if before else o

    assert check(mine, loop, trials=3).kind == ("wrong" if before else "exact")


def test_a_state_that_is_kept_between_calls_is_seen():
    kept = []

    def first(q, k, v, weights, coefficients):
        kept.append(coefficients)
        return attention(q, k, v, weights, kept[0])

    assert check(first, LINEAR).kind == "wrong" and len(kept) == 2


@pytest.mark.parametrize("loop", [LINEAR, LACT, IMAGES], ids=str)
def test_the_modes_that_a_candidate_leaves_do_not_reach_the_loop(loop):
    def careless(q, k, v, **numbers):
        assert torch.is_grad_enabled()
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        torch.manual_seed(0)
        return reduce(loop).recurrent(q, k, v, **numbers)

    kind, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        seen = check(careless, loop)
        assert torch.is_grad_enabled() is grad
    finally:
        torch.set_default_dtype(kind)
    assert seen and seen.drawn == check(partial(run_as, loop), loop).drawn
