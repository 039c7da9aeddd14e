"""Every wrong input is told in one sentence that names it; every right one passes."""

import math
import re
from collections import UserDict

import pytest
import torch
from torch.nn.functional import layer_norm

from ttt_proofs import reduce
from ttt_proofs.evidence.sampling import random_inputs
from ttt_proofs.loops import (
    MLP,
    Coefficient,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
    Update,
)
from ttt_proofs.parallel.inputs import check_inputs
from ttt_proofs.reduction import NotParallelError

# What is required, what arrived, what to do: `name` must ...; got .... Do this.
SENTENCE = re.compile(r"`([^`]+)`(?: and `[^`]+`)? must [^\n]+; got [^\n]+\. [A-Z][^\n]*\.")

PLAIN = InnerLoop(Linear(), Frobenius())
FULL = InnerLoop(
    SwiGLU(),
    Frobenius(),
    GradientStep("per_step", momentum="constant"),
    Schedule(2),
    trained="last",
)
SIZES = {"B": 1, "T": 5, "H": 2, "D_k": 3, "D_v": 2, "D_h": 4}


def given(loop: InnerLoop, **changes) -> dict:
    """Right inputs, with some of them changed."""
    x = random_inputs(loop, 0, sizes={n: s for n, s in SIZES.items() if n != "D_h" or loop is FULL})
    right = {n: getattr(x, n) for n in ("q", "k", "v", "weights", "coefficients")}
    for name, change in changes.items():
        right[name] = change(right[name]) if callable(change) else change
    return right


def told(kind, name: str, loop: InnerLoop, **changes) -> str:
    """The message with which inputs are refused: one sentence about `name`, from every door."""
    wrong = given(loop, **changes)
    reduction = reduced(loop)
    order = [wrong[n] for n in ("q", "k", "v", "weights", "coefficients")]
    calls = [
        lambda: check_inputs(loop, *order),
        lambda: reduction.recurrent(*order[:3], **{n: wrong[n] for n in wrong if n not in "qkv"}),
        lambda: reduction.parallel_form(
            *order[:3], **{n: wrong[n] for n in wrong if n not in "qkv"}
        ),
    ]
    messages = []
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    found = SENTENCE.fullmatch(messages[0])
    assert found, messages[0]
    assert found[1] == name, messages[0]
    return messages[0]


REDUCED: dict = {}


def reduced(loop: InnerLoop):
    """The loop's reduction, made once."""
    if loop not in REDUCED:
        REDUCED[loop] = reduce(loop)
    return REDUCED[loop]


def number(name: str, change):
    """A change of one coefficient, by a function or to a value."""
    return lambda all_: all_ | {name: change(all_[name]) if callable(change) else change}


ETA, ALPHA = "coefficients['eta']", "coefficients['alpha']"


def weight(name: str, change):
    """A change of one weight."""
    return lambda weights: weights | {name: change(weights[name])}


KINDS = {
    "None": lambda x: None,
    "a number": lambda x: 1.0,
    "a list": lambda x: x.tolist(),
    "NumPy": lambda x: x.numpy(),
    "int32": lambda x: x.to(torch.int32),
    "int64": lambda x: x.long(),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex128),
}


@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_floating_tensor(kind, name):
    message = told(TypeError, name, FULL, **{name: KINDS[kind]})
    assert "must be a floating-point tensor; got " in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_no_floating_tensor(kind):
    told(TypeError, "weights['W0']", FULL, weights=weight("W0", KINDS[kind]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["k", "v"])
def test_dtypes_that_differ(name, dtype):
    message = told(TypeError, name, FULL, **{name: lambda x: x.to(dtype)})
    assert "must be torch.float64 on cpu, as q is; got " + str(dtype) in message


@pytest.mark.parametrize("name", ["W0", "W2", "W1"])
def test_a_weight_of_another_dtype(name):
    told(TypeError, f"weights[{name!r}]", FULL, weights=weight(name, torch.Tensor.float))


def test_a_query_of_another_dtype_than_all_others():
    told(TypeError, "k", FULL, q=torch.Tensor.float)


def test_rates_of_another_dtype():
    told(TypeError, ETA, FULL, coefficients=number("eta", torch.Tensor.float))
    told(TypeError, ETA, FULL, coefficients=number("eta", torch.Tensor.long))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["q", "k", "v", ETA])
