"""Derivations: they load without work, are proved or refused as they say, and say what is true."""

import ast
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.symbolic.formulas import (
    FORMULAS,
    LACT,
    NOW,
    RATES,
    SAME,
    START,
    K,
    Q,
    V,
    draw,
    rates_outside,
    slope_entry,
    stated,
    sum_of_products,
)
from tests.symbolic.running import CHUNKS, drawn, meaning, outputs
from tests.symbolic.values import ENTRYWISE, Iterated, Meaning, close, muon_entry
from ttt_proofs import reduce
from ttt_proofs.checker.definitions import Define
from ttt_proofs.checker.proof import Proof, Sequent, Step, Theorem, infer
from ttt_proofs.checker.terms import TIME, Add, CheckerError, Mul, Num, symbols
from ttt_proofs.cli.catalogue import folder, load, names
from ttt_proofs.cli.headings import written
from ttt_proofs.evidence.autograd import autograd_witness
from ttt_proofs.evidence.exact import refute
from ttt_proofs.symbolic import Derivation, Part

pytestmark = pytest.mark.all_cases

DIRECTORY = folder(None)
NAMES = names(DIRECTORY)
DERIVED = {name: load(DIRECTORY, name) for name in NAMES}

HOLD = {
    "single_step",
    "unrolled",
    "momentum",
    "momentum_rate_outside",
    "momentum_rate_inside",
    "mlp_gradients",
    "swiglu_gradients",
    "sum_order",
    "ascent_is_negated_values",
    "inner_steps",
    "lact",
    "lact_muon_on_momentum",
    "lact_weight_norm",
    "mask_recurrences",
    "parallel_form",
    "query_replaced_by_key",
    "scan_is_associative",
    "squared_error_is_affine",
    "vittt",
    "vittt_depthwise_conv",
    "vittt_glu",
    *(f"ladder_v{n}" for n in range(1, 7)),
}
FAIL = {
    "ascent_is_negated_values_squared_error",
    "dynamic_kernel_not_affine",
    "lact_muon_on_each_outer_product",
    "lact_muon_on_each_token",
    "momentum_rates_agree",
    "parallel_form_early_mask",
    "squared_error_not_additive",
    "weight_norm_is_plain_sum",
    "weight_norm_not_affine",
}


def test_all_are_here():
    assert {name for name in NAMES if DERIVED[name].expects == "holds"} == HOLD
    assert {name for name in NAMES if DERIVED[name].expects == "fails"} == FAIL


def work_at_import(source: str) -> list[str]:
    """Statements of a module that are no docstring, no import and no function."""
    body = ast.parse(source).body
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    return [ast.unparse(s) for s in body[1:] if not isinstance(s, quiet)]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_does_no_work_at_import(name):
    source = (DIRECTORY / f"{name}.py").read_text()
    assert ast.get_docstring(ast.parse(source))
    assert work_at_import(source) == []
    assert work_at_import(f"{source}\nCLAIM = derive()\n") == ["CLAIM = derive()"]


