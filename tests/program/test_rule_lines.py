"""The lines that are read off a function say what it does on tensors, step after step."""

import inspect
from dataclasses import replace
from functools import reduce
from operator import add, mul

import pytest
import sympy as sp
import torch
from torch import Tensor

from tests.program.rules import RULES, ruled
from ttt_proofs.loops import (
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Update,
    operator,
    zeros_like,
)
from ttt_proofs.program.coefficients import Coefficient, t
from ttt_proofs.program.operators import muon
from ttt_proofs.program.rules import (
    W_0,
    G,
    Rule,
    W,
    column_norm,
    following,
    gate_of,
    inverse,
    operated,
    root,
)

STEPS, ROWS, COLS = 4, 4, 3


def value(e: sp.Basic, known: dict[sp.Basic, Tensor]) -> Tensor:
    """An entrywise expression on tensors."""
    if e in known:
        return known[e]
    if e.is_Rational:
        return torch.tensor(float(e), dtype=torch.float64)
    if isinstance(e, sp.Indexed):
        return known[e.base]
    parts = [value(x, known) for x in e.args if x.is_Symbol or x.args or x.is_Rational]
    if isinstance(e, sp.Add | sp.Mul):
        return reduce(add if isinstance(e, sp.Add) else mul, parts)
    if isinstance(e, sp.Pow):
        return parts[0] ** int(e.exp)
    calls = {
        column_norm: lambda x: x.square().sum(-2, keepdim=True).sqrt(),
        inverse: lambda x: 1 / x,
        root: torch.sqrt,
        operated: muon,
    }
    return calls[type(e)](parts[-1])


def stepped(rule: Rule, states: dict, given: dict) -> dict:
    """The states after one step, by the lines."""
    known = given | states
    for line in rule.lines:
        made = value(line.expression, known)
        seen = sp.IndexedBase(line.target) if line.kind == "gate" else line.seen
        known = {seen: made} | {k: v for k, v in known.items() if k != seen}
    return {s: known[following(s)] for s in rule.states}


def numbers(kind: Coefficient, draw) -> Tensor:
    """A coefficient that broadcasts over rows and columns."""
    sizes = {"scalar": (1, 1), "row": (ROWS, 1), "column": (1, COLS), "entry": (ROWS, COLS)}
    return 0.5 + draw(*sizes[kind.shape]).abs()


@pytest.mark.parametrize("shape", ["scalar", "row", "column", "entry"])
@pytest.mark.parametrize("name", RULES)
def test_the_lines_are_what_the_code_does(name, shape):
    mine = ruled(name, shape=shape)
    for by_code, by_lines in run(mine, mine.rule):
        assert torch.allclose(by_code, by_lines, rtol=1e-10, atol=1e-12)
    assert len({line.target for line in mine.rule.lines}) == len(mine.rule.lines)


def run(mine: InnerLoop, rule: Rule) -> list[tuple[Tensor, Tensor]]:
    """Each state after each step: by the code, and by the lines of a rule."""
    rng = torch.Generator().manual_seed(3)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=rng, dtype=torch.float64)

    first = draw(ROWS, COLS)
    weight, held = first, {name: make(first) for name, make in mine.update.buffers.items()}
    states, found = {W: first} | {sp.Symbol(n): x for n, x in held.items()}, []
    constants = {symbol: torch.tensor(x) for symbol, x in rule.constants}
    for _ in range(STEPS):
        gradient = draw(ROWS, COLS)
        each = {name: numbers(c, draw) for name, c in mine.coefficients.items()}
        given = {k: v for name, x in each.items() for k, v in symbols(name, x).items()}
        states = stepped(rule, states, given | constants | {G: gradient, W_0: first})
        taken = inspect.signature(mine.update.function).parameters
        more = {"W_0": first} if "W_0" in taken else {}
        made = mine.update.function(weight, gradient, *held.values(), **each, **more)
        weight, *new = made if isinstance(made, tuple) else (made,)
        held = dict(zip(held, new, strict=True))
        by_code = {W: weight} | {sp.Symbol(n): x for n, x in held.items()}
        found += [(by_code[s], states[s]) for s in rule.states]
    return found


def symbols(name: str, x: Tensor) -> dict[sp.Basic, Tensor]:
    """A coefficient under each name that lines may have for it."""
    return {sp.Symbol(name): x, sp.IndexedBase(name): x}


@pytest.mark.parametrize("name", ["titans", "two buffers", "old buffers", "muon of old"])
def test_a_line_that_is_changed_is_told_apart(name):
    """The comparison above can fail: a sign, or a value of another time, gives other numbers."""
    mine, tried = ruled(name), 0
    times = {s: following(s) for s in mine.rule.buffers}
    for k, line in enumerate(mine.rule.lines):
        for change in ({G: -G}, times, {new: old for old, new in times.items()}):
            changed = with_line(mine.rule, k, line.expression.xreplace(change))
            try:
                same = all(torch.allclose(*pair) for pair in run(mine, changed))
            except KeyError:  # a new value that is not there yet
                continue
            assert same is (changed == mine.rule)
            tried += not same
    assert tried >= 2