def test_one_number_that_is_not_finite(name, value):
    def poison(x):
        x = x.clone()
        x.view(-1)[-1] = value
        return x

    change = {"coefficients": number("eta", poison)} if name == ETA else {name: poison}
    assert "must be finite" in told(ValueError, name, FULL, **change)


@pytest.mark.parametrize("name", ["W0", "W2", "W1"])
def test_a_weight_with_nan(name):
    told(ValueError, f"weights[{name!r}]", FULL, weights=weight(name, lambda w: w * math.nan))


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(math.nan)])
def test_constants_that_are_not_finite(value):
    told(ValueError, ALPHA, FULL, coefficients=number("alpha", value))
    told(ValueError, ETA, PLAIN, coefficients=number("eta", value))


SHAPES = [
    ("q", "[batch, time, heads, width]; got shape (5, 2, 3)", {"q": lambda x: x[0]}),
    ("q", "got shape (1, 1, 5, 2, 3)", {"q": lambda x: x[None]}),
    ("k", "got shape ()", {"k": lambda x: x.sum()}),
    ("v", "got shape (1, 5, 2)", {"v": lambda x: x[..., 0]}),
    ("q", "one shape; got (1, 5, 2, 2) and (1, 5, 2, 3)", {"q": lambda x: x[..., :2]}),
    ("q", "got (1, 4, 2, 3) and (1, 5, 2, 3)", {"q": lambda x: x[:, :4]}),
    ("q", "got (1, 5, 2, 3) and (1, 5, 2, 2)", {"k": lambda x: x[..., :2]}),
    ("q", "got (1, 5, 2, 3) and (0, 5, 2, 3)", {"k": lambda x: x[:0]}),
    ("v", "(1, 5, 2); got (1, 3, 2)", {"v": lambda x: x[:, :3]}),
    ("v", "(1, 5, 2); got (1, 5, 1)", {"v": lambda x: x[:, :, :1]}),
    ("v", "(1, 5, 2); got (2, 5, 2)", {"v": lambda x: x.repeat(2, 1, 1, 1)}),
    ("v", "(1, 5, 2); got (1, 2, 5)", {"v": lambda x: x.transpose(1, 2)}),
]


@pytest.mark.parametrize(("name", "part", "changes"), SHAPES)
def test_shapes_that_do_not_match(name, part, changes):
    assert part in told(ValueError, name, FULL, **changes)


WIDTHS = [
    ("W0", "(2, 3, 4), that is [heads, D_k, D_h]; got (2, 2, 4)", lambda w: w[:, :2]),
    ("W2", "(2, 3, 4), that is [heads, D_k, D_h]; got (2, 3, 2)", lambda w: w[..., :2]),
    ("W1", "(2, 4, 2), that is [heads, D_h, D_v]; got (2, 4, 1)", lambda w: w[..., :1]),
    ("W1", "got (1, 4, 2)", lambda w: w[:1]),
    ("W1", "got (2, 2, 4)", lambda w: w.mT),
    ("W0", "must be [heads, rows, cols]; got shape (3, 4)", lambda w: w[0]),
    ("W0", "got shape (1, 2, 3, 4)", lambda w: w[None]),
]


@pytest.mark.parametrize(("name", "part", "change"), WIDTHS)
def test_widths_that_do_not_match(name, part, change):
    assert part in told(ValueError, f"weights[{name!r}]", FULL, weights=weight(name, change))


def test_hidden_widths_must_agree_along_the_net():
    loop = InnerLoop(MLP(3), Frobenius(), trained="last")
    message = told(ValueError, "weights['W2']", loop, weights=weight("W2", lambda w: w[:, 1:]))
    assert "[heads, D_1, D_2]" in message


NAMES = [
    (lambda w: {}, "W0, W2, W1; got none"),
    (lambda w: {"W0": w["W0"]}, "got W0."),
    (lambda w: {n: w[n] for n in ("W0", "W2")}, "got W0, W2."),
    (lambda w: w | {"W3": w["W0"]}, "got W0, W2, W1, W3."),
    (lambda w: {"w0": w["W0"], "W2": w["W2"], "W1": w["W1"]}, "got w0, W2, W1."),
]


@pytest.mark.parametrize(("change", "part"), NAMES)
def test_weights_that_are_missing_or_unknown(change, part):
    assert part in told(ValueError, "weights", FULL, weights=change)