IMPORT = """
import sys, time
import ttt_proofs.symbolic
began = time.process_time()
for name in {names}:
    __import__("derivations." + name)
{more}
print(time.process_time() - began, "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("more", "torch_too"),
    [("import ttt_proofs.reduction", False), ("import ttt_proofs.layer", True)],
)
def test_importing_all_is_quick_and_needs_no_torch(more, torch_too):
    code = IMPORT.format(names=NAMES, more=more)
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        text=True,
        capture_output=True,
        timeout=120,
        check=True,
    )
    seconds, with_torch = done.stdout.split()
    assert (with_torch == "True") is torch_too
    assert torch_too or float(seconds) < 0.5


def test_deriving_needs_no_torch():
    code = IMPORT.format(
        names=NAMES,
        more="\n".join(
            f"sys.modules['derivations.{name}'].derive()" for name in ("sum_order", "single_step")
        ),
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        text=True,
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is(name):
    derivation = DERIVED[name]
    told = (derivation.name, derivation.expects, derivation.title, derivation.source)
    assert written(DIRECTORY / f"{name}.py") == told  # so that `list` need not derive it
    assert isinstance(derivation, Derivation) and derivation.name == name
    assert derivation.title and derivation.source and derivation.parts
    assert derivation.expects in ("holds", "fails")
    assert bool(derivation.instead) is (derivation.expects == "fails")
    labels = [part.label for part in derivation.parts]
    assert len(set(labels)) == len(labels)
    restated = [derivation.restate(loop) for loop in derivation.loops[:1]]
    again = [derivation.restate(loop) for loop in derivation.loops[:1]]
    assert again == restated  # nothing is drawn at random
    if len(derivation.parts) < 4:
        assert load(DIRECTORY, name).parts == derivation.parts


@pytest.mark.parametrize("name", NAMES)
def test_each_is_proved_or_refused_as_it_expects(name):
    for part in DERIVED[name].parts:
        if DERIVED[name].expects == "holds":
            theorem = Theorem(part.proof)
            assert theorem.statement.equation == part.statement
            assert not theorem.statement.hypotheses
        else:
            with pytest.raises(CheckerError):
                Theorem(part.proof)


ONE = Fraction(1)
WRONG = (
    lambda term: Add((term, Num(ONE))),
    lambda term: Mul((Num(2 * ONE), term)),
    lambda term: Mul((Num(-ONE), term)),
)


def forged(part: Part, fault) -> tuple[Proof, Step]:
    """The part's proof with another right side in its last step, and that step."""
    *steps, last = part.proof.steps
    wrong = fault(part.statement.right)
    equation = type(part.statement)(part.statement.every, part.statement.left, wrong)
    rule = type(last.rule)(wrong, *([last.rule.peel] if hasattr(last.rule, "peel") else []))
    step = Step(rule, last.premises, Sequent((), equation))
    return Proof(part.proof.definitions, (*steps, step)), step


@pytest.mark.parametrize("name", NAMES)
def test_each_is_refused_with_its_right_side_changed(name):
    """By replay of the first part's proof, and by the rule of the last step for every part."""
    for fault in WRONG:
        with pytest.raises(CheckerError):
            Theorem(forged(DERIVED[name].parts[0], fault)[0])
        for part in DERIVED[name].parts:
            proof, step = forged(part, fault)
            known = {define.name: define for block in proof.definitions for define in block}
            premises = [proof.steps[n].conclusion for n in step.premises]
            with pytest.raises(CheckerError):
                infer(known, step.rule, premises)


# Both sides of every statement, at random values: definitions are iterated as they stand.

WIDTHS = {
    "L": 2,
    "D_k": 2,
    "D_h": 2,
    "D_v": 2,
    "D_1": 2,
    "D_2": 2,
    "D_p": 2,
    "D_r": 2,
    "Y": 1,
    "X": 2,
    "D_y": 3,
    "D_x": 3,
}


class Families(dict):
    """A random number for each symbol and index."""

    def __missing__(self, name: str):
        def value(*at: int) -> float:
            seed = [len(name), *name.encode(), *(n + 50 for n in at)]
            return np.random.default_rng(seed).normal() / 2

        return cache(value)


def mixing(at, arguments, slots):
    """A function of all that it is given, or its derivative in one entry."""
    values = np.concatenate([a.flatten() for a in arguments])
    weights = np.random.default_rng([3, *(n + 50 for n in at)]).normal(size=len(values))
    inner = values @ weights + sum(at)
    if not slots:
        return np.sin(inner)
    ((argument, *cell),) = slots
    first = sum(a.size for a in arguments[:argument])
    return np.cos(inner) * weights[first + np.ravel_multi_index(cell, arguments[argument].shape)]


class Functions(dict):
    """Muon as it is, entrywise functions as they are, and `mixing` for the others."""

    def __contains__(self, name: object) -> bool:
        return name not in ENTRYWISE

    def __missing__(self, name: str):
        return muon_entry if name == "muon" else mixing


def sides(part: Part, definitions=None) -> tuple[np.ndarray, np.ndarray]:
    """Both sides at time 2 (K is 2 as well), for all values of the other indices."""
    given = part.proof.definitions if definitions is None else definitions
    model = Iterated(WIDTHS, Families(), Functions(), definitions=given)
    every = part.statement.every
    spans = [range(2, 3) if v.sort == TIME else range(WIDTHS[v.sort]) for v in every]
    envs = [dict(zip(every, at, strict=True)) for at in product(*spans)]
    left, right = (
        [complex(model.of(side, env)).real for env in envs]
        for side in (part.statement.left, part.statement.right)
    )
    return np.array(left), np.array(right)


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_agree_where_it_holds_and_nowhere_else(name):
    for part in DERIVED[name].parts:
        left, right = sides(part)
        assert np.abs(left).max() > 1e-4
        assert close(left, right) is (DERIVED[name].expects == "holds"), part.label
        assert not close(left, 2 * right) and not close(left, -right)


