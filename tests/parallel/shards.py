"""What each rank runs, under `torchrun`: sequences in shards against a single process.

`shards.py agree` prints the largest difference that rank 0 finds; `refuse` has one rank depart
from the others in one thing after the other, and prints what each rank that was not told of it
computed; `limits` takes second derivatives and gradients of nothing; `die` and `hang` are faults.
"""

import os
import random
import sys
import time
from dataclasses import replace
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist

from tests.contract.foreign import (
    gated_attention,
    gated_delta,
    matrix_lstm,
    nesterov,
    two_buffers,
    weight_decay,
)
from tests.loops.layers import LAYERS
from tests.parallel import test_rules as rules
from tests.parallel.test_options import CAUSAL, EXCLUSIVE, MUON, STEP, TOKEN, TWICE
from tests.parallel.ways import cut, leaves
from ttt_proofs import Recurrence, reduce
from ttt_proofs.evidence.recurrence_inputs import random_inputs as random_tokens
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.loops import (
    GLU,
    Coefficient,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
    Update,
)
from ttt_proofs.parallel import checked
from ttt_proofs.parallel.maps import fold

LOOPS = [
    InnerLoop(Linear(), Frobenius(), GradientStep("constant"), Schedule(1)),
    InnerLoop(SwiGLU(), Frobenius(), TOKEN, EXCLUSIVE, trained="last"),
    InnerLoop(Linear(), Frobenius(), STEP, Schedule(2)),
    InnerLoop(Linear(), SquaredError(), STEP, CAUSAL),
    InnerLoop(GLU(), SquaredError(), replace(TOKEN, momentum=None), TWICE, trained="last"),
    InnerLoop(Linear(), Frobenius(), replace(MUON, orthogonal="muon"), Schedule(2)),
    rules.loop(rules.titans, Schedule(2), alpha="row"),
    *(nesterov.LOOPS["squared_error"], two_buffers.LOOPS["chunks"], weight_decay.LOOPS["entry"]),
]


RECURRENCES = [*gated_attention.LOOPS.values(), *matrix_lstm.LOOPS.values()]
RECURRENCES += [*gated_delta.LOOPS.values(), LAYERS["last key"][0], LAYERS["token shift"][0]]


def drawn(loop: InnerLoop | Recurrence, seed: int, sizes: dict) -> Inputs:
    """Random inputs, of a recurrence without weights."""
    made = random_tokens if isinstance(loop, Recurrence) else random_inputs
    return made(loop, seed, sizes=sizes)


def whole(loop: InnerLoop | Recurrence, x: Inputs, tile: int = 4):
    """Outputs and the final state in one process."""
    return checked.parallel_form(loop, *vars(x).values(), None, tile=tile)


def shard(loop: InnerLoop | Recurrence, x: Inputs, group=None, tile: int = 4):
    """Outputs and the state in which this rank's tokens end."""
    return checked.sharded(loop, *vars(x).values(), None, tile=tile, group=group)