STEPS = [
    ("eta", FULL, 0.1, "a tensor (1, 3, 2), one number per batch, step and head; got 0.1"),
    ("eta", FULL, None, "got None"),
    ("eta", FULL, torch.tensor(0.1, dtype=torch.float64), "got ()"),
    ("eta", FULL, lambda x: x[:, :2], "got (1, 2, 2)"),  # one step too few
    ("eta", FULL, lambda x: x[..., 0], "got (1, 3)"),
    ("eta", FULL, lambda x: x.repeat(2, 1, 1), "got (2, 3, 2)"),
    ("eta", FULL, lambda x: torch.ones(1, 5, 2, dtype=x.dtype), "got (1, 5, 2)"),  # per token
    ("eta", FULL, lambda x: x.tolist(), "got [["),
    ("alpha", FULL, None, "got None. Pass a float"),
    ("alpha", FULL, "0.9", "got '0.9'"),
    ("alpha", FULL, True, "got True"),
    ("alpha", FULL, [0.9], "got [0.9]"),
    ("alpha", FULL, 1j, "got 1j"),
    ("eta", PLAIN, None, "got None"),
    ("eta", PLAIN, "fast", "got 'fast'"),
]


@pytest.mark.parametrize(("name", "loop", "value", "part"), STEPS)
def test_coefficients_of_the_wrong_kind(name, loop, value, part):
    change = number(name, value)
    assert part in told(ValueError, f"coefficients[{name!r}]", loop, coefficients=change)


OTHER_NAMES = [
    (PLAIN, lambda c: c | {"alpha": 0.9}, "have eta; got alpha, eta. Pass one for each."),
    (PLAIN, lambda c: c | {"alpha": 0}, "got alpha, eta."),
    (PLAIN, None, "have eta; got none."),
    (FULL, {}, "have alpha, eta; got none."),
    (FULL, lambda c: {"alpha": c["alpha"]}, "have alpha, eta; got alpha."),
    (FULL, lambda c: c | {3: 0.5}, "got 3, alpha, eta."),
    (FULL, 0.1, "got 0.1."),
    (FULL, lambda c: c["eta"], "got (1, 3, 2)."),
    (FULL, ["eta", "alpha"], "got ['eta', 'alpha']."),
]


@pytest.mark.parametrize(("loop", "change", "part"), OTHER_NAMES)
def test_coefficients_are_those_of_the_loop(loop, change, part):
    assert part in told(ValueError, "coefficients", loop, coefficients=change)


@pytest.mark.parametrize("loop", [PLAIN, FULL], ids=["plain", "full"])
def test_right_inputs_pass(loop):
    check_inputs(loop, *given(loop).values())


@pytest.mark.parametrize("value", [0, 1, 0.5, torch.tensor(0.5), torch.tensor(0.5).double()])
def test_a_constant_may_be_any_real_number(value):
    check_inputs(PLAIN, *given(PLAIN, coefficients={"eta": value}).values())