@pytest.mark.parametrize("key", ["ascent_is_negated_values", "ladder_v6"])
def test_two_loops_that_agree_are_two(key):
    """Each of the second loop's definitions matters: with the first one's start it is another."""
    for part in DERIVED[key].parts:
        if symbols(part.statement.right) != {"o_b"}:
            continue
        own = [d for block in part.proof.definitions for d in block]
        tagged = [d for d in own if d.name.endswith("_b") or d.name == "S"]
        assert len(tagged) >= 2 and len({d.name for d in own}) == len(own)
        for define in tagged:
            if isinstance(define, Define):
                moved = replace(define, term=Mul((Num(2 * ONE), define.term)))
                blocks = tuple(
                    tuple(moved if d == define else d for d in block)
                    for block in part.proof.definitions
                )
                left, right = sides(part, blocks)
                inert = define.name.startswith("N_")  # a gate doubled twice over is the same
                assert not close(left, right) or inert, define.name


LOOPS = [(name, loop) for name in NAMES for loop in DERIVED[name].loops]


@pytest.mark.parametrize(("name", "loop"), LOOPS, ids=[name for name, _ in LOOPS])
def test_its_loops_reduce_and_agree_with_autograd(name, loop):
    found = reduce(loop)
    assert not found.theorem.statement.hypotheses
    assert found.parallel == (DERIVED[name].parallel or found.parallel)
    assert autograd_witness(found, seed=0, trials=1).agrees


CLASSES = {
    "ladder_v1": "sequential",
    "ladder_v2": "composed",
    "ladder_v3": "composed",
    "ladder_v4": "composed",
    "ladder_v5": "composed",
    "ladder_v6": "additive",
    "parallel_form": "gated",
    "parallel_form_early_mask": "gated",
    "vittt_glu": "sequential",
    "lact_weight_norm": "sequential",
    "weight_norm_is_plain_sum": "sequential",
}


def test_the_parallel_classes_are_as_the_paper_has_them():
    stated = {name: DERIVED[name].parallel for name in NAMES if DERIVED[name].parallel}
    assert stated == CLASSES
    assert all(DERIVED[name].loops for name in stated)


def test_all_about_a_loop_have_loops():
    without = {
        "sum_order",
        "mask_recurrences",
        "scan_is_associative",
        "squared_error_is_affine",
        "squared_error_not_additive",
        "weight_norm_not_affine",
        "dynamic_kernel_not_affine",
    }
    assert {name for name, _ in LOOPS} == set(NAMES) - without


@pytest.mark.parametrize(("name", "loop"), LOOPS, ids=[name for name, _ in LOOPS])
def test_what_it_says_of_its_loops_is_what_they_do(name, loop):
    """Right sides about outputs, restated for a loop, against the loop itself."""
    x, checked = drawn(loop), 0
    expected = outputs(loop, x)
    for part in DERIVED[name].restate(loop):
        if symbols(part.statement.left) != {"o"}:
            continue
        model = meaning(loop, x, part.proof.definitions)
        last = CHUNKS - 1
        every = [v for v in part.statement.every if v.name != "K"]
        steps = {v: loop.schedule.steps for v in part.statement.every if v.name == "K"}
        found = [
            float(
                model.of(part.statement.right, dict(zip(every, (last, *at), strict=True)) | steps)
            )
            for at in np.ndindex(expected.shape[1:])
        ]
        agrees = np.allclose(found, expected[last].flatten(), rtol=1e-9, atol=1e-11)
        assert agrees is (DERIVED[name].expects == "holds"), part.label
        checked += 1
    assert checked or "gradients" in name


# Counterexamples, evaluated once more.


def read_values(values) -> dict[str, dict[tuple[int, ...], Fraction]]:
    """`k[0,1] = 2` as `{"k": {(0, 1): 2}}`."""
    found: dict = {}
    for text, number in values:
        name, _, rest = text.partition("[")
        at = tuple(int(n) for n in rest.rstrip("]").split(",") if n)
        found.setdefault(name, {})[at] = Fraction(number)
    return found


