"""Names that statements, update rules and generated code have for themselves."""

from __future__ import annotations

from .rules import EPSILON, W_0, G, W

DATA = frozenset("qkvo")  # of a token: query, key, value, output
CHUNK = frozenset(("X", "F", "V", "rows", "visible"))  # of a chunk, in nets, losses and their code
IN_LINES = frozenset(("torch", *(x.name for x in (W, G, W_0, EPSILON))))

# What the weights of a net, what a rule is given, and what a recurrence has cannot be called.
OF_WEIGHTS = DATA | CHUNK | {"Z", "dF", "dZ", "S", "t", "i", "rest"}
OF_WEIGHTS |= {"torch", "eta", "alpha", EPSILON.name}
OF_COEFFICIENTS = IN_LINES | DATA | CHUNK | set("tijsu")
OF_RECURRENCES = DATA | set("tijs") | {"torch"}

HEADS = "GXMURNSABP"  # of what belongs to a weight: its gradient G_W, its buffer M_W, ...
STARTS = ("_0", "_next")  # of a state: before the first step, and after this one
CARRIED = ("_start", "_write", "_key")  # of a state: what later steps make of its start, a write
TAILS = (*STARTS, "_seen", "_in", "_a", "_b", "_ab")  # of what belongs to a weight or a buffer
TRANSPOSE = "_T"