@pytest.mark.parametrize("sizes", [{"T": 0}, {"B": 0}, {"T": 0, "B": 0}, {"T": 1}])
def test_nothing_is_a_right_input(sizes):
    for loop in (PLAIN, FULL):
        x = random_inputs(loop, 0, sizes=sizes)
        check_inputs(loop, x.q, x.k, x.v, x.weights, x.coefficients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_is_a_right_input(dtype):
    x = random_inputs(FULL, 0, dtype=dtype)
    check_inputs(FULL, x.q, x.k, x.v, x.weights, x.coefficients)


def test_weights_may_be_any_mapping():
    right = given(FULL)
    right["weights"] = UserDict(right["weights"])
    check_inputs(FULL, *right.values())


def test_a_sequential_loop_is_refused_before_its_inputs_are_looked_at():
    loop = InnerLoop(MLP(2), SquaredError())
    with pytest.raises(NotParallelError, match=r"^a parallel form is required; .+ Use \.recurrent"):
        reduced(loop).parallel_form(None, None, None, weights={})  # pyright: ignore


def test_attention_checks_its_inputs_too():
    x = given(PLAIN)
    attention = reduced(PLAIN).attention
    attention(x["q"], x["k"], weights=x["weights"], coefficients={"eta": 0.1})
    wrong = [
        (ValueError, "q", {"q": x["q"][..., :2]}),
        (TypeError, "q", {"q": x["q"].long(), "k": x["k"].long()}),
        (ValueError, "k", {"k": x["k"] * math.nan}),
        (ValueError, "coefficients", {"coefficients": None}),
        (ValueError, ETA, {"coefficients": {"eta": None}}),
    ]
    for kind, name, change in wrong:
        right = (
            {"q": x["q"], "k": x["k"], "weights": x["weights"]}
            | {"coefficients": {"eta": 0.1}}
            | change
        )
        with pytest.raises(kind) as caught:
            attention(right.pop("q"), right.pop("k"), **right)
        found = SENTENCE.fullmatch(str(caught.value))
        assert found and found[1] == name, caught.value


@pytest.mark.parametrize("weights", [None, torch.ones(2, 3, 2), [torch.ones(2, 3, 2)], 3])
def test_weights_that_are_no_mapping(weights):
    told(TypeError, "weights", FULL, weights=weights)


def test_weights_whose_keys_are_no_names():
    told(ValueError, "weights", FULL, weights=lambda w: w | {3: w["W0"]})


def test_a_tensor_for_a_constant_is_told_by_its_shape():
    rates = torch.rand(1, 3, 2, dtype=torch.float64)
    assert "(1, 3, 2)" in told(ValueError, ALPHA, FULL, coefficients=number("alpha", rates))


@pytest.mark.parametrize(
    "value", [torch.tensor(1j), torch.tensor(True), 10**400], ids=["complex", "bool", "too large"]
)
def test_constants_that_are_no_real_numbers(value):
    with pytest.raises((TypeError, ValueError), match=r"^`coefficients..alpha..` must be "):
        check_inputs(FULL, *given(FULL, coefficients=number("alpha", value)).values())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", {"weights": {}}),
        ("weights['W']", {"weights": {"W": None}}),
        ("k", {"k": None}),
    ],
)
def test_attention_checks_before_it_reads(name, change):
    x = given(PLAIN)
    right = (
        {"q": x["q"], "k": x["k"], "weights": x["weights"]}
        | {"coefficients": {"eta": 0.1}}
        | change
    )
    with pytest.raises((TypeError, ValueError)) as caught:
        reduced(PLAIN).attention(right.pop("q"), right.pop("k"), **right)
    found = SENTENCE.fullmatch(str(caught.value))
    assert found and found[1] == name


TOKEN = InnerLoop(
    SwiGLU(), Frobenius(), GradientStep("per_token", "inside", "per_token"), Schedule(2)
)
NO_RATE = InnerLoop(Linear(), Frobenius(), GradientStep(None, momentum="per_token"))
NOTHING = InnerLoop(Linear(), Frobenius(), GradientStep(None))
LAST = InnerLoop(SwiGLU(), Frobenius(), GradientStep("per_token", "inside"), trained="last")
IMAGES = InnerLoop(DepthwiseConv(3, 1, 2), Frobenius(), schedule=Schedule(2))
TOGETHER = InnerLoop(lambda x, W: x * (x @ W), Frobenius(), schedule=Schedule(2))
KEYS = InnerLoop(lambda x, W: layer_norm(x, (3,)) @ W, Frobenius())
VALUES = InnerLoop(Linear(), lambda f, v: -(layer_norm(f, (2,)) * v).sum(-1))
KINDS_OF_LOOPS = [TOKEN, NO_RATE, NOTHING, LAST, IMAGES, TOGETHER, KEYS, VALUES]


def arguments(loop: InnerLoop, **changes) -> list:
    """Right inputs for a loop of another kind, in order, with some of them changed."""
    tokens = 6 if loop is IMAGES else 5
    x = random_inputs(loop, 0, sizes={"B": 1, "T": tokens, "H": 2, "D_v": 2})
    right = {n: getattr(x, n) for n in ("q", "k", "v", "weights", "coefficients")}
    for name, change in changes.items():
        right[name] = change(right[name]) if callable(change) else change
    return list(right.values())


EACH = "a tensor (1, 5, 2), one number per batch, token and head; got "


def one(loop, kind, name, change, part):
    """One coefficient that is off."""
    return loop, kind, f"coefficients[{name!r}]", {"coefficients": number(name, change)}, part