def cubic(at, arguments, slots):
    """The operator that stands for Muon in counterexamples."""
    (x,) = arguments
    return (x @ x.T @ x)[*at]


def root(at, arguments, slots):
    """The exact root of the square of a rational."""
    x = arguments[0].item()
    found = Fraction(isqrt(x.numerator), isqrt(x.denominator))
    assert found * found == x
    return found


EXACT = {
    "muon": cubic,
    "root": root,
    "inverse": lambda at, arguments, slots: 1 / arguments[0].item(),
    "step": lambda at, arguments, slots: Fraction(arguments[0].item() > 0),
}


@pytest.mark.parametrize("name", sorted(FAIL))
def test_a_counterexample_is_small_and_says_what_it_comes_to(name):
    """Symbols that it leaves out may be anything; here they are all 0, then 1, then -3."""
    (part,) = DERIVED[name].parts
    found = refute(part.statement, part.proof.definitions, seed=0)
    assert found is not None
    values = [pair for pair in found.values if pair[0] != "muon(X)"]
    sizes, times = dict(found.sizes), {v.name for v in part.statement.every if v.sort == TIME}
    assert all(size <= 2 for size in sizes.values())
    numbers = read_values(
        [pair for pair in values if pair[0] not in {v.name for v in part.statement.every}]
    )
    for table in numbers.values():
        for number in table.values():
            assert abs(number.numerator) < 100 and number.denominator < 100
    place = {
        v: int(dict(values).get(v.name, sizes.get(v.name, 0) if v.name in times else 0))
        for v in part.statement.every
    }
    for other in (0, 1, -3):
        symbols_ = Given(numbers, Fraction(other))
        model = Iterated(sizes, symbols_, EXACT, True, part.proof.definitions)
        left, right = (
            model.of(side, place) for side in (part.statement.left, part.statement.right)
        )
        assert (str(left), str(right)) == (found.left, found.right)
        assert left != right


class Given(dict):
    """Values as a counterexample gives them; the others are all the same number."""

    def __init__(self, numbers, other: Fraction) -> None:
        self.numbers, self.other = numbers, other

    def __missing__(self, name: str):
        return lambda *at: self.numbers.get(name, {}).get(at, self.other)


# The statements against formulas in NumPy, at one size and time.

PARTS = {(name, part.label): part for name in NAMES for part in DERIVED[name].parts}
ABOUT = {
    key
    for key, part in PARTS.items()
    if DERIVED[key[0]].expects == "holds" and symbols(part.statement.left) == {"o"}
}
EQUAL = {key for key in ABOUT if symbols(PARTS[key].statement.right) == {"o_b"}}
FOUND = {key: stated(PARTS[key].statement) for key in ABOUT - EQUAL}


def test_every_part_about_outputs_has_its_formula():
    assert set(FORMULAS) == ABOUT - EQUAL
    assert {name for name, _ in EQUAL} == {"ascent_is_negated_values", "ladder_v6"}
    assert len(LACT) == 32 and {label for name, label in ABOUT if name == "lact"} == set(LACT)


@pytest.mark.parametrize("key", sorted(FORMULAS), ids=", ".join)
def test_the_statement_is_its_formula_and_no_other(key):
    found = FOUND[key]
    np.testing.assert_allclose(found, FORMULAS[key](), rtol=1e-9, atol=1e-11)
    for other, wrong in FORMULAS.items():
        if found.shape == wrong().shape:
            same = other == key or any({other, key} <= group for group in SAME)
            assert np.allclose(found, wrong(), rtol=1e-6) is same, other


def test_the_false_claim_states_the_other_formula():
    """The loop has its rate outside; the claim gives it the coefficient of the inside."""
    derivation = DERIVED["momentum_rates_agree"]
    found = stated(derivation.parts[0].statement)

    def outputs(coefficient):
        past = sum(coefficient(i) * K[i].T @ V[i] for i in range(NOW + 1))
        return Q[NOW] @ (START + past)

    np.testing.assert_allclose(found, outputs(lambda i: RATES[i] * sum_of_products(i)), rtol=1e-12)
    assert not np.allclose(found, outputs(rates_outside))


