"""Code that is no update rule is refused in a sentence with its line."""

import inspect
import re

import numpy as np
import pytest
import torch

from ttt_proofs.loops import (
    Coefficient,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Update,
    column_norm,
    operator,
    unknown_gate,
    zeros_like,
)

STEP = Coefficient("step")
NOT_ENTRYWISE = re.compile(
    r"an update rule must be made of .+; got .+ in line (\d+) of test_rule_refusals\.py\. "
    r"[A-Z].+\."
)


def product_of_matrices(W, g):
    return W - g @ g


def transposed(W, g):
    return W - g.mT


def unknown_function(W, g):
    return W - torch.special.erf(g)


def sign(W, g):
    return W - g.sign()


def branch(W, g):
    return W - g if g > 0 else W


def part(W, g):
    return W - g[0]


def row_norm(W, g):
    return W / W.norm(dim=-1, keepdim=True) - g


def matrix_norm(W, g):
    return W - g / g.norm()


def other_norm(W, g):
    return W - g / torch.linalg.vector_norm(g, ord=1, dim=-2, keepdim=True)


def squeezed_norm(W, g):
    return W - g / g.norm(dim=-2)


def norm_of_a_number(W, g, *, eta):
    return W - g / column_norm(eta)


def operator_on_a_column(W, g):
    return W - operator("muon")(column_norm(g))


def in_place(W, g):
    W -= g
    return W


def in_place_method(W, g):
    return W.sub_(g)


def captured_tensor(W, g):
    return W - torch.eye(3) * g


def captured_array(W, g):
    return W - g * np.eye(3)


def half_power(W, g):
    return W - g**0.5


def infinite(W, g):
    return W - float("inf") * g


def by_zero(W, g):
    return W - g / 0


def size_of_a_matrix(W, g):
    return W - g / g.shape[0]


def rounded(W, g):
    return torch.div(W, g, rounding_mode="floor")


def into(W, g):
    return W - torch.mul(g, 2, out=None)


def number_returned(W, g):
    return 0


def coefficient_returned(W, g, *, eta):
    return eta


def nothing_returned(W, g):
    _ = W - g


BY_LINE = {
    product_of_matrices: "a product of matrices",
    transposed: "`.mT`",
    unknown_function: "special_erf",
    sign: "`.sign`",
    branch: "a comparison",
    part: "a part of one",
    row_norm: "Take norms of columns",
    matrix_norm: "Take norms of columns",
    other_norm: "Take norms of columns",
    squeezed_norm: "Take norms of columns",
    norm_of_a_number: "Take it of a matrix",
    operator_on_a_column: "Take it of a matrix",
    in_place: "an operation in place",
    in_place_method: "`.sub_`, which works in place",
    captured_tensor: "a Tensor",
    captured_array: "a ndarray",
    half_power: "the power 0.5",
    infinite: "the number inf",
    by_zero: "a division by 0",
    size_of_a_matrix: "`.shape`",
    rounded: "`div` with other options",
    into: "`mul` with other options",
    number_returned: "no matrix for the weight",
    coefficient_returned: "no matrix for the weight",
    nothing_returned: "no matrix for the weight",
}


@pytest.mark.parametrize("rule", BY_LINE, ids=lambda rule: rule.__name__)
def test_what_is_not_entrywise_is_refused_with_its_line(rule):
    names = {"eta": STEP} if "eta" in rule.__code__.co_varnames else {}
    with pytest.raises(ValueError) as caught:
        looped(rule, coefficients=names)
    message = str(caught.value)
    found = NOT_ENTRYWISE.fullmatch(message)
    assert found and BY_LINE[rule] in message, message
    source, first = inspect.getsourcelines(rule)
    assert int(found[1]) in range(first + ("returned" not in rule.__name__), first + len(source))


def plain(W, g):
    return W - g


def with_rate(W, g, *, eta):
    return W - eta * g


def with_buffer(W, g, M, *, eta):
    return W - eta * M, M + g


def late_buffer(W, g, eta, M):
    return W - eta * M, M + g


ZERO = {"M": zeros_like}
ETA = {"eta": STEP}


def looped(rule, buffers=None, coefficients=None, **options):
    """A loop over a linear net with that update."""
    update = Update(rule, {} if buffers is None else buffers)
    given = {} if coefficients is None else coefficients
    return InnerLoop(Linear(), Frobenius(), update, coefficients=given, **options)


def step(rate="constant", **options):
    """A loop over a linear net with a step of the library."""
    place = "inside" if rate == "per_token" else "outside"
    return InnerLoop(Linear(), Frobenius(), GradientStep(rate, place), **options)


