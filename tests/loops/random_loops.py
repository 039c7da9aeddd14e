"""Inner loops drawn at random, of all that can be run and that the theorems cover."""

import random
from typing import get_args

from ttt_proofs.loops import (
    ACTIVATIONS,
    GLU,
    MLP,
    DepthwiseConv,
    Frobenius,
    GradientStep,
    InnerLoop,
    Linear,
    NegatedValues,
    Net,
    Schedule,
    SquaredError,
    SwiGLU,
)
from ttt_proofs.loops.loop import Read, ReadWith
from ttt_proofs.loops.update import CLIPS, NORMS, Place, Rate


def random_loop(rng: random.Random, *, most_steps: int = 2) -> InnerLoop:
    """An inner loop that can be run, its choices drawn independently where they can be.

    Nets: Linear, MLP of depth 1 to 3 with each named activation, SwiGLU and GLU with each of
    them as the gate, and depthwise convolution, windows of 1 or 3 on images of 1 to 2 by 1 to 3
    pixels. Both losses, of values negated or not; ascent and descent; no rate, or one that is
    constant, per step (inside or outside) or per token; likewise momentum; all weights or the
    last; with and without clipping, Muon and weight normalisation; chunks of 1 to 4 tokens, or an
    image, read before or after their update or causally, with queries or keys; 1 to `most_steps`
    updates a chunk. What the net or a causal reading excludes is left out. All lie
    within the theorems: no bias, a linear last layer. Muon in bfloat16 is never drawn, since its
    rounding could not be told from a fault.

    The same state of `rng` gives the same loop.
    """
    net, chunk = _random_net(rng), rng.randint(1, 4)
    read, rate = rng.choice(get_args(Read)), rng.choice((None, *get_args(Rate)))
    place, trained = rng.choice(get_args(Place)), rng.choice(("all", "last"))
    clip, norm, muon = (rng.choice((None, *names)) for names in (CLIPS, NORMS, ["muon"]))
    steps = rng.randint(1, most_steps)
    if read == "causal":  # the tokens of a chunk must not share a gate
        clip, norm, muon, steps = None, None, None, 1
    update = GradientStep(
        rate=rate,
        place="inside" if rate == "per_token" else place,
        momentum=rng.choice((None, *get_args(Rate))),
        ascent=rng.random() < 0.5,
        clip=clip,
        orthogonal=None if net.tokens else muon,
        weight_norm=norm,
    )
    read_with, negate = rng.choice(get_args(ReadWith)), rng.random() < 0.5
    schedule = Schedule(net.tokens or chunk, read, read_with, steps)
    loss = rng.choice([Frobenius(), SquaredError()])
    loss = NegatedValues(loss) if negate else loss
    if read == "causal" and not net.has_static_features:
        trained = "last"
    return InnerLoop(net, loss, update, schedule, trained=trained)


def _random_net(rng: random.Random) -> Net:
    """A net that can be run."""
    activation = rng.choice(list(ACTIVATIONS))
    images = DepthwiseConv(rng.choice([1, 3]), rng.randint(1, 2), rng.randint(1, 3))
    nets: list[Net] = [
        Linear(),
        MLP(rng.randint(1, 3), activation),
        SwiGLU(activation),
        GLU(activation),
        images,
    ]
    return rng.choice(nets)
