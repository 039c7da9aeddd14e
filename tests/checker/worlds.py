"""Models in which definitions and hypotheses hold, and sequents judged in them by brute force.

Definitions are solved as in `blocks`. Most hypotheses say what a symbol without definition is,
`A[k + 1] = ...`: the symbol is given just these values, and random ones elsewhere. Whether all
hypotheses hold in the end is looked at, not taken for granted.
"""

from collections.abc import Iterator
from itertools import islice, product
from random import Random

from tests.checker.blocks import Endless, Solved
from tests.checker.model import Number
from ttt_proofs.checker.definitions import Block, Equation
from ttt_proofs.checker.proof import Sequent
from ttt_proofs.checker.terms import TIME, Atom, Var, free, inside

TOP = 3  # a sequent is judged for the times 0..TOP
FAR = 7  # and its hypotheses for the times 0..FAR before it is called false
MOST = 48  # instances of one equation that are looked at

Env = dict[Var, int]


class World(Solved):
    """A model of the definitions, in which hypotheses say what free symbols are."""

    def __init__(
        self,
        seed: int,
        sizes: dict[str, int],
        blocks: tuple[Block, ...],
        hypotheses: tuple[Equation, ...] = (),
        env: Env | None = None,
    ) -> None:
        super().__init__(seed, sizes, *blocks)
        self.env = env or {}
        self.supposed: dict[tuple[str, int], list[Equation]] = {}
        for h in hypotheses:
            if isinstance(h.left, Atom):
                self.supposed.setdefault((h.left.name, len(h.left.ix)), []).append(h)

    def symbol(self, name: str, *at: int) -> Number:
        """The value of a symbol: defined, supposed, or free."""
        key, define = (name, *at), self.defined.get(name)
        said = (name, len(at)) in self.supposed and name not in self.fixed
        if not said or (define is not None and self.inside(define, at)):
            return super().symbol(name, *at)
        if key in self.found:
            return self.found[key]
        if key in self.waiting or len(self.waiting) > 40:
            raise Endless(key)
        self.waiting.add(key)
        before, self.fixed = self.fixed, {}  # what is supposed does not move with a parameter
        try:
            self.found[key] = self.suppose(name, at)
        finally:
            self.fixed = before
            self.waiting.remove(key)
        return self.found[key]

    def suppose(self, name: str, at: tuple[int, ...]) -> Number:
        """What the first hypothesis about this value says of it, or a random value."""
        for h in self.supposed[name, len(at)]:
            env = self.instance(h, at)
            if env is not None:
                return self.value(h.right, self.env | env)
        return super().symbol(name, *at)

    def instance(self, h: Equation, at: tuple[int, ...]) -> Env | None:
        """The values of the quantified indices for which the left side has these indices."""
        assert isinstance(h.left, Atom)
        env = {}
        for index, n in zip(h.left.ix, at, strict=True):
            if len(index.vars) == 1 and index.vars[0] in h.every:
                env.setdefault(index.vars[0], n - index.shift)
        whole = self.env | env
        if not free(h.left) <= whole.keys() or not set(h.every) <= env.keys():
            return None
        right = all(n >= 0 if v.sort == TIME else n in self.range(v.sort) for v, n in env.items())
        met = right and all(self.index(i, whole) == n for i, n in zip(h.left.ix, at, strict=True))
        return env if met else None

    def instances(self, e: Equation, env: Env, top: int) -> Iterator[bool]:
        """For each choice of the quantified indices, whether the two sides are equal."""
        for at in product(*(self.ranged(v, top) for v in e.every)):
            inner = env | dict(zip(e.every, at, strict=True))
            yield self.value(e.left, inner) == self.value(e.right, inner)


def assignments(sequent: Sequent, sizes: dict[str, int], random: Random) -> list[Env]:
    """Values of the free indices; one of a width has some value even if the width is empty."""
    equations = (sequent.equation, *sequent.hypotheses)
    loose = sorted({v for e in equations for v in e.free()}, key=str)
    top = TOP if len(loose) < 3 else 1
    ranges = [range(top + 1 if v.sort == TIME else max(1, sizes[v.sort])) for v in loose]
    found = [dict(zip(loose, at, strict=True)) for at in product(*ranges)]
    return found if len(found) <= 16 else random.sample(found, 16)


def judged(blocks: tuple[Block, ...], sequent: Sequent, random: Random) -> str:
    """What the sequent is in random models: `true`, `vacuous` where nothing was asked, or `false`.

    Nothing is asked if no model was found in which the hypotheses hold, or widths were empty.
    """
    verdict = "vacuous"
    for least, most in ((1, 2), (0, 2), (0, 0)):  # sizes of widths
        if not most and not {"D", "E"}.intersection(v.sort for v in inside(sequent, Var)):
            continue
        sizes = {sort: random.randint(least, most) for sort in "DE"}
        seed = random.randint(0, 2**32)
        world = World(seed, sizes, blocks)
        for env in assignments(sequent, sizes, random):
            if sequent.hypotheses:
                world = World(seed, sizes, blocks, sequent.hypotheses, env)
            try:
                found = asked(world, sequent, env, verdict == "vacuous")
            except (Endless, RecursionError):
                continue  # no model was found
            if found == "false":
                return "false"
            verdict = "true" if found == "true" else verdict
    return verdict


def asked(world: World, sequent: Sequent, env: Env, count: bool) -> str:
    """The verdict in one model; whether the hypotheses of a true one hold is asked on `count`."""
    e, supposed = sequent.equation, sequent.hypotheses
    times = sum(v.sort == TIME for v in e.every)
    seen = list(islice(world.instances(e, env, TOP if times < 3 else 2), MOST))
    if not seen or (all(seen) and not count):
        return "vacuous"
    far = 2 if all(seen) else FAR
    for h in supposed:
        if not all(islice(world.instances(h, env, far), 8 * MOST)):
            return "vacuous"
    return "true" if all(seen) else "false"


def contradiction(blocks: tuple[Block, ...], random: Random) -> bool:
    """Whether the definitions have no solution, or a solution that breaks one of them."""
    sizes = {sort: random.randint(0, 2) for sort in "DE"}
    defined = [define.name for block in blocks for define in block]
    if len(set(defined)) < len(defined):
        return True  # two definitions of one symbol agree in no random model
    try:
        return Solved(random.randint(0, 2**32), sizes, *blocks).breach() is not None
    except (Endless, KeyError):  # a `KeyError`: a term in indices that are not its own
        return True
