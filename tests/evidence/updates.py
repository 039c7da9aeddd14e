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


BUFFER = {"M": zeros_like}
UPDATES = {
    "decay": Update(decay, {}, {"alpha": STEP, "eta": STEP}),
    "constant decay": Update(decay, {}, {"alpha": Coefficient(), "eta": Coefficient()}),
    "decay of rows": Update(decay, {}, {"alpha": Coefficient("step", "row"), "eta": STEP}),
    "decay of columns": Update(decay, {}, {"alpha": Coefficient("step", "column"), "eta": STEP}),
    "decay of entries": Update(decay, {}, {"alpha": Coefficient("loop", "entry"), "eta": STEP}),
    "coupled": Update(coupled, {}, {"lam": STEP, "eta": STEP}),
    "titans": Update(titans, BUFFER, {"alpha": STEP, "eta": STEP, "theta": STEP}),
    "nesterov": Update(nesterov, BUFFER, {"mu": STEP, "eta": STEP}),
    "averaged": Update(averaged, BUFFER, {"beta": Coefficient("token", mean=True), "eta": STEP}),
    "gated": Update(gated, {}, {"alpha": STEP}),
    "gated rows": Update(gated, {}, {"alpha": Coefficient("step", "row")}),
    "forgetting": Update(forgetting, {}, {"alpha": STEP, "eta": STEP}),
    "twice": Update(twice, {}, {"eta": STEP, "theta": STEP}),
    "weighed": Update(gated, {}, {"alpha": STEP, "lr": TOKEN}, loss_weights={"W": "lr"}),
}
MUON = {
    "muon inside": Update(muon_inside, BUFFER, {"eta": STEP, "alpha": STEP}),
    "muon outside": Update(muon_outside, {}, {"eta": STEP, "alpha": STEP}),
}


def loop_of(update, loss=None, chunk=3, net=None, read="after_update"):
    """A loop with that update."""
    return InnerLoop(net or Linear(), loss or SquaredError(), update, Schedule(chunk, read))


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
            for name, kind in update.coefficients.items():
                x = torch.as_tensor(coefficients[name], dtype=torch.float64)
                if name in update.loss_weights.values():
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