def difference(loop: InnerLoop | Recurrence, group, seed: int) -> float:
    """Outputs, final state and gradients: how far the shards are from the whole, relatively."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    rng, chunk = random.Random(seed), loop.schedule.chunk
    tokens = rng.randint(1, 12) * chunk + rng.randint(0, chunk - 1)
    cuts = sorted(chunk * rng.randint(0, tokens // chunk) for _ in range(ranks - 1))
    bounds = [0, *cuts, tokens]
    sizes = {"B": 2, "H": 2, "T": tokens}
    x = drawn(loop, seed, sizes)
    asked = leaves(x)
    o, final = whole(loop, x)
    generator = torch.Generator().manual_seed(seed)
    slope = torch.randn(o.shape, generator=generator, dtype=o.dtype)
    last = next(iter(final)) if isinstance(loop, Recurrence) else loop.net.last.name
    end = torch.randn(final[last].shape, generator=generator, dtype=o.dtype)
    expected = torch.autograd.grad(
        (o * slope).sum() + (final[last] * end).sum(), asked, allow_unused=True
    )
    again = drawn(loop, seed, sizes)
    asked = leaves(again)
    start, stop = bounds[rank], bounds[rank + 1]
    mine = cut(loop, again, start, stop)
    found, state = shard(loop, mine, group)
    total = (found * slope[:, start:stop]).sum() + (state[last] * (rank == ranks - 1) * end).sum()
    slopes = torch.autograd.grad(total, asked, allow_unused=True)
    pairs = [(found.detach(), o[:, start:stop].detach())]
    if rank == ranks - 1:
        pairs += [(state[name].detach(), final[name].detach()) for name in final]
    for one, other in zip(slopes, expected, strict=True):
        if other is not None:
            one = torch.zeros_like(other) if one is None else one
            one, other = one.clone(memory_format=torch.contiguous_format), other.detach()
            dist.all_reduce(one, group=group)  # each rank has those of its tokens; weights add up
            pairs.append((one, other))
    worst = max(
        (float((a - b).abs().max() / b.abs().max().clamp_min(1e-3)) for a, b in pairs if b.numel()),
        default=0.0,
    )
    error = torch.tensor(worst, dtype=torch.float64)
    dist.all_reduce(error, op=dist.ReduceOp.MAX, group=group)
    return float(error)


def agree() -> None:
    """All loops, on 1 to 4 ranks."""
    rank, world = dist.get_rank(), dist.get_world_size()
    worst = 0.0
    for ranks in range(1, world + 1):
        group = dist.new_group(list(range(ranks)))
        if rank < ranks:
            for loop in [*LOOPS, *RECURRENCES]:
                for seed in range(2):
                    worst = max(worst, difference(loop, group, seed))
    checked.across = lambda group: fold  # the fault that the comparison must see
    alone = max(difference(loop, None, seed) for loop in LOOPS for seed in range(2))
    alone = min(alone, max(difference(loop, None, seed) for loop in RECURRENCES for seed in (0, 1)))
    if rank == 0:
        print(f"without exchange {alone:.1e}", flush=True)
        print(f"largest difference {worst:.1e}", flush=True)


SAME = InnerLoop(
    SwiGLU(),
    Frobenius(),
    GradientStep("constant", momentum="constant"),
    Schedule(2, "before_update"),
    trained="last",
)
SIZES = {"B": 2, "T": 6, "H": 2, "D_k": 3, "D_v": 3, "D_h": 5}


def nudged(all_, name: str):
    """Tensors by name, one of them with its last entry a little larger."""
    new = {n: x.clone() for n, x in all_.items()}
    new[name].flatten()[-1] += 1e-9
    return new


reduced = cache(reduce)


def loop_of_code(name: str, factor: float) -> InnerLoop:
    """SAME but for a rule that is code, with a constant in it, and a net that is called this."""

    def net(x, W0, W1, W2):
        return (torch.nn.functional.silu(x @ W0) * (x @ W2)) @ W1

    def rule(W, g, M, *, alpha, eta):
        M = alpha * M + factor * g
        return W - eta * M, M

    net.__qualname__ = name
    given = {"alpha": Coefficient(), "eta": Coefficient()}
    update = Update(rule, {"M": torch.zeros_like})
    return replace(SAME, net=net, update=update, coefficients=given)


def departures(x: dict) -> dict[str, tuple[str, InnerLoop, dict]]:
    """What one rank may have that others have not: what it is told, and its loop and inputs."""
    state = reduced(SAME).recurrent(**x)[1]
    other = replace(state, buffers={"M": nudged(state.buffers["M"], "W1")})
    odd = {n: y[:, :5] for n, y in x.items() if n in "qkv"}
    fewer = {n: y[:1] for n, y in x.items() if n in "qkv"}
    short = {n: y.float() for n, y in x.items() if n in "qkv"}
    short["weights"] = {n: w.float() for n, w in x["weights"].items()}
    update, schedule, given = SAME.update, SAME.schedule, x["coefficients"]
    no_weight = {n: w for n, w in x["weights"].items() if n != "W2"}
    changes = {
        "a rate": (
            "coefficients['eta']; got",
            {"coefficients": given | {"eta": given["eta"] + 1e-9}},
        ),
        "a momentum": (
            "coefficients['alpha']; got",
            {"coefficients": given | {"alpha": torch.tensor(0.25)}},
        ),
        "a last weight": ("weights['W1']; got", {"weights": nudged(x["weights"], "W1")}),
        "a first weight": ("weights['W0']; got", {"weights": nudged(x["weights"], "W0")}),
        "swapped weights": (
            "weights['W0']; got",
            {"weights": x["weights"] | {"W0": x["weights"]["W2"], "W2": x["weights"]["W0"]}},
        ),
        "a first state": ("the same initial_state", {"initial_state": state}),
        "other tokens of a chunk": ("each rank but the last must have whole chunks of 2", odd),
        "a batch": ("the same batch; got", fewer),
        "a dtype": ("the same dtype; got", short),
        "a tile": ("the same tile; got", {"tile": 5}),
        "not a number": ("refused its own", {"q": x["q"] * float("nan")}),
        "nothing": ("refused its own", {"k": None}),
        "no weight": ("refused its own", {"weights": no_weight}),
        "no mapping": ("refused its own", {"initial_state": dict(state)}),
    }
    loops = {
        "a chunk": replace(SAME, schedule=replace(schedule, chunk=3)),
        "a reading": replace(SAME, schedule=replace(schedule, read="causal")),
        "a place": replace(SAME, update=replace(update, place="inside")),
        "a way": replace(SAME, update=replace(update, ascent=True)),
        "a loss": replace(SAME, loss=SquaredError()),
    }
    found = {name: (told, SAME, x | change) for name, (told, change) in changes.items()}
    found |= {name: ("the same loop; got", loop, x) for name, loop in loops.items()}
    norm = replace(SAME, update=replace(update, weight_norm="initial_norm"))
    found["a sequential loop"] = ("refused its own", norm, x)
    with_state = x | {"initial_state": state}
    found["another first state"] = (
        "initial_state.buffers['M']['W1']",
        SAME,
        with_state | {"initial_state": other},
    )
    return found


def refuse() -> None:
    """One rank departs from the others: all raise one sentence, and none waits."""
    rank, world = dist.get_rank(), dist.get_world_size()
    x = vars(random_inputs(SAME, 0, sizes=SIZES))
    reduced(SAME).sharded(**x)  # alike
    state = reduced(SAME).recurrent(**x)[1]
    for number, (name, (told, loop, changed)) in enumerate(departures(x).items()):
        odd = number % (world - 1)  # not the last, which may have part of a chunk
        mine = changed if rank == odd else x
        if name == "another first state" and rank != odd:
            mine = x | {"initial_state": state}
        try:
            o, _ = reduced(loop if rank == odd else SAME).sharded(**mine)
            print(f"{name}: rank {rank} of {world} was not told, and has {o.sum()}", flush=True)
        except (TypeError, ValueError) as error:
            own = rank == odd and told == "refused its own"
            if not (own or told in str(error)) or "\n" in str(error):
                print(f"{name}: rank {rank} was told: {error}", flush=True)
    for factor in (1e-20, 1e-20 * (1 + 4e-16)):  # one loop under other names; another
        name = f"rank{rank}" if factor == 1e-20 else "net"
        loop, told = loop_of_code(name, factor if rank else 1e-20), False
        try:
            checked.sharded(loop, *x.values(), None, tile=64, group=None)
        except ValueError as error:
            told = "the same loop; got" in str(error)
        if told != (factor != 1e-20):
            print(f"loops of code: rank {rank} was {'' if told else 'not '}told", flush=True)
    print(f"refused by {rank}", flush=True)


def repeated(loop: InnerLoop | Recurrence, x: Inputs, times: int) -> Inputs:
    """The same tokens again and again, with their numbers."""

    def again(y):
        return torch.cat([y] * times, dim=1)

    every = loop.coefficients
    numbers = {n: y if every[n].every == "loop" else again(y) for n, y in x.coefficients.items()}
    return Inputs(*(again(y) for y in (x.q, x.k, x.v)), x.weights, numbers)


def second(run, loop: InnerLoop | Recurrence, x: Inputs, n: int) -> torch.Tensor:
    """A second derivative in the tensor n, which has another path to the total."""
    asked = leaves(x)[n]
    o, state = run(loop, x)
    last = next(iter(state)) if isinstance(loop, Recurrence) else loop.net.last.name
    total = o.square().sum() + state[last].square().sum() + asked.pow(4).sum()
    (slope,) = torch.autograd.grad(total, asked, create_graph=True)
    return torch.autograd.grad(slope.sum(), asked)[0]


def silent(loop: InnerLoop | Recurrence, sizes: dict) -> list[int]:
    """The tensors in which a second derivative over ranks is neither right nor refused here."""
    rank, world, found = dist.get_rank(), dist.get_world_size(), []
    for n in range(len(leaves(drawn(loop, 0, sizes)))):
        try:
            mine = second(shard, loop, drawn(loop, 0, sizes), n)
        except RuntimeError as error:
            if "must be differentiated once; got a second derivative" not in str(error):
                raise
            continue
        # The queries alone do not touch what the ranks exchange.
        all_ = (
            second(whole, loop, repeated(loop, drawn(loop, 0, sizes), world), 0) if n == 0 else None
        )
        if all_ is None or not torch.allclose(mine, all_.chunk(world, dim=1)[rank]):
            found.append(n)
    return found


def limits() -> None:
    """Second derivatives are refused on every rank; of no sequences, all gradients are zeros."""
    rank, kept = dist.get_rank(), True
    for loop in [*LOOPS, *RECURRENCES]:
        if wrong := silent(loop, {"B": 1, "T": 6, "H": 1}):
            print(f"{loop}: silent second derivatives in {wrong} on rank {rank}", flush=True)
            kept = False
        for sizes in ({"B": 0, "T": 6}, {"B": 2, "T": 0}):
            x = drawn(loop, 0, sizes | {"H": 1})
            asked = leaves(x)
            o, _ = shard(loop, x)
            slopes = torch.autograd.grad(o.sum(), asked, allow_unused=True)
            wrong = [n for n, z in enumerate(slopes) if z is None or z.any()]
            if wrong:
                print(f"{loop} at {sizes}: no zeros for tensors {wrong}", flush=True)
                kept = False
    if kept:
        print(f"limits kept by {rank}", flush=True)


def main() -> None:
    """Run one of the programs above."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=15 if sys.argv[1] == "hang" else 60))
    programs = {"agree": agree, "refuse": refuse, "limits": limits}
    if sys.argv[1] in programs:
        programs[sys.argv[1]]()
    elif dist.get_rank() == 2:
        if sys.argv[1] == "die":
            os._exit(3)
        time.sleep(600)
    else:
        x = random_inputs(LOOPS[0], 0, sizes={"T": 4})
        reduce(LOOPS[0]).sharded(**vars(x))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
