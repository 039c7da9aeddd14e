"""Somebody's callable gets what it takes, however it is wrapped: the verdict is the same."""

from functools import partial, wraps

import pytest
import torch
from torch import distributed, nn

from tests.evidence.test_check import DELTA, HEAVY, LINEAR, Layer
from ttt_proofs import check, reduce
from ttt_proofs.loops import Frobenius, GradientStep, InnerLoop, Linear

# Wrappers. Each makes a callable of one that takes (q, k, v, weights, coefficients).


class Inside(nn.Module):
    """A module that keeps another under a name of its own."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


class Parallel(Inside):
    """As DistributedDataParallel does: the other is `module`."""

    def __init__(self, net):
        super().__init__(net)
        self.module = net


class Callable:
    """An object that is called, and takes anything."""

    def __init__(self, f):
        self.f = f

    def __call__(self, *args, **kwargs):
        return self.f(*args, **kwargs)

    def method_of_all(self, *args):
        return self.f(*args)

    def method(self, q, k, v, weights, coefficients):
        return self.f(q, k, v, weights, coefficients)


def forwarding(f):
    """A decorator without functools.wraps."""

    def g(*args, **kwargs):
        return f(*args, **kwargs)

    return g


def by_place(f):
    def g(*args):
        return f(*args)

    return g


def by_name(f):
    def g(**kwargs):
        return f(**kwargs)

    return g


def signed(f):
    @wraps(f)
    def g(*args, **kwargs):
        return f(*args, **kwargs)

    return g


def named(f):
    return lambda q, k, v, **others: f(q, k, v, **others)


def with_rest(f):
    return lambda q, *rest, **others: f(q, *rest, **others)


def places_only(f):
    def g(q, k, v, weights, coefficients, /):
        return f(q, k, v, weights, coefficients)

    return g


def names_only(f):
    return lambda *, v, coefficients, k, weights, q: f(q, k, v, weights, coefficients)


def other_order(f):
    return lambda weights, v, k, coefficients, q: f(q, k, v, weights, coefficients)


def other_names(f):
    return lambda x, y, z, coefficients, weights: f(x, y, z, weights, coefficients)


def other_words(f):
    return lambda key, value, query, weights, coefficients: f(
        query, key, value, weights, coefficients
    )


def plural_names_only(f):
    return lambda weights, coefficients, *, values, queries, keys: f(
        queries, keys, values, weights, coefficients
    )


def signed_by_name(f):
    @wraps(f)
    def g(**kwargs):
        return f(**kwargs)

    return g


def signed_partly(f):
    @wraps(f)
    def g(q, k, **kwargs):
        return f(q, k, **kwargs)

    return signed(g)


def own_defaults(f):
    return lambda q, k, v, weights, scale=1.0, coefficients=None, *, mode="": f(
        q, k, v, weights, coefficients
    )


def partly(f):
    return partial(
        lambda mode, q, k, v, weights, coefficients, of: f(q, k, v, weights, coefficients),
        "m",
        of=2,
    )


def unreadable(f):
    g = forwarding(f)
    g.__signature__ = "none"  # pyright: ignore
    return g


WRAPPERS = [
    lambda f: f,
    forwarding,
    by_place,
    by_name,
    signed,
    named,
    with_rest,
    places_only,
    names_only,
    other_order,
    other_names,
    other_words,
    plural_names_only,
    signed_by_name,
    signed_partly,
    own_defaults,
    partly,
    unreadable,
    Callable,
    lambda f: Callable(f).method,
    lambda f: forwarding(forwarding(f)),
    lambda f: signed(forwarding(f)),
    lambda f: partial(partial(forwarding(f))),
    lambda f: torch.compile(f, backend="eager"),
]
MODULES = [
    Inside,
    Parallel,
    nn.DataParallel,
    lambda f: nn.DataParallel(Inside(f)),
    lambda f: torch.compile(f, backend="eager", dynamic=True),
    lambda f: nn.DataParallel(torch.compile(f, backend="eager", dynamic=True)),
    lambda f: f.forward,
    lambda f: f.__call__,
    lambda f: Inside(f).__call__,
    lambda f: partial(f),
    lambda f: partial(nn.DataParallel(f)),
]


def outputs(f):
    """A function of just what the module takes."""
    return lambda q, k, v, weights, coefficients: f(q, k, v, weights, coefficients)


@pytest.mark.parametrize("wrap", WRAPPERS + MODULES)
@pytest.mark.parametrize("faulty", [False, True])
def test_the_verdict_is_the_same_through_wrappers(wrap, faulty):
    plain = Layer(faulty=faulty)
    kinds = [plain] if wrap in MODULES else [plain, outputs(plain)]
    for f in kinds:
        torch.compiler.reset()
        assert check(wrap(f), LINEAR, trials=3).kind == ("wrong" if faulty else "exact")


@pytest.mark.parametrize("loop", [LINEAR, DELTA, HEAVY], ids=str)
@pytest.mark.parametrize("wrap", [forwarding, Callable, Inside, named, by_name, by_place])
def test_wrappers_pass_on_what_the_loop_has(wrap, loop):
    recurrent = reduce(loop).recurrent

    class Mine(nn.Module):
        """Takes numbers whether the loop has them or not."""

        def forward(self, q, k, v, weights, coefficients=None):
            return recurrent(q, k, v, weights=weights, coefficients=coefficients)

    assert check(wrap(Mine()), loop, trials=2)


class Places(nn.Module):
    """A module that takes anything, by position."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