DECLARED = [
    (lambda: looped(with_rate), "`eta` in `with_rate` in line "),
    (lambda: looped(with_buffer, {}, ETA), "`M` in `with_buffer` in line "),
    (lambda: looped(plain, {}, ETA), "`eta` is none in `plain` in line "),
    (lambda: looped(plain, ZERO), "`M` is none in `plain` in line "),
    (lambda: looped(late_buffer, ZERO, ETA), "buffers must be the arguments after"),
    (lambda: looped(lambda W: W), "the weight and its gradient first"),
    (lambda: looped(lambda W, g: (W, g)), "the new values of the weight; got 2"),
    (lambda: looped(lambda W, g, M: W - M, ZERO), "the weight, M; got 1"),
    (lambda: looped(lambda W, g, M: (W, M, g), ZERO), "the weight, M; got 3"),
    (lambda: looped(lambda W, g, M: (W - g, 0), ZERO), "no matrix for M"),
    (lambda: looped(with_buffer, {"M": lambda W: W}, ETA), "Let it start at 0"),
    (lambda: looped(with_buffer, {"M": 0}, ETA), "Use zeros_like."),  # pyright: ignore
    (lambda: looped(with_rate, {}, {"eta": 0.1}), "must be a Coefficient; got 0.1"),  # pyright: ignore
    (lambda: looped(with_rate, {}, ["eta"]), "must be a dict; got ['eta']"),  # pyright: ignore
    (lambda: looped(lambda W, g, *, k: W - k * g, {}, {"k": STEP}), "got 'k'. Rename it."),
    (lambda: looped(lambda W, g, *, M_next: W, {}, {"M_next": STEP}), "got 'M_next'"),
    (lambda: looped(lambda W, g, W_0: (W, W_0), {"W_0": zeros_like}), "got 'W_0'"),
    (lambda: looped(plain, trained="first"), "got 'first'. Choose one."),  # pyright: ignore
    (lambda: looped(plain, trained=()), "got (). Choose one."),
    (lambda: looped(3), "must be a Python function; got 3"),  # pyright: ignore
    (
        lambda: looped(plain, {}, {"lr": Coefficient("step")}, loss_weights={"W": "lr"}),
        "one number for each token",
    ),
    (
        lambda: looped(with_rate, {}, {"eta": Coefficient("token")}, loss_weights={"W": "eta"}),
        "`eta` in `with_rate` in line ",
    ),
    (lambda: looped(plain, loss_weights=["W"]), "must be a dict; got ['W']"),  # pyright: ignore
    (lambda: looped(plain, ["M"]), "must be a dict; got ['M']"),  # pyright: ignore
    (lambda: looped(plain, loss_weights={"V": "lr"}), "weights that move; got V"),
    (lambda: step(coefficients=ETA), "must leave out what the update supplies itself; got eta"),
    (lambda: step(coefficients={"mu": STEP}), "or weigh losses; got `mu` with GradientStep()"),
    (lambda: step("per_token", loss_weights={"W": "lr"}), "supplies itself; got W with Gradient"),
    (lambda: step("per_token", coefficients={"eta_W": STEP}), "supplies itself; got eta_W"),
]


@pytest.mark.parametrize(("make", "told"), DECLARED)
def test_what_is_declared_must_be_what_the_code_takes(make, told):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    message = str(caught.value)
    assert told in message and re.fullmatch(r".+; .+\. [A-Z][^\n]*\.", message), message


def test_abstract_operators_and_gates_do_not_run():
    x = torch.zeros(2, 2)
    for function in (operator("o"), unknown_gate("muon")):
        with pytest.raises(ValueError, match="must be a concrete function for a loop to be run"):
            function(x)


def test_starts_and_norms_of_torch_are_those_of_the_library():
    def rule(W, g, M, *, eta):
        M = M + g
        return W - eta * M / (1 + torch.linalg.vector_norm(M, dim=-2, keepdim=True)), M

    def ours(W, g, M, *, eta):
        M = M + g
        return W - eta * M / (1 + column_norm(M)), M

    one = looped(rule, {"M": torch.zeros_like}, ETA)
    assert one == looped(ours, ZERO, ETA)
    x = torch.randn(2, 5, 3)
    assert torch.equal(column_norm(x), x.square().sum(-2, keepdim=True).sqrt()) or torch.allclose(
        column_norm(x), x.square().sum(-2, keepdim=True).sqrt()
    )
    assert torch.equal(zeros_like(x), torch.zeros_like(x))
