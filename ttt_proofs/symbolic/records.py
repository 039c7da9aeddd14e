"""Proofs on disk: plain JSON. Reading replays; nothing is believed because it was written down."""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from ..checker.definitions import Equation
from ..checker.proof import Proof, Sequent, Theorem
from ..checker.terms import LARGEST_DEPTH, CheckerError, Node
from .derivation import Derivation


def encode(value: Any) -> Any:
    """Lists, strings, integers, booleans and null; a record is `[its type, its fields...]`."""
    if isinstance(value, tuple):
        return [encode(part) for part in value]
    if is_dataclass(value):
        return [type(value).__name__, *(encode(getattr(value, f.name)) for f in fields(value))]
    return value


def decode(data: Any, hint: Any, level: int = 0) -> Any:
    """The value of declared type `hint` that `data` encodes; `CheckerError` if there is none.

    `level` counts the records around it: they nest `LARGEST_DEPTH` deep at most.
    """
    items, origin = get_args(hint), get_origin(hint)
    if origin is tuple and type(data) is list:
        hints = [items[0]] * len(data) if items[-1] is ... else items
        if len(hints) == len(data):
            return tuple(decode(part, h, level) for part, h in zip(data, hints, strict=True))
    elif origin is UnionType:
        tag = data[0] if type(data) is list and data else type(data).__name__
        for item in items:
            if item.__name__ == tag:
                return decode(data, item, level)
    elif isinstance(hint, type) and issubclass(hint, Node) and type(data) is list:
        hints = hint.hints()  # pyright: ignore
        if len(data) == len(hints) + 1 and data[0] == hint.__name__ and level < LARGEST_DEPTH:
            pairs = zip(data[1:], hints.values(), strict=True)
            return hint(*(decode(part, h, level + 1) for part, h in pairs))
    elif type(data) is hint:
        return data
    raise CheckerError(f"{hint} is required; got {reprlib.repr(data)}.")


def dumps(proof: Proof) -> str:
    """The proof as JSON; `loads` replays it."""
    return json.dumps(encode(proof), ensure_ascii=False, separators=(",", ":"))


def no_number(name: str) -> None:
    """Raise `ValueError` for what JSON has no number for, `NaN` and infinities."""
    raise ValueError(f"{name} is no number of JSON")


def read_json(text: str) -> Any:
    """What the JSON text says; `CheckerError` if it is none."""
    try:
        return json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise CheckerError(f"a proof must be JSON as `show` writes it: {error}.") from None


def loads(text: str) -> Theorem:
    """The theorem whose proof the JSON text holds; `CheckerError` if it does not hold."""
    return Theorem(decode(read_json(text), Proof))


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


def require_keys(data: Any, needed: set[str], strings: set[str], *others: str) -> None:
    """Raise unless `data` is an object with the needed keys, and others as the page allows them."""
    whole = type(data) is dict and needed <= data.keys() <= needed.union(strings, others)
    if not whole or any(type(data[key]) is not str for key in strings & data.keys()):
        raise CheckerError(
            f"a derivation must be JSON as `show` writes it, an object with {sorted(needed)} and "
            f"at most the strings {sorted(strings)} {others}; got {reprlib.repr(data)}."
        )


def loads_derivation(text: str) -> tuple[Theorem, ...]:
    """The theorem of each part of a derivation that `dumps_derivation` wrote.

    The keys "schema", "name", "expects" and "label" may be absent, and a "statement" may be null:
    then the theorem may be any. `CheckerError` if the text is not of this form, if one of the
    proofs does not hold, or does not end with its part's statement.
    """
    data = read_json(text)
    require_keys(data, {"parts"}, {"name", "expects"}, "schema")
    schema, parts = data.get("schema", 1), data["parts"]
    if type(schema) is not int or schema != 1 or type(parts) is not list or not parts:
        raise CheckerError(
            "a derivation must be JSON as `show` writes it, of schema 1 with a list of parts, one "
            f"at least; got schema {reprlib.repr(schema)} and parts {reprlib.repr(parts)}."
        )
    for part in parts:
        require_keys(part, {"statement", "proof"}, {"label"})
    read = [(part["statement"], Theorem(decode(part["proof"], Proof))) for part in parts]
    for claim, theorem in read:
        if claim is not None and theorem.statement != Sequent((), decode(claim, Equation)):
            raise CheckerError("a proof must end with its statement, and with no hypothesis left.")
    return tuple(theorem for _, theorem in read)


def digest(proof: Proof) -> str:
    """SHA-256 of the proof's JSON: names a proof in reports."""
    return hashlib.sha256(dumps(proof).encode()).hexdigest()