NUMBERS = {
    (rate, momentum): InnerLoop(Linear(), Frobenius(), GradientStep(rate, momentum=momentum))
    for rate in (None, "constant", "per_step")
    for momentum in (None, "constant")
}
BY_PLACE = [
    by_place,
    Places,
    lambda f: Places(f).forward,
    lambda f: partial(by_place(f)),
    lambda f: by_place(by_place(f)),
    lambda f: by_place(partial(f)),
    lambda f: Callable(by_place(f)).method_of_all,
]


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("wrap", [lambda f: f, forwarding, signed, *BY_PLACE])
def test_nothing_takes_the_place_of_what_a_loop_lacks(numbers, wrap):
    loop, given = NUMBERS[numbers], []
    recurrent = reduce(loop).recurrent

    def every(q, k, v, weights, coefficients):
        given.append(set(coefficients))
        return recurrent(q, k, v, weights=weights, coefficients=coefficients)

    def optional(q, k, v, weights, coefficients=None):
        return every(q, k, v, weights, coefficients)

    for mine in (every, optional):
        assert check(wrap(mine), loop, trials=2)
    assert given and all(names == set(loop.coefficients) for names in given)


@pytest.mark.parametrize("wrap", BY_PLACE)
def test_what_is_empty_at_the_end_is_left_out_where_it_is_not_taken(wrap):
    def four(q, k, v, weights):
        return reduce(NUMBERS[None, None]).recurrent(q, k, v, weights=weights)

    assert check(wrap(four), NUMBERS[None, None], trials=2)
    assert check(wrap(outputs(Layer())), LINEAR, trials=2)


@pytest.mark.parametrize("wrap", BY_PLACE)
@pytest.mark.parametrize("numbers", [(None, "constant"), ("constant", "constant")])
def test_too_few_places_are_one_sentence(wrap, numbers):
    """Coefficients that a loop has are not left out."""

    def mine(q, k, v, weights):
        raise AssertionError("must not be called")

    pattern = (
        r"^`candidate` must take q, .+, coefficients in this order .+; got .+ takes 4\. Pass .+\.$"
    )
    with pytest.raises(TypeError, match=pattern):
        check(wrap(mine), NUMBERS[numbers])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: torch.compile(by_place(f), backend="aot_eager", dynamic=True),
        lambda f: by_place(torch.compile(f, backend="aot_eager", dynamic=True)),
        lambda f: torch.compile(Places(f), backend="aot_eager", dynamic=True),
    ],
)
def test_compiled_code_gets_each_number_in_its_place(wrap):
    def mine(q, k, v, weights, coefficients):
        scores = torch.einsum("bthk,bshk->bhts", q, k).tril()
        span = torch.arange(q.shape[1], dtype=q.dtype)
        age = (span[:, None] - span).clamp_min(0)
        total = (coefficients["alpha"] ** age).tril().cumsum(0) * coefficients.get("eta", 1)
        start = torch.einsum("bthk,hkv->bthv", q, weights["W"])
        return start + torch.einsum("bhts,bshv->bthv", scores * total, v)

    for loop in (NUMBERS[None, "constant"], NUMBERS["constant", "constant"]):
        torch.compiler.reset()
        assert check(mine, loop, trials=2) and check(wrap(mine), loop, trials=2)


