"""Derivations: they load without work, are proved or refused as they say, and say what is true."""

import ast
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.symbolic.values import Meaning
from ttt_proofs import reduce
from ttt_proofs.cli.library import folder, load, names
from ttt_proofs.evidence.autograd import autograd_witness
from ttt_proofs.kernel.proof import Theorem
from ttt_proofs.kernel.terms import Add, KernelError, Mul, Num, symbols
from ttt_proofs.symbolic import Derivation

DIRECTORY = folder(None)
NAMES = names(DIRECTORY)
DERIVED = {name: load(DIRECTORY, name) for name in NAMES}

ISSUED = {"single_step", "unrolled", "momentum", "momentum_rate_outside", "momentum_rate_inside",
          "momentum_rates_agree", "mlp_gradients", "swiglu_gradients", "sum_order"}  # fmt: skip


def test_all_are_here():
    assert set(NAMES) >= ISSUED
    assert [name for name in NAMES if DERIVED[name].expects == "fails"] == ["momentum_rates_agree"]


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
    ("more", "torch_too"), [("", False), ("import ttt_proofs.reduction", True)]
)
def test_importing_all_is_quick_and_needs_no_torch(more, torch_too):
    code = IMPORT.format(names=NAMES, more=more)
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, capture_output=True,
                          timeout=120, check=True)  # fmt: skip
    seconds, with_torch = done.stdout.split()
    assert (with_torch == "True") is torch_too
    assert torch_too or float(seconds) < 0.5


def test_deriving_needs_no_torch():
    code = IMPORT.format(names=NAMES, more="\n".join(
        f"sys.modules['derivations.{name}'].derive()" for name in ("sum_order", "single_step")
    ))  # fmt: skip
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, capture_output=True,
                          timeout=120, check=True)  # fmt: skip
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is(name):
    derivation = DERIVED[name]
    assert isinstance(derivation, Derivation) and derivation.name == name
    assert derivation.title and derivation.source and derivation.parts
    assert derivation.expects in ("holds", "fails")
    assert bool(derivation.instead) is (derivation.expects == "fails")
    labels = [part.label for part in derivation.parts]
    assert len(set(labels)) == len(labels)
    again = load(DIRECTORY, name)  # nothing is drawn at random
    assert (again.parts, again.loops) == (derivation.parts, derivation.loops)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_proved_or_refused_as_it_expects(name):
    for part in DERIVED[name].parts:
        if DERIVED[name].expects == "holds":
            theorem = Theorem(part.proof)
            assert theorem.statement.equation == part.statement
            assert not theorem.statement.hypotheses
        else:
            with pytest.raises(KernelError):
                Theorem(part.proof)


ONE = Fraction(1)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_refused_with_its_right_side_changed(name):
    for part in DERIVED[name].parts:
        *steps, last = part.proof.steps
        for fault in (
            lambda term: Add((term, Num(ONE))),
            lambda term: Mul((Num(2 * ONE), term)),
            lambda term: Mul((Num(-ONE), term)),
        ):
            wrong = fault(part.statement.right)
            equation = type(part.statement)(part.statement.every, part.statement.left, wrong)
            rule = type(last.rule)(wrong, *([last.rule.peel] if hasattr(last.rule, "peel") else []))
            forged = type(last)(rule, last.premises, type(last.conclusion)((), equation))
            with pytest.raises(KernelError):
                Theorem(type(part.proof)(part.proof.definitions, (*steps, forged)))


LOOPS = [(name, loop) for name in NAMES for loop in DERIVED[name].loops]


@pytest.mark.parametrize(("name", "loop"), LOOPS, ids=[name for name, _ in LOOPS])
def test_its_loops_reduce_and_agree_with_autograd(name, loop):
    found = reduce(loop)
    assert not found.theorem.statement.hypotheses
    assert autograd_witness(found, seed=0, trials=1).agrees


def test_most_have_loops():
    assert {name for name, _ in LOOPS} >= ISSUED - {"sum_order", "momentum_rates_agree"}


# The statements against the formulas of the paper, in NumPy, at one size and time.

SIZES = {"L": 2, "D_k": 3, "D_h": 2, "D_v": 2}
TIMES, NOW = 5, 3
RNG = np.random.default_rng(0)


def draw(*shape) -> np.ndarray:
    """Random numbers; widths by name."""
    return RNG.normal(size=[SIZES.get(n, n) for n in shape])


