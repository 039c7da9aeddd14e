"""Writes to shared memory that an asynchronous product, not yet waited for, still reads.

Triton's GPU code (TTGIR) starts products with `warp_group_dot {isAsync = true}`, waits for all but
the last few with `warp_group_dot_wait`, and overwrites the slots of shared buffers with copies that
are asynchronous themselves. Nothing orders a copy after a product but such a wait. What runs in
order, as Triton's interpreter does, cannot show a missing one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

NAME = r"%[\w\-]+(?:#\d+)?"
OPERATION = re.compile(rf"(?:({NAME})(?::(\d+))? = )?\"?([a-z]\w*(?:\.\w+)+)\"?(.*)")
WRITES = ("ttg.async_copy_global_to_local", "ttg.local_store", "ttg.local_dealloc")
ARITHMETIC = {
    "arith.addi": operator.add,
    "arith.subi": operator.sub,
    "arith.muli": operator.mul,
    "slt": operator.lt,
    "sle": operator.le,
    "sgt": operator.gt,
    "sge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}


class Slot(NamedTuple):
    """One slot of a shared buffer, or, if its number is not known, any."""

    buffer: str
    number: int | None = None

    def meets(self, other: Slot) -> bool:
        """Whether both may be the same memory."""
        known = self.number is not None and other.number is not None
        return self.buffer == other.buffer and (not known or self.number == other.number)


class Walk:
    """A kernel's operations in order, loops as often as slots need to come round."""

    def __init__(self, text: str) -> None:
        # Places in the source, and names of blocks, say nothing of what is run.
        lines = [re.sub(r" loc\(.*", "", line).strip() for line in text.splitlines()]
        self.lines = [line for line in lines if line and line[0] not in "#^"]
        self.rounds = 2 + max(map(int, re.findall(r"memdesc<(\d+)x\d+x\d+x", text)), default=1)
        self.values: dict[str, Any] = {}  # integers and slots by name, where known
        self.pending: list[tuple[str, list[Slot]]] = []
        self.races: dict[str, None] = {}

    def run(self, first: int, last: int) -> None:
        """The lines from `first` up to `last`."""
        at = first
        while at < last:
            line, end = self.lines[at], self.block(at)
            if "= scf.for " in line or line.startswith("scf.for "):
                self.loop(line, at + 1, end)
                at = end
            elif "scf." in line and "scf.yield" not in line:
                inside = "\n".join(self.lines[at:end])
                if "scf.if" not in line or re.search(
                    r"warp_group|async|ttg\.local_|scf\.for", inside
                ):
                    raise ValueError(f"only loops and plain branches are understood; got {line!r}.")
                at = end
            elif found := OPERATION.match(line):
                self.operation(*found.groups())
            at += 1

    def block(self, at: int) -> int:
        """The line that closes what a line opens; the line itself if it opens nothing."""
        depth, end = 0, at
        while True:
            depth += self.lines[end].count("{") - self.lines[end].count("}")
            if depth <= 0 or not self.lines[at].endswith("{"):
                return end
            end += 1

    def loop(self, line: str, first: int, last: int) -> None:
        """The body of a loop, with what it carries."""
        carried = re.search(r"iter_args\((.*?)\) ->", line)
        pairs = re.findall(rf"({NAME}) = ({NAME})", carried[1] if carried else "")
        now = [self.values.get(start) for _, start in pairs]
        for _ in range(self.rounds):
            self.values |= {name: x for (name, _), x in zip(pairs, now, strict=True)}
            self.run(first, last)
            now = self.values.get("scf.yield", [])
        name = line.partition(" = ")[0].partition(":")[0]
        for n, x in enumerate(now):
            self.values[f"{name}#{n}" if len(now) > 1 else name] = x

    def operation(self, name: str | None, results: str | None, kind: str, rest: str) -> None:
        """One operation without a body."""
        given = re.findall(NAME, rest)
        known = [self.values.get(x) for x in given]
        result: Any = None
        if kind == "arith.constant" and (constant := re.match(r" (-?\d+) : i\d+$", rest)):
            result = int(constant[1])
        elif kind in ARITHMETIC or kind == "arith.cmpi":
            apply = ARITHMETIC.get(kind) or ARITHMETIC.get(rest.split(",")[0].strip())
            result = apply(*known) if apply and None not in known else None
        elif kind == "arith.select" and known[0] is not None:
            result = known[1 if known[0] else 2]
        elif kind == "ttg.local_alloc":
            result = Slot(name or "")
            if given:
                self.write(result, name or "")
        elif kind == "ttg.memdesc_index":
            result = known[0]._replace(number=known[1]) if isinstance(known[0], Slot) else None
        elif kind.startswith("ttg.memdesc_"):
            result = known[0]
        elif kind in WRITES:
            self.write(known[0 if kind.endswith("dealloc") else 1], name or kind)
        elif kind.startswith("ttng.warp_group_dot"):
            self.product(name or "", kind, rest, known)
        elif kind == "scf.yield":
            self.values["scf.yield"] = known
        elif "!ttg.memdesc" in rest.rpartition("->")[2]:
            raise ValueError(f"`{kind}` makes a buffer in a way that is not understood: {rest}")
        if name:
            self.values[name] = result
        for n in range(int(results or 0)):
            self.values[f"{name}#{n}"] = known[n] if kind.endswith("_wait") else None

    def product(self, name: str, kind: str, rest: str, known: list[Any]) -> None:
        """A product begins, or products are waited for."""
        if kind.endswith("_wait"):
            left = int(re.search(r"pendings = (\d+)", rest)[1])  # type: ignore[index]
            self.pending = self.pending[len(self.pending) - left :] if left else []
        elif "isAsync = true" in rest:
            types = rest.partition("} : ")[2].partition(" -> ")[0].split(" * ")
            for x, type_ in zip(known[:2], types, strict=True):
                if "memdesc" in type_ and not isinstance(x, Slot):
                    raise ValueError(f"{name} reads a buffer that is not known: {rest}")
            self.pending.append((name, [x for x in known[:2] if isinstance(x, Slot)]))
        else:  # it waits for itself, and so for all before it
            self.pending = []

    def write(self, slot: Any, name: str) -> None:
        """Note each product that may still read what is written now."""
        if not isinstance(slot, Slot):
            raise ValueError(f"{name} writes to a buffer that is not known.")
        for product, reads in self.pending:
            if any(slot.meets(read) for read in reads):
                self.races[f"{name} overwrites {slot.buffer}, which {product} reads"] = None


def races(text: str) -> Iterator[str]:
    """Each race in a kernel's TTGIR, in words. Raises `ValueError` for what it cannot follow."""
    walk = Walk(text)
    walk.run(0, len(walk.lines))
    if walk.pending:
        walk.races["the kernel ends before its products do"] = None
    yield from walk.races
