"""Proofs on disk: plain JSON. Reading replays; nothing is believed because it was written down."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from ..checker.definitions import Equation
from ..checker.proof import Proof, Sequent, Theorem
from ..checker.terms import CheckerError, Node
from .derivation import Derivation


def encode(value: Any) -> Any:
    """Lists, strings, integers, booleans and null; a record is `[its type, its fields...]`."""
    if isinstance(value, tuple):
        return [encode(part) for part in value]
    if is_dataclass(value):
        return [type(value).__name__, *(encode(getattr(value, f.name)) for f in fields(value))]
    return value


def decode(data: Any, hint: Any) -> Any:
    """The value of declared type `hint` that `data` encodes; `CheckerError` if there is none."""
    items, origin = get_args(hint), get_origin(hint)
    if origin is tuple and type(data) is list:
        hints = [items[0]] * len(data) if items[-1] is ... else items
        if len(hints) == len(data):
            return tuple(decode(part, h) for part, h in zip(data, hints, strict=True))
    elif origin is UnionType:
        tag = data[0] if type(data) is list and data else type(data).__name__
        for item in items:
            if item.__name__ == tag:
                return decode(data, item)
    elif isinstance(hint, type) and issubclass(hint, Node) and type(data) is list:
        hints = hint.hints()  # pyright: ignore
        if len(data) == len(hints) + 1 and data[0] == hint.__name__:
            return hint(*(decode(d, h) for d, h in zip(data[1:], hints.values(), strict=True)))
    elif type(data) is hint:
        return data
    raise CheckerError(f"{hint} is required; got {str(data)[:60]!r}.")


def dumps(proof: Proof) -> str:
    """The proof as JSON; `loads` replays it."""
    return json.dumps(encode(proof), ensure_ascii=False, separators=(",", ":"))


def loads(text: str) -> Theorem:
    """The theorem whose proof the JSON text holds; `CheckerError` if it does not hold."""
    try:
        return Theorem(decode(json.loads(text), Proof))
    except (ValueError, RecursionError) as error:
        raise CheckerError(f"a proof must be JSON of moderate depth: {error}.") from None


def dumps_derivation(derivation: Derivation, part: int | None = None) -> str:
    """The derivation as JSON, or part `part` of it, counted from 1; `loads_derivation` replays it.

    `{"schema": 1, "name": ..., "expects": "holds" or "fails", "parts": [{"label": ...,
    "statement": an `Equation`, "proof": a `Proof`}, ...]}`, both encoded as by `encode`. ASCII.
    The proof of a claim that fails is the attempt, which a replay refuses. Raises `IndexError`
    for a part that is not there.
    """
    chosen = derivation.parts if part is None else (derivation.part(part),)
    parts = [
        {"label": p.label, "statement": encode(p.statement), "proof": encode(p.proof)}
        for p in chosen
    ]
    data = {"schema": 1, "name": derivation.name, "expects": derivation.expects, "parts": parts}
    return json.dumps(data, separators=(",", ":"))


def loads_derivation(text: str) -> tuple[Theorem, ...]:
    """The theorem of each part of a derivation that `dumps_derivation` wrote.

    `CheckerError` if one of the proofs does not hold, or does not end with its part's statement.
    """
    try:
        data = json.loads(text)
        parts = [(part["statement"], part["proof"]) for part in data["parts"]]
        if data["schema"] != 1:
            raise ValueError(f"its schema is {data['schema']!r}, not 1")
        read = [(decode(claim, Equation), Theorem(decode(proof, Proof))) for claim, proof in parts]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckerError(f"a derivation must be JSON as `show` writes it: {error}.") from None
    for claim, theorem in read:
        if theorem.statement != Sequent((), claim):
            raise CheckerError("a proof must end with its statement, and with no hypothesis left.")
    return tuple(theorem for _, theorem in read)


def digest(proof: Proof) -> str:
    """SHA-256 of the proof's JSON: names a proof in reports."""
    return hashlib.sha256(dumps(proof).encode()).hexdigest()