SYMBOLS = {
    "q": draw(TIMES, "L", "D_k"),
    "k": draw(TIMES, "L", "D_k"),
    "v": draw(TIMES, "L", "D_v"),
    "W": draw(TIMES + 1, "D_h", "D_v"),
    "W_0": draw("D_h", "D_v"),
}
RATE, MOMENTA, RATES = 0.3, draw(TIMES + 1), draw(TIMES + 1)


def phi(time: int, rows: np.ndarray) -> np.ndarray:
    """Some φ that changes with time: `[L, D_k]` to `[L, D_h]`."""
    mixed = rows @ np.arange(1.0, 4.0)
    return np.sin(mixed[:, None] * (1 + np.arange(2.0)) + time)


def phi_entry(at, arguments, slots):
    """The same, as the kernel's terms call it."""
    time, col = at
    assert not slots
    return phi(time, arguments[0][None])[0, col]


def slope(f: np.ndarray, v: np.ndarray) -> np.ndarray:
    """`∂/∂f Σ f³ v`."""
    return 3 * f**2 * v


def slope_entry(at, arguments, slots):
    """The same, as the kernel's terms call it."""
    ((argument, col),) = slots
    assert argument == 0 and not at
    return slope(*arguments)[col]


def stored(i: int) -> np.ndarray:
    """`φ_i(k_i)ᵀ g_i(k_i)` without the rate: `g = -∂ℓ/∂f` at `f = φ_i(k_i) W_i`."""
    keys = phi(i, SYMBOLS["k"][i])
    return keys.T @ -slope(keys @ SYMBOLS["W"][i], SYMBOLS["v"][i])


def beta(i: int, j: int) -> float:
    """`β_i^j = Π_{s=i+1..j} α_s`."""
    return float(np.prod(MOMENTA[i + 1 : j + 1]))


def output(state: np.ndarray, time: int = NOW + 1) -> np.ndarray:
    """`φ_{t+1}(q_t) S`."""
    return phi(time, SYMBOLS["q"][NOW]) @ state


def unrolled(coefficient) -> np.ndarray:
    """`φ_{t+1}(q_t) (W_0 + Σ_{i=0..t} C(i) φ_i(k_i)ᵀ g_i(k_i))`."""
    past = sum(coefficient(i) * stored(i) for i in range(NOW + 1))
    return output(SYMBOLS["W_0"] + past)


def before(coefficient) -> np.ndarray:
    """`φ_t(q_t) (W_0 + Σ_{i=0..t-1} C(i) φ_i(k_i)ᵀ g_i(k_i))`."""
    past = sum(coefficient(i) * stored(i) for i in range(NOW))
    return output(SYMBOLS["W_0"] + past, NOW)


def sum_of_products(i: int, last: int = NOW) -> float:
    """`Σ_{j=i..last} β_i^j`."""
    return sum(beta(i, j) for j in range(i, last + 1))


def rates_outside(i: int) -> float:
    """`Σ_{j=i..t} η_j β_i^j`."""
    return sum(RATES[j] * beta(i, j) for j in range(i, NOW + 1))


# By derivation and number of the part: is η one number, and the formula.
FORMULAS = {
    ("single_step", 0): (True, lambda: output(SYMBOLS["W"][NOW] + RATE * stored(NOW))),
    ("unrolled", 0): (True, lambda: unrolled(lambda i: RATE)),
    ("unrolled", 1): (True, lambda: before(lambda i: RATE)),
    ("momentum", 0): (True, lambda: unrolled(lambda i: RATE * sum_of_products(i))),
    ("momentum", 1): (True, lambda: before(lambda i: RATE * sum_of_products(i, NOW - 1))),
    ("momentum_rate_outside", 0): (False, lambda: unrolled(rates_outside)),
    ("momentum_rate_inside", 0): (
        False,
        lambda: unrolled(lambda i: RATES[i] * sum_of_products(i)),
    ),
    ("momentum_rate_inside", 1): (True, lambda: unrolled(lambda i: RATE * sum_of_products(i))),
}
SAME = {("momentum", 0), ("momentum_rate_inside", 1)}  # a constant rate may stand anywhere


def test_every_part_about_outputs_has_its_formula():
    about = {(name, n) for name in NAMES if DERIVED[name].expects == "holds"
             for n, part in enumerate(DERIVED[name].parts)
             if symbols(part.statement.left) == {"o"}}  # fmt: skip
    assert about == set(FORMULAS)


