"""What symbols, functions and indices are called, apart from any one format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..checker.terms import TIME, App, Atom, Ix, Lam, Var, free

Names = Mapping[Var, str]

GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "eta": "η",
    "theta": "θ",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "rho": "ρ",
    "sigma": "σ",
    "tau": "τ",
    "phi": "φ",
    "psi": "ψ",
    "omega": "ω",
    "ell": "ℓ",
    "Theta": "Θ",
    "Phi": "Φ",
    "Psi": "Ψ",
    "Sigma": "Σ",
    "Lambda": "Λ",
}

# The logistic function takes the letter; a function that a loop calls `sigma` keeps its name.
FUNCTIONS = {name: sign for name, sign in GREEK.items() if name not in ("sigma", "Sigma")}
FUNCTIONS |= {"sigmoid": "σ"}

MEANINGS = {
    "root": "‖x‖ is √(Σ x²)",
    "inverse": "1 / x",
    "sigmoid": "σ(x) is 1/(1 + exp(−x))",
    "silu": "silu(x) is x/(1 + exp(−x))",
    "relu": "relu(x) is the larger of x and 0",
    "tanh": "tanh(x) is the hyperbolic tangent",
}

# What a name stands for where the loop runs; to proofs it is as unknown as any other.
ANY = "; the proof holds for any differentiable function in its place"
NOTES = {
    "sigmoid": ANY,
    "tanh": ANY,
    "silu": ANY,
    "relu": ANY,
    "root": ", summed over what dots stand for; the proof holds for any function of a number in "
    "place of the square root",
    "inverse": ", the reciprocal; the proof holds for any function of a number in its place",
    "muon": "; five Newton–Schulz steps where the loop runs",
    "muon_bfloat16": "; five Newton–Schulz steps in bfloat16 where the loop runs",
    "visible": "; where the loop runs, 1 for a token and those before it in its chunk, and 0 for "
    "those after it",
}

LETTERS = {"D_k": "a", "D_h": "h", "D_v": "c", "L": "l"}
TIMES = "ijst"
PRIME = "′"


def letter(var: Var) -> str:
    """The letter of a bound index. Each width has a letter of its own, so that it tells which."""
    if var.sort == TIME:
        return re.sub(r"[\d_]+$", "", var.name) or var.name
    if var.sort in LETTERS:
        return LETTERS[var.sort]
    if match := re.fullmatch(r"D_([a-z0-9])", var.sort):
        return f"d{match[1]}"
    plain = re.fullmatch("[A-Z]", var.sort) and var.sort.lower() not in (*LETTERS.values(), *TIMES)
    return var.sort.lower() if plain else f"x_{var.sort}"


def bind(variables: Iterable[Var], names: Names) -> dict[Var, str]:
    """Names for indices bound in the scope of others: their letter, with primes till it is new."""
    extended = dict(names)
    for var in variables:
        extended.pop(var, None)
        name = letter(var)
        while name in (*names.values(), *extended.values()):
            name += PRIME
        extended[var] = name
    return extended


def scope(node: object) -> dict[Var, str]:
    """The names of free indices: their own. Two that share a name show their widths as well."""
    found = sorted(free(node), key=lambda v: (v.name, v.sort))
    same = [v.name for v in found]
    return {v: v.name if same.count(v.name) == 1 else f"{v.name}:{v.sort}" for v in found}


def sign(name: str, table: Mapping[str, str]) -> str:
    """The name as it is shown; one that another name is shown as stands in quotes.

    The parts of a name between underscores are shown each by itself: `eta_W1` as `η_W1`.
    """
    taken = {shown for known, shown in table.items() if shown != known}
    parts = name.split("_")
    if not taken.isdisjoint(parts):
        return f"‹{name}›"
    return "_".join(table.get(part, part) for part in parts)


def pointwise(argument: Lam) -> Atom | App | None:
    """The symbol or function that `argument` applies to its own indices, as in `a ↦ k[t, l, a]`.

    None where it does more than that.
    """
    body, own = argument.body, set(argument.binders)
    if not own or not isinstance(body, Atom | App):
        return None
    uses = tuple(index for index in body.ix if own & set(index.vars))
    elsewhere = isinstance(body, App) and own & free((body.args, body.slots))
    plain = uses == tuple(Ix((v,)) for v in argument.binders)
    return body if plain and not elsewhere else None