def test_the_exchange_of_sums_is_one():
    (part,) = DERIVED["sum_order"].parts
    values = {"a": draw(6), "b": draw(6, 6)}
    (now,) = part.statement.every
    model = Meaning({}, values)
    pairs = [(i, j) for j in range(NOW + 1) for i in range(j + 1)]
    expected = sum(values["a"][i] * values["b"][i, j] for i, j in pairs)
    for side in (part.statement.left, part.statement.right):
        assert model.of(side, {now: NOW}) == pytest.approx(expected, rel=1e-12)
        assert model.of(side, {now: NOW + 1}) != pytest.approx(expected, rel=1e-6)


def test_the_scan_combines_affine_maps():
    """Both sides of each statement are the matrix products that they stand for, and no others."""
    gates, shifts, one = DERIVED["scan_is_associative"].parts
    x = {name: draw(2, 2) for name in "ABC"} | {name: draw(2, 3) for name in "XYZS"}
    second = x["B"] @ x["X"] + x["Y"]
    wanted = {
        gates: x["C"] @ x["B"] @ x["A"],
        shifts: x["C"] @ second + x["Z"],
        one: x["B"] @ x["A"] @ x["S"] + second,
    }
    model = Meaning({"D_h": 2, "D_v": 3}, x)
    for part, matrix in wanted.items():
        every = part.statement.every
        for side in (part.statement.left, part.statement.right):
            found = [
                model.of(side, dict(zip(every, at, strict=True))) for at in np.ndindex(matrix.shape)
            ]
            np.testing.assert_allclose(found, matrix.flatten(), rtol=1e-12)
            assert not np.allclose(found, (matrix + x["A" if part == gates else "S"]).flatten())


def act(x: torch.Tensor) -> torch.Tensor:
    """The abstract activation's meaning in `tests.symbolic.values`."""
    return x**3 - x


NETS = {
    "mlp_gradients": lambda w, x: (
        act(act(x @ w["W1"]) @ w["W2"]) @ w["W3"] if "W3" in w else act(x @ w["W1"]) @ w["W2"]
    ),
    "swiglu_gradients": lambda w, x: (
        (torch.nn.functional.silu(x @ w["W0"]) * (x @ w["W2"])) @ w["W1"]
    ),
}
GRADIENTS = [(name, part) for name in NETS for part in DERIVED[name].parts]


@pytest.mark.parametrize(("name", "part"), GRADIENTS, ids=[f"{n}, {p.label}" for n, p in GRADIENTS])
def test_gradients_are_those_of_autograd(name, part):
    """The statement's right side, with ℓ = Σ f³ v, against PyTorch."""
    sizes = {"L": 2, "D_k": 3, "D_1": 2, "D_2": 3, "D_h": 2, "D_v": 2}
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return (
            torch.randn(*(sizes.get(n, n) for n in shape), generator=generator, dtype=torch.float64)
            / 2
        )

    widths = {
        "two": {"W1": ("D_k", "D_1"), "W2": ("D_1", "D_v")},
        "three": {"W1": ("D_k", "D_1"), "W2": ("D_1", "D_2"), "W3": ("D_2", "D_v")},
        "swiglu": {"W0": ("D_k", "D_h"), "W2": ("D_k", "D_h"), "W1": ("D_h", "D_v")},
    }
    shapes = widths["swiglu" if name == "swiglu_gradients" else part.label.split()[0]]
    data = {"k": random(1, "L", "D_k"), "v": random(1, "L", "D_v")}
    weights = {n: random(1, *shape).requires_grad_() for n, shape in shapes.items()}
    loss = (NETS[name]({n: w[0] for n, w in weights.items()}, data["k"][0]) ** 3 * data["v"]).sum()
    trained = part.statement.left.name.removeprefix("G_")
    (expected,) = torch.autograd.grad(loss, [weights[trained]])

    arrays = {n: x.detach().numpy() for n, x in (data | weights).items()}
    model = Meaning(sizes, arrays, {"ell": slope_entry})
    now, row, col = part.statement.every
    assert (row.sort, col.sort) == shapes[trained]
    found = [
        [
            float(model.of(part.statement.right, {now: 0, row: r, col: c}))
            for c in range(sizes[col.sort])
        ]
        for r in range(sizes[row.sort])
    ]
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-10, atol=1e-13)
    assert not np.allclose(found, 2 * expected[0].numpy())
