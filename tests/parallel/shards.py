"""What each rank runs, under `torchrun`: sequences in shards against a single process.

`shards.py agree` prints the largest difference that rank 0 finds; `die` and `hang` are faults.
"""

import os
import random
import sys
import time
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist

from tests.parallel.test_options import CAUSAL, EXCLUSIVE, LAST, MUON, STEP, TWICE
from ttt_proofs import reduce, reduction
from ttt_proofs.evidence.sampling import Inputs, random_inputs
from ttt_proofs.loops import (
    GLU,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.parallel.maps import fold

LOOPS = [
    InnerLoop(Linear(), Frobenius(), GradientStep("constant"), Schedule(1)),
    InnerLoop(SwiGLU(), Frobenius(), LAST, EXCLUSIVE),
    InnerLoop(Linear(), Frobenius(), STEP, Schedule(2)),
    InnerLoop(Linear(), SquaredError(), STEP, CAUSAL),
    InnerLoop(GLU(), SquaredError(), replace(LAST, momentum=None), TWICE),
    InnerLoop(Linear(), Frobenius(), replace(MUON, orthogonal="muon"), Schedule(2)),
]


def shard(loop: InnerLoop, x: Inputs, start: int, stop: int) -> Inputs:
    """Some tokens of a sequence, with the numbers of their chunks."""
    chunk = loop.schedule.chunk
    ranges = {"per_token": slice(start, stop), "per_step": slice(start // chunk, -(-stop // chunk))}

    def cut(y, kind):
        if isinstance(y, dict):
            return {name: z[:, start:stop] for name, z in y.items()}
        return y[:, ranges[kind]] if isinstance(y, torch.Tensor) else y

    return Inputs(
        *(y[:, start:stop] for y in (x.q, x.k, x.v)),
        x.weights,
        cut(x.rate, loop.update.rate),
        cut(x.momentum, loop.update.momentum),
    )


def leaves(x: Inputs) -> list[torch.Tensor]:
    """The tensors that gradients are asked of: the whole sequence's, then the weights."""
    numbers = [*x.rate.values()] if isinstance(x.rate, dict) else [x.rate]
    found = [x.q, x.k, x.v, *numbers, x.momentum, *x.weights.values()]
    return [y.requires_grad_() for y in found if isinstance(y, torch.Tensor)]


def difference(loop: InnerLoop, group, seed: int) -> float:
    """Outputs, final state and gradients: how far the shards are from the whole, relatively."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    rng, chunk = random.Random(seed), loop.schedule.chunk
    tokens = rng.randint(1, 12) * chunk + rng.randint(0, chunk - 1)
    cuts = sorted(chunk * rng.randint(0, tokens // chunk) for _ in range(ranks - 1))
    bounds = [0, *cuts, tokens]
    reduced, sizes = reduce(loop), {"B": 2, "H": 2, "T": tokens}
    x = random_inputs(loop, seed, sizes=sizes)
    asked = leaves(x)
    o, final = reduced.parallel_form(**vars(x), tile=4)
    generator = torch.Generator().manual_seed(seed)
    slope = torch.randn(o.shape, generator=generator, dtype=o.dtype)
    end = torch.randn(final[loop.net.last.name].shape, generator=generator, dtype=o.dtype)
    last = loop.net.last.name
    expected = torch.autograd.grad(
        (o * slope).sum() + (final[last] * end).sum(), asked, allow_unused=True
    )
    again = random_inputs(loop, seed, sizes=sizes)
    asked = leaves(again)
    start, stop = bounds[rank], bounds[rank + 1]
    mine = shard(loop, again, start, stop)
    found, state = reduced.sharded(**vars(mine), tile=4, group=group)
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
            for loop in LOOPS:
                for seed in range(2):
                    worst = max(worst, difference(loop, group, seed))
    loop = LOOPS[1]
    x = random_inputs(loop, 0, sizes={"B": 1, "T": 6 + (rank == 1), "H": 1})
    bad = replace(x, q=x.q * float("nan")) if rank == 2 else x
    for inputs, told in ((x, "rank 1 has 7 tokens"), (bad, "rank 2 refused its own")):
        try:
            reduce(loop).sharded(**vars(inputs))
        except ValueError as error:
            if told in str(error) or rank == 2:
                continue
        raise SystemExit(f"rank {rank} was not told: {told}")
    reduction.across = lambda group: fold  # the fault that the comparison must see
    alone = max(difference(loop, None, seed) for loop in LOOPS for seed in range(2))
    if rank == 0:
        print(f"without exchange {alone:.1e}", flush=True)
        print(f"largest difference {worst:.1e}", flush=True)


def main() -> None:
    """Run one of the programs above."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=15 if sys.argv[1] == "hang" else 60))
    if sys.argv[1] == "agree":
        agree()
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
