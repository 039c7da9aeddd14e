"""Update rules of somebody's own, each with the code of its loop written out by hand."""

import torch

from ttt_proofs.loops import (
    Coefficient,
    Frobenius,
    InnerLoop,
    Linear,
    Schedule,
    SquaredError,
    Update,
    operator,
    zeros_like,
)

STEP, TOKEN = Coefficient("step"), Coefficient("token")


def decay(W, g, *, alpha, eta):
    """Weight decay."""
    return (1 - alpha) * W - eta * g


def coupled(W, g, *, lam, eta):
    """Decay as part of the gradient."""
    return W - eta * (g + lam * W)


def titans(W, g, M, *, alpha, eta, theta):
    """Momentum and decay."""
    M = eta * M - theta * g
    return (1 - alpha) * W + M, M


def nesterov(W, g, M, *, mu, eta):
    """Momentum that looks ahead."""
    M = mu * M + g
    return W - eta * (g + mu * M), M


def averaged(W, g, M, *, beta, eta):
    """An average of gradients."""
    M = beta * M + (1 - beta) * g
    return W - eta * M, M


def gated(W, g, *, alpha):
    """No rate: gated linear attention."""
    return alpha * W - g


def forgetting(W, g, *, alpha, eta):
    """What is forgotten after the step."""
    return alpha * (W - eta * g)


def twice(W, g, *, eta, theta):
    """Two factors of the gradient."""
    return W - eta * theta * g


def muon_inside(W, g, M, *, eta, alpha):
    """A rate that the operator takes out again."""
    M = alpha * M - eta * g
    return W + operator("muon")(M), M


def muon_outside(W, g, *, eta, alpha):
    """A rate after the operator, and decay."""
    return (1 - alpha) * W - eta * operator("muon")(g)


def own(rule, coefficients, buffers="", **options):
    """What a loop is given for a rule: the update, its coefficients, and other options."""
    update = Update(rule, dict.fromkeys(buffers, zeros_like))
    return {"update": update, "coefficients": coefficients, **options}


UPDATES = {
    "decay": own(decay, {"alpha": STEP, "eta": STEP}),
    "constant decay": own(decay, {"alpha": Coefficient(), "eta": Coefficient()}),
    "decay of rows": own(decay, {"alpha": Coefficient("step", "row"), "eta": STEP}),
    "decay of columns": own(decay, {"alpha": Coefficient("step", "column"), "eta": STEP}),
    "decay of entries": own(decay, {"alpha": Coefficient("loop", "entry"), "eta": STEP}),
    "coupled": own(coupled, {"lam": STEP, "eta": STEP}),
    "titans": own(titans, {"alpha": STEP, "eta": STEP, "theta": STEP}, "M"),
    "nesterov": own(nesterov, {"mu": STEP, "eta": STEP}, "M"),
    "averaged": own(averaged, {"beta": Coefficient("token", mean=True), "eta": STEP}, "M"),
    "gated": own(gated, {"alpha": STEP}),
    "gated rows": own(gated, {"alpha": Coefficient("step", "row")}),
    "forgetting": own(forgetting, {"alpha": STEP, "eta": STEP}),
    "twice": own(twice, {"eta": STEP, "theta": STEP}),
    "weighed": own(gated, {"alpha": STEP, "lr": TOKEN}, loss_weights={"W": "lr"}),
}
MUON = {
    "muon inside": own(muon_inside, {"eta": STEP, "alpha": STEP}, "M"),
    "muon outside": own(muon_outside, {"eta": STEP, "alpha": STEP}),
}


def loop_of(own, loss=None, chunk=3, net=None, read="after_update"):
    """A loop with that update, or with what one is given for a rule."""
    given = own if isinstance(own, dict) else {"update": own}
    schedule = Schedule(chunk, read)
    return InnerLoop(net or Linear(), loss or SquaredError(), schedule=schedule, **given)


def written_out(loop):
    """The loop with a linear net and its gradient by hand: a candidate for `check`."""
    update, chunk = loop.update, loop.schedule.chunk
    affine = isinstance(loop.loss, SquaredError)
    assert affine or isinstance(loop.loss, Frobenius)

    def mine(q, k, v, weights, coefficients):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        W = weights["W"].expand(len(q), *weights["W"].shape)
        buffers = [torch.zeros_like(W) for _ in update.buffers]
        outputs = []
        for number, start in enumerate(range(0, q.shape[2], chunk)):
            here = slice(start, start + chunk)
            error = (k[:, :, here] @ W if affine else 0) - v[:, :, here]
            given = {}
            for name, kind in loop.coefficients.items():
                x = torch.as_tensor(coefficients[name], dtype=torch.float64)
                if name in loop.loss_weights.values():
                    error = error * x[:, here].transpose(1, 2)[..., None]
                    continue
                if kind.every == "step":
                    x = x[:, number]
                elif kind.every == "token":
                    x = x[:, here].mean(1)
                given[name] = {
                    "scalar": lambda x: x[..., None, None],
                    "row": lambda x: x[..., :, None],
                    "column": lambda x: x[..., None, :],
                    "entry": lambda x: x,
                }[kind.shape](x)
            made = update.function(W, k[:, :, here].mT @ error, *buffers, **given)
            W, *buffers = made if isinstance(made, tuple) else (made,)
            outputs.append(q[:, :, here] @ W)
        return torch.cat(outputs, dim=2).transpose(1, 2)

    return mine