OTHERS = [
    one(TOKEN, ValueError, "eta_W2", lambda r: r[:, :3], EACH + "(1, 3, 2)"),
    one(TOKEN, ValueError, "eta_W0", 0.1, EACH + "0.1"),
    one(TOKEN, ValueError, "eta_W1", lambda r: r * math.nan, "finite"),
    one(TOKEN, TypeError, "eta_W1", torch.Tensor.float, "torch.float32"),
    one(TOKEN, ValueError, "alpha", 0.9, EACH + "0.9"),
    one(TOKEN, ValueError, "alpha", None, EACH + "None"),
    one(TOKEN, ValueError, "alpha", lambda m: {"W0": m}, EACH + "names W0"),
    one(TOKEN, ValueError, "alpha", lambda m: m[:, :3], EACH + "(1, 3, 2)"),
    one(TOKEN, ValueError, "alpha", lambda m: m / 0, "must be finite"),
    one(PLAIN, ValueError, "eta", {"W": torch.ones(1, 5, 2)}, "number; got names W."),
    (
        LAST,
        ValueError,
        "coefficients",
        {"coefficients": number("eta_W0", 0.1)},
        "must have eta_W1; got eta_W0, eta_W1. Pass",
    ),
    (
        NOTHING,
        ValueError,
        "coefficients",
        {"coefficients": number("eta", 0.1)},
        "have none; got eta. Leave them out.",
    ),
    (
        IMAGES,
        ValueError,
        "k",
        {n: lambda x: x[:, :5] for n in "qkv"},
        "whole images of 2 tokens; got 5 tokens",
    ),
    (TOGETHER, ValueError, "k", {n: lambda x: x[..., :1] for n in "qk"}, "v's width 2 for a net"),
    (KEYS, ValueError, "k", {n: lambda x: x[..., :2] for n in "qk"}, "a width of 3, the number"),
    (VALUES, ValueError, "v", {"v": lambda x: x[..., :1]}, "a width of 2, the number in the loop"),
    (IMAGES, ValueError, "k", {n: lambda x: x[..., :1] for n in "qk"}, "v's width 2 for a net"),
    (
        IMAGES,
        ValueError,
        "weights['W']",
        {"weights": lambda w: {"W": w["W"][:, :8]}},
        "(2, 9, 2), that is [heads, D_w, D_v]; got (2, 8, 2)",
    ),
]


@pytest.mark.parametrize(("loop", "kind", "name", "changes", "part"), OTHERS)
def test_numbers_per_token_and_images(loop, kind, name, changes, part):
    with pytest.raises(kind) as caught:
        check_inputs(loop, *arguments(loop, **changes))
    found = SENTENCE.fullmatch(str(caught.value))
    assert type(caught.value) is kind and found and found[1] == name, caught.value
    assert part in str(caught.value)


@pytest.mark.parametrize("loop", KINDS_OF_LOOPS, ids=str)
def test_right_inputs_of_every_kind_pass(loop):
    check_inputs(loop, *arguments(loop))


def test_coefficients_may_be_any_mapping_or_none():
    check_inputs(TOKEN, *arguments(TOKEN, coefficients=UserDict))
    check_inputs(NOTHING, *arguments(NOTHING, coefficients=None))


def decayed(W, g, *, alpha):
    return alpha * W - g


SHAPES_OF_COEFFICIENTS = [
    (Coefficient(shape="row"), (2, 3)),
    (Coefficient(shape="column"), (2, 4)),
    (Coefficient(shape="entry"), (2, 3, 4)),
    (Coefficient("step"), (1, 3, 2)),
    (Coefficient("step", "row"), (1, 3, 2, 3)),
    (Coefficient("step", "column"), (1, 3, 2, 4)),
    (Coefficient("step", "entry"), (1, 3, 2, 3, 4)),
    (Coefficient("token", mean=True), (1, 5, 2)),
    (Coefficient("token", "entry", mean=True), (1, 5, 2, 3, 4)),
]


@pytest.mark.parametrize(("coefficient", "shape"), SHAPES_OF_COEFFICIENTS, ids=str)
def test_the_shapes_of_coefficients(coefficient, shape):
    """Those that the loop declares pass, and no others; rows are 3, columns 4."""
    given = {"alpha": coefficient}
    loop = InnerLoop(Linear(), Frobenius(), Update(decayed), Schedule(2), coefficients=given)
    q, v, w = (torch.ones(*s, dtype=torch.float64) for s in ((1, 5, 2, 3), (1, 5, 2, 4), (2, 3, 4)))
    for wrong in (shape[:-1], (*shape, 1), (*shape[:-1], shape[-1] + 1), ()):
        with pytest.raises(ValueError, match=r"^`coefficients..alpha..` must be a tensor .*; got "):
            check_inputs(loop, q, q, v, {"W": w}, {"alpha": q.new_ones(wrong)})
    check_inputs(loop, q, q, v, {"W": w}, {"alpha": q.new_ones(shape)})
