"""Code that is no update rule is refused in a sentence that shows the line."""

import re

import numpy as np
import pytest
import torch

from ttt_proofs.loops import (
    Coefficient,
    Update,
    column_norm,
    operator,
    unknown_gate,
    zeros_like,
)

STEP = Coefficient("step")
NOT_ENTRYWISE = re.compile(
    r"an update rule must be made of .+; got .+ in `.+` \(test_rule_refusals\.py, line \d+\)\. "
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
    product_of_matrices: "W - g @ g",
    transposed: "g.mT",
    unknown_function: "special_erf",
    sign: "`.sign`",
    branch: "W - g if g > 0 else W",
    part: "W - g[0]",
    row_norm: "Take norms of columns",
    matrix_norm: "Take norms of columns",
    other_norm: "Take norms of columns",
    squeezed_norm: "Take norms of columns",
    norm_of_a_number: "Take it of a matrix",
    operator_on_a_column: "Take it of a matrix",
    in_place: "`W -= g`",
    in_place_method: "`.sub_`, which works in place",
    captured_tensor: "a Tensor",
    captured_array: "a ndarray",
    half_power: "the power 0.5",
    infinite: "the number inf",
    by_zero: "a division by 0",
    size_of_a_matrix: "`.shape`",
    rounded: "`div` with other options",
    into: "`mul` with other options",
    number_returned: "no matrix for the weight in `def number_returned(W, g):`",
    coefficient_returned: "no matrix for the weight",
    nothing_returned: "no matrix for the weight",
}


@pytest.mark.parametrize("rule", BY_LINE, ids=lambda rule: rule.__name__)
def test_what_is_not_entrywise_is_refused_with_its_line(rule):
    names = {"eta": STEP} if "eta" in rule.__code__.co_varnames else {}
    with pytest.raises(ValueError) as caught:
        Update(rule, coefficients=names)
    message = str(caught.value)
    assert NOT_ENTRYWISE.fullmatch(message), message
    assert BY_LINE[rule] in message


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
DECLARED = [
    (lambda: Update(with_rate), "`eta` in `def with_rate(W, g, *, eta):`"),
    (lambda: Update(with_buffer, {}, ETA), "`M` in `def with_buffer"),
    (lambda: Update(plain, {}, ETA), "`eta` is none in `def plain"),
    (lambda: Update(plain, ZERO), "`M` is none in `def plain"),
    (lambda: Update(late_buffer, ZERO, ETA), "buffers must be the arguments after"),
    (lambda: Update(lambda W: W), "the weight and its gradient first"),
    (lambda: Update(lambda W, g: (W, g)), "the new values of the weight; got 2"),
    (lambda: Update(lambda W, g, M: W - M, ZERO), "the weight, M; got 1"),
    (lambda: Update(lambda W, g, M: (W, M, g), ZERO), "the weight, M; got 3"),
    (lambda: Update(lambda W, g, M: (W - g, 0), ZERO), "no matrix for M"),
    (lambda: Update(with_buffer, {"M": lambda W: W}, ETA), "Let it start at 0"),
    (lambda: Update(with_buffer, {"M": 0}, ETA), "Use zeros_like."),  # pyright: ignore
    (lambda: Update(with_rate, {}, {"eta": 0.1}), "must be a Coefficient; got 0.1"),  # pyright: ignore
    (lambda: Update(with_rate, {}, ["eta"]), "must be a dict; got ['eta']"),  # pyright: ignore
    (lambda: Update(lambda W, g, *, k: W - k * g, {}, {"k": STEP}), "got 'k'. Rename it."),
    (lambda: Update(lambda W, g, *, M_next: W, {}, {"M_next": STEP}), "got 'M_next'"),
    (lambda: Update(lambda W, g, W_0: (W, W_0), {"W_0": zeros_like}), "got 'W_0'"),
    (lambda: Update(plain, trained="first"), "got 'first'. Choose one."),  # pyright: ignore
    (lambda: Update(plain, trained=()), "got (). Choose one."),
    (lambda: Update(3), "must be a Python function; got 3"),  # pyright: ignore
    (
        lambda: Update(plain, {}, {"lr": Coefficient("step")}, loss_weights={"W": "lr"}),
        "one number for each token",
    ),
    (
        lambda: Update(with_rate, {}, {"eta": Coefficient("token")}, loss_weights={"W": "eta"}),
        "`eta` in `def with_rate",
    ),
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

    one = Update(rule, {"M": torch.zeros_like}, ETA)
    assert one == Update(ours, ZERO, ETA)
    x = torch.randn(2, 5, 3)
    assert torch.equal(column_norm(x), x.square().sum(-2, keepdim=True).sqrt()) or torch.allclose(
        column_norm(x), x.square().sum(-2, keepdim=True).sqrt()
    )
    assert torch.equal(zeros_like(x), torch.zeros_like(x))