def stated(name: str, number: int, one_rate: bool) -> np.ndarray:
    """The right side of a statement, at NOW, for each row and column."""
    statement = DERIVED[name].parts[number].statement
    values = SYMBOLS | {"alpha": MOMENTA, "eta": (lambda: RATE) if one_rate else RATES}
    meaning = Meaning(SIZES, values, {"phi": phi_entry, "ell": slope_entry})
    now, row, col = statement.every
    return np.array([[float(meaning.of(statement.right, {now: NOW, row: r, col: c}))
                      for c in range(2)] for r in range(2)])  # fmt: skip


@pytest.mark.parametrize(("name", "number"), FORMULAS)
def test_the_statement_is_the_formula_of_the_paper(name, number):
    one_rate, formula = FORMULAS[name, number]
    found = stated(name, number, one_rate)
    np.testing.assert_allclose(found, formula(), rtol=1e-12)
    for other, (_, wrong) in FORMULAS.items():
        same = other == (name, number) or {other, (name, number)} == SAME
        assert np.allclose(found, wrong(), rtol=1e-6) is same, other


def test_the_false_claim_states_the_other_formula():
    """The loop has its rate outside; the claim gives it the coefficient of the inside."""
    derivation = DERIVED["momentum_rates_agree"]
    values = SYMBOLS | {"W_0": draw("D_k", "D_v"), "alpha": MOMENTA, "eta": RATES}
    (statement,) = [part.statement for part in derivation.parts]
    now, row, col = statement.every
    meaning = Meaning(SIZES, values)
    found = [[float(meaning.of(statement.right, {now: NOW, row: r, col: c})) for c in range(2)]
             for r in range(2)]  # fmt: skip

    def outputs(coefficient):
        past = sum(coefficient(i) * values["k"][i].T @ values["v"][i] for i in range(NOW + 1))
        return values["q"][NOW] @ (values["W_0"] + past)

    np.testing.assert_allclose(found, outputs(lambda i: RATES[i] * sum_of_products(i)), rtol=1e-12)
    assert not np.allclose(found, outputs(rates_outside))


def test_the_exchange_of_sums_is_one():
    (part,) = DERIVED["sum_order"].parts
    values = {"a": draw(6), "b": draw(6, 6)}
    (now,) = part.statement.every
    meaning = Meaning({}, values)
    pairs = [(i, j) for j in range(NOW + 1) for i in range(j + 1)]
    expected = sum(values["a"][i] * values["b"][i, j] for i, j in pairs)
    for side in (part.statement.left, part.statement.right):
        assert meaning.of(side, {now: NOW}) == pytest.approx(expected, rel=1e-12)
        assert meaning.of(side, {now: NOW + 1}) != pytest.approx(expected, rel=1e-6)


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


@pytest.mark.parametrize(("name", "part"), GRADIENTS,
                         ids=[f"{n}, {p.label}" for n, p in GRADIENTS])  # fmt: skip
def test_gradients_are_those_of_autograd(name, part):
    """The statement's right side, with ℓ = Σ f³ v, against PyTorch."""
    sizes = {"L": 2, "D_k": 3, "D_1": 2, "D_2": 3, "D_h": 2, "D_v": 2}
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*(sizes.get(n, n) for n in shape), generator=generator,
                           dtype=torch.float64) / 2  # fmt: skip

    widths = {"two": {"W1": ("D_k", "D_1"), "W2": ("D_1", "D_v")},
              "three": {"W1": ("D_k", "D_1"), "W2": ("D_1", "D_2"), "W3": ("D_2", "D_v")},
              "swiglu": {"W0": ("D_k", "D_h"), "W2": ("D_k", "D_h"),
                         "W1": ("D_h", "D_v")}}  # fmt: skip
    shapes = widths["swiglu" if name == "swiglu_gradients" else part.label.split()[0]]
    data = {"k": random(1, "L", "D_k"), "v": random(1, "L", "D_v")}
    weights = {n: random(1, *shape).requires_grad_() for n, shape in shapes.items()}
    loss = (NETS[name]({n: w[0] for n, w in weights.items()}, data["k"][0]) ** 3 * data["v"]).sum()
    trained = part.statement.left.name.removeprefix("G_")
    (expected,) = torch.autograd.grad(loss, [weights[trained]])

    arrays = {n: x.detach().numpy() for n, x in (data | weights).items()}
    meaning = Meaning(sizes, arrays, {"ell": slope_entry})
    now, row, col = part.statement.every
    assert (row.sort, col.sort) == shapes[trained]
    found = [[float(meaning.of(part.statement.right, {now: 0, row: r, col: c}))
              for c in range(sizes[col.sort])] for r in range(sizes[row.sort])]  # fmt: skip
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-10, atol=1e-13)
    assert not np.allclose(found, 2 * expected[0].numpy())