def with_line(rule: Rule, number: int, expression: sp.Expr) -> Rule:
    """The rule with another expression in a line."""
    lines = list(rule.lines)
    lines[number] = replace(lines[number], expression=expression)
    return replace(rule, lines=tuple(lines))


M, U, R, N = sp.symbols("M U R N")
theta, eta, mu = (sp.IndexedBase(name)[t] for name in ("theta", "eta", "mu"))
alpha, lr = (sp.IndexedBase(name)[t] for name in ("alpha", "lr"))


def lines(rule: Rule) -> dict[sp.Expr, sp.Expr]:
    """Each line as it is seen by later ones."""
    return {line.seen: line.expression for line in rule.lines}


def test_a_buffer_that_is_used_anew_has_its_new_name():
    found = lines(ruled("titans").rule)
    assert found == {
        following(M): eta * M - theta * G,
        following(W): (1 - alpha) * W + following(M),
    }
    found = lines(ruled("nesterov").rule)
    assert found[following(W)] == W - lr * (G + mu * following(M))


def test_a_buffer_that_is_used_as_it_was_has_its_old_name():
    found = lines(ruled("old buffer").rule)
    assert found == {following(M): mu * M + G, following(W): W + mu * M - eta * G}
    A, B = sp.symbols("A B")
    assert lines(ruled("old buffers").rule)[following(B)].has(A)


def test_an_operator_takes_a_state_which_is_made_if_there_is_none():
    rule = ruled("muon, nesterov").rule
    assert [(line.target.name, line.kind) for line in rule.lines] == [
        ("M", "state"),
        ("M2", "state"),
        ("U", "operator"),
        ("W", "state"),
    ]
    assert rule.buffers == (M,)
    assert [line.target.name for line in ruled("muon, decay").rule.lines] == ["M", "U", "W"]


def test_operators_are_numbered():
    def rule(W, g):
        return W + operator("a")(g) + operator("b")(g) + operator("b")(operator("b")(g))

    names = [line.target.name for line in Update(rule).lines({}).lines]
    assert names.count("M") == 1 and {"U", "U2", "U3"} < set(names)
    assert len(names) == 6  # g is one state, b(g) is made once


def test_a_gate_on_the_whole_new_weight_is_one_of_the_new_time():
    (gate, _) = ruled("restored").rule.lines
    assert gate.target == N and gate.seen == sp.IndexedBase("N")[t + 1]
    assert gate.start == gate.expression.xreplace({W - eta * G: W_0})
    assert gate.start is not None and not gate.start.has(W, G)


def test_a_gate_of_old_values_is_one_of_its_own_time():
    first, second, _ = ruled("clipped twice").rule.lines
    assert (first.seen, first.start) == (sp.IndexedBase("R")[t], None)
    assert second.expression.has(first.seen) and second.seen == sp.IndexedBase("R2")[t]


def test_a_gate_of_new_values_waits_for_them():
    (gate,) = ruled("clipped buffer").rule.of_kind("gate")
    assert gate.seen == sp.IndexedBase("R")[t + 1] and gate.start == 0


def test_a_step_of_the_library_is_the_code_that_it_shows():
    for step in (
        GradientStep("per_step", "inside", "per_step", clip="column_norm", orthogonal="muon"),
        GradientStep("constant", momentum="constant", ascent=True, weight_norm="initial_norm"),
    ):
        update = Update(step.function, step.buffers)
        mine = InnerLoop(Linear(), Frobenius(), update, coefficients=step.coefficients)
        assert mine.rule == step.rule
        assert mine == InnerLoop(Linear(), Frobenius(), step)
        for by_code, by_lines in run(mine, step.rule):
            assert torch.allclose(by_code, by_lines, rtol=1e-10)


WAYS = {
    "in another order": lambda W, g, M, *, eta: (M * eta + g + W, eta * M + g),
    "new value by name": lambda W, g, M, *, eta: (W + (m := eta * M + g), m),
    "by methods": lambda W, g, M, *, eta: (W.add(m := M.mul(eta).add(g)), m),
    "by torch": lambda W, g, M, *, eta: (torch.add(W, m := torch.add(g, M, alpha=eta)), m),
    "subtracted": lambda W, g, M, *, eta: (W - (m := -eta * M - g), -m),
    "lerp": lambda W, g, M, *, eta: (W + (m := torch.lerp(g, g + M, eta)), m),
}


def test_rules_are_equal_if_their_lines_are():
    made = {
        name: InnerLoop(
            Linear(),
            Frobenius(),
            Update(rule, {"M": zeros_like}),
            coefficients={"eta": Coefficient("step")},
        )
        for name, rule in WAYS.items()
    }
    assert made["new value by name"] == made["by methods"] == made["by torch"]
    assert hash(made["by torch"]) == hash(made["by methods"])
    assert made["in another order"] != made["by torch"]  # it reads the old value
    one = made["new value by name"]
    assert one != replace(one, coefficients={"eta": Coefficient("loop")})


def test_unknown_gates_are_functions_of_columns():
    rule = GradientStep(None, clip="c").rule
    assert rule[R] == gate_of(sp.core.symbol.Str("c"), G, sp.false)