def test_what_partial_has_fixed_stays():
    calls = []

    def mine(q, k, v, weights, coefficients, **others):
        calls.append((coefficients, sorted(others)))
        return v

    check(partial(mine, coefficients=3.0), LINEAR, trials=1)
    check(partial(forwarding(mine), coefficients=4.0, momentum=1), LINEAR, trials=1)
    assert calls == [(3.0, []), (4.0, ["momentum"])]


@pytest.mark.parametrize("name", ["rate", "momentum"])
@pytest.mark.parametrize("wrap", [lambda f: f, partial, signed])
def test_the_names_of_before_are_refused(name, wrap):
    """A default of theirs would be taken for what the loop is given."""
    takes = {
        "rate": lambda q, k, v, weights, rate=None: v,
        "momentum": lambda q, k, v, *, coefficients, momentum: v,
    }
    with pytest.raises(TypeError, match=rf"must take `coefficients` .+`{name}`\. Use `coeff.+\.$"):
        check(wrap(takes[name]), LINEAR)
    fixed = partial(takes[name], **{name: 0.5})
    assert check(fixed, LINEAR).kind == "wrong"


UNKNOWN = [
    lambda x: x,
    lambda q, x: x,
    lambda x, weights: x,
    lambda q, k, v, x: x,
    lambda q, k, v, *, x: x,
    lambda q, k, v, weights, coefficients, x: x,
    lambda *, q, x: q,
    lambda x, /, *, q: x,
]


@pytest.mark.parametrize("mine", UNKNOWN)
@pytest.mark.parametrize("wrap", [lambda f: f, partial, signed])
def test_an_unknown_required_argument_is_one_sentence(wrap, mine):
    pattern = r"^`candidate` must require no arguments but q, .+; got 'x'\. Give .*\.$"
    with pytest.raises(TypeError, match=pattern):
        check(wrap(mine), LINEAR)


def test_errors_inside_are_not_taken_for_a_wrappers():
    """What fails in the candidate's own calls is passed on, after one call."""
    calls = []

    def helper(x):
        return x

    def wrong_name(q, k, v, weights, coefficients):
        calls.append(1)
        return helper(q, rate=1)

    def too_many(q, k, v, weights, coefficients):
        calls.append(1)
        return helper(q, k, v)

    for mine in (wrong_name, too_many):
        for wrap in (lambda f: f, forwarding, Inside, by_place):
            with pytest.raises(TypeError, match="helper"):
                check(wrap(mine), LINEAR)
    assert len(calls) == 8


def test_a_second_call_gets_the_inputs_as_they_were():
    """A wrapper that writes into them before it passes on more than is taken."""

    def spoiling(q, k, v, **others):
        v.mul_(2)
        return Layer()(q, k, v, **others)

    def halved(q, k, v, weights, coefficients):
        return Layer()(q, k, 2 * v, weights, coefficients)

    told = [check(mine, LINEAR, trials=1) for mine in (spoiling, halved)]
    assert told[0].candidate == told[1].candidate


def test_distributed_data_parallel_is_read_through():
    class Scaled(Layer):
        """With a parameter, which DistributedDataParallel requires."""

        def __init__(self, faulty):
            super().__init__(faulty)
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, q, k, v, weights, coefficients):
            return self.scale * super().forward(q, k, v, weights, coefficients)[0]

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        kinds = [
            check(nn.parallel.DistributedDataParallel(Scaled(faulty)), LINEAR, trials=2).kind
            for faulty in (False, True)
        ]
    finally:
        distributed.destroy_process_group()
    assert kinds == ["exact", "wrong"]
