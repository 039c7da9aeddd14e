"""Proofs on disk: plain JSON. Reading replays; nothing is believed because it was written down."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from ..checker.proof import Proof, Theorem
from ..checker.terms import CheckerError, hints_of


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
    elif is_dataclass(hint) and isinstance(hint, type) and type(data) is list:
        hints = hints_of(hint)
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


def digest(proof: Proof) -> str:
    """SHA-256 of the proof's JSON: names a proof in reports."""
    return hashlib.sha256(dumps(proof).encode()).hexdigest()
